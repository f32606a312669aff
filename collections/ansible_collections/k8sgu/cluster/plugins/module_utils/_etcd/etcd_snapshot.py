# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes a snapshot of etcd on a member, and verifies it before it gets its name.

https://etcd.io/docs/v3.6/op-guide/recovery/
"""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH101, PTH102, PTH105, PTH116, PTH117, PTH118, PTH120, PTH123, PTH202, PTH208
from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import re
import secrets
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from typing import Any, Iterator, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl, plan, snapshot_file, snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import FAULTS
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import Snapshot
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import (
    FileError,
    ensure_directory,
    free_bytes,
    lock,
    remove_file,
    sync_directory,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

# Where a snapshot is until it has been verified: a directory of this run's process, which the next run removes.
_UNFINISHED = re.compile(r"\.taking\.(\d+)\.[0-9a-f]{8}")


@dataclass(frozen=True)
class Etcd:
    """The member on this node, and its cluster. `members`: ids of all members."""

    version: str
    revision: int
    size: int
    members: frozenset[int]


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises EtcdError, FileError."""
    options = call.options
    _refuse(options)
    directory = options["directory"]
    etcd = _asked(options)
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        if not call.check_mode:
            ensure_directory(directory, 0o700)
            stack.enter_context(_alone(directory, options["timeout"]))
            if stat.S_IMODE(os.stat(directory).st_mode) != 0o700:
                os.chmod(directory, 0o700)
            _clear(directory)
        sizes = _sizes(directory)
        there = list(sizes)
        found = snapshots.listed(there)
        now = datetime.datetime.now(datetime.timezone.utc)
        for old in snapshots.serving(found, options["series"], options["label"], now, options["max_age"]):
            path = os.path.join(directory, old.name)
            facts = _kept(path, etcd, options)
            if facts:
                return _result(path, facts, time.monotonic() - began, there, there, [])
        problem = snapshots.room(etcd.size, free_bytes(directory), directory)
        if problem:
            raise EtcdError(f"no snapshot was taken: {problem}")
        if call.check_mode:
            new = Snapshot(now, etcd.version, etcd.revision, options["series"], options["label"])
            facts = snapshot_file.Facts(etcd.revision, 0, "", etcd.size, etcd.members)
        else:
            new, facts = _take(directory, etcd, options)
        free = free_bytes(directory) - (etcd.size if call.check_mode else 0)
        sizes[new.name] = facts.bytes
        surplus = snapshots.surplus(
            snapshots.listed(sizes), options["series"], options["keep"], sizes, free, options["disk_percent"]
        )
        # One that is dated later is of a clock that ran ahead.
        gone = {old.name: why for old, why in surplus if old.name != new.name}
        for name in gone:
            if not call.check_mode:
                remove_file(os.path.join(directory, name))
    after = [name for name in sizes if name not in gone]
    changes = [f"take a snapshot of {etcd.size} bytes at revision {facts.revision}: {new.name}"]
    changes += [f"remove {name}: {why}" for name, why in gone.items()]
    return _result(os.path.join(directory, new.name), facts, time.monotonic() - began, there, after, changes)


def _refuse(options: Mapping[str, Any]) -> None:
    """Raises EtcdError for options that cannot be."""
    for option in ("series", "label"):
        problem = snapshots.wrong_word(option, options[option]) if options[option] or option == "series" else ""
        if problem:
            raise EtcdError(problem)
    if options["keep"] < 1:
        raise EtcdError(f"keep: it is {options['keep']}, and the newest snapshot always stays; give 1 or more")
    if not 1 <= options["disk_percent"] <= 100:
        raise EtcdError(f"disk_percent: it is {options['disk_percent']}; give 1 to 100")
    if not os.path.isabs(options["directory"]):
        raise EtcdError(f"directory: {options['directory']} is no absolute path")


def _asked(options: Mapping[str, Any]) -> Etcd:
    """Raises EtcdError if this node's member has no quorum, or does not have all data."""
    ask = functools.partial(etcdctl.run, program=options["etcdctl"], environment=options["environment"])
    try:
        # A learner answers nothing else.
        if json.loads(ask("endpoint", "status", "-w", "json"))[0]["Status"].get("isLearner"):
            raise EtcdError("no snapshot was taken: this node's member is a learner; take it on another member")
        # Its status is of all that was acknowledged before then.
        ask(*etcdctl.SERVES)
        status = json.loads(ask("endpoint", "status", "-w", "json"))[0]["Status"]
        members = plan.parse(json.loads(ask("member", "list", "-w", "json")))
        if any("CORRUPT" in str(error) for error in status.get("errors") or ()):
            raise EtcdError(f"no snapshot was taken: this member's data is corrupt; see {plan.RECOVERY}")
        return Etcd(
            version=str(status["version"]),
            revision=int(status["header"]["revision"]),
            size=int(status["dbSize"]),
            members=frozenset(member.id for member in members),
        )
    except (*FAULTS, LookupError) as error:
        raise EtcdError(
            f"no snapshot was taken: etcd on this node does not serve: {etcdctl.reason(error)}; systemctl status etcd"
        ) from error


