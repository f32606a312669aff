# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Items 1.1 to 1.4 and 3: files of the control plane, flags of its three programs, authentication, audit.

The benchmark assumes kubeadm's layout, where the programs are pods with manifests. Here they are systemd units, so the
units are checked instead of the manifests.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.items import (
    Item,
    Node,
    Question,
    Verdict,
    failed,
    files_mode,
    files_owner,
    flag_absent,
    flag_at_least,
    flag_holds,
    flag_is,
    flag_lacks,
    flags_set,
    is_path,
    judged,
    manual,
    mapping,
    passed,
    strong_ciphers,
)

API, MANAGER, SCHEDULER, ETCD = "kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"
PKI = ("/etc/kubernetes/pki", "/etc/etcd/pki")
HEALTH_PATHS = {"/livez", "/readyz", "/healthz"}


def _unit(program: str) -> str:
    return f"/etc/systemd/system/{program}.service"


def _unit_items(number: int, program: str) -> list[Item]:
    select = is_path(_unit(program))
    return [
        Item(
            f"1.1.{number}",
            f"{program}'s unit is readable by root only",
            program,
            files_mode("0600", select, "the unit"),
        ),
        Item(
            f"1.1.{number + 1}",
            f"{program}'s unit is owned by root",
            program,
            files_owner(["root:root"], select, "the unit"),
        ),
    ]


def data_directory(node: Node) -> str:
    return node.flag(ETCD, "data-dir") or ""


def etcd_data_mode(node: Node) -> Verdict:
    return files_mode("0700", is_path(data_directory(node)), "--data-dir")(node)


def etcd_data_owner(node: Node) -> Verdict:
    return files_owner(["etcd:etcd"], is_path(data_directory(node)), "--data-dir")(node)


def no_administrator(node: Node) -> Verdict:
    found = node.administrators
    wide = [
        path
        for path in found
        if node.files[path]["mode"] not in ("0600", "0400") and node.files[path]["kind"] == "file"
    ]
    if not found:
        return passed("no administrator's credentials are on the node; they stay on the controller")
    return judged(not wide, f"on the node: {', '.join(found)}")


def no_administrator_owner(node: Node) -> Verdict:
    found = [path for path in node.administrators if node.files[path]["kind"] == "file"]
    others = [path for path in found if (node.files[path]["owner"], node.files[path]["group"]) != ("root", "root")]
    if not found:
        return passed("no administrator's credentials are on the node; they stay on the controller")
    return judged(not others, f"not owned by root: {', '.join(others)}" if others else ", ".join(found))


def _below_pki(path: str) -> bool:
    return any(path == tree or path.startswith(tree + "/") for tree in PKI)


def _is_certificate(path: str) -> bool:
    return _below_pki(path) and path.endswith((".crt", ".pem")) and not _is_key(path)


def _is_key(path: str) -> bool:
    return _below_pki(path) and path.endswith((".key", "-key.pem"))


def anonymous(node: Node) -> Verdict:
    """Anonymous requests are off, or limited to health paths by an AuthenticationConfiguration."""
    if node.flag(API, "anonymous-auth") == "false":
        return passed("--anonymous-auth=false")
    path = node.flag(API, "authentication-config")
    if not path:
        return failed("anonymous requests are on, and no authentication configuration limits them")
    document: dict[str, Any] = mapping(node.texts.get(path, ""))
    settings = document.get("anonymous") or {}
    if settings.get("enabled") is False:
        return passed(f"{path}: anonymous requests are off")
    paths = {str(condition.get("path")) for condition in settings.get("conditions") or []}
    if not paths:
        return failed(f"{path}: anonymous requests are on everywhere")
    return judged(paths <= HEALTH_PATHS, f"{path}: anonymous requests at {', '.join(sorted(paths))} only")


def encryption(node: Node) -> Verdict:
    """The first provider is the one that writes."""
    providers = node.encryption_providers
    if not node.flag(API, "encryption-provider-config"):
        return failed("--encryption-provider-config is not set")
    good = bool(providers) and providers[0] in ("aescbc", "kms", "secretbox")
    return judged(good, f"providers: {', '.join(providers) or 'none'}")


