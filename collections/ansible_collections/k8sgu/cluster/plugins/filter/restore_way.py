# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter restore_way."""

from __future__ import annotations

import contextlib
import datetime
import json
from dataclasses import asdict
from pathlib import PurePath
from typing import Any, Callable, Iterable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import restore_plan, snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.restore_plan import Place

DOCUMENTATION = r"""
name: restore_way
short_description: What a restore of etcd does, and what is lost by it
version_added: 0.1.0
description:
  - Chooses the snapshot, and the node that gets its data. A restore that was begun and cut off goes on with its own.
  - Of a snapshot that is in several places, the one on a member is taken, then the one in the state directory.
author:
  - The k8sgu authors (@k8sgu)
positional: wanted
options:
  _input:
    description:
      - Every member, by name, with the result of M(k8sgu.cluster.etcd_snapshot_info), or nothing where it could not be
        asked.
    type: dict
    required: true
  wanted:
    description: Name of the snapshot, or V(latest).
    type: str
    required: true
  state_dir:
    description: The snapshots in the controller's state directory, each with C(path) and C(size), in bytes.
    type: list
    elements: dict
    default: []
  bucket:
    description: Name of the bucket that has snapshots too; empty for none.
    type: str
    default: ""
  in_bucket:
    description: The result of M(k8sgu.cluster.backup_bucket) for it, which may have failed.
    type: dict
    default: {}
  opened:
    description: Text of C(opened.json) in the state directory, which is there if it came out of a backup.
    type: str
    default: ""
  last_restore:
    description: Text of C(last-restore.json) there, of the restore that was completed last.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Say what a restore would do
  ansible.builtin.debug:
    msg: "{{ (found | k8sgu.cluster.restore_way('latest')).lines | join('\n') }}"
"""

RETURN = r"""
_value:
  description: >-
    C(problem), why there is no way; C(lost), what is lost; C(source), the node that gets the data; C(snapshot); C(id)
    and C(bump) for M(k8sgu.cluster.etcd_restore); C(goes_on), whether a restore that was cut off is completed;
    C(brought), V(state_dir) or V(bucket) if the snapshot is brought to the node from there; C(spare), whether the
    bucket has what is brought; C(left_out), nodes that etcd never was on, which join afterwards; and C(lines), all of
    it in words.
  type: dict
"""


def restore_way(
    found: Any,
    wanted: str,
    state_dir: Iterable[Mapping[str, Any]] = (),
    bucket: str = "",
    in_bucket: Mapping[str, Any] | None = None,
    opened: str = "",
    last_restore: str = "",
) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise AnsibleFilterError("restore_way takes a dictionary of members")
    nodes = [{"name": name, "found": told or None} for name, told in found.items()]
    local = {PurePath(str(one["path"])).name: int(one["size"]) for one in state_dir}
    places = [Place(restore_plan.STATE_DIR, "state directory", local)]
    if bucket:
        told = in_bucket or {}
        problem = "" if "snapshots" in told else str(told.get("msg") or "it was not asked")
        sizes = {str(one["name"]): int(one["bytes"]) for one in told.get("snapshots", [])}
        places.append(Place(restore_plan.BUCKET, f"bucket {bucket}", sizes, problem))
    now = datetime.datetime.now(datetime.timezone.utc)
    return asdict(restore_plan.way(nodes, str(wanted), now, places, _opened(opened, last_restore)))


def _opened(opened: str, last_restore: str) -> datetime.datetime | None:
    """When the state directory came out of a backup; None if it did not, or a restore was completed since."""
    try:
        when = datetime.datetime.strptime(json.loads(opened)["opened"], snapshots.TIME)
    except (ValueError, LookupError, TypeError):
        return None
    with contextlib.suppress(ValueError, LookupError, TypeError):
        if datetime.datetime.strptime(json.loads(last_restore)["finished"], "%Y-%m-%dT%H:%M:%SZ") >= when:
            return None
    return when.replace(tzinfo=datetime.timezone.utc)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"restore_way": restore_way}
