# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restores a snapshot into an etcd of its own, which only root on this node can reach, and looks at what it has.

The member's etcd goes on, and is asked how far it is. What the drill needs lies in one directory, and is gone when the
drill is over; what a killed one left is removed by the next.
"""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH100, PTH118, PTH120, PTH123
from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import re
import shutil
import subprocess
import time
from typing import Any, Iterator, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import (
    etcd_restore,
    etcdctl,
    restore_plan,
    snapshots,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import FAULTS
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, ensure_directory, free_bytes, lock
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

_NAME = "drill"
# Sockets in the directory where etcd and etcdctl are started: nothing of the drill is on any network, and no port is
# taken. etcd wants a host and a port also of those, https://github.com/etcd-io/etcd/blob/main/client/pkg/types/urls.go
_CLIENT, _PEER = "unix://localhost:1", "unix://localhost:2"
_SECRETS = "/registry/secrets/"
_ENCRYPTED = b"k8s:enc:"
_RETRY_S = 0.1
_GENTLY = 19
_END_S = 10
# Nothing in etcd's own environment or the machine's may change what the drill's etcd does.
_PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises EtcdError, FileError."""
    options = call.options
    name, directory = options["snapshot"], options["drill_dir"]
    snapshot = snapshots.parse(name)
    if snapshot is None:
        raise EtcdError(f"snapshot: {name} has no name such as etcd_snapshot gives")
    plan = [f"restore {name} into an etcd of its own in {directory}, look at it, and remove it"]
    told = {"changed": False, "snapshot": name, "plan": plan}
    path = os.path.join(options["directory"], name)
    try:
        if call.check_mode:
            steps: dict[str, float] = {}
            _check(path, options, steps)
            return {**told, "steps": steps, "revision": snapshot.revision}
        with _alone(directory):
            return {**told, **_drilled(path, options)}
    except OSError as error:
        raise EtcdError(f"{error.filename or directory}: {error.strerror or error}") from error


def _check(path: str, options: Mapping[str, Any], steps: dict[str, float]) -> None:
    """Raises EtcdError if the snapshot could not be restored."""
    with _timed(steps, "check"):
        facts, problems = etcd_restore.examined(path, options)
        place = os.path.dirname(options["drill_dir"])
        problems += restore_plan.room(facts.bytes, free_bytes(place), place, [])
    if problems:
        raise EtcdError("this snapshot could not be restored: " + "; ".join(problems))


