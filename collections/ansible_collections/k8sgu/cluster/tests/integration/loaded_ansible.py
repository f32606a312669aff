# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of ansible-playbook that are forked from a process that has loaded Ansible.

To load Ansible is most of what a short run costs, and the tests have hundreds. Each process of pytest has a server for
each configuration file, which loads Ansible once and forks for each run. The run is Ansible's own `main`, in a process
of its own, with the directory, the environment, the arguments and the files that it is given; it ends with Ansible's
exit status.

Ansible reads its configuration while it is loaded, so the fork reads it anew: it loads ansible.constants again, in its
own directory and environment. What other modules had taken from there when they were loaded was written down, and is
compared. If anything differs - a setting that Ansible uses at once, the locale, the user, Python's own variables - the
fork becomes the real program by exec. Nothing of the collection is loaded, since Ansible's own loader must find it.

K8SGU_TEST_LOADED_ANSIBLE=0 makes every run the real program. So are, always, programs other than those in
MODULES, runs at a terminal (run_at_terminal), and those whose command line a test looks at (`forked=False`): a fork has
that of its server.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import secrets
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODULES = {"ansible-playbook": "ansible.cli.playbook", "ansible-inventory": "ansible.cli.inventory"}
# What the inventory plugin, the lookups and the action plugins of the collection import when a play begins.
LIBRARIES = ("boto3", "botocore.session", "cryptography.x509", "concurrent.futures.thread")
# What other libraries than Ansible read of the environment while they are loaded.
SAME = ("LANG", "LANGUAGE", "TERM", "LOGNAME", "USER", "LNAME", "USERNAME", "SSL_CERT_FILE", "SSL_CERT_DIR", "TZ")
SAME_PREFIXES = ("LC_", "PYTHON", "LD_", "OPENSSL_", "CRYPTOGRAPHY_")
READY_TIMEOUT_S = 240
# Of the tests, whatever one of them gives to a run: the server is for those of the others as well.
PLAIN = {**os.environ, "ANSIBLE_NOCOLOR": "1"}


# What the tests use.


class Run:
    """A run that was started; as much of subprocess.Popen as its callers use."""

    def __init__(
        self, server: socket.socket, args: Sequence[str], cwd: Path, env: Mapping[str, str], merged: bool
    ) -> None:
        self.args = list(args)
        self.returncode: int | None = None
        self._reading: dict[int, bytearray] = {}
        given = [os.open(os.devnull, os.O_RDONLY)]
        try:
            for _output in range(1 if merged else 2):
                ours, theirs = os.pipe()
                self._reading[ours] = bytearray()
                given.append(theirs)
            if merged:
                given.append(os.dup(given[1]))
            self._state, theirs_state = socket.socketpair()
            with theirs_state:
                request = {"args": self.args, "cwd": str(cwd), "env": dict(env)}
                socket.send_fds(server, [b"r"], [theirs_state.fileno(), *given])
        finally:
            for descriptor in given:
                os.close(descriptor)
        self._state.sendall(json.dumps(request).encode())
        self._state.shutdown(socket.SHUT_WR)
        self._outputs = list(self._reading)
        self.pid = int(self._line(READY_TIMEOUT_S))

    def _line(self, timeout: float | None) -> str:
        """The next number that the server tells of this run."""
        if not select.select([self._state], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        line = b""
        while not line.endswith(b"\n"):
            part = self._state.recv(1)
            assert part, "the process that has loaded Ansible is gone"
            line += part
        return line.decode()

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = int(self._line(timeout))
            self._state.close()
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str | None]:
        """Both outputs until nobody can write to them any more, and the end of the process."""
        end = None if timeout is None else time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            for descriptor in self._reading:
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(None if end is None else max(0.0, end - time.monotonic()))
                if not ready:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
                for key, _events in ready:
                    part = os.read(key.fd, 65536)
                    self._reading[key.fd] += part
                    if not part:
                        selector.unregister(key.fd)
                        os.close(key.fd)
        self.wait(None if end is None else max(0.0, end - time.monotonic()))
        texts = [self._reading[output].decode().replace("\r\n", "\n") for output in self._outputs]
        return texts[0], texts[1] if len(texts) > 1 else None


def run(
    server: socket.socket, args: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float | None
) -> subprocess.CompletedProcess[str]:
    """As subprocess.run with both outputs captured."""
    started = Run(server, args, cwd, env, merged=False)
    try:
        stdout, stderr = started.communicate(timeout)
    except BaseException:
        started.kill()
        started.wait()
        raise
    return subprocess.CompletedProcess(started.args, started.wait(), stdout, stderr)


