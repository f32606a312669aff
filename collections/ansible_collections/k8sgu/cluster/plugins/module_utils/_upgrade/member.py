# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads etcd from a node that has a member, by etcdctl. Standard library only: it runs on nodes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl, versions
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import Members

FAULTS = (subprocess.SubprocessError, OSError, ValueError, LookupError, TypeError)
# https://github.com/etcd-io/etcd/blob/main/api/etcdserverpb/rpc.proto, AlarmType
ALARMS = {1: "NOSPACE", 2: "CORRUPT"}
# Nothing is waited for.
OPTIONS = {"etcdctl": etcdctl.PROGRAM, "environment": etcdctl.ENVIRONMENT, "timeout": 0}


def member(name: str, version: str = "", members: Any = None, run: etcdctl.Etcdctl = etcdctl.run) -> Any:
    """What the member of this name says of itself and of the others; `problem` says why it says nothing.

    `version`: that of a release before, to which etcd is asked whether it would go back.
    """
    asked = members or Members(OPTIONS)
    try:
        listed = asked.read()
    except EtcdError as error:
        return {"problem": str(error)}
    answers = {one.shown: asked.status(one) for one in listed}
    own = answers.get(name) or {}
    if not own:
        return {"problem": f"there is none of the name {name}" if name not in answers else "it does not answer"}
    running = [versions.parse(one, answers[one.shown]) for one in listed if answers[one.shown]]
    healthy = asked.healthy(listed)
    alarms, alarms_problem = _alarms({one.id: one.shown for one in listed}, run)
    return {
        "problem": "",
        "size": int(own["dbSize"]),
        "in_use": int(own.get("dbSizeInUse") or 0),
        # https://etcd.io/docs/v3.6/op-guide/maintenance/#space-quota: members tell it from 3.6 on.
        "quota": int(own.get("dbSizeQuota") or 0),
        "running": [asdict(one) for one in running],
        "silent": [one.shown for one in listed if one.id not in healthy],
        "alarms": alarms,
        "alarms_problem": alarms_problem,
        "back": _back(running, version, run) if version else "",
    }


def _alarms(names: dict[int, str], run: etcdctl.Etcdctl) -> tuple[list[dict[str, str]], str]:
    try:
        answer = json.loads(run("alarm", "list", "-w", "json"))
    except FAULTS as error:
        return [], etcdctl.reason(error)
    found = []
    for alarm in answer.get("alarms") or ():
        ident, kind = int(alarm.get("memberID") or 0), alarm.get("alarm") or 0
        found.append({"member": names.get(ident) or f"{ident:x}", "alarm": str(ALARMS.get(kind, kind))})
    return found, ""


def _back(running: list[versions.Running], version: str, run: etcdctl.Etcdctl) -> str:
    """Why etcd refuses to go back; empty where it would, or need not. It is asked, and nothing more."""
    steps = versions.ready([_quiet(one) for one in running], [], version).steps
    for step in steps:
        if step.kind == versions.ENABLE:
            try:
                run("downgrade", "validate", versions.shown(step.version))
            except FAULTS as error:
                return etcdctl.reason(error)
    return ""


def _quiet(one: versions.Running) -> versions.Running:
    return versions.Running(**{**asdict(one), "alarms": ()})
