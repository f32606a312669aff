"""A lab on disk: its directories, its description, and whether its daemon runs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ec2lab import addresses, names
from ec2lab.errors import LabError
from ec2lab.shell import run

STATE_ROOT = Path("/var/lib/ec2lab")
RUN_ROOT = Path("/run/ec2lab")
FIRST_API_PORT = 5123
REGION = "us-east-1"
FIRST_ACCOUNT = "123456789012"  # the account of labs made before each had its own


@dataclass(frozen=True)
class Description:
    """What `up` decided when it made the lab; kept in lab.json, which holds a secret key and only root can read."""

    name: str
    public_range: str
    api_port: int
    mirror_dir: str
    account_id: str = FIRST_ACCOUNT
    image_id: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    # How many calls AWS is behind its own changes, see api.consistency.
    lag: int = 0
    machine: str = "container"  # the kind of its nodes, unless a launch's tag chooses
    internet_dir: str = ""  # empty: nothing but AWS is in the lab's own internet
    proxy_port: int = 0  # of the way there from the host; the daemon chooses it

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"


KNOWN = frozenset(field.name for field in fields(Description))


class Lab:
    """The files of the lab with this name, whether it is up or not."""

    def __init__(self, name: str) -> None:
        self.name = names.check_lab_name(name)
        self.state_dir = STATE_ROOT / name
        self.run_dir = RUN_ROOT / name
        self.description_file = self.state_dir / "lab.json"
        self.api_state = self.state_dir / "api.state"
        self.log_file = self.state_dir / "daemon.log"
        self.pid_file = self.run_dir / "daemon.pid"
        self.control = self.run_dir / "control"

    def description(self) -> Description | None:
        try:
            said = json.loads(self.description_file.read_text())
            # A lab of another version of this program, which runs beside this one, may say more.
            return Description(**{name: said[name] for name in said if name in KNOWN})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise LabError(
                f"{self.description_file} is damaged ({error}): `ec2lab down {self.name}` removes the lab"
            ) from error

    def description_or_none(self) -> Description | None:
        """For `down`, which must also remove a lab whose description is damaged."""
        try:
            return self.description()
        except LabError:
            return None

    def write(self, description: Description) -> None:
        for directory in (self.state_dir.parent, self.run_dir.parent, self.state_dir, self.run_dir):
            directory.mkdir(mode=0o700, exist_ok=True, parents=True)
        write_private(self.description_file, json.dumps(asdict(description), indent=2) + "\n")

    def daemon_pid(self) -> int | None:
        """The daemon's process id while it runs: it holds a lock on its pid file."""
        try:
            descriptor = os.open(self.pid_file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.read(descriptor, 32).decode().strip()
                return int(text) if text.isdigit() else None
            return None
        finally:
            os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Writes the file atomically; only root can read it, from the first byte."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def all_labs() -> list[Lab]:
    """Every lab that has a description, running or not."""
    if not STATE_ROOT.is_dir():
        return []
    return [Lab(entry.name) for entry in sorted(STATE_ROOT.iterdir()) if (entry / "lab.json").is_file()]


@contextmanager
def exclusive() -> Iterator[None]:
    """Allows one `up` or `down` at a time on this host: they choose ranges and ports. The last lab removes the lock."""
    path = RUN_ROOT / ".lock"
    descriptor = _hold(path)
    try:
        yield
    finally:
        if not any(RUN_ROOT.glob("[!.]*")):
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the next one may be there already
                RUN_ROOT.rmdir()
        os.close(descriptor)


def _hold(path: Path) -> int:
    """A descriptor that locks the file now at `path`, even if it was replaced while it was being opened."""
    while True:
        path.parent.mkdir(mode=0o700, exist_ok=True, parents=True)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
            os.close(descriptor)


def networks_in_use() -> list[str]:
    """Networks in which the host has an address or to which it has a route, and the ranges of other labs."""
    found = []
    for line in run(["ip", "-4", "-o", "route", "show", "table", "all"]).splitlines():
        words = line.split()
        if words and words[0] in ("local", "broadcast", "unreachable", "blackhole", "prohibit", "multicast"):
            words = words[1:]
        if words and re.fullmatch(r"[0-9.]+(/[0-9]+)?", words[0]):
            found.append(words[0])
    found += [description.public_range for lab in all_labs() if (description := lab.description())]
    return found


def choose_range(wanted: str | None) -> str:
    """`wanted` (a CIDR), or a free range when None; LabError when it is in use or unfit."""
    in_use = networks_in_use()
    if wanted is None:
        return addresses.free_range(in_use)
    try:
        addresses.link_count(wanted)
    except ValueError as error:
        raise LabError(f"--public-range {wanted}: not a network ({error}); for example 198.18.0.0/22") from error
    met = addresses.first_overlap(wanted, in_use)
    if met is not None:
        raise LabError(
            f"--public-range {wanted} overlaps {met}, which is in use on this host or by another lab: "
            "leave the option out, or name a free range"
        )
    return wanted
