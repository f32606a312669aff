# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Items 3.1 and 5: who may do what (RBAC), which pods are admitted (tried by dry runs), NetworkPolicies, Secrets.

Kubernetes' own roles and bindings have the label `kubernetes.io/bootstrapping=rbac-defaults`; those that this project
adds are treated like a user's. The benchmark leaves nearly all of these items to a person: what a machine can prove is
PASS or FAIL, and for the rest the report says what a person should check.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterable, Tuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.items import (
    Finding,
    Node,
    Verdict,
    failed,
    judged,
    manual,
    passed,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.worker import setting
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError, Client

RBAC = "/apis/rbac.authorization.k8s.io/v1"
BOOTSTRAPPED = ("kubernetes.io/bootstrapping", "rbac-defaults")
ADMINISTRATORS = {"Group system:masters", "Group k8sgu:cluster-admins"}
# Everyone, or every pod: an attacker gets these rights without breaking in.
EVERYBODY = {
    "Group system:authenticated",
    "Group system:unauthenticated",
    "Group system:serviceaccounts",
    "User system:anonymous",
}
SYSTEM_NAMESPACE = "kube-system"
WORKERS = 8

_CONTAINER: dict[str, Any] = {"name": "asked", "image": "registry.k8s.io/pause:3.10"}


def _pod(spec: dict[str, Any] | None = None, **container: Any) -> dict[str, Any]:
    return {**(spec or {}), "containers": [{**_CONTAINER, **container}]}


# By number: title, a pod that should be refused, and whether Pod Security's `baseline` refuses it (or `restricted`).
PODS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "5.2.2": ("Privileged containers are refused", _pod(securityContext={"privileged": True}), True),
    "5.2.3": ("Pods do not see the host's processes", _pod({"hostPID": True}), True),
    "5.2.4": ("Pods do not share the host's IPC", _pod({"hostIPC": True}), True),
    "5.2.5": ("Pods do not share the host's network", _pod({"hostNetwork": True}), True),
    "5.2.6": ("Containers do not gain privileges", _pod(securityContext={"allowPrivilegeEscalation": True}), False),
    "5.2.7": ("Containers do not run as root", _pod(securityContext={"runAsUser": 0}), False),
    "5.2.8": ("Containers do not forge packets (NET_RAW)", _pod(), False),
    "5.2.9": ("Containers drop their capabilities", _pod(securityContext={"capabilities": {"drop": []}}), False),
    "5.2.10": (
        "Windows containers do not run as the host",
        _pod(
            {
                "os": {"name": "windows"},
                "hostNetwork": True,
                "securityContext": {"windowsOptions": {"hostProcess": True}},
            }
        ),
        True,
    ),
    "5.2.11": (
        "Pods do not mount the host's directories",
        _pod({"volumes": [{"name": "h", "hostPath": {"path": "/etc"}}]}),
        True,
    ),
    "5.2.12": ("Pods do not take the host's ports", _pod(ports=[{"containerPort": 80, "hostPort": 80}]), True),
    # 5.2.9 of version 1.11, which 1.12 dropped.
    "X.9": (
        "Containers do not add capabilities",
        _pod(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
        True,
    ),
}


def subject_name(subject: dict[str, Any]) -> str:
    place = f"{subject['namespace']}/" if subject.get("namespace") and subject["kind"] == "ServiceAccount" else ""
    return f"{subject['kind']} {place}{subject['name']}"


def _bootstrapped(item: dict[str, Any]) -> bool:
    return (item["metadata"].get("labels") or {}).get(BOOTSTRAPPED[0]) == BOOTSTRAPPED[1]


def _of_kubernetes(subject: str) -> bool:
    """Whether Kubernetes' own bindings name this subject; any other subject in them was added."""
    return subject.startswith(("User system:", "Group system:", f"ServiceAccount {SYSTEM_NAMESPACE}/"))


def subjects(binding: dict[str, Any]) -> set[str]:
    return {subject_name(subject) for subject in binding.get("subjects") or []}


def _binding_name(binding: dict[str, Any]) -> str:
    metadata = binding["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])


def allows(rule: dict[str, Any], group: str, resource: str, verbs: Iterable[str]) -> bool:
    """Whether a rule allows one of the verbs on a resource ("pods", "nodes/proxy")."""
    groups, resources = rule.get("apiGroups") or [], rule.get("resources") or []
    base, _slash, sub = resource.partition("/")
    named = {"*", resource, f"{base}/*" if sub else base, f"*/{sub}" if sub else resource}
    # userextras/* asks for any of them.
    below = sub == "*" and any(name.startswith(f"{base}/") for name in resources)
    return (
        bool({"*", group} & set(groups))
        and (below or bool(named & set(resources)))
        and bool({"*", *verbs} & set(rule.get("verbs") or []))
    )


class Cluster:
    """The API's objects, read once."""

    def __init__(self, client: Client) -> None:
        self.client = client
        paths = {
            "cluster_roles": f"{RBAC}/clusterroles",
            "roles": f"{RBAC}/roles",
            "cluster_bindings": f"{RBAC}/clusterrolebindings",
            "bindings": f"{RBAC}/rolebindings",
            "namespaces": "/api/v1/namespaces",
            "pods": "/api/v1/pods",
            "services": "/api/v1/services",
            "accounts": "/api/v1/serviceaccounts",
            "policies": "/apis/networking.k8s.io/v1/networkpolicies",
        }
        with ThreadPoolExecutor(max_workers=WORKERS) as pool:
            read = pool.map(lambda path: client.get(path)["items"], paths.values())
            self.objects: dict[str, list[dict[str, Any]]] = dict(zip(paths, read))

    def rules(self, binding: dict[str, Any]) -> list[dict[str, Any]]:
        reference = binding["roleRef"]
        kind = "cluster_roles" if reference["kind"] == "ClusterRole" else "roles"
        for role in self.objects[kind]:
            same = kind == "cluster_roles" or role["metadata"]["namespace"] == binding["metadata"].get("namespace")
            if role["metadata"]["name"] == reference["name"] and same:
                return list(role.get("rules") or [])
        return []

    def granted(self, test: Callable[[dict[str, Any]], bool]) -> tuple[set[str], set[str]]:
        """Who has such a rule by a binding: groups of everyone; others except administrators and Kubernetes' own."""
        everybody, others = set(), set()
        for binding in self.objects["cluster_bindings"] + self.objects["bindings"]:
            if any(test(rule) for rule in self.rules(binding)):
                names = subjects(binding)
                everybody |= names & EVERYBODY
                known = {name for name in names if _of_kubernetes(name)} if _bootstrapped(binding) else set()
                others |= names - EVERYBODY - ADMINISTRATORS - known
        return everybody, others


Right = Tuple[str, str, Tuple[str, ...]]


def access(*rights: Right) -> Callable[[Cluster], Verdict]:
    """Who has any of the rights, each (API group, resource, verbs)."""
    what = ", ".join(f"{'/'.join(verbs)} {resource}" for _group, resource, verbs in rights)

    def question(cluster: Cluster) -> Verdict:
        everybody, others = cluster.granted(lambda rule: any(allows(rule, *right) for right in rights))
        if everybody:
            return failed(f"{what}: {', '.join(sorted(everybody))}")
        if others:
            return manual(f"{what}: besides administrators and Kubernetes' controllers, {', '.join(sorted(others))}")
        return passed(f"{what}: only administrators and Kubernetes' controllers")

    return question


def cluster_admin(cluster: Cluster) -> Verdict:
    """cluster-admin is bound only to administrators, in the whole cluster and by RoleBindings."""
    found = {
        subject + (f" in {binding['metadata']['namespace']}" if binding["metadata"].get("namespace") else "")
        for binding in cluster.objects["cluster_bindings"] + cluster.objects["bindings"]
        if binding["roleRef"]["name"] == "cluster-admin" and binding["roleRef"]["kind"] == "ClusterRole"
        for subject in subjects(binding)
    }
    everybody = {subject for subject in found if subject.partition(" in ")[0] in EVERYBODY}
    if everybody:
        return failed(f"cluster-admin is bound to {', '.join(sorted(everybody))}")
    if found - ADMINISTRATORS:
        return manual(f"cluster-admin is also bound to {', '.join(sorted(found - ADMINISTRATORS))}")
    return passed(f"cluster-admin is bound only to {', '.join(sorted(found))}")


def masters(cluster: Cluster) -> Verdict:
    """No binding names system:masters: the group needs none, so one that names it shows that it is in use."""
    found = sorted(
        _binding_name(binding)
        for binding in cluster.objects["cluster_bindings"] + cluster.objects["bindings"]
        if "Group system:masters" in subjects(binding) and not _bootstrapped(binding)
    )
    if found:
        return failed(f"system:masters is bound by {', '.join(found)}")
    return manual(
        "no binding but Kubernetes' own names it; super-admin.kubeconfig is of that group: keep it locked away"
    )


def wildcards(cluster: Cluster) -> Verdict:
    found = []
    for role in cluster.objects["cluster_roles"] + cluster.objects["roles"]:
        rules = role.get("rules") or []
        wide = any("*" in (rule.get(part) or []) for rule in rules for part in ("verbs", "resources", "apiGroups"))
        if wide and not _bootstrapped(role) and not role.get("aggregationRule"):
            found.append(role["metadata"]["name"])
    return manual(f"roles with *: {', '.join(sorted(found))}") if found else passed("only Kubernetes' own roles have *")


def _mounts_token(cluster: Cluster, pod: dict[str, Any]) -> bool:
    spec, metadata = pod["spec"], pod["metadata"]
    if spec.get("automountServiceAccountToken") is not None:
        return bool(spec["automountServiceAccountToken"])
    for account in cluster.objects["accounts"]:
        same = account["metadata"]["namespace"] == metadata["namespace"]
        if same and account["metadata"]["name"] == spec.get("serviceAccountName", "default"):
            return account.get("automountServiceAccountToken") is not False
    return True


def _pod_name(pod: dict[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def default_accounts(cluster: Cluster) -> Verdict:
    using = [
        _pod_name(pod)
        for pod in cluster.objects["pods"]
        if pod["spec"].get("serviceAccountName", "default") == "default" and _mounts_token(cluster, pod)
    ]
    bound = {
        name
        for binding in cluster.objects["cluster_bindings"] + cluster.objects["bindings"]
        for name in subjects(binding)
        if name.startswith("ServiceAccount ") and name.endswith("/default")
    }
    seen = [f"pods with the token of `default`: {', '.join(using)}"] if using else []
    seen += [f"roles are bound to {', '.join(sorted(bound))}"] if bound else []
    if seen:
        return failed("; ".join(seen))
    giving = sorted(
        account["metadata"]["namespace"]
        for account in cluster.objects["accounts"]
        if account["metadata"]["name"] == "default" and account.get("automountServiceAccountToken") is not False
    )
    if giving:
        return manual(
            f"not used, but pods would get its token in {', '.join(giving)}: set automountServiceAccountToken: false"
        )
    return passed("no pod gets the token of a `default` account, and no role is bound to one")


def tokens(cluster: Cluster) -> Verdict:
    holders = [_pod_name(pod) for pod in cluster.objects["pods"] if _mounts_token(cluster, pod)]
    users = [name for name in holders if not name.startswith(SYSTEM_NAMESPACE + "/")]
    if users:
        return manual(f"do these need their token? {', '.join(users)}")
    return passed(f"no pod outside {SYSTEM_NAMESPACE} has a token; there: {', '.join(holders) or 'none'}")


def secrets_as_files(cluster: Cluster) -> Verdict:
    found = set()
    for pod in cluster.objects["pods"]:
        for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])]:
            by_name = any("secretKeyRef" in (entry.get("valueFrom") or {}) for entry in container.get("env") or [])
            if by_name or any("secretRef" in entry for entry in container.get("envFrom") or []):
                found.add(_pod_name(pod))
    if found:
        return manual(f"pods with Secrets in their environment: {', '.join(sorted(found))}")
    return passed("no pod has a Secret in its environment")


def isolated(cluster: Cluster) -> Verdict:
    have = {policy["metadata"]["namespace"] for policy in cluster.objects["policies"]}
    used = {pod["metadata"]["namespace"] for pod in cluster.objects["pods"]}
    open_ones = sorted(used - have - {SYSTEM_NAMESPACE})
    if open_ones:
        return manual(
            f"namespaces with pods and without a NetworkPolicy: {', '.join(open_ones)}; docs/security.md has a template"
        )
    return passed(f"every namespace with pods except {SYSTEM_NAMESPACE} has a NetworkPolicy")


def default_namespace(cluster: Cluster) -> Verdict:
    pods = [pod for pod in cluster.objects["pods"] if pod["metadata"]["namespace"] == "default"]
    services = [
        service
        for service in cluster.objects["services"]
        if service["metadata"]["namespace"] == "default" and service["metadata"]["name"] != "kubernetes"
    ]
    if pods or services:
        return manual(f"in the namespace default: {len(pods)} pods, {len(services)} services")
    return passed("only the API's own service is in the namespace default")


def refusal(client: Client, namespace: str, spec: dict[str, Any]) -> str:
    """Why Pod Security refuses a pod, by a dry run; empty if it admits the pod. Raises ApiError for other errors."""
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "asked-"}, "spec": spec}
    try:
        client.request("POST", f"/api/v1/namespaces/{namespace}/pods", {"dryRun": "All"}, body)
    except ApiError as error:
        if error.code == 403 and "violates PodSecurity" in error.message:
            return error.message
        raise
    return ""


