# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates of what the API server has: APIs that go, versions that nobody serves, and what blocks changes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.selectors import selects
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.readiness import condition
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import BACK, Asked, Gate, Object, minor, some

# https://kubernetes.io/docs/reference/instrumentation/metrics/
METRIC = "apiserver_requested_deprecated_apis"
STARTED = "process_start_time_seconds"
_SAMPLE = re.compile(rf"^{METRIC}\{{(?P<labels>.*)\}} (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_FAILED = re.compile(r'failed calling webhook "(?P<name>[^"]+)": (?P<why>.*)', re.DOTALL)
# What an upgrade changes: nodes are cordoned, pods evicted and made anew, leases renewed, and our own objects applied.
CHANGED = (
    ("", "nodes"),
    ("", "nodes/status"),
    ("", "pods"),
    ("", "pods/binding"),
    ("", "pods/eviction"),
    ("", "pods/status"),
    ("", "configmaps"),
    ("", "serviceaccounts/token"),
    ("", "services"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("certificates.k8s.io", "certificatesigningrequests"),
    ("coordination.k8s.io", "leases"),
    ("discovery.k8s.io", "endpointslices"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
)


def answered(asked: Asked) -> Gate:
    """The API server answered; without that nothing of it is known."""
    problem = asked.api.problem
    return Gate("api", (problem,) if problem else (), "the API server answered everything")


def deprecated_of(text: str) -> tuple[str, list[dict[str, str]]]:
    """From an API server's metrics: when it started, and the deprecated APIs that it was asked for since."""
    started, found = "", []
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample and float(sample["value"]) > 0:
            found.append(dict(_LABEL.findall(sample["labels"])))
        elif line.startswith(f"{STARTED} "):
            started = line.partition(" ")[2]
    return started, found


def name_of(item: Mapping[str, str]) -> str:
    """RESOURCE.VERSION.GROUP, as kubectl takes it."""
    return ".".join(part for part in (item["resource"], item["version"], item["group"]) if part)


def going(asked_metrics: Sequence[Sequence[Mapping[str, str]]], target: str) -> list[dict[str, str]]:
    """The APIs in use that are removed by the target version, each once, without subresources."""
    found: dict[str, dict[str, str]] = {}
    for server in asked_metrics:
        for item in server:
            if minor(item.get("removed_release") or "") and minor(item["removed_release"]) <= minor(target):
                found.setdefault(name_of(item), dict(item))
    return [found[name] for name in sorted(found)]


def removed_apis(asked: Asked) -> Gate:
    """No API in use is removed by the release."""
    servers = len(asked.api.metrics)
    expected = sum(1 for machine in asked.control_plane if machine.facts["running"].get("kube-apiserver"))
    problems: list[str] = []
    if asked.direction == BACK:
        return Gate("removed APIs", (), "an older release removes none")
    if not asked.api.problem and servers < expected:
        problems.append(
            f"{servers} of {expected} API servers told through the API's address which old APIs they were asked for; "
            "is one out of the load balancer? Look at its targets, and run this again"
        )
    audited: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for machine in asked.control_plane:
        for row in machine.facts["deprecated"]:
            if minor(row["removed"]) <= minor(asked.target):
                audited.setdefault(name_of(row), {}).setdefault(row["removed"], []).append(row)
    removed = {name_of(item): item["removed_release"] for item in going(asked.api.metrics, asked.target)}
    removed.update({name: next(iter(rows)) for name, rows in audited.items() if name not in removed})
    for name in sorted(removed):
        rows = [row for rows in audited.get(name, {}).values() for row in rows]
        rows.sort(key=lambda row: row["last"], reverse=True)
        users = list(dict.fromkeys(f"{row['user']} ({row['agent']}), last {row['last'][:19]}Z" for row in rows))
        managers = list(asked.api.managers.get(name) or ())
        who = f"used by {some(users)}" if users else "used by somebody whom the audit logs no longer have"
        wrote = f"; objects were written by it: {some(managers)}" if managers else ""
        problems.append(
            f"{name}: is removed in {removed[name]}, and it is {who}{wrote}; have these use the version that stays "
            "(https://kubernetes.io/docs/reference/using-api/deprecation-guide/), and restart the API servers one by "
            "one, since they count from their start on"
        )
    return Gate("removed APIs", tuple(problems), f"{servers} API servers were asked for none that goes")


def stored_versions(asked: Asked) -> Gate:
    """Nothing is stored in a version of a CustomResourceDefinition that is not served."""
    problems = []
    for item in asked.api.definitions:
        served = {version["name"] for version in item["spec"]["versions"] if version.get("served")}
        stored = (item.get("status") or {}).get("storedVersions") or ()
        name = item["metadata"]["name"]
        problems += [
            f"CustomResourceDefinition {name}: objects may be stored as {version}, which is not served (served: "
            f"{', '.join(sorted(served)) or 'none'}); serve it again, or write every object anew (kubectl get {name} "
            "-A -o json | kubectl replace -f -) and take it out of status.storedVersions"
            for version in stored
            if version not in served
        ]
    return Gate("stored versions", tuple(problems), f"{len(asked.api.definitions)} CustomResourceDefinitions")


def aggregated(asked: Asked) -> Gate:
    """Every APIService answers: without one, namespaces cannot be deleted and clients fail to discover."""
    problems = []
    for item in asked.api.services:
        available = condition(item, "Available")
        if available.get("status") != "True":
            why = str(available.get("message") or "nobody says why").rstrip(".")
            name = item["metadata"]["name"]
            way = f"start what serves it, or kubectl delete apiservice {name}"
            problems.append(f"APIService {name}: is not available ({why}); {way}")
    return Gate("aggregated APIs", tuple(problems), f"{len(asked.api.services)} are available")


def webhooks(asked: Asked) -> Gate:
    """No admission webhook fails closed for what an upgrade changes while nobody answers for it."""
    told: dict[str, str] = {}
    way = "start what answers for it, or have it ignore failures (failurePolicy: Ignore), or delete its configuration"
    # What the API server itself said when it was asked to try.
    for probe in asked.api.probes:
        failed = _FAILED.search(probe["error"])
        if failed:
            told.setdefault(
                failed["name"],
                f"admission webhook {failed['name']}: the API server cannot reach it when it is to {probe['what']} "
                f"({failed['why'].strip()}); {way}",
            )
    for configuration in asked.api.webhooks:
        for hook in configuration.get("webhooks") or ():
            service = hook["clientConfig"].get("service")
            key = f"{service['namespace']}/{service['name']}" if service else ""
            # Of one outside the cluster only the API servers know whether it answers.
            if hook["name"] in told or not service or asked.api.backends.get(key) or not _blocks(hook, asked):
                continue
            what = ", ".join(sorted({name for group, name in CHANGED if _matches(hook, group, name)}))
            told[hook["name"]] = (
                f"admission webhook {hook['name']} ({configuration['kind']} {configuration['metadata']['name']}): "
                f"fails closed for {what}, and its Service {key} has no endpoint that is ready; {way}"
            )
    count = sum(len(configuration.get("webhooks") or ()) for configuration in asked.api.webhooks)
    tried = len(asked.api.probes)
    return Gate("webhooks", tuple(told.values()), f"{count} webhooks; {tried} changes were tried without being made")


def _blocks(hook: Object, asked: Asked) -> bool:
    if (hook.get("failurePolicy") or "Fail") != "Fail":
        return False
    if not any(_matches(hook, group, name) for group, name in CHANGED):
        return False
    selector = hook.get("namespaceSelector") or {}
    labels = [item["metadata"].get("labels") or {} for item in asked.api.namespaces]
    return not labels or any(selects(selector, one) for one in labels)


def _matches(hook: Object, group: str, name: str) -> bool:
    return any(_rule(rule, group, name) for rule in hook.get("rules") or ())


def _rule(rule: Object, group: str, name: str) -> bool:
    """https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-rules"""
    if not {"*", group} & set(rule.get("apiGroups") or ()):
        return False
    resource, _slash, subresource = name.partition("/")
    patterns = {"*/*", name, f"{resource}/*"} | ({f"*/{subresource}"} if subresource else {"*"})
    return bool(patterns & set(rule.get("resources") or ()))
