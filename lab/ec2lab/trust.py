"""What makes a node trust the lab's own internet (ec2lab.authority has the key)."""

from __future__ import annotations

from pathlib import Path

from ec2lab.shell import run

STORE = Path("etc/ssl/certs")
BUNDLE = STORE / "ca-certificates.crt"
# From here update-ca-certificates takes what the machine's owner trusts.
ADDED = Path("usr/local/share/ca-certificates/ec2lab-internet.crt")


def certificate_path(state_dir: Path) -> Path:
    """The authority's certificate, in the lab's directory; a daemon makes it before it makes a machine."""
    return state_dir / "internet-ca.pem"


def add(seed: Path, skeleton: Path, state_dir: Path) -> None:
    """Adds the authority to a machine's seed, as update-ca-certificates would: its next run finds nothing to change.

    `skeleton` is the image's file system, which has the publishers' authorities.
    """
    if not certificate_path(state_dir).exists():  # a lab without an API, as tests make
        return
    certificate = certificate_path(state_dir).read_text()
    for path in (ADDED, BUNDLE):
        (seed / path).parent.mkdir(parents=True, exist_ok=True)
    (seed / ADDED).write_text(certificate)
    (seed / BUNDLE).write_text((skeleton / BUNDLE).read_text() + certificate)
    (seed / STORE / "ec2lab-internet.pem").symlink_to(f"/{ADDED}")
    # OpenSSL looks a certificate up in a directory by the hash of its subject.
    hashed = run(["openssl", "x509", "-noout", "-subject_hash"], stdin=certificate).strip()
    (seed / STORE / f"{hashed}.0").symlink_to("ec2lab-internet.pem")
    for path in (ADDED, BUNDLE):
        (seed / path).chmod(0o644)