def pod_security(cluster: Cluster) -> list[Finding]:
    """Tries a pod of each kind in every namespace, by dry runs, and reports where it is admitted."""
    namespaces = [
        item["metadata"]["name"]
        for item in cluster.objects["namespaces"]
        if item["metadata"]["name"] != SYSTEM_NAMESPACE and not item["metadata"].get("deletionTimestamp")
    ]
    questions = [(number, namespace) for number in PODS for namespace in namespaces]

    def look(question: tuple[str, str]) -> str:
        number, namespace = question
        try:
            return "" if refusal(cluster.client, namespace, PODS[number][1]) else namespace
        except ApiError as error:
            return f"{namespace} (not tried: {error.message})"

    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        answers = list(zip(questions, pool.map(look, questions)))
    findings = []
    privileged = sorted({namespace for (number, namespace), taken in answers if number == "5.2.2" and taken})
    verdict = judged(
        not privileged,
        f"Pod Security Admission admits everything to {', '.join(privileged)}"
        if privileged
        else f"Pod Security Admission is active in every namespace except {SYSTEM_NAMESPACE}",
    )
    findings.append(Finding("5.2.1", "A policy decides which pods are admitted", verdict.status, verdict.reason))
    for number, (title, _spec, baseline) in PODS.items():
        taken = sorted(where for (asked, _namespace), where in answers if asked == number and where)
        if not taken:
            verdict = passed(f"refused in every namespace except {SYSTEM_NAMESPACE}")
        elif baseline:
            verdict = failed(f"admitted in {', '.join(taken)}")
        else:
            verdict = manual(f"admitted, with a warning, in {', '.join(taken)}: label them restricted to refuse it")
        findings.append(Finding(number, title, verdict.status, verdict.reason))
    return findings