def _take(directory: str, etcd: Etcd, options: Mapping[str, Any]) -> tuple[Snapshot, snapshot_file.Facts]:
    """Takes a snapshot, which has its name only when it has been verified."""
    place = os.path.join(directory, f".taking.{os.getpid()}.{secrets.token_hex(4)}")
    os.mkdir(place, 0o700)
    try:
        path = os.path.join(place, "snapshot.db")
        taken = datetime.datetime.now(datetime.timezone.utc)
        _save(path, etcd, options)
        facts = _verified(path, etcd, options)
        os.chmod(path, 0o600)
        new = Snapshot(taken, etcd.version, facts.revision, options["series"], options["label"])
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(path, os.path.join(directory, new.name))
        sync_directory(directory)
        return new, facts
    except OSError as error:
        raise EtcdError(f"no snapshot was taken: {place}: {error.strerror}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _save(path: str, etcd: Etcd, options: Mapping[str, Any]) -> None:
    try:
        etcdctl.run(
            *("snapshot", "save", path),
            program=options["etcdctl"],
            environment=options["environment"],
            timeout=options["timeout"],
            # It would go on for as long as the database takes after this process was killed.
            before=etcdctl.end_with_parent,
        )
    except subprocess.TimeoutExpired as error:
        place = os.path.dirname(path)
        written = sum(os.path.getsize(os.path.join(place, name)) for name in os.listdir(place))
        raise EtcdError(
            f"no snapshot was taken: etcdctl snapshot save was not done within {options['timeout']} s (timeout), with "
            f"{written} of {etcd.size} bytes written"
        ) from error
    except FAULTS as error:
        raise EtcdError(f"no snapshot was taken: etcdctl snapshot save: {etcdctl.reason(error)}") from error


def _verified(path: str, etcd: Etcd, options: Mapping[str, Any]) -> snapshot_file.Facts:
    """What a new snapshot holds. Raises EtcdError if it is not whole, of another cluster, or older than it may be."""
    facts = snapshot_file.facts(path, options)
    # Without any key etcd is at 1, and etcdutl finds none.
    if max(facts.revision, 1) < etcd.revision:
        raise EtcdError(
            f"the snapshot is at revision {facts.revision}, and etcd was at {etcd.revision} before it was taken; it "
            "was thrown away"
        )
    if facts.members.isdisjoint(etcd.members):
        raise EtcdError(f"the snapshot is of another cluster: {_strangers(facts, etcd)}; it was thrown away")
    return facts


def _kept(path: str, etcd: Etcd, options: Mapping[str, Any]) -> snapshot_file.Facts | None:
    """What an older snapshot holds; None if it does not serve, for which another one is taken."""
    try:
        facts = snapshot_file.facts(path, options)
    except (EtcdError, OSError):
        return None
    own = not facts.members.isdisjoint(etcd.members) and facts.revision <= etcd.revision
    return facts if own else None


def _strangers(facts: snapshot_file.Facts, etcd: Etcd) -> str:
    def shown(ids: frozenset[int]) -> str:
        return ", ".join(sorted(f"{one:x}" for one in ids)) or "none"

    return f"its members are {shown(facts.members)}, and this cluster's {shown(etcd.members)}"


@contextlib.contextmanager
def _alone(directory: str, timeout: int) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not lock(handle, timeout):
            raise EtcdError(f"{directory}: another run has been taking a snapshot for {timeout} s (timeout)")
        yield
    finally:
        os.close(handle)


def _clear(directory: str) -> None:
    """Removes what runs that were killed left; nobody else takes one now."""
    for name in os.listdir(directory):
        if _UNFINISHED.fullmatch(name):
            shutil.rmtree(os.path.join(directory, name), ignore_errors=True)


def _sizes(directory: str) -> dict[str, int]:
    """{name: bytes} of what is in the directory; empty if there is none."""
    found = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            found[entry.name] = entry.stat(follow_symlinks=False).st_size
    return found


def _result(
    path: str, facts: snapshot_file.Facts, seconds: float, before: list[str], after: list[str], changes: list[str]
) -> dict[str, Any]:
    return {
        "changed": bool(changes),
        "plan": changes,
        "path": path,
        "revision": facts.revision,
        "keys": facts.keys,
        "hash": facts.hash,
        "bytes": facts.bytes,
        "seconds": round(seconds, 2),
        "diff": {"before": _lines(before), "after": _lines(after)} if changes else {},
    }


def _lines(names: list[str]) -> str:
    return "".join(f"{snapshot.name}\n" for snapshot in reversed(snapshots.listed(names)))


MODULE = Module(ARGUMENT_SPECS["etcd_snapshot"], run, (EtcdError, FileError))
