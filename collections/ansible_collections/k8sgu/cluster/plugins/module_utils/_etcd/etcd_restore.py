# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives a member of etcd the data of a snapshot, in steps of which each is one rename.

https://etcd.io/docs/v3.6/op-guide/recovery/
"""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH102, PTH104, PTH106, PTH112, PTH113, PTH116, PTH118, PTH119, PTH120, PTH123, PTH208
from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import subprocess
import time
from typing import Any, Callable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import (
    contents,
    etcd_space,
    etcdctl,
    restore_plan,
    snapshot_file,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.bolt import BoltError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import FAULTS
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import (
    ARGUMENT_SPECS,
    RESTORE_RULES,
    with_defaults,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import (
    FileError,
    atomic_write,
    ensure_directory,
    free_bytes,
    remove_file,
    sync_directory,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

# In etcd's own directory, so that each step is one rename on its file system. etcd takes no notice of other names.
LIVING = "member"
_RESTORED = "restored-{}"
_ASIDE = "member-before-{}"
_UNFINISHED = re.compile(r"restored-.*")
_ASIDE_NAME = re.compile(r"member-before-(\d{8}T\d{6}Z)")
_ID = re.compile(r"\d{8}T\d{6}Z")
# API servers keep their addresses there, by which pods find the API. The snapshot has those of servers that are gone.
_ADDRESSES = "/registry/masterleases/"
_RETRY_S = 0.5


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises EtcdError, FileError."""
    if not _ID.fullmatch(call.options["id"]):
        raise EtcdError(f"id: {call.options['id']} is no time such as 20261129T180210Z")
    if not os.path.isdir(call.options["data_dir"]):
        raise EtcdError(f"data_dir: {call.options['data_dir']} is no directory; run playbooks/etcd.yml first")
    try:
        return _STATES[call.options["state"]](call)
    except OSError as error:
        raise EtcdError(f"{error.filename or call.options['data_dir']}: {error.strerror or error}") from error


