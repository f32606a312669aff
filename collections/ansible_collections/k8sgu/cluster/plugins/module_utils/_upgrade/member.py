# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the node's member of etcd by etcdctl. Standard library only: it runs on nodes."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl

FAULTS = (subprocess.SubprocessError, OSError, ValueError, LookupError, TypeError)
VERSION_TIMEOUT_S = 5.0


def member(back_to: str = "", run: etcdctl.Etcdctl = etcdctl.run, version: Any = None) -> dict[str, Any]:
    """The member's own answers, and what it knows of the others. `problem` says why it did not answer.

    `back_to`: the version of a release before, about which etcd itself is asked where that is an older minor version.
    """
    try:
        status = json.loads(run("endpoint", "status", "-w", "json"))[0]["Status"]
        found: dict[str, Any] = {
            "problem": "",
            "version": str(status["version"]),
            "size": int(status["dbSize"]),
            "in_use": int(status.get("dbSizeInUse") or 0),
            # https://etcd.io/docs/v3.6/op-guide/maintenance/#space-quota: known from 3.6 on.
            "quota": int(status.get("dbSizeQuota") or 0),
            "leader": int(status.get("leader") or 0),
            "learner": bool(status.get("isLearner")),
            "errors": [str(error) for error in status.get("errors") or ()],
            "downgrade": str((status.get("downgradeInfo") or {}).get("targetVersion") or ""),
        }
        found["members"] = _members(json.loads(run("member", "list", "--consistency=s", "-w", "json")))
    except FAULTS as error:
        return {"problem": etcdctl.reason(error)}
    found["unhealthy"] = _unhealthy(found["members"], run)
    found["alarms"], found["alarms_problem"] = _alarms(found["members"], run)
    found["cluster_version"] = _cluster_version(version or _ask_version)
    older = numbers(back_to)[:2] < numbers(found["cluster_version"])[:2]
    found["back"] = _back("{}.{}.0".format(*numbers(back_to)), run) if back_to and older else ""
    return found


def _members(answer: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": int(one["ID"]),
            "name": str(one.get("name") or ""),
            "clients": [str(client) for client in one.get("clientURLs") or ()],
            "learner": bool(one.get("isLearner")),
        }
        for one in answer["members"]
    ]


def _unhealthy(members: list[dict[str, Any]], run: etcdctl.Etcdctl) -> dict[str, str]:
    """{name: why} of the members that do not answer."""
    found = {}
    for one in members:
        name = one["name"] or f"{one['id']:x}"
        if not one["clients"]:
            found[name] = "it has never started"
            continue
        kind = ("endpoint", "status") if one["learner"] else ("endpoint", "health")
        try:
            run(*kind, "--command-timeout=5s", "-w", "json", endpoints=",".join(one["clients"]))
        except FAULTS as error:
            found[name] = etcdctl.reason(error)
    return found


def _alarms(members: list[dict[str, Any]], run: etcdctl.Etcdctl) -> tuple[list[dict[str, str]], str]:
    names = {one["id"]: one["name"] for one in members}
    try:
        answer = json.loads(run("alarm", "list", "-w", "json"))
    except FAULTS as error:
        return [], etcdctl.reason(error)
    kinds = {1: "NOSPACE", 2: "CORRUPT"}
    found = []
    for alarm in answer.get("alarms") or ():
        ident, kind = int(alarm.get("memberID") or 0), alarm.get("alarm") or 0
        found.append({"member": names.get(ident) or f"{ident:x}", "alarm": str(kinds.get(kind, kind))})
    return found, ""


def _cluster_version(ask: Any) -> str:
    try:
        return str(json.loads(ask())["etcdcluster"])
    except FAULTS:
        return ""


def _ask_version() -> str:
    """The answer of etcd's path /version, which alone tells the cluster's version. Raises OSError."""
    settings = etcdctl.settings(etcdctl.ENVIRONMENT)
    context = ssl.create_default_context(cafile=settings["ETCDCTL_CACERT"])
    context.load_cert_chain(settings["ETCDCTL_CERT"], settings["ETCDCTL_KEY"])
    parts = urlsplit(settings["ETCDCTL_ENDPOINTS"].partition(",")[0])
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port, timeout=VERSION_TIMEOUT_S, context=context
    )
    try:
        connection.request("GET", "/version")
        return connection.getresponse().read(1 << 16).decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def _back(version: str, run: etcdctl.Etcdctl) -> str:
    """Why etcd refuses a downgrade; empty where it would take it. It is asked, and nothing more."""
    try:
        run("downgrade", "validate", version)
    except FAULTS as error:
        return etcdctl.reason(error)
    return ""
