"""A run that is killed anywhere leaves the old pair or the new one, and the next run ends as if nothing had been."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pki_support import CONFIG, call, killed_at

from ansible_collections.k8sgu.cluster.plugins.module_utils import _files
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import pending_files
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import certificates, keys


def entries(pki: Path, host: str) -> dict[str, Any]:
    return {
        "ca": str(pki / "ca.pem"),
        "config": CONFIG,
        "profile": "server",
        "certificates": [
            {"name": "ca", "initca": True, "csr": {"CN": "ca", "ca": {"expiry": "87600h"}}},
            {"name": "web", "csr": {"CN": "web", "hosts": [host]}},
        ],
    }


def pair(pki: Path, name: str) -> tuple[certificates.Certificate, bytes] | None:
    """Certificate and public half of the key as the next run sees them; None before there are any."""
    pending = pending_files(str(pki)) if pki.is_dir() else {}
    certificate = Path(pending.get(f"{name}.pem", str(pki / f"{name}.pem")))
    key = Path(pending.get(f"{name}-key.pem", str(pki / f"{name}-key.pem")))
    assert certificate.exists() == key.exists(), "a certificate without its key, or the reverse"
    if not certificate.exists():
        return None
    loaded = keys.load(key.read_bytes(), None)
    return certificates.read_certificate(certificate.read_bytes()), keys.public_der(loaded.public_key())


def check_and_finish(pki: Path, host: str) -> list[str]:
    """Nothing half-written; one more run completes it, the next has nothing to do. Returns the last hosts before."""
    hosts = []
    for name in ("ca", "web"):
        found = pair(pki, name)
        if found is not None:
            certificate, public = found
            assert certificate.public_key == public
            hosts = [one.value for one in certificate.hosts]
    predicted = call(pki, check_mode=True, **entries(pki, host))
    done = call(pki, **entries(pki, host))
    assert [one["reasons"] for one in predicted["certificates"]] == [one["reasons"] for one in done["certificates"]]
    assert not call(pki, **entries(pki, host))["changed"]
    suffixes = (".pem", "-key.pem", ".csr")
    assert sorted(path.name for path in pki.iterdir()) == sorted(n + s for n in ("ca", "web") for s in suffixes)
    web = pair(pki, "web")
    assert web is not None
    assert [one.value for one in web[0].hosts] == [host]
    return hosts


def test_killed_while_making_everything(tmp_path: Path) -> None:
    step = 0
    while True:
        pki = tmp_path / str(step) / "pki"
        if not killed_at(step, lambda pki=pki: call(pki, **entries(pki, "a.example"))):  # type: ignore[misc]
            break
        check_and_finish(pki, "a.example")
        step += 1
    assert step > 30


def test_killed_while_replacing_a_pair(tmp_path: Path) -> None:
    start = tmp_path / "start"
    call(start, **entries(start, "old.example"))
    seen = set()
    step = 0
    while True:
        pki = tmp_path / str(step)
        shutil.copytree(start, pki)
        killed = killed_at(step, lambda pki=pki: call(pki, **entries(pki, "new.example")))  # type: ignore[misc]
        seen.add(tuple(check_and_finish(pki, "new.example")))
        if not killed:
            break
        step += 1
    assert seen == {("old.example",), ("new.example",)}


def test_a_pair_is_old_or_new_wherever_the_run_is_killed(tmp_path: Path) -> None:
    step = 0
    seen = set()
    while True:
        here = tmp_path / str(step)
        here.mkdir()
        for name in ("cert", "key"):
            (here / name).write_text("old")
        files = {str(here / name): (b"new", 0o600) for name in ("cert", "key")}
        killed = killed_at(step, lambda files=files: _files.replace_together(files))  # type: ignore[misc]
        expected = {name: source.read_text() for name, source in _pending(here).items()}
        assert expected in ({"cert": "old", "key": "old"}, {"cert": "new", "key": "new"})
        _files.finish_replace(str(here))
        assert {name: (here / name).read_text() for name in ("cert", "key")} == expected
        _files.replace_together(files)
        assert sorted(path.name for path in here.iterdir()) == ["cert", "key"]
        seen.add(expected["cert"])
        if not killed:
            break
        step += 1
    assert seen == {"old", "new"}
    assert step > 10


def _pending(here: Path) -> dict[str, Path]:
    pending = _files.pending_files(str(here))
    return {name: Path(pending.get(name, here / name)) for name in ("cert", "key")}
