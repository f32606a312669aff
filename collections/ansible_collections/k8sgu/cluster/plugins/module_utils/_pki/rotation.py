# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's files in the rotation of CAs and of the key that signs service-account tokens.

The rule: a CA may sign only after everybody trusts it, and may go only when nothing that it signed is in use.
https://kubernetes.io/docs/tasks/tls/manual-rotation-of-ca-certificates/

A record beside the files says what is rotated and which step was taken last; it changes in one transaction with them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Collection, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import (
    FileError,
    finish_replace,
    pending_files,
    remove_file,
    replace_together,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import (
    CRYPTOGRAPHY,
    LibraryMissing,
    require,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import signing_key
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import (
    ARGUMENT_SPECS,
    ROTATED,
    ROTATION_STEPS,
    SERVICE_ACCOUNT,
)

RECORD = "rotation.json"
OPTION = "k8sgu_rotate"


class RotationError(Exception):
    """The rotation cannot go on as asked; the text names the option or the file and says what to do."""


@dataclass(frozen=True)
class Names:
    """The file names of one that is rotated, without their directory.

    public, private, request: of the one that signs; `request` is empty where there is none. next_*: of the one that
    will. previous: the public part of the one that did. retired: the certificates of all that were, for recognising
    what they signed, under a name by which no report of certificates counts them; empty where nobody asks.
    """

    public: str
    private: str
    request: str
    next_public: str
    next_private: str
    next_request: str
    previous: str
    retired: str

    @property
    def next_files(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.next_public, self.next_private, self.next_request)))


def names_of(name: str) -> Names:
    if name == SERVICE_ACCOUNT:
        return Names("sa.pub", "sa.key", "", "sa-next.pub", "sa-next.key", "", "sa-previous.pub", "")
    return Names(
        f"{name}.pem",
        f"{name}-key.pem",
        f"{name}.csr",
        f"{name}-next.pem",
        f"{name}-next-key.pem",
        f"{name}-next.csr",
        f"{name}-previous.pem",
        f"{name}.retired",
    )


@dataclass(frozen=True)
class Record:
    """What is rotated, and the step that was taken last. Empty if no rotation is under way."""

    names: tuple[str, ...] = ()
    step: str = ""

    def to_bytes(self) -> bytes:
        return (json.dumps({"names": list(self.names), "step": self.step}, indent=2) + "\n").encode()


@dataclass(frozen=True)
class Plan:
    """files: {name: content and mode} that are written in one transaction; remove: names that go afterwards."""

    record: Record
    changes: tuple[str, ...] = ()
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    remove: tuple[str, ...] = ()


def parse(content: bytes | None, path: str) -> Record:
    """Raises RotationError."""
    if content is None:
        return Record()
    try:
        document = json.loads(content)
        record = Record(tuple(map(str, document["names"])), str(document["step"]))
    except (ValueError, KeyError, TypeError):
        record = Record()
    if not record.names or set(record.names) - set(ROTATED) or record.step not in ROTATION_STEPS:
        raise RotationError(
            f"path: {path} is not a record of a rotation. Restore it from a backup: without it nobody knows which CAs"
            " the nodes are to trust"
        )
    return record


def chosen(record: Record, asked: Collection[str]) -> tuple[str, ...]:
    """What this run rotates. Raises RotationError where that contradicts what is under way."""
    wanted = tuple(name for name in ROTATED if name in asked)
    if not record.step:
        if not wanted:
            raise RotationError(
                f"{OPTION}: says nothing, and no rotation is under way. Name what is to be rotated, as in"
                f' -e \'{{"{OPTION}": ["kubernetes-ca"]}}\'; there are {", ".join(ROTATED)}'
            )
        return wanted
    if set(wanted) - set(record.names):
        raise RotationError(
            f"{OPTION}: names {', '.join(wanted)}, and the rotation of {', '.join(record.names)} is under way"
            f" (step {record.step}). Complete that first, by a run without {OPTION}; then rotate the others"
        )
    return record.names