def _end(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    process.communicate()


_servers: dict[tuple[int, str], socket.socket | None] = {}


def server(args: Sequence[str], cwd: Path, env: Mapping[str, str]) -> socket.socket | None:
    """The server for runs with this run's configuration file; None where only the program itself is right.

    Ansible takes most of its settings from that file. With one that it refuses it cannot be loaded.
    """
    if Path(args[0]).name not in MODULES or os.environ.get("K8SGU_TEST_LOADED_ANSIBLE", "1") == "0":
        return None
    with Path(args[0]).open("rb") as file:
        python = file.readline().removeprefix(b"#!").strip().decode()
    file = Path(env.get("ANSIBLE_CONFIG", cwd / "ansible.cfg"))
    key = (os.getpid(), file.read_text() if file.is_file() else "")
    if key not in _servers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Pipes, as its forks have, since Python keeps in mind what kind of file its outputs are.
            process = subprocess.Popen(
                [python, "-P", __file__, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                cwd=cwd,
                env={**PLAIN, **{name: env[name] for name in ("ANSIBLE_CONFIG",) if name in env}},
            )
        atexit.register(_end, ours, process)
        ours.settimeout(READY_TIMEOUT_S)
        _servers[key] = ours if ours.recv(1) else None
    return _servers[key]


# The server, which ends when the tests' end of its socket is closed.


class _Watched(types.ModuleType):
    """ansible.constants while others are loaded: writes down what they take from it."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__"):
            taken.add(name)
        return super().__getattribute__(name)


taken: set[str] = set()
asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []


def load() -> None:
    """Ansible, as its programs load it, and what depends on no configuration."""
    _internal = importlib.import_module("ansible._internal")
    _internal.setup()
    constants = importlib.import_module("ansible.constants")
    manager = type(constants.config)
    ask = manager.get_config_value_and_origin

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append((args, kwargs))
        return ask(self, *args, **kwargs)

    constants.__class__ = _Watched
    manager.get_config_value_and_origin = watched
    try:
        display = importlib.import_module("ansible.utils.display")
        # Made anew in each fork, and so free to take what it likes.
        constants.__class__ = types.ModuleType
        display.Display()
        constants.__class__ = _Watched
        importlib.import_module("ansible.cli.playbook")
    finally:
        constants.__class__ = types.ModuleType
        manager.get_config_value_and_origin = ask
    for name in LIBRARIES:
        importlib.import_module(name)
    # Each process has directories of its own, which its end removes.
    path = importlib.import_module("ansible.utils.path")
    atexit.unregister(path.cleanup_tmp_file)
    path.cleanup_tmp_file(constants.DEFAULT_LOCAL_TMP)
    loaded = [name for name in sys.modules if name.startswith("ansible_collections.k8sgu")]
    assert not loaded, loaded


def taken_values(constants: types.ModuleType) -> list[Any]:
    """What modules took from the configuration, or asked it for, as it is now."""
    names = sorted(name for name in taken if not callable(getattr(constants, name)) and name != "config")
    answers = [constants.config.get_config_value_and_origin(*args, **kwargs)[0] for args, kwargs in asked]
    return [[(name, getattr(constants, name)) for name in names], answers]


def same_start(environment: Mapping[str, str]) -> bool:
    """Whether what is no setting of Ansible, but is read when Python and its libraries start, is the server's own."""
    names = {name for name in {**os.environ, **environment} if name in SAME or name.startswith(SAME_PREFIXES)}
    return all(os.environ.get(name) == environment.get(name) for name in names)


def become(request: dict[str, Any]) -> None:
    """In the fork, whose standard files are in place: the run, which does not return."""
    args, environment = request["args"], request["env"]
    os.chdir(request["cwd"])
    same = same_start(environment)
    os.environ.clear()
    os.environ.update(environment)
    if not (same and configured()):
        os.execve(args[0], args, environment)
    sys.argv = args
    sys.path.insert(0, str(Path(args[0]).parent))
    cli = importlib.import_module("ansible.cli")
    cli.check_blocking_io()
    # With the files and the configuration of this process.
    cli.display.__init__()
    # Names of this run's tasks, which are random.
    importlib.import_module("ansible.utils.vars").random_int = secrets.token_hex(4)
    importlib.import_module(MODULES[Path(args[0]).name]).main()


def configured() -> bool:
    """Reads Ansible's configuration anew; whether the modules that are loaded would have taken the same from it."""
    constants, path = importlib.import_module("ansible.constants"), importlib.import_module("ansible.utils.path")
    before, held = taken_values(constants), constants.config
    type(held).DEPRECATED.clear()
    type(held).WARNINGS.clear()
    try:
        importlib.reload(constants)
    except Exception:
        return False  # the real program says what is wrong
    if taken_values(constants) != before:
        path.cleanup_tmp_file(constants.DEFAULT_LOCAL_TMP)
        return False
    # Some modules hold on to the object itself.
    vars(held).clear()
    vars(held).update(vars(constants.config))
    constants.config = held
    return True


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Forks for each request; returns in the fork, with what to run, and in the server when the tests are over."""
    running: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for descriptor, _event in poll.poll():
            if descriptor == control.fileno():
                message, given, _flags, _address = socket.recv_fds(control, 1, 4)
                if not message:
                    return None
                pid = os.fork()
                if pid == 0:
                    return _given(given)
                for theirs in given[1:]:
                    os.close(theirs)
                state = socket.socket(fileno=given[0])
                watched = os.pidfd_open(pid)
                running[watched] = (pid, state)
                poll.register(watched, select.POLLIN)
                status = str(pid)
            else:
                pid, state = running.pop(descriptor)
                poll.unregister(descriptor)
                os.close(descriptor)
                status = str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            with contextlib.suppress(BrokenPipeError):
                state.sendall(f"{status}\n".encode())
            if descriptor not in running and descriptor != control.fileno():
                state.close()


def _given(descriptors: list[int]) -> dict[str, Any]:
    """In the fork: its standard files, no others, and its request."""
    with socket.socket(fileno=os.dup(descriptors[0])) as state, state.makefile("rb") as file:
        request: dict[str, Any] = json.load(file)
    for number, descriptor in enumerate(descriptors[1:]):
        os.dup2(descriptor, number)
    os.closerange(3, max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1)
    return request


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    load()
    assert threading.active_count() == 1, threading.enumerate()
    gc.collect()
    # Forks share what is there now.
    gc.freeze()
    control.send(b"+")
    request = serve(control)
    if request is not None:
        control.detach()
        become(request)


if __name__ == "__main__":
    main()
