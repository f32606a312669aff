# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real etcd with TLS on loopback, whose members can be of different versions, and a client that writes to it."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import api_server

START_TIMEOUT_S = 60
PROGRAMS = ("etcd", "etcdctl", "etcdutl")
# Runs a module's work as its `main` does, in a process that can be killed.
MODULE_PROCESS = """
import json, sys
sys.path.insert(0, {collections!r})
from importlib import import_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, carry_out
given = json.loads(sys.argv[1])
module = import_module("ansible_collections.k8sgu.cluster.plugins.module_utils._etcd." + given["module"]).MODULE
defaults = {{name: option.get("default") for name, option in module.argument_spec.items()}}
print(json.dumps(carry_out(module, Call({{**defaults, **given["options"]}}, given["check"]))))
"""


def put(key: str, value: str) -> str:
    """https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/"""
    return json.dumps(
        {name: base64.b64encode(text.encode()).decode() for name, text in (("key", key), ("value", value))}
    )


def programs(version: str) -> Path | None:
    """The directory with the programs of a minor version of etcd, from a mirror; None if none has it."""
    found = [api_server.find_program("etcd", name, version) for name in PROGRAMS]
    directories = {path.parent for path in found if path}
    return directories.pop() if len(directories) == 1 and all(found) else None


@dataclass
class Member:
    name: str
    client: int
    peer: int
    programs: Path
    process: subprocess.Popen[bytes] | None = None