def ciphers(node: Node) -> Verdict:
    return strong_ciphers((node.flag(API, "tls-cipher-suites") or "").split(","))


def event_rate_limit(node: Node) -> Verdict:
    value = node.flag(API, "enable-admission-plugins") or ""
    return (
        passed("EventRateLimit is on")
        if "EventRateLimit" in value.split(",")
        else manual(f"EventRateLimit is not on: {value}")
    )


def always_pull(node: Node) -> Verdict:
    value = node.flag(API, "enable-admission-plugins") or ""
    if "AlwaysPullImages" in value.split(","):
        return passed("AlwaysPullImages is on")
    return manual("AlwaysPullImages is off: turn it on if tenants share nodes; every start then needs the registry")


def scheduler_profiling(node: Node) -> Verdict:
    path = node.flag(SCHEDULER, "config")
    if path and path in node.texts:
        value = mapping(node.texts[path]).get("enableProfiling")
        return judged(value is False, f"{path}: enableProfiling: {value}")
    return flag_is(SCHEDULER, "profiling", "false")(node)


def server_rotation(program: str, name: str = "feature-gates") -> Question:
    def question(node: Node) -> Verdict:
        value = node.flag(program, name) or ""
        return judged(
            "RotateKubeletServerCertificate=false" not in value, f"--{name}={value or 'not set'} (on by default)"
        )

    return question


def _audit_rules(node: Node) -> list[dict[str, Any]]:
    path = node.flag(API, "audit-policy-file") or ""
    document: dict[str, Any] = mapping(node.texts.get(path, ""))
    return list(document.get("rules") or [])


def audit_policy(node: Node) -> Verdict:
    rules = _audit_rules(node)
    written = [rule for rule in rules if rule.get("level") != "None"]
    return judged(
        bool(written),
        f"--audit-policy-file={node.flag(API, 'audit-policy-file')}: {len(rules)} rules, {len(written)} of them write",
    )


def _level(rules: list[dict[str, Any]], group: str, resource: str, verb: str) -> str:
    """The level at which the policy records a request of an ordinary user."""
    for rule in rules:
        if rule.get("users") or rule.get("userGroups") or rule.get("nonResourceURLs"):
            continue
        if rule.get("verbs") and verb not in rule["verbs"]:
            continue
        resources = rule.get("resources")
        if resources and not any(
            entry.get("group", "") == group and (not entry.get("resources") or resource in entry["resources"])
            for entry in resources
        ):
            continue
        return str(rule["level"])
    return "None"


def audit_coverage(node: Node) -> Verdict:
    """Records Secrets and token reviews by metadata, changes of workloads with bodies, and exec and forwarding."""
    rules = _audit_rules(node)
    wrong = []
    secret = (("", "secrets"), ("", "configmaps"), ("authentication.k8s.io", "tokenreviews"))
    for group, resource in secret:
        level = _level(rules, group, resource, "create")
        if level != "Metadata":
            wrong.append(f"{resource}: {level} instead of Metadata")
    for group, resource in (("", "pods"), ("apps", "deployments")):
        level = _level(rules, group, resource, "patch")
        if level not in ("Request", "RequestResponse"):
            wrong.append(f"changes of {resource}: {level} instead of Request")
    for resource in ("pods/exec", "pods/portforward", "pods/proxy", "services/proxy"):
        if _level(rules, "", resource, "create") == "None":
            wrong.append(f"{resource} is not recorded")
    return judged(
        not wrong,
        "; ".join(wrong) or "Secrets by metadata, changes of workloads with bodies, exec and proxies by metadata",
    )