def plan(record: Record, asked: Sequence[str], step: str, files: Mapping[str, bytes]) -> Plan:
    """The files and the record after `step`; each step is idempotent. Raises RotationError.

    files: {name without directory: content} of all that are there.
    planned: nothing; says what would be rotated. added: the next ones are to be made, which role pki does. promoted:
    they sign. dropped: the ones before are trusted no more. finished: the rotation is over.
    """
    if step == "finished":
        if record.step not in ("", "dropped"):
            raise RotationError(f"state: finished comes after dropped, and {record.step} was the last step")
        return Plan(Record(), ("the rotation is over",) if record.step else (), {}, (RECORD,) if record.step else ())
    names = chosen(record, asked)
    if step == "planned":
        return Plan(Record(names, record.step))
    done = ROTATION_STEPS.index(record.step) if record.step else -1
    at = ROTATION_STEPS.index(step)
    if at > done + 1:
        raise RotationError(f"state: {step} comes after {ROTATION_STEPS[at - 1]}; take that step first")
    if at < done:
        return Plan(record)
    after = Record(names, step)
    changes: list[str] = []
    content: dict[str, tuple[bytes, int]] = {}
    remove: list[str] = []
    for name in names:
        if step == "added" and at > done:
            changes.append(f"{name}: another one is made, and trusted beside the present one")
        if step == "promoted":
            if at > done:
                content.update(_promoted(name, files))
                changes.append(f"{name}: the new one signs")
            remove += [left for left in names_of(name).next_files if left in files]
        if step == "dropped":
            previous, retired = names_of(name).previous, names_of(name).retired
            if at > done:
                changes.append(f"{name}: the one before is trusted no more")
                if retired:
                    content[retired] = (files.get(retired, b"") + files.get(previous, b""), 0o600)
            if previous in files:
                remove.append(previous)
    if after != record:
        content[RECORD] = (after.to_bytes(), 0o600)
    if not changes and remove:
        changes = [f"{name} is left from a run that was cut off, and is removed" for name in remove]
    return Plan(after, tuple(changes), content, tuple(remove))


def lines(record: Record) -> list[str]:
    """What is left of the rotation, in words, in its order."""
    names = ", ".join(record.names)
    done = ROTATION_STEPS.index(record.step) if record.step else -1
    service_account, cluster = SERVICE_ACCOUNT in record.names, "kubernetes-ca" in record.names
    where = " and ".join(
        [
            *(["every member of etcd"] if "etcd-ca" in record.names else []),
            "every control-plane node",
            *(["every node"] if {"kubernetes-ca", "kubelet-client-ca"} & set(record.names) else []),
        ]
    )
    restarts = "restart by rolling update what in pods may call the API, since clients read the CA when they start"
    found = []
    if done < 1:
        found.append(f"{'bring' if done == 0 else 'make'} another {names}, trusted beside the present, to {where}")
        found += [f"wait until every pod has the new CA too, and {restarts}"] if cluster else []
    if done < 2:
        found.append(f"let the new {names} sign, with new certificates on {where}, one node after the other")
        found += ["let every kubelet ask for a new client certificate"] if "kubelet-client-ca" in record.names else []
        found += ["wait until every pod has a token that the new key signed"] if service_account else []
        found.append("prove that nothing that the former one signed is in use")
    found.append(f"end the trust in the former {names} on {where}")
    found += [f"wait until no pod has the former CA, and {restarts}"] if cluster else []
    return [*found, "verify the cluster"]


def _promoted(name: str, files: Mapping[str, bytes]) -> dict[str, tuple[bytes, int]]:
    own = names_of(name)
    missing = [file for file in (*own.next_files, own.public, own.private) if file not in files]
    if missing:
        raise RotationError(
            f"path: {', '.join(missing)} is missing, and {name} was to be rotated. Role pki makes the next ones; lost"
            " ones come from a backup"
        )
    # Keys of others, whose tokens are accepted too, stay.
    others = b"" if own.request else signing_key.other_keys(files[own.private], files[own.public], own.private)
    made = {
        own.public: (files[own.next_public] + others, 0o644),
        own.private: (files[own.next_private], 0o600),
        own.previous: (files[own.public], 0o644),
    }
    if own.request:
        made[own.request] = (files[own.next_request], 0o644)
    return made


def run(call: Call) -> dict[str, Any]:
    """Takes a step and returns the module's result. Raises RotationError, SigningKeyError, FileError."""
    require(CRYPTOGRAPHY)
    directory, step = call.options["path"], call.options["state"]
    writes = not call.check_mode and step != "planned"
    if writes:
        finish_replace(directory)
    asked = call.options["names"]
    files = read(directory, pending_files(directory))
    planned = plan(parse(files.get(RECORD), os.path.join(directory, RECORD)), asked, step, files)  # noqa: PTH118
    if planned.changes and writes:
        replace_together({os.path.join(directory, name): what for name, what in planned.files.items()})  # noqa: PTH118
        for name in planned.remove:
            remove_file(os.path.join(directory, name))  # noqa: PTH118
    return {
        "changed": bool(planned.changes),
        "names": list(planned.record.names),
        "step": planned.record.step,
        "changes": list(planned.changes),
        "plan": lines(planned.record) if planned.record.names else [],
        "diff": {"before": "", "after": "".join(f"{change}\n" for change in planned.changes)},
    }


def read(directory: str, pending: Mapping[str, str]) -> dict[str, bytes]:
    """The files of a rotation that are there, as the next run would find them. Raises RotationError."""
    found = {}
    for name in [RECORD, *(file for one in ROTATED for file in vars(names_of(one)).values() if file)]:
        path = os.path.join(directory, name)  # noqa: PTH118
        try:
            found[name] = Path(pending.get(name, path)).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RotationError(f"path: {path} cannot be read ({error.strerror}); run as its owner") from None
    return found


MODULE = Module(
    ARGUMENT_SPECS["ca_rotation"], run, (RotationError, signing_key.SigningKeyError, FileError, LibraryMissing)
)