@dataclass
class Etcd:
    """`directory` has data, logs, certificates, and the settings that etcdctl has on a node."""

    directory: Path
    members: dict[str, Member] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)

    @property
    def nodes(self) -> dict[str, str]:
        return dict.fromkeys(self.members, "127.0.0.1")

    def environment(self, name: str) -> Path:
        """etcdctl's settings on the node of a member."""
        path = self.directory / f"{name}.env"
        path.write_text(
            f"ETCDCTL_ENDPOINTS=https://127.0.0.1:{self.members[name].client}\n"
            f"ETCDCTL_CACERT={self.directory / 'ca.pem'}\n"
            f"ETCDCTL_CERT={self.directory / 'etcd.pem'}\nETCDCTL_KEY={self.directory / 'etcd-key.pem'}\n"
        )
        return path

    def start(self, name: str, directory: Path | None = None, state: str = "new") -> None:
        """Starts a member, with the programs of `directory` from now on. `state`: existing, for one that joins."""
        member = self.members[name]
        member.programs = directory or member.programs
        tls = [
            *(f"--{kind}trusted-ca-file={self.directory / 'ca.pem'}" for kind in ("", "peer-")),
            *(f"--{kind}cert-file={self.directory / 'etcd.pem'}" for kind in ("", "peer-")),
            *(f"--{kind}key-file={self.directory / 'etcd-key.pem'}" for kind in ("", "peer-")),
            "--client-cert-auth",
            "--peer-client-cert-auth",
        ]
        together = ",".join(f"{one.name}=https://127.0.0.1:{one.peer}" for one in self.members.values())
        with (self.directory / f"{name}.log").open("ab") as log:
            member.process = subprocess.Popen(
                [
                    str(member.programs / "etcd"),
                    f"--name={name}",
                    f"--data-dir={self.directory / name}",
                    f"--listen-client-urls=https://127.0.0.1:{member.client}",
                    f"--advertise-client-urls=https://127.0.0.1:{member.client}",
                    f"--listen-peer-urls=https://127.0.0.1:{member.peer}",
                    f"--initial-advertise-peer-urls=https://127.0.0.1:{member.peer}",
                    f"--initial-cluster={together}",
                    f"--initial-cluster-state={state}",
                    "--unsafe-no-fsync",
                    *self.flags,
                    *tls,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def wait(self, name: str) -> None:
        """Until a member answers a linearizable read."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            said = self.etcdctl(name, "endpoint", "health", check=False)
            if said.returncode == 0:
                return
            process = self.members[name].process
            log = (self.directory / f"{name}.log").read_text()[-2000:]
            assert process is not None and process.poll() is None, f"{name} ended:\n{log}"
            assert time.monotonic() < deadline, f"{name} is not healthy after {START_TIMEOUT_S} s:\n{log}"
            time.sleep(0.1)

    def stop(self, name: str, signal_number: int = signal.SIGTERM) -> None:
        process = self.members[name].process
        if process is not None:
            process.send_signal(signal_number)
            process.wait(timeout=60)
            self.members[name].process = None

    def restart(self, name: str, directory: Path) -> None:
        """Replaces a member's program, as an upgrade does."""
        self.stop(name)
        self.start(name, directory)
        self.wait(name)

    def etcdctl(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        settings = dict(line.split("=", 1) for line in self.environment(name).read_text().splitlines())
        program = str(self.members[name].programs / "etcdctl")
        return subprocess.run(
            [program, *arguments], env=settings, capture_output=True, text=True, check=check, timeout=60
        )

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.directory / "ca.pem"))
        context.load_cert_chain(self.directory / "etcd.pem", self.directory / "etcd-key.pem")
        return context

    def fill(self, keys: dict[str, str]) -> None:
        """Writes keys by etcd's gateway, without a process for each."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.members["cp-0"].client, context=self.tls(), timeout=60
        )
        with contextlib.closing(connection):
            for key, value in keys.items():
                connection.request("POST", "/v3/kv/put", put(key, value))
                answer = connection.getresponse()
                said = answer.read()
                assert answer.status == 200, said

    def statuses(self) -> dict[str, dict[str, Any]]:
        return {
            name: json.loads(self.etcdctl(name, "endpoint", "status", "-w", "json").stdout)[0]["Status"]
            for name in self.members
        }

    def leader(self) -> str:
        [name] = [name for name, status in self.statuses().items() if status["leader"] == status["header"]["member_id"]]
        return name

    def module(
        self, module: str, name: str, /, check: bool = False, **options: Any
    ) -> tuple[list[str], dict[str, str] | None]:
        """The command that runs a module on the node of a member."""
        collections = str(api_server.ROOT / "collections")
        given = {
            "module": module,
            "check": check,
            "options": {
                "etcdctl": str(self.members[name].programs / "etcdctl"),
                "environment": str(self.environment(name)),
                **options,
            },
        }
        return [sys.executable, "-c", MODULE_PROCESS.format(collections=collections), json.dumps(given)], None

    def run(self, module: str, name: str, /, check: bool = False, **options: Any) -> dict[str, Any]:
        """A module's result."""
        command, environment = self.module(module, name, check, **options)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@contextlib.contextmanager
def running(directory: Path, version: Path, size: int = 3, peer: int = 0, flags: Sequence[str] = ()) -> Iterator[Etcd]:
    """An etcd of `size` members with the programs of `version`, ended with the block; `peer` is a first peer port."""
    authority = api_server.issue("test-ca")
    authority.write(directory, "ca")
    api_server.issue("etcd", issuer=authority).write(directory, "etcd")
    etcd = Etcd(directory, flags=list(flags))
    for number in range(size):
        peer_port = peer if peer and not number else api_server.free_port()
        etcd.members[f"cp-{number}"] = Member(f"cp-{number}", api_server.free_port(), peer_port, version)
    try:
        for name in etcd.members:
            etcd.start(name)
        for name in etcd.members:
            etcd.wait(name)
        yield etcd
    finally:
        for name in etcd.members:
            etcd.stop(name, signal.SIGKILL)


@contextlib.contextmanager
def restored(directory: Path, version: Path, snapshot: Path) -> Iterator[Etcd]:
    """An etcd of one member that begins with a snapshot's data."""
    place = directory / "restored"
    place.mkdir()
    peer = api_server.free_port()
    subprocess.run(
        [
            *(str(version / "etcdutl"), "snapshot", "restore", str(snapshot)),
            f"--data-dir={place / 'cp-0'}",
            "--name=cp-0",
            f"--initial-cluster=cp-0=https://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=https://127.0.0.1:{peer}",
        ],
        check=True,
        capture_output=True,
    )
    with running(place, version, size=1, peer=peer) as etcd:
        yield etcd


class Writer:
    """Writes numbered keys, one after another, each once.

    A connection that is refused has carried nothing, so the next member is asked, as a load balancer does. `written`
    has the numbers that were acknowledged, `failed` what was answered to the others, `longest` the seconds that one
    took.
    """

    def __init__(self, etcd: Etcd) -> None:
        self.etcd = etcd
        self.written: list[int] = []
        self.failed: list[tuple[int, str]] = []
        self.longest = 0.0
        self._tls = etcd.tls()
        self._ended = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[Writer]:
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join()

    def _work(self) -> None:
        for number in itertools.count():
            if self._ended.is_set():
                return
            began = time.monotonic()
            try:
                self._put(number)
                self.written.append(number)
            except (OSError, http.client.HTTPException) as error:
                self.failed.append((number, f"{type(error).__name__}: {error}"))
            self.longest = max(self.longest, time.monotonic() - began)
            time.sleep(0.002)

    def _put(self, number: int) -> None:
        names = list(self.etcd.members)
        names = names[number % len(names) :] + names[: number % len(names)]
        for name in names:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.etcd.members[name].client, context=self._tls, timeout=15
            )
            with contextlib.closing(connection):
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    continue
                connection.request("POST", "/v3/kv/put", put(f"numbered/{number}", "written"))
                answer = connection.getresponse()
                said = answer.read().decode()
                if answer.status != 200:
                    raise OSError(f"{name}: {answer.status} {said}")
                return
        raise OSError("every member refused the connection")

    def missing(self) -> list[int]:
        """Numbers that were acknowledged and are not there."""
        listed = self.etcd.etcdctl(next(iter(self.etcd.members)), "get", "numbered/", "--prefix", "--keys-only").stdout
        there = {int(line.split("/")[1]) for line in listed.split() if line}
        return [number for number in self.written if number not in there]