def items() -> list[Item]:
    rows = [
        *_unit_items(1, API),
        *_unit_items(3, MANAGER),
        *_unit_items(5, SCHEDULER),
        *_unit_items(7, ETCD),
        Item("1.1.9", "The pod network's files are readable by root only", API, cni_mode),
        Item("1.1.10", "The pod network's files are owned by root", API, cni_owner),
        Item("1.1.11", "etcd's data is readable by etcd only", ETCD, etcd_data_mode),
        Item("1.1.12", "etcd's data is owned by etcd", ETCD, etcd_data_owner),
        Item("1.1.13", "Administrators' credentials are readable by their owner only", API, no_administrator),
        Item("1.1.14", "Administrators' credentials are owned by root", API, no_administrator_owner),
    ]
    for number, path, program in (
        (15, "/etc/kubernetes/scheduler.conf", SCHEDULER),
        (17, "/etc/kubernetes/controller-manager.conf", MANAGER),
    ):
        mode, owner = files_mode("0600", is_path(path), path), files_owner(["root:root"], is_path(path), path)
        rows += [
            Item(f"1.1.{number}", f"{program}'s kubeconfig is readable by root only", program, mode),
            Item(f"1.1.{number + 1}", f"{program}'s kubeconfig is owned by root", program, owner),
        ]
    return [
        *rows,
        Item(
            "1.1.19",
            "Certificates and keys are owned by root",
            API,
            files_owner(["root:root"], _below_pki, "certificates"),
        ),
        Item(
            "1.1.20",
            "Certificates are writable by root only",
            API,
            files_mode("0644", _is_certificate, "certificates"),
        ),
        Item("1.1.21", "Keys are readable by root only", API, files_mode("0600", _is_key, "keys")),
        Item("1.2.1", "Anonymous requests are refused, except for health", API, anonymous),
        Item("1.2.2", "No static tokens", API, flag_absent(API, "token-auth-file")),
        Item(
            "1.2.3",
            "Services cannot claim external addresses",
            API,
            flag_holds(API, "enable-admission-plugins", "DenyServiceExternalIPs"),
        ),
        Item(
            "1.2.4",
            "The API server has a certificate for kubelets",
            API,
            flags_set(API, "kubelet-client-certificate", "kubelet-client-key"),
        ),
        Item(
            "1.2.5",
            "The API server checks kubelets' certificates",
            API,
            flags_set(API, "kubelet-certificate-authority"),
        ),
        Item(
            "1.2.6",
            "Not everything is allowed",
            API,
            flag_lacks(API, "authorization-mode", "AlwaysAllow", default="AlwaysAllow"),
        ),
        Item("1.2.7", "Nodes are authorized as nodes", API, flag_holds(API, "authorization-mode", "Node")),
        Item("1.2.8", "Roles decide (RBAC)", API, flag_holds(API, "authorization-mode", "RBAC")),
        Item("1.2.9", "Events are limited", API, event_rate_limit),
        Item("1.2.10", "Admission is not skipped", API, flag_lacks(API, "enable-admission-plugins", "AlwaysAdmit")),
        Item("1.2.11", "Images are pulled with the pod's own credentials", API, always_pull),
        Item("1.2.12", "Service accounts are admitted", API, _not_disabled("ServiceAccount")),
        Item("1.2.13", "Terminating namespaces accept nothing new", API, _not_disabled("NamespaceLifecycle")),
        Item(
            "1.2.14",
            "A kubelet can change only its own node",
            API,
            flag_holds(API, "enable-admission-plugins", "NodeRestriction"),
        ),
        Item(
            "1.2.15", "The API server does not offer profiling", API, flag_is(API, "profiling", "false", default="true")
        ),
        Item("1.2.16", "There is an audit log", API, flags_set(API, "audit-log-path")),
        Item("1.2.17", "The audit log is kept 30 days", API, flag_at_least(API, "audit-log-maxage", 30)),
        Item("1.2.18", "The audit log is kept in 10 files", API, flag_at_least(API, "audit-log-maxbackup", 10)),
        Item("1.2.19", "The audit log's files can have 100 MB", API, flag_at_least(API, "audit-log-maxsize", 100)),
        Item("1.2.20", "Requests time out", API, request_timeout),
        Item(
            "1.2.21",
            "Tokens of removed service accounts are refused",
            API,
            flag_is(API, "service-account-lookup", "true", default="true"),
        ),
        Item("1.2.22", "Service accounts have a key of their own", API, flags_set(API, "service-account-key-file")),
        Item(
            "1.2.23", "The API server has a certificate for etcd", API, flags_set(API, "etcd-certfile", "etcd-keyfile")
        ),
        Item("1.2.24", "The API server serves with TLS", API, flags_set(API, "tls-cert-file", "tls-private-key-file")),
        Item("1.2.25", "Clients are verified by a CA", API, flags_set(API, "client-ca-file")),
        Item("1.2.26", "The API server checks etcd's certificate", API, flags_set(API, "etcd-cafile")),
        Item("1.2.27", "Encryption at rest is configured", API, flags_set(API, "encryption-provider-config")),
        Item("1.2.28", "The provider that writes at rest encrypts", API, encryption),
        Item("1.2.29", "The API server uses only strong cipher suites", API, ciphers),
        Item("1.2.30", "Service accounts' tokens are not extended", API, _extend),
        Item("1.3.1", "Terminated pods are removed", MANAGER, flags_set(MANAGER, "terminated-pod-gc-threshold")),
        Item(
            "1.3.2",
            "The controller manager does not offer profiling",
            MANAGER,
            flag_is(MANAGER, "profiling", "false", default="true"),
        ),
        Item(
            "1.3.3",
            "Each controller has its own service account",
            MANAGER,
            flag_is(MANAGER, "use-service-account-credentials", "true"),
        ),
        Item(
            "1.3.4",
            "The controller manager signs with the service accounts' key",
            MANAGER,
            flags_set(MANAGER, "service-account-private-key-file"),
        ),
        Item("1.3.5", "Pods get the CA that verifies the API server", MANAGER, flags_set(MANAGER, "root-ca-file")),
        Item("1.3.6", "Renewal of kubelets' serving certificates is not turned off", MANAGER, server_rotation(MANAGER)),
        Item(
            "1.3.7",
            "The controller manager listens on loopback",
            MANAGER,
            flag_is(MANAGER, "bind-address", "127.0.0.1"),
        ),
        Item("1.4.1", "The scheduler does not offer profiling", SCHEDULER, scheduler_profiling),
        Item("1.4.2", "The scheduler listens on loopback", SCHEDULER, flag_is(SCHEDULER, "bind-address", "127.0.0.1")),
        Item("3.1.3", "People do not sign in with bootstrap tokens", API, bootstrap_tokens),
        Item("3.2.1", "There is an audit policy", API, audit_policy),
        Item("3.2.2", "The audit policy covers what matters", API, audit_coverage),
    ]


