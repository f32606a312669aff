# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Components as plain data, made on the controller and read on the node."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass, field
from typing import Any

UNIT_DIRECTORY = "/etc/systemd/system"
# systemd shows a unit's settings to anyone; still, only root can read the file, as CIS 4.1.1 requires for the kubelet.
UNIT_MODE = 0o600
INSTALL_ROOT = "/opt/k8sgu"

# The state of a unit that something else starts, such as a timer, and that ends by itself.
ON_DEMAND = "on_demand"

# The effects that a change of a file can have on the component's units.
RESTART, RELOAD, NOTHING = "restart", "reload", "nothing"


class ComponentError(Exception):
    """Something that the user must correct; the text names the option or the path and says what to do."""


def error_text(error: Exception) -> str:
    """The text of an error; for an OSError with its path, which the text alone may lack."""
    if isinstance(error, OSError):
        return f"{error.filename or 'component'}: {error.strerror or error}"
    return str(error)


@dataclass(frozen=True)
class File:
    """A file; `content` None means that it is to be absent.

    `restart_on`: text for what of the file restarts the units, beside its effect, which is that of the rest.
    """

    dest: str
    content: bytes | None
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    secret: bool = False
    effect: str = RESTART
    validate: str | None = None
    restart_on: str | None = None


@dataclass(frozen=True)
class Directory:
    path: str
    owner: str
    group: str
    mode: int


@dataclass(frozen=True)
class Link:
    """A symbolic link to a program, or to a version of one."""

    dest: str
    target: str
    effect: str = RESTART


@dataclass(frozen=True)
class Artifact:
    """A program: `url_path` is its path in the mirror, `path` its path on the node, `size` in bytes.

    `origin`: its publisher's address, if the node is to fetch it there; an archive if its name says so.
    `proxied`: whether the way there is through the proxy.
    """

    path: str
    url_path: str
    sha256: str
    size: int
    effect: str = RESTART
    origin: str = ""
    proxied: bool = False


@dataclass(frozen=True)
class User:
    name: str
    group: str
    home: str


@dataclass(frozen=True)
class Unit:
    """A unit; without `content` it comes from a package of the distribution."""

    name: str
    content: bytes | None
    enabled: bool = True
    state: str = "started"

    @property
    def path(self) -> str:
        return f"{UNIT_DIRECTORY}/{self.name}"

    @property
    def installable(self) -> bool:
        """Whether it can be enabled: systemd enables only what has an [Install] section."""
        return self.content is None or b"[Install]" in self.content


@dataclass(frozen=True)
class Health:
    """A health check; one of url, tcp, unix and command is set; `timeout` in seconds.

    serves: the certificates that servers present, as `address` (host:port) and `certificate` (a path on the node).
    """

    url: str | None = None
    expect_status: int = 200
    expect_body: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    tcp: str | None = None
    unix: str | None = None
    command: list[str] | None = None
    serves: list[dict[str, str]] = field(default_factory=list)
    timeout: int = 60

    def describe(self) -> str:
        served = "".join(f", and {one['address']} to present {one['certificate']}" for one in self.serves)
        return self._describe() + served

    def _describe(self) -> str:
        if self.url:
            return f"{self.url} to answer {self.expect_status}" + (
                f" with {self.expect_body!r} in the body" if self.expect_body else ""
            )
        if self.tcp:
            return f"{self.tcp} to accept a connection"
        if self.unix:
            return f"the socket {self.unix} to accept a connection"
        return f"the command {self.command} to succeed" + (
            f" with {self.expect_body!r} in its output" if self.expect_body else ""
        )


@dataclass(frozen=True)
class Leaves:
    """What its programs make while they run, beside what is placed: node_reset takes it away.

    Names of mounts, interfaces, chains, comments, sets and control groups may be patterns (fnmatch); `tables` are
    those of nftables, as "ip NAME".
    """

    paths: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    interfaces: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    chains: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    sysctls: list[str] = field(default_factory=list)
    cgroups: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Component:
    name: str
    artifacts: list[Artifact] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    user: User | None = None
    directories: list[Directory] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    on_change: list[list[str]] = field(default_factory=list)
    health: Health | None = None
    rollback: bool = True
    overlap: bool = False
    leaves: Leaves = field(default_factory=Leaves)


@dataclass(frozen=True)
class Job:
    """The input of one execution on a node; `staged` is a directory of pushed files, named by SHA-256.

    `only_fetch`: programs are brought to the node, beside those that run, and nothing else is changed.
    """

    components: list[Component]
    mirror_url: str = ""
    mirror_proxy: str = field(default="", repr=False)
    mirror_ca: str = ""
    publishers_proxy: str = field(default="", repr=False)
    staged: str = ""
    lock_timeout: int = 300
    only_fetch: bool = False


def encode(job: Job) -> str:
    """The job as compressed text that is safe in a module's arguments."""
    return base64.b64encode(zlib.compress(json.dumps(asdict(job), default=_bytes_to_json).encode(), 6)).decode()


def decode(text: str) -> Job:
    raw = json.loads(zlib.decompress(base64.b64decode(text)).decode())
    return Job(
        components=[_component(entry) for entry in raw["components"]],
        mirror_url=raw["mirror_url"],
        mirror_proxy=raw["mirror_proxy"],
        mirror_ca=raw["mirror_ca"],
        publishers_proxy=raw["publishers_proxy"],
        staged=raw["staged"],
        lock_timeout=raw["lock_timeout"],
        only_fetch=raw["only_fetch"],
    )


def _component(raw: dict[str, Any]) -> Component:
    return Component(
        name=raw["name"],
        artifacts=[Artifact(**entry) for entry in raw["artifacts"]],
        packages=raw["packages"],
        user=User(**raw["user"]) if raw["user"] else None,
        directories=[Directory(**entry) for entry in raw["directories"]],
        files=[File(**dict(entry, content=json_to_bytes(entry["content"]))) for entry in raw["files"]],
        links=[Link(**entry) for entry in raw["links"]],
        units=[Unit(**dict(entry, content=json_to_bytes(entry["content"]))) for entry in raw["units"]],
        on_change=raw["on_change"],
        health=Health(**raw["health"]) if raw["health"] else None,
        rollback=raw["rollback"],
        overlap=raw["overlap"],
        leaves=Leaves(**raw["leaves"]),
    )


def bytes_to_json(data: bytes | None) -> Any:
    """Text unchanged, since it compresses better; anything else as base64."""
    return None if data is None else _bytes_to_json(data)


def _bytes_to_json(data: object) -> Any:
    if not isinstance(data, bytes):
        raise TypeError(f"{type(data).__name__} has no place in a job")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def json_to_bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else str(value).encode("utf-8")
