# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every item of the API's objects: a hardened cluster passes, and without the protection it is FAIL or MANUAL."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis import items, policies, report
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError

NODE = json.loads(Path(__file__).with_name("node.json").read_text())
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLES, BINDINGS = f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings"
LOCAL_ROLES, LOCAL_BINDINGS = f"{RBAC}/roles", f"{RBAC}/rolebindings"
PODS, ACCOUNTS, NAMESPACES = "/api/v1/pods", "/api/v1/serviceaccounts", "/api/v1/namespaces"
SERVICES, NETWORK = "/api/v1/services", "/apis/networking.k8s.io/v1/networkpolicies"
OWN = {"kubernetes.io/bootstrapping": "rbac-defaults"}
EVERYBODY, EVE = {"kind": "Group", "name": "system:authenticated"}, {"kind": "User", "name": "eve"}


def role(name, *rules, namespace=None, labels=None):
    named = [
        dict(zip(("apiGroups", "resources", "verbs"), ([group], [resource], verbs))) for group, resource, verbs in rules
    ]
    return {"metadata": {"name": name, "namespace": namespace, "labels": labels or {}}, "rules": named}


def binding(name, role_name, *subjects, namespace=None, labels=None, kind="ClusterRole"):
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "roleRef": {"kind": kind, "name": role_name},
        "subjects": list(subjects),
    }


def account(namespace, name, automount=None):
    return {"metadata": {"namespace": namespace, "name": name}, "automountServiceAccountToken": automount}


def pod(namespace, name, spec=None, **container):
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"serviceAccountName": "web", **(spec or {}), "containers": [{"name": "c", **container}]},
    }


def namespace(name, level="baseline"):
    return {"metadata": {"name": name}, "level": level}


# A cluster as the playbooks leave it, with an application in the namespace `web`.
HARDENED = {
    ROLES: [
        role("cluster-admin", ("*", "*", ["*"]), labels=OWN),
        role("system:kube-scheduler", ("", "pods", ["create"]), labels=OWN),
    ],
    BINDINGS: [
        binding("cluster-admin", "cluster-admin", {"kind": "Group", "name": "system:masters"}, labels=OWN),
        binding("k8sgu:cluster-admins", "cluster-admin", {"kind": "Group", "name": "k8sgu:cluster-admins"}),
        binding("scheduler", "system:kube-scheduler", {"kind": "User", "name": "system:kube-scheduler"}, labels=OWN),
    ],
    LOCAL_ROLES: [],
    LOCAL_BINDINGS: [],
    NAMESPACES: [namespace("kube-system"), namespace("default"), namespace("web")],
    PODS: [pod("kube-system", "coredns", {"serviceAccountName": "coredns"}), pod("web", "web")],
    ACCOUNTS: [
        account("kube-system", "coredns"),
        account("web", "web", automount=False),
        *(account(name, "default", automount=False) for name in ("kube-system", "default", "web")),
    ],
    SERVICES: [{"metadata": {"namespace": "default", "name": "kubernetes"}}],
    NETWORK: [{"metadata": {"namespace": "web", "name": "closed"}}],
}


class Api:
    """Answers as an API server does with Pod Security Admission and kubelets behind it."""

    def __init__(self, objects, kubelet=None):
        self.objects, self.kubelet = objects, NODE["kubelet"] if kubelet is None else kubelet

    def get(self, path):
        if path.endswith("/proxy/configz"):
            if not self.kubelet:
                raise ApiError("GET", path, 503, {})
            return {"kubeletconfig": self.kubelet}
        return {"items": self.objects[path]}

    def request(self, method, path, query, body):
        assert (method, query) == ("POST", {"dryRun": "All"})
        where = next(
            one for one in self.objects[NAMESPACES] if path == f"/api/v1/namespaces/{one['metadata']['name']}/pods"
        )
        if where["level"] == "broken":
            raise ApiError(method, path, 403, {"message": "pods is forbidden: exceeded quota"})
        baseline = next(base for _title, spec, base in policies.PODS.values() if spec == body["spec"])
        if where["level"] == "restricted" or (where["level"] == "baseline" and baseline):
            raise ApiError(method, path, 403, {"message": "violates PodSecurity"})
        return {}


def statuses(objects, shown=None):
    found = policies.findings(Api(objects), {"n": items.Node(shown or NODE)})
    return {one.number: one.status for one in found}


def add(path, *objects):
    return lambda all_objects: all_objects[path].extend(objects)


def may(group, resource, *verbs, subject=None, **labels):
    """A role with that right, bound to someone."""

    def change(objects):
        objects[ROLES].append(role("wide", (group, resource, list(verbs))))
        objects[BINDINGS].append(binding("wide", "wide", subject or EVERYBODY, **labels))

    return change


def level(name):
    return lambda objects: objects[NAMESPACES].append(namespace("open", name))


