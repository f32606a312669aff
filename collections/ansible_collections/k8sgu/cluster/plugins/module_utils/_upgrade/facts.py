# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from a node what decides whether it can get another release. Standard library only: it runs on nodes."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import INSTALL_ROOT
from ansible_collections.k8sgu.cluster.plugins.module_utils._node import audit_events, membership
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import certificate_scan
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import member, programs

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

CERTIFICATES = ("/etc/kubernetes", "/etc/etcd/pki", "/etc/containerd/pki", "/var/lib/kubelet/pki")
KUBELET_CONFIG = "var/lib/kubelet/config.yaml"
CRICTL = "/opt/k8sgu/crictl/current/crictl"
AUDIT_LOG = "var/log/kubernetes/audit.log"
# Who used an API is looked for in this time; longer ago, a client may be another one by now.
AUDIT_DAYS = 7
# https://kubernetes.io/docs/reference/labels-annotations-taints/audit-annotations/
REMOVED = "k8s.io/removed-release"


def run(call: Call) -> dict[str, Any]:
    return execute(call.options)


def execute(options: Mapping[str, Any]) -> dict[str, Any]:
    """The result of the module upgrade_facts; its action plugin has filled in `prepared` (of wanted.wanted)."""
    return {"changed": False, "facts": facts(Path("/"), options)}


def facts(root: Path, options: Mapping[str, Any], ask: programs.Ask = programs.ask) -> dict[str, Any]:
    wanted = options["prepared"] or {"files": [], "images": [], "versions": {}, "gates": {}}
    there = programs.files(root, wanted["files"], wanted["versions"])
    release = programs.places(root, there)
    back_to = str(wanted["versions"].get("etcd") or "") if options["back"] else ""
    certificates, unread = certificate_scan.find([str(root / path.lstrip("/")) for path in CERTIFICATES])
    return {
        "architecture": os.uname().machine,
        "installed": membership.programs(root),
        "running": programs.running(root),
        "files": there,
        "images": images(wanted["images"], ask),
        "disks": {
            name: disk(root, path)
            for name, path in (
                ("programs", INSTALL_ROOT),
                ("images", options["image_directory"]),
                ("snapshot", options["snapshot_directory"]),
                ("root", "/"),
            )
            if path
        },
        "known": programs.known_flags(release) if options["ask_programs"] else {},
        "refused_gates": programs.refused_gates(release, wanted["gates"]),
        "kubelet_config": kubelet_config(root, release),
        "etcd": member.member(options["member"], back_to) if options["member"] else {},
        "certificates": [item._asdict() for item in certificates],
        "certificates_unread": unread,
        "deprecated": deprecated(root / AUDIT_LOG, datetime.datetime.now(datetime.timezone.utc)),
    }


def disk(root: Path, path: str) -> dict[str, Any]:
    """The file system of a path, or of the nearest directory above it that is there: `free` bytes, and its number."""
    place = root / path.lstrip("/")
    while not place.is_dir() and place != root:
        place = place.parent
    status = os.statvfs(place)
    return {"path": path, "device": os.stat(place).st_dev, "free": status.f_bavail * status.f_frsize}  # noqa: PTH116


def images(wanted: Sequence[Mapping[str, Any]], ask: programs.Ask) -> dict[str, Any]:
    """Each of a release's images with its `state` in the runtime: there, missing, or different (another digest).

    One that the mirror lacks has no digest.
    """
    if not wanted:
        return {"problem": "", "images": []}
    try:
        status, said = ask([CRICTL, "images", "-o", "json"])
        answer = json.loads(said) if not status else {}
    except (*programs.FAULTS, ValueError) as error:
        return {"problem": str(error), "images": []}
    if status:
        return {"problem": programs.reason(said, status), "images": []}
    by_tag = {tag: image for image in answer.get("images") or () for tag in image.get("repoTags") or ()}
    found = []
    for item in wanted:
        image = by_tag.get(item["name"])
        digests = [digest.partition("@")[2] for digest in (image or {}).get("repoDigests") or ()]
        state = "missing"
        if image is not None:
            # Docker keeps no digest of an image that was pulled by another name.
            state = "there" if not digests or not item["digest"] or item["digest"] in digests else "different"
        found.append({"name": item["name"], "size": int(item["size"]), "state": state})
    return {"problem": "", "images": found}


def kubelet_config(root: Path, release: Mapping[str, str]) -> dict[str, Any]:
    """Whether the release's kubelet takes this node's configuration; `asked` is false where it is not there yet."""
    config = root / KUBELET_CONFIG
    if "kubelet" not in release or not config.is_file():
        return {"asked": False, "problem": ""}
    try:
        problem = programs.kubelet_configuration(release["kubelet"], config)
    except OSError as error:
        problem = str(error)
    return {"asked": True, "problem": problem}


def deprecated(log: Path, now: datetime.datetime) -> list[dict[str, Any]]:
    """Who used an API that a release removes, from the audit log: one row for each API, user and program."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    with contextlib.suppress(OSError):
        for path in audit_events.logs(log, now - datetime.timedelta(days=AUDIT_DAYS)):
            with path.open(encoding="utf-8", errors="replace") as stream:
                for line in stream:
                    if REMOVED in line:
                        _count(line, found)
    return list(found.values())


def _count(line: str, found: dict[tuple[str, ...], dict[str, Any]]) -> None:
    try:
        event = json.loads(line)
        removed = str(event["annotations"][REMOVED])
        reference = event["objectRef"]
        row = {
            "group": str(reference.get("apiGroup") or ""),
            "version": str(reference["apiVersion"]),
            "resource": str(reference["resource"]),
            "removed": removed,
            "user": str((event.get("user") or {}).get("username") or ""),
            "agent": str(event.get("userAgent") or ""),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # cut off, or an event of another kind
    entry = found.setdefault(tuple(row.values()), {**row, "count": 0, "last": ""})
    entry["count"] += 1
    entry["last"] = max(entry["last"], str(event.get("requestReceivedTimestamp") or ""))
