"""What the PKI's tests share: a configuration, a call of the module's core, a picture of a directory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.cfssl_cert import ensure

_CALLS = ("open", "fchmod", "fsync", "replace", "unlink", "mkdir", "chmod")

CONFIG = {
    "signing": {
        "default": {"expiry": "8760h", "usages": ["signing"]},
        "profiles": {
            "server": {"expiry": "8760h", "usages": ["signing", "key encipherment", "server auth"]},
            "client": {"expiry": "8760h", "usages": ["signing", "key encipherment", "client auth"]},
            "intermediate": {
                "expiry": "43800h",
                "usages": ["cert sign", "crl sign"],
                "ca_constraint": {"is_ca": True, "max_path_len": 0, "max_path_len_zero": True},
            },
        },
    }
}


def call(directory: Path, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    """cfssl_cert with `options`, in `directory` unless they say another."""
    listed = options.get("certificates")
    if listed is not None:
        options["certificates"] = [{"initca": False, **entry} for entry in listed]
    return ensure({"path": str(directory), "state": "present", **options}, check_mode=check_mode, diff=True)


def make_ca(directory: Path, name: str = "ca", **options: Any) -> dict[str, Any]:
    """A CA of ten years in `directory`."""
    csr = {"CN": name, "ca": {"expiry": "87600h"}, **options.pop("csr", {})}
    result: dict[str, Any] = call(directory, name=name, initca=True, csr=csr, **options)["certificates"][0]
    return result


def make_leaf(directory: Path, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    """A certificate `web` signed by the CA of `directory`; `options` replace ours."""
    given = {
        "name": "web",
        "csr": {"CN": "web", "hosts": ["web.example.com", "192.0.2.10"]},
        "config": CONFIG,
        "profile": "server",
        "ca": str(directory / "ca.pem"),
        **options,
    }
    result: dict[str, Any] = call(directory, check_mode, **given)["certificates"][0]
    return result


def picture(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of every file below `directory`."""
    return {
        str(path.relative_to(directory)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in directory.rglob("*")
    }


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that is killed when it makes its system call number `step`; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(real: Callable[..., object]) -> Callable[..., object]:
            def replaced(*args: object, **kwargs: object) -> object:
                nonlocal count
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return real(*args, **kwargs)

            return replaced

        for name in _CALLS:
            setattr(os, name, counted(getattr(os, name)))
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _child, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False