def _drilled(path: str, options: Mapping[str, Any]) -> dict[str, Any]:
    directory = options["drill_dir"]
    steps: dict[str, float] = {}
    _check(path, options, steps)
    ensure_directory(directory, 0o700)
    with _timed(steps, "restore"):
        etcd_restore.unpack(
            path,
            os.path.join(directory, "data"),
            options,
            name=_NAME,
            peer_url=_PEER,
            token=_NAME,
            before=_gently,
        )
    with _serving(options, steps) as ask, _timed(steps, "read"):
        at, keys = _counted(ask)
        secret = _secret(ask)
    return {"steps": steps, "revision": at, "keys": keys, "secret": secret, "living": _living(options, at)}


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """Without another drill on this node, and with nothing left of this one or of one that was killed."""
    parent = os.path.dirname(os.path.abspath(directory))
    ensure_directory(parent, 0o755)
    with open(f"{directory}.lock", "ab") as handle:
        os.fchmod(handle.fileno(), 0o600)
        if not lock(handle.fileno(), 0):
            raise EtcdError(f"another drill is under way on this node; it holds {directory}.lock")
        shutil.rmtree(directory, ignore_errors=True)
        try:
            yield
        finally:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _timed(steps: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    steps[name] = round(time.monotonic() - began, 2)


def _gently() -> None:
    """What serves the cluster comes first, and a drill ends with whoever runs it."""
    etcdctl.end_with_parent()
    os.nice(_GENTLY)


@contextlib.contextmanager
def _serving(options: Mapping[str, Any], steps: dict[str, float]) -> Iterator[etcdctl.Etcdctl]:
    """The drill's etcd, by an etcdctl that asks it."""
    directory = options["drill_dir"]
    settings = os.path.join(directory, "etcdctl.env")
    with open(settings, "w", encoding="utf-8") as stream:
        stream.write(f"ETCDCTL_ENDPOINTS={_CLIENT}\n")
    ask = functools.partial(etcdctl.run, program=options["etcdctl"], environment=settings, cwd=directory)
    log = os.path.join(directory, "etcd.log")
    with open(log, "wb") as output:
        # Without waiting for the disk, which is the cluster's: nothing of it is kept.
        etcd = subprocess.Popen(
            [
                options["etcd"],
                f"--name={_NAME}",
                "--data-dir=data",
                f"--listen-client-urls={_CLIENT}",
                f"--advertise-client-urls={_CLIENT}",
                f"--listen-peer-urls={_PEER}",
                "--unsafe-no-fsync",
            ],
            cwd=directory,
            env=_PATH,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_gently,
        )
    try:
        with _timed(steps, "start"):
            _wait(etcd, ask, log, options["timeout"])
        yield ask
    finally:
        etcd.terminate()
        try:
            etcd.wait(_END_S)
        except subprocess.TimeoutExpired:
            etcd.kill()
            etcd.wait()


def _wait(etcd: subprocess.Popen[bytes], ask: etcdctl.Etcdctl, log: str, timeout: float) -> None:
    """Until it serves a linearizable read."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            ask(*etcdctl.SERVES)
            return
        except FAULTS as error:
            said = etcdctl.reason(error)
        if etcd.poll() is not None:
            raise EtcdError(f"the restored etcd does not start: it ended with {etcd.returncode}: {_last(log)}")
        if time.monotonic() > deadline:
            raise EtcdError(f"waiting for the restored etcd: not done within {timeout} s (timeout); it says: {said}")
        time.sleep(_RETRY_S)


def _last(log: str) -> str:
    with open(log, encoding="utf-8", errors="replace") as stream:
        lines = stream.read().splitlines()
    return lines[-1][:500] if lines else "without a word"


def _counted(ask: etcdctl.Etcdctl, *more: str) -> tuple[int, int]:
    """The revision of an etcd, and how many keys it has. Raises EtcdError."""
    try:
        said = ask("get", "", "--from-key", "--count-only", *more, "-w", "fields").decode()
    except FAULTS as error:
        raise EtcdError(f"etcd does not count its keys: {etcdctl.reason(error)}") from error
    # Lines such as `"Count" : 12`.
    told = dict(re.findall(r'(?m)^"(\w+)" ?: ?(\d+)$', said))
    try:
        return int(told["Revision"]), int(told["Count"])
    except KeyError as error:
        raise EtcdError(f"etcdctl tells no {error.args[0]}") from error


def _secret(ask: etcdctl.Etcdctl) -> dict[str, str]:
    """The Secret that was written last: its key, and what is stored, base64, if that is encrypted."""
    newest = ("--prefix", "--sort-by=MODIFY", "--order=DESCEND", "--limit=1", "-w", "json")
    try:
        found = json.loads(ask("get", _SECRETS, *newest)).get("kvs") or []
    except FAULTS as error:
        raise EtcdError(f"the restored etcd does not give a Secret: {etcdctl.reason(error)}") from error
    if not found:
        return {"key": "", "value": ""}
    value = str(found[0].get("value") or "")
    # One that is stored as it is stays here.
    sealed = base64.b64decode(value).startswith(_ENCRYPTED)
    return {"key": base64.b64decode(found[0]["key"]).decode(errors="replace"), "value": value if sealed else ""}


def _living(options: Mapping[str, Any], revision: int) -> dict[str, int]:
    """How far etcd on this node is, and its keys at the snapshot's revision: -1 if it has forgotten how it was then."""
    ask = functools.partial(etcdctl.run, program=options["etcdctl"], environment=options["environment"])
    try:
        now, keys = _counted(ask, f"--rev={revision}")
    except EtcdError as error:
        if "has been compacted" not in str(error):
            raise
        now, keys = _counted(ask)[0], -1
    return {"revision": now, "keys": keys}


MODULE = Module(ARGUMENT_SPECS["etcd_drill"], run, (EtcdError, FileError))