Row = tuple[str, str, Callable[[Cluster], Verdict]]
_WEBHOOKS, _RBAC = "admissionregistration.k8s.io", "rbac.authorization.k8s.io"
_AUTHENTICATION = "authentication.k8s.io"
ROWS: tuple[Row, ...] = (
    (
        "3.1.1",
        "People do not sign in with client certificates",
        lambda _c: manual("admin.kubeconfig is a client certificate; give people OIDC"),
    ),
    (
        "3.1.2",
        "People do not sign in with service accounts' tokens",
        lambda _c: manual("who got a token cannot be seen; tokens last a day at most"),
    ),
    ("5.1.1", "cluster-admin is only for administrators", cluster_admin),
    ("5.1.2", "Few may read Secrets", access(("", "secrets", ("get", "list", "watch")))),
    ("5.1.3", "Roles name what they allow", wildcards),
    ("5.1.4", "Few may create pods", access(("", "pods", ("create",)))),
    ("5.1.5", "The default service accounts are not used", default_accounts),
    ("5.1.6", "Pods have a token only if they need one", tokens),
    ("5.1.7", "system:masters is not used", masters),
    (
        "5.1.8",
        "Few may bind, escalate or impersonate",
        access(
            *((_RBAC, resource, ("bind", "escalate")) for resource in ("clusterroles", "roles")),
            *(("", resource, ("impersonate",)) for resource in ("users", "groups", "serviceaccounts")),
            *((_AUTHENTICATION, resource, ("impersonate",)) for resource in ("userextras", "userextras/*", "uids")),
        ),
    ),
    ("5.1.9", "Few may create persistent volumes", access(("", "persistentvolumes", ("create",)))),
    ("5.1.10", "Few may reach nodes through the proxy", access(("", "nodes/proxy", ("get", "create")))),
    (
        "5.1.11",
        "Few may approve certificates",
        access(("certificates.k8s.io", "certificatesigningrequests/approval", ("update", "patch"))),
    ),
    (
        "5.1.12",
        "Few may set webhooks",
        access(
            *(
                (_WEBHOOKS, f"{kind}webhookconfigurations", ("create", "update", "patch"))
                for kind in ("mutating", "validating")
            )
        ),
    ),
    ("5.1.13", "Few may create service accounts' tokens", access(("", "serviceaccounts/token", ("create",)))),
    ("5.3.2", "Namespaces have NetworkPolicies", isolated),
    ("5.4.1", "Pods get Secrets as files", secrets_as_files),
    ("5.4.2", "Secrets may be kept outside", lambda _c: manual("an external store of secrets is your decision")),
    ("5.5.1", "The origin of images is checked", lambda _c: manual("no image policy webhook is installed")),
    (
        "5.6.1",
        "Namespaces separate resources",
        lambda _c: manual("how resources are divided is your decision"),
    ),
    (
        "5.6.3",
        "Pods have a security context",
        lambda _c: manual("the level restricted requires one, and warns everywhere"),
    ),
    ("5.6.4", "The default namespace is empty", default_namespace),
)


def nodes_findings(nodes: dict[str, Node]) -> list[Finding]:
    """Findings of the items that concern all nodes together."""
    without = ", ".join(sorted(name for name, node in nodes.items() if "kube-router" not in node.processes))
    bare = ", ".join(sorted(name for name, node in nodes.items() if setting(node, "seccompDefault") is not True))
    policy = failed(f"nothing enforces it on {without}") if without else passed("kube-router runs on every node")
    seccomp = (
        failed(f"pods without a profile of their own have none on {bare}")
        if bare
        else passed("pods without a profile of their own have RuntimeDefault")
    )
    return [
        Finding("5.3.1", "The pod network enforces NetworkPolicies", policy.status, policy.reason),
        Finding("5.6.2", "Pods have a seccomp profile", seccomp.status, seccomp.reason),
    ]


def findings(client: Client, nodes: dict[str, Node]) -> list[Finding]:
    cluster = Cluster(client)
    rows = [(number, title, question(cluster)) for number, title, question in ROWS]
    judged_rows = [Finding(number, title, verdict.status, verdict.reason) for number, title, verdict in rows]
    return judged_rows + pod_security(cluster) + nodes_findings(nodes)