def record(path: str) -> dict[str, Any]:
    """What a restore that has not come to its end goes by; empty if there is none. Raises OSError."""
    try:
        with open(path, "rb") as stream:
            found = json.load(stream)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def begun(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with `placed`: whether etcd has the data already. Raises OSError."""
    own = record(options["record"])
    return {**own, "placed": _is_placed({**options, "id": own["id"]})} if own.get("id") else {}


def set_aside(directory: str) -> list[str]:
    """Ids of the restores for which this member's data was moved aside, in the order of their times. Raises OSError."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return sorted(match[1] for match in map(_ASIDE_NAME.fullmatch, names) if match)


def _prepared(call: Call) -> dict[str, Any]:
    """The snapshot's data beside the member's, which goes on. Every reason not to restore it is found here."""
    options = call.options
    name = options["snapshot"]
    path = os.path.join(options["directory"], name)
    own = record(options["record"])
    if own.get("id") == options["id"] and (_exists(options, _restored(options)) or _is_placed(options)):
        return {"changed": False, "plan": [], **_told(own)}
    facts, problems = examined(path, options)
    kept = [_ASIDE.format(one) for one in set_aside(options["data_dir"])]
    free = free_bytes(options["data_dir"])
    problems += restore_plan.room(facts.bytes, free, options["data_dir"], kept)
    if problems:
        raise EtcdError("nothing was changed: " + "; ".join(problems))
    told = {"id": options["id"], "snapshot": name, "revision": facts.revision, "keys": facts.keys}
    plan = [f"prepare {facts.keys} keys at revision {facts.revision} from {name} in {_restored(options)}"]
    if not call.check_mode:
        _restore(path, options)
        ensure_directory(os.path.dirname(options["record"]), 0o755)
        atomic_write(options["record"], (json.dumps(told) + "\n").encode(), 0o600)
    return {"changed": True, "plan": plan, **_told(told)}


def examined(path: str, options: Mapping[str, Any]) -> tuple[snapshot_file.Facts, list[str]]:
    """What a snapshot has, and all that speaks against restoring it here. Raises EtcdError if it is not a whole one."""
    if not os.path.isfile(path):
        raise EtcdError(f"snapshot: {path} is not there")
    facts = snapshot_file.facts(path, options)
    return facts, restore_plan.unfit(
        name=os.path.basename(path),
        found=_contents(path),
        version=_version(options),
        nodes=options["nodes"],
        authority=contents.certificates(options["authority"].encode()),
        prefixes=options["encryption_prefixes"],
        quota=options["quota"],
    )


def unpack(
    path: str,
    directory: str,
    options: Mapping[str, Any],
    *,
    name: str,
    peer_url: str,
    token: str,
    more: Sequence[str] = (),
    before: Callable[[], None] = etcdctl.end_with_parent,
) -> None:
    """A snapshot's data for a member `name` that begins alone, in a directory that is not there. Raises EtcdError."""
    try:
        etcdctl.run(
            *("snapshot", "restore", path, "--data-dir", directory, "--name", name),
            *("--initial-cluster", f"{name}={peer_url}", "--initial-advertise-peer-urls", peer_url),
            *("--initial-cluster-token", token, *more),
            program=options["etcdutl"],
            environment=options["environment"],
            timeout=options["timeout"],
            before=before,
        )
    except subprocess.TimeoutExpired as error:
        raise EtcdError(
            f"nothing was changed: etcdutl snapshot restore was not done within {options['timeout']} s (timeout)"
        ) from error
    except subprocess.SubprocessError as error:
        raise EtcdError(f"nothing was changed: etcdutl snapshot restore: {etcdctl.reason(error)}") from error


def _restore(path: str, options: Mapping[str, Any]) -> None:
    directory = options["data_dir"]
    _clear(options)
    final = os.path.join(directory, _restored(options))
    part = f"{final}.part"
    unpack(
        path,
        part,
        options,
        name=options["name"],
        peer_url=options["peer_url"],
        # Members of the cluster that was must never meet those of this one, which have the same addresses.
        token=f"{options['name']}-restored-{options['id']}",
        # Who watched the cluster that was must see no time going backwards, and has to list anew.
        more=("--bump-revision", str(options["bump"]), "--mark-compacted"),
    )
    owner = os.stat(directory)
    for place, directories, files in os.walk(part):
        for entry in ("", *directories, *files):
            os.chown(os.path.join(place, entry), owner.st_uid, owner.st_gid)
    os.sync()
    os.rename(part, final)
    sync_directory(directory)


def _clear(options: Mapping[str, Any]) -> None:
    """Removes what was prepared for other restores, and never placed."""
    if record(options["record"]).get("id") != options["id"]:
        remove_file(options["record"])
    for left in os.listdir(options["data_dir"]):
        if _UNFINISHED.fullmatch(left) and left != _restored(options):
            shutil.rmtree(os.path.join(options["data_dir"], left))


def _aside(call: Call) -> dict[str, Any]:
    """The member's data out of etcd's way, for good: this also keeps it from starting with what it had."""
    options = call.options
    aside = os.path.join(options["data_dir"], _ASIDE.format(options["id"]))
    living = os.path.join(options["data_dir"], LIVING)
    if os.path.isdir(aside):
        return {"changed": False, "plan": [], "aside": aside}
    there = os.path.isdir(living)
    _refuse_running(living)
    if not call.check_mode:
        _clear(options)
        if there:
            os.rename(living, aside)
        else:
            # Says on later calls that what is there by then was made after this.
            os.mkdir(aside, 0o700)
        sync_directory(options["data_dir"])
    plan = [f"move {living} to {aside}" if there else f"there is no {living} to keep"]
    return {"changed": True, "plan": plan, "aside": aside}


def _placed(call: Call) -> dict[str, Any]:
    """The prepared data in the member's place, where it finds it when it starts."""
    options = call.options
    living = os.path.join(options["data_dir"], LIVING)
    restored = os.path.join(options["data_dir"], _restored(options))
    own = record(options["record"])
    if own.get("id") != options["id"]:
        raise EtcdError(f"no data was prepared for the restore {options['id']}; run playbooks/restore.yml again")
    prepared = os.path.join(restored, LIVING)
    if not os.path.isdir(prepared):
        if not os.path.isdir(living):
            raise EtcdError(f"{prepared} is not there any more; run playbooks/restore.yml again")
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(restored)
        return {"changed": False, "plan": [], **_told(own)}
    if os.path.isdir(living) and not call.check_mode:
        raise EtcdError(f"{living} is still in its place, and was not replaced; run playbooks/restore.yml again")
    if not call.check_mode:
        os.rename(prepared, living)
        os.rmdir(restored)
        sync_directory(options["data_dir"])
    return {"changed": True, "plan": [f"move {prepared} to {living}"], **_told(own)}


def _serving(call: Call) -> dict[str, Any]:
    """Waits for the restored member, removes what the snapshot has of API servers that are gone, and makes room."""
    options = call.options
    if call.check_mode:
        return {"changed": False, "plan": []}
    ask = functools.partial(etcdctl.run, program=options["etcdctl"], environment=options["environment"])
    deadline = time.monotonic() + options["timeout"]
    while True:
        try:
            ask(*etcdctl.SERVES)
            gone = json.loads(ask("del", "--prefix", _ADDRESSES, "-w", "json"))
            count = int(gone.get("deleted") or 0)
            plan = [f"remove {count} addresses of API servers from the snapshot's time"] if count else []
            revision = int(gone["header"]["revision"])
            break
        except (*FAULTS, LookupError) as error:
            if time.monotonic() > deadline:
                raise EtcdError(
                    f"waiting for the restored member to serve: not done within {options['timeout']} s (timeout); "
                    f"it says: {etcdctl.reason(error)}; journalctl -u etcd"
                ) from error
        time.sleep(_RETRY_S)
    plan += _writable(options)
    return {"changed": bool(plan), "plan": plan, "revision": revision}


def _writable(options: Mapping[str, Any]) -> list[str]:
    """Lets the restored member take writes, and returns what had to be done for that. Raises EtcdError.

    The alarm NOSPACE is part of the data, and says so of a member that is gone; and the file has the size that it had.
    Nobody is served yet, so that it costs nobody anything.
    """
    given = with_defaults(
        "etcd_space",
        state="writable",
        # Nothing is defragmented but for the quota.
        percent=99,
        timeout=options["timeout"],
        etcdctl=options["etcdctl"],
        environment=options["environment"],
    )
    try:
        return list(etcd_space.run(Call(given))["plan"])
    except EtcdError as error:
        raise EtcdError(
            f"the restored etcd takes no writes: {error}. While the restore is under way, playbooks/etcd.yml does not "
            "run: delete on this node what is not needed (etcdctl del --prefix /registry/events/), and run "
            "playbooks/restore.yml again"
        ) from error


def _finished(call: Call) -> dict[str, Any]:
    """Ends the restore: the next one begins anew."""
    changed = bool(record(call.options["record"]))
    if changed and not call.check_mode:
        remove_file(call.options["record"])
    return {"changed": changed, "plan": [f"forget {call.options['record']}"] if changed else []}


_STATES = {
    "prepared": _prepared,
    "aside": _aside,
    "placed": _placed,
    "serving": _serving,
    "finished": _finished,
}


def _restored(options: Mapping[str, Any]) -> str:
    return _RESTORED.format(options["id"])


def _exists(options: Mapping[str, Any], name: str) -> bool:
    return os.path.isdir(os.path.join(options["data_dir"], name))


def _is_placed(options: Mapping[str, Any]) -> bool:
    return _exists(options, LIVING) and _exists(options, _ASIDE.format(options["id"]))


def _told(own: Mapping[str, Any]) -> dict[str, Any]:
    return {name: own.get(name) for name in ("snapshot", "revision", "keys")}


def _contents(path: str) -> contents.Contents:
    try:
        return contents.read(path)
    except (BoltError, ValueError) as error:
        raise EtcdError(f"nothing was changed: {path} is no whole snapshot: {error}") from error


def _version(options: Mapping[str, Any]) -> str:
    """Version of the etcd that is installed."""
    try:
        said = etcdctl.run("version", program=options["etcdutl"], environment=options["environment"]).decode()
    except FAULTS as error:
        raise EtcdError(f"nothing was changed: etcdutl version: {etcdctl.reason(error)}") from error
    found = re.search(r"(?m)^etcdutl version: (\S+)", said)
    if not found:
        raise EtcdError(f"nothing was changed: {options['etcdutl']} does not say its version")
    return found[1]


def _refuse_running(living: str) -> None:
    """Raises EtcdError while an etcd has the data open: it holds the lock of its database."""
    try:
        handle = os.open(os.path.join(living, "snap", "db"), os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise EtcdError(f"{living}: etcd has it open; stop etcd first: systemctl stop etcd") from error
    finally:
        os.close(handle)


MODULE = Module(ARGUMENT_SPECS["etcd_restore"], run, (EtcdError, FileError), RESTORE_RULES)