def bootstrap_tokens(node: Node) -> Verdict:
    value = node.flag(API, "enable-bootstrap-token-auth")
    if value == "true":
        return manual("--enable-bootstrap-token-auth=true: are they for nodes that join, and for nothing else?")
    return passed(f"--enable-bootstrap-token-auth is {value or 'not set'}: they are not accepted")


def _cni(node: Node) -> list[str]:
    """The configuration files, and the plugins' records of which pod has which address."""
    return [
        path
        for path, found in node.files.items()
        if path.startswith("/var/lib/cni/networks/")
        or (path.startswith("/etc/cni/net.d/") and path.endswith((".conf", ".conflist", ".json")))
        if found["kind"] == "file"
    ]


def cni_mode(node: Node) -> Verdict:
    return files_mode("0600", is_path(*_cni(node)), "CNI's configuration")(node)


def cni_owner(node: Node) -> Verdict:
    return files_owner(["root:root"], is_path(*_cni(node)), "CNI's configuration")(node)


def _extend(node: Node) -> Verdict:
    return flag_is(API, "service-account-extend-token-expiration", "false", default="true")(node)


def _not_disabled(plugin: str) -> Question:
    def question(node: Node) -> Verdict:
        off = (node.flag(API, "disable-admission-plugins") or "").split(",")
        return judged(
            plugin not in off, f"{plugin} is {'turned off' if plugin in off else 'on by default and not turned off'}"
        )

    return question


def request_timeout(node: Node) -> Verdict:
    value = node.flag(API, "request-timeout")
    return (
        manual(f"--request-timeout={value}")
        if value not in (None, "60s", "1m0s", "1m")
        else passed(f"--request-timeout={value or '60s by default'}")
    )
