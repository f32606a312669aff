from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.ssh_key import KeyFileError, apply, plan, public_path


def test_openssh_reads_what_was_made(tmp_path: Path) -> None:
    path = tmp_path / "ssh" / "id_ed25519"
    wanted = plan(path, "k8sgu demo")
    apply(path, wanted)
    derived = subprocess.run(["ssh-keygen", "-yf", path], capture_output=True, text=True, check=True).stdout
    assert derived.split()[:2] == wanted.public.split()[:2]
    shown = subprocess.run(["ssh-keygen", "-lf", public_path(path)], capture_output=True, text=True, check=True).stdout
    assert shown == f"256 {wanted.fingerprint} k8sgu demo (ED25519)\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    assert plan(tmp_path / "id", "").changed
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "id"
    apply(path, plan(path, "c"))
    assert not plan(path, "c").changed


def test_a_run_interrupted_before_the_public_key_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "id"
    apply(path, plan(path, "c"))
    before = path.read_bytes()
    public_path(path).unlink()
    again = plan(path, "c")
    assert again.private is None and again.write_public
    apply(path, again)
    assert path.read_bytes() == before
    assert not plan(path, "c").changed


def test_a_mode_that_ssh_refuses_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "id"
    apply(path, plan(path, "c"))
    path.chmod(0o644)
    again = plan(path, "c")
    assert again.fix_mode and again.private is None
    apply(path, again)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_key_of_another_kind_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "mine", "-f", path], check=True)
    before = path.read_bytes()
    apply(path, plan(path, "mine"))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"]
)
def test_another_file_is_not_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "id"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=f"path: {path} is not an OpenSSH private key"):
        plan(path, "")
    assert path.read_bytes() == content


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", path], check=True)
    with pytest.raises(KeyFileError, match="without a passphrase"):
        plan(path, "")