FAILS = [
    ("5.1.1", add(BINDINGS, binding("b", "cluster-admin", EVERYBODY))),
    ("5.1.1", add(LOCAL_BINDINGS, binding("b", "cluster-admin", EVERYBODY, namespace="web"))),
    ("5.1.2", may("", "secrets", "list")),
    ("5.1.4", may("", "pods", "create")),
    ("5.1.5", add(PODS, pod("web", "p", {"serviceAccountName": "default", "automountServiceAccountToken": True}))),
    ("5.1.5", add(BINDINGS, binding("b", "view", {"kind": "ServiceAccount", "namespace": "web", "name": "default"}))),
    ("5.1.7", add(BINDINGS, binding("b", "view", {"kind": "Group", "name": "system:masters"}))),
    ("5.1.7", add(LOCAL_BINDINGS, binding("b", "view", {"kind": "Group", "name": "system:masters"}, namespace="web"))),
    *(
        ("5.1.8", may(policies._RBAC, kind, verb))
        for kind in ("roles", "clusterroles")
        for verb in ("bind", "escalate")
    ),
    *(("5.1.8", may("", kind, "impersonate")) for kind in ("users", "groups", "serviceaccounts")),
    *(
        ("5.1.8", may("authentication.k8s.io", kind, "impersonate"))
        for kind in ("userextras", "userextras/scopes", "uids", "*")
    ),
    ("5.1.9", may("", "persistentvolumes", "create")),
    ("5.1.10", may("", "nodes/proxy", "get")),
    ("5.1.11", may("certificates.k8s.io", "certificatesigningrequests/approval", "update")),
    ("5.1.12", may(policies._WEBHOOKS, "mutatingwebhookconfigurations", "patch")),
    ("5.1.12", may(policies._WEBHOOKS, "validatingwebhookconfigurations", "create")),
    ("5.1.13", may("", "serviceaccounts/token", "create")),
    *((number, level("privileged")) for number, (_title, _spec, baseline) in policies.PODS.items() if baseline),
    # A question that was not answered proves nothing.
    ("5.2.3", level("broken")),
    ("5.2.1", level("privileged")),
]
FOR_A_PERSON = [
    ("5.1.1", add(LOCAL_BINDINGS, binding("b", "cluster-admin", EVE, namespace="web"))),
    ("5.1.2", may("", "secrets", "get", subject=EVE)),
    # Who was put into a binding of Kubernetes' own, or gave its label to a binding, is seen all the same.
    ("5.1.2", may("", "secrets", "get", subject=EVE, labels=OWN)),
    ("5.1.3", add(LOCAL_ROLES, role("wide", ("apps", "*", ["get"]), namespace="web"))),
    ("5.1.5", add(ACCOUNTS, account("other", "default"))),
    ("5.1.6", add(PODS, pod("web", "p", {"automountServiceAccountToken": True}))),
    ("5.3.2", add(PODS, pod("other", "p"))),
    ("5.4.1", add(PODS, pod("web", "p", env=[{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s"}}}]))),
    ("5.4.1", add(PODS, pod("web", "p", envFrom=[{"secretRef": {"name": "s"}}]))),
    ("5.6.4", add(PODS, pod("default", "p"))),
]
# What no machine can see, and what `baseline` lets pass with a warning.
ALWAYS = {"3.1.1", "3.1.2", "5.1.7", "5.4.2", "5.5.1", "5.6.1", "5.6.3", "5.2.6", "5.2.7", "5.2.8", "5.2.9"}
NODES = {
    "5.3.1": lambda shown: shown["processes"].pop("kube-router"),
    "5.6.2": lambda shown: shown["kubelet"].pop("seccompDefault"),
}


def test_a_hardened_cluster_passes():
    found = statuses(HARDENED)
    assert {number for number, status in found.items() if status != "PASS"} == ALWAYS


def test_every_item_is_tried():
    tried = {number for number, _change in (*FAILS, *FOR_A_PERSON)} | set(NODES) | ALWAYS
    rows = {number for number, _title, _question in policies.ROWS}
    assert tried == rows | set(policies.PODS) | {"5.2.1"} | set(NODES) == set(statuses(HARDENED))


@pytest.mark.parametrize(
    ("number", "change", "status"), [*((*row, "FAIL") for row in FAILS), *((*row, "MANUAL") for row in FOR_A_PERSON)]
)
def test_without_its_protection_the_item_says_so(number, change, status):
    objects = copy.deepcopy(HARDENED)
    change(objects)
    assert statuses(objects)[number] == status


@pytest.mark.parametrize("number", NODES)
def test_without_its_protection_on_a_node_the_item_fails(number):
    shown = copy.deepcopy(NODE)
    NODES[number](shown)
    assert statuses(HARDENED, shown)[number] == "FAIL"


def test_a_restricted_namespace_refuses_every_pod():
    objects = {**HARDENED, NAMESPACES: [namespace("kube-system"), namespace("web", "restricted")]}
    assert {statuses(objects)[number] for number in policies.PODS} == {"PASS"}


def test_kubelets_are_asked_and_unread_nodes_are_noticed():
    inventory = {"control_plane": ["n"], "worker": ["gone"]}
    found = report.all_findings(Api(HARDENED), {"n": NODE}, inventory, {})
    assert [(one.number, one.node) for one in found if one.status == "FAIL"] == [("X.1", "gone")]
    open_kubelet = {**NODE["kubelet"], "readOnlyPort": 10255}
    found = report.all_findings(Api(HARDENED, open_kubelet), {"n": NODE}, inventory, {})
    assert ("4.2.4", "FAIL") in {(one.number, one.status) for one in found}
    found = report.all_findings(Api(HARDENED, {}), {"n": NODE}, inventory, {})
    assert ("4.2.1", "FAIL") in {(one.number, one.status) for one in found}
