# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of the module: reads every file, plans all, and only then writes."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import (
    FileError,
    atomic_write,
    backup_file,
    remove_file,
    resolve_destination,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.document import (
    ConfigError,
    Document,
    dump,
    load,
    masked,
    secrets_of,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.options import (
    ARGUMENT_SPEC,
    RULES,
    Register,
    both_given,
    desired,
    requests,
    secrets_of_options,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.plan import plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import YAML, LibraryMissing, require
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module


class Ownership(NamedTuple):
    """Permission bits and numeric ids; -1 leaves an id as it is."""

    mode: int
    uid: int
    gid: int


class FilePlan(NamedTuple):
    """The plan for one file. `after` None: it is removed, or there is nothing to do."""

    path: str
    text: bytes | None
    before: Document | None
    after: Document | None
    changes: list[str]
    warnings: list[str]
    rewrite: bool


def run(call: Call) -> dict[str, Any]:
    """Changes the files as the options say. Raises ConfigError, FileError and LibraryMissing."""
    require(YAML)
    params, check_mode, register = call.options, call.check_mode, call.hidden.add
    for secret in secrets_of_options(params):
        register(secret)
    ownership = _ownership(params)
    plans = [
        _plan_file(prefix, request, params, ownership, check_mode, register) for prefix, request in requests(params)
    ]
    paths = [item.path for item in plans]
    for path in paths:
        if paths.count(path) > 1:
            raise ConfigError(f"kubeconfigs: {path} is given twice; give each file once")
    results = []
    for item in plans:
        backup = None if check_mode or not item.changes else _apply(item, ownership, params["backup"])
        results.append(_result(item, backup))
    result: dict[str, Any] = {
        "changed": any(item.changes for item in plans),
        "changes": [f"{item.path}: {change}" for item in plans for change in item.changes],
        "kubeconfigs": results,
        "diff": [_diff(item) for item in plans if item.changes],
    }
    call.warnings += [f"{item.path}: {warning}" for item in plans for warning in item.warnings]
    if len(results) == 1 and results[0].get("backup_file"):
        result["backup_file"] = results[0]["backup_file"]
    return result


def _plan_file(
    prefix: str,
    request: dict[str, Any],
    params: dict[str, Any],
    ownership: Ownership,
    check_mode: bool,
    register: Register,
) -> FilePlan:
    path = request["path"]
    real = resolve_destination(path)
    text = _read(path, real)
    before = None
    if text is not None:
        before = load(text, path)
        for secret in secrets_of(before):
            register(secret)
    if params["state"] == "absent":
        changes = ["the file is removed"] if text is not None else []
        return FilePlan(real, text, before, None, changes, [], False)
    given = ("clusters", "users", "contexts", "current_context")
    if all(request[name] is None for name in given):
        raise ConfigError(f"{prefix}clusters: nothing is asked for; give at least one of {', '.join(given)}")
    both = both_given(request)
    if both:
        raise ConfigError(f"{prefix}{both[0]}: is given together with {both[1]}; give one of the two")
    wanted = desired(prefix, request, check_mode, register)
    directory = Path(real).parent

    def referenced(name: str) -> bytes | None:
        # kubectl takes a relative path from the kubeconfig's own directory.
        try:
            return (directory / name).read_bytes()
        except OSError:
            return None  # for example a certificate that the kubelet will fetch later

    planned = plan(before, wanted, referenced)
    changes = list(planned.changes)
    rewrite = bool(changes)
    if text is not None:
        changes += _ownership_changes(real, ownership)
    return FilePlan(real, text, before, planned.document, changes, planned.warnings, rewrite)


def _read(path: str, real: str) -> bytes | None:
    try:
        return Path(real).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"path: {path} cannot be read ({error.strerror})") from None


def _apply(item: FilePlan, ownership: Ownership, backup: bool) -> str | None:
    if item.after is None:
        saved = backup_file(item.path) if backup else None
        remove_file(item.path)
        return saved
    if item.rewrite:
        if item.text is not None and _read(item.path, item.path) != item.text:
            raise ConfigError(f"path: {item.path} was changed by another program meanwhile; run again")
        uid, gid = ownership.uid, ownership.gid
        if item.text is not None:  # a replaced file keeps its owner
            status = Path(item.path).stat()
            uid = status.st_uid if uid == -1 else uid
            gid = status.st_gid if gid == -1 else gid
        return atomic_write(item.path, dump(item.after), ownership.mode, uid, gid, directory_mode=0o700, backup=backup)
    try:
        os.chown(item.path, ownership.uid, ownership.gid)
        Path(item.path).chmod(ownership.mode)
    except OSError as error:
        raise ConfigError(f"mode: {item.path} cannot be given its owner or mode ({error.strerror})") from None
    return None


def _ownership(params: dict[str, Any]) -> Ownership:
    try:
        mode = int(params["mode"], 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise ConfigError('mode: is not an octal mode in quotes such as "0600"')
    return Ownership(
        mode, _identity("owner", params["owner"], _user_id), _identity("group", params["group"], _group_id)
    )


def _user_id(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _group_id(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _identity(option: str, name: str | None, look_up: Callable[[str], int]) -> int:
    if name is None:
        return -1
    if name.isdigit():
        return int(name)
    try:
        return look_up(name)
    except KeyError:
        raise ConfigError(f"{option}: '{name}' does not exist on this machine; create it or name another") from None


def _ownership_changes(path: str, ownership: Ownership) -> list[str]:
    status = Path(path).stat()
    old = stat.S_IMODE(status.st_mode)
    changes = []
    if old != ownership.mode:
        changes.append(f"mode {old:04o} becomes {ownership.mode:04o}")
    for option, is_now, wanted in (
        ("owner", status.st_uid, ownership.uid),
        ("group", status.st_gid, ownership.gid),
    ):
        if wanted not in (-1, is_now):
            changes.append(f"{option} {is_now} becomes {wanted}")
    return changes


def _result(item: FilePlan, backup: str | None) -> dict[str, Any]:
    document = item.after or {}
    result: dict[str, Any] = {
        "path": item.path,
        "changed": bool(item.changes),
        "changes": item.changes,
        "contexts": [entry["name"] for entry in document.get("contexts") or []],
        "current_context": document.get("current-context") or "",
    }
    if backup:
        result["backup_file"] = backup
    return result


def _diff(item: FilePlan) -> dict[str, str]:
    before, after = _diff_texts(item)
    return {
        "before_header": item.path,
        "after_header": item.path,
        "before": before,
        "after": after,
    }


def _diff_texts(item: FilePlan) -> tuple[str, str]:
    before = masked(item.before)
    after = masked(item.after, item.before)
    if item.after is not None and not item.rewrite:  # only owner and mode change
        return before, after + "".join(f"# {change}\n" for change in item.changes)
    return before, after


MODULE = Module(ARGUMENT_SPEC, run, (ConfigError, FileError, LibraryMissing), RULES)
