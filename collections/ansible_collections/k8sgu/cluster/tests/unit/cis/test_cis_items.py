# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every item of a node: a hardened node's facts (node.json) pass, and fail when the protection is removed."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis import items, node, policies, project_items, report

SHOWN = json.loads(Path(__file__).with_name("node.json").read_text())
API, MANAGER, SCHEDULER = "kube-apiserver", "kube-controller-manager", "kube-scheduler"
KUBELET, AUDIT = "/var/lib/kubelet/config.yaml", "/etc/kubernetes/audit-policy.yml"
UNITS = "/etc/systemd/system"
PLUGINS = SHOWN["processes"][API]["flags"]["enable-admission-plugins"]


def statuses(shown):
    return {one.number: one.status for one in report.node_findings("n", items.Node(shown), control=True)}


HARDENED = statuses(SHOWN)


def test_a_hardened_node_has_no_fail():
    assert [number for number, status in HARDENED.items() if status == "FAIL"] == []
    assert sum(status == "PASS" for status in HARDENED.values()) > 90


def flag(program, name, value=None):
    def change(shown):
        flags = shown["processes"][program]["flags"]
        if value is None:
            del flags[name]
        else:
            flags[name] = value

    return change


def mode(path, value):
    return lambda shown: shown["files"][path].update(mode=value)


def owner(path, value):
    return lambda shown: shown["files"][path].update(zip(("owner", "group"), value.split(":")))


def text(path, old, new):
    def change(shown):
        assert old in shown["texts"][path], f"{path} has no {old!r} to be replaced"
        shown["texts"][path] = shown["texts"][path].replace(old, new)

    return change


def without(plugin):
    return flag(API, "enable-admission-plugins", ",".join(p for p in PLUGINS.split(",") if p != plugin))


def administrator(path, **access):
    def change(shown):
        shown["administrators"] = [path]
        shown["files"][path] = {"owner": "root", "group": "root", "mode": "0600", "kind": "file", **access}

    return change


def kubelet(name, value=None):
    """The node with a changed running configuration of the kubelet."""

    def change(shown):
        *parts, last = name.split(".")
        settings = shown["kubelet"]
        for part in parts:
            settings = settings.setdefault(part, {})
        if value is None:
            del settings[last]
        else:
            settings[last] = value

    return change


def shared_authority(shown):
    shown["texts"]["/etc/etcd/pki/ca.crt"] = shown["texts"]["/etc/kubernetes/pki/client-ca-bundle.crt"]


TAKEN_AWAY = {
    "1.1.1": mode(f"{UNITS}/kube-apiserver.service", "0644"),
    "1.1.2": owner(f"{UNITS}/kube-apiserver.service", "ubuntu:root"),
    "1.1.3": mode(f"{UNITS}/kube-controller-manager.service", "0644"),
    "1.1.4": owner(f"{UNITS}/kube-controller-manager.service", "root:ubuntu"),
    "1.1.5": mode(f"{UNITS}/kube-scheduler.service", "0640"),
    "1.1.6": owner(f"{UNITS}/kube-scheduler.service", "ubuntu:root"),
    "1.1.7": mode(f"{UNITS}/etcd.service", "0602"),
    "1.1.8": owner(f"{UNITS}/etcd.service", "etcd:etcd"),
    "1.1.9": mode("/etc/cni/net.d/10-k8sgu.conflist", "0644"),
    "1.1.10": owner("/etc/cni/net.d/10-k8sgu.conflist", "ubuntu:ubuntu"),
    "1.1.11": mode("/var/lib/etcd", "0755"),
    "1.1.12": owner("/var/lib/etcd", "root:root"),
    "1.1.13": administrator("/root/.kube/config", mode="0644"),
    "1.1.14": administrator("/home/ubuntu/.kube/config", owner="ubuntu"),
    "1.1.15": mode("/etc/kubernetes/scheduler.conf", "0640"),
    "1.1.16": owner("/etc/kubernetes/scheduler.conf", "ubuntu:root"),
    "1.1.17": mode("/etc/kubernetes/controller-manager.conf", "0644"),
    # The program's own user is as foreign as anybody's: it has a copy.
    "1.1.18": owner("/etc/kubernetes/controller-manager.conf", "kube-controller-manager:root"),
    "1.1.19": owner("/etc/kubernetes/pki/apiserver.key", "kube-apiserver:root"),
    "1.1.20": mode("/etc/kubernetes/pki/ca.crt", "0664"),
    "1.1.21": mode("/etc/kubernetes/pki/apiserver.key", "0640"),
    "1.2.1": text("/etc/kubernetes/authentication.yml", "/healthz", "/api"),
    "1.2.2": flag(API, "token-auth-file", "/etc/tokens.csv"),
    "1.2.3": without("DenyServiceExternalIPs"),
    "1.2.4": flag(API, "kubelet-client-key"),
    "1.2.5": flag(API, "kubelet-certificate-authority"),
    "1.2.6": flag(API, "authorization-mode", "Node,RBAC,AlwaysAllow"),
    "1.2.7": flag(API, "authorization-mode", "RBAC"),
    "1.2.8": flag(API, "authorization-mode", "Node"),
    "1.2.10": flag(API, "enable-admission-plugins", PLUGINS + ",AlwaysAdmit"),
    "1.2.12": flag(API, "disable-admission-plugins", "ServiceAccount"),
    "1.2.13": flag(API, "disable-admission-plugins", "NamespaceLifecycle"),
    "1.2.14": without("NodeRestriction"),
    "1.2.15": flag(API, "profiling"),
    "1.2.16": flag(API, "audit-log-path"),
    "1.2.17": flag(API, "audit-log-maxage", "29"),
    "1.2.18": flag(API, "audit-log-maxbackup", "9"),
    "1.2.19": flag(API, "audit-log-maxsize", "99"),
    "1.2.21": flag(API, "service-account-lookup", "false"),
    "1.2.22": flag(API, "service-account-key-file"),
    "1.2.23": flag(API, "etcd-keyfile"),
    "1.2.24": flag(API, "tls-cert-file"),
    "1.2.25": flag(API, "client-ca-file"),
    "1.2.26": flag(API, "etcd-cafile"),
    "1.2.27": flag(API, "encryption-provider-config"),
    "1.2.28": lambda shown: shown.update(encryption_providers=["identity", "secretbox"]),
    "1.2.29": flag(API, "tls-cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_GCM_SHA256"),
    "1.2.30": flag(API, "service-account-extend-token-expiration"),
    "1.3.1": flag(MANAGER, "terminated-pod-gc-threshold"),
    "1.3.2": flag(MANAGER, "profiling", "true"),
    "1.3.3": flag(MANAGER, "use-service-account-credentials"),
    "1.3.4": flag(MANAGER, "service-account-private-key-file"),
    "1.3.5": flag(MANAGER, "root-ca-file"),
    "1.3.6": flag(MANAGER, "feature-gates", "RotateKubeletServerCertificate=false"),
    "1.3.7": flag(MANAGER, "bind-address", "0.0.0.0"),
    "1.4.1": text("/etc/kubernetes/scheduler.yml", "enableProfiling: false", "enableProfiling: true"),
    "1.4.2": flag(SCHEDULER, "bind-address"),
    "2.1": flag("etcd", "key-file"),
    "2.2": flag("etcd", "client-cert-auth"),
    "2.3": flag("etcd", "auto-tls", "true"),
    "2.4": flag("etcd", "peer-cert-file"),
    "2.5": flag("etcd", "peer-client-cert-auth", "false"),
    "2.6": flag("etcd", "peer-auto-tls", "true"),
    "2.7": shared_authority,
    "3.2.1": lambda shown: shown["texts"].update({AUDIT: "rules: [{level: None}]"}),
    "3.2.2": text(AUDIT, "level: Request\n", "level: Metadata\n"),
    "4.1.1": mode(f"{UNITS}/kubelet.service", "0644"),
    "4.1.2": owner(f"{UNITS}/kubelet.service", "ubuntu:root"),
    "4.1.3": mode("/etc/kubernetes/proxy.conf", "0640"),
    "4.1.4": owner("/etc/kubernetes/proxy.conf", "ubuntu:root"),
    "4.1.5": mode("/etc/kubernetes/kubelet.conf", "0644"),
    "4.1.6": owner("/etc/kubernetes/kubelet.conf", "ubuntu:root"),
    "4.1.7": mode("/etc/kubernetes/pki/ca.crt", "0646"),
    "4.1.8": owner("/etc/kubernetes/pki/ca.crt", "ubuntu:root"),
    "4.1.9": mode(KUBELET, "0644"),
    "4.1.10": owner(KUBELET, "ubuntu:root"),
    "4.2.1": kubelet("authentication.anonymous.enabled", True),
    "4.2.2": kubelet("authorization.mode", "AlwaysAllow"),
    "4.2.3": kubelet("authentication.x509.clientCAFile"),
    "4.2.4": kubelet("readOnlyPort", 10255),
    "4.2.5": kubelet("streamingConnectionIdleTimeout", "0s"),
    "4.2.6": kubelet("makeIPTablesUtilChains", False),
    "4.2.8": kubelet("eventRecordQPS", -1),
    "4.2.9": kubelet("tlsPrivateKeyFile"),
    "4.2.10": kubelet("rotateCertificates", False),
    "4.2.11": kubelet("featureGates.RotateKubeletServerCertificate", False),
    "4.2.12": kubelet("tlsCipherSuites", ["TLS_RSA_WITH_3DES_EDE_CBC_SHA"]),
    "4.2.13": kubelet("podPidsLimit", -1),
    "4.2.14": kubelet("seccompDefault", False),
    "4.3.1": flag("kube-proxy", "metrics-bind-address", "0.0.0.0:10249"),
    "X.2": mode("/run/kube-scheduler/kube-scheduler.key", "0440"),
    "X.3": flag("etcd", "enable-pprof", "true"),
    "X.4": flag(API, "service-account-max-token-expiration", "25h"),
    "X.5": kubelet("protectKernelDefaults", False),
    "X.6": kubelet("eventRecordQPS", 0),
    "X.7": kubelet("enableProfilingHandler", True),
    "X.8": flag("kube-proxy", "profiling", "true"),
}
# Those that only a person can decide, or that say MANUAL and never FAIL.
FOR_A_PERSON = {"1.2.9", "1.2.11", "1.2.20", "3.1.3", "4.2.7"}


def test_every_item_is_tried():
    assert set(TAKEN_AWAY) | FOR_A_PERSON == set(HARDENED)


@pytest.mark.parametrize("number", TAKEN_AWAY)
def test_without_its_protection_the_item_fails(number):
    shown = copy.deepcopy(SHOWN)
    TAKEN_AWAY[number](shown)
    assert statuses(shown)[number] == "FAIL"


@pytest.mark.parametrize(
    ("number", "change"),
    [
        ("1.2.9", without("EventRateLimit")),
        ("1.2.20", flag(API, "request-timeout", "1h")),
        ("3.1.3", flag(API, "enable-bootstrap-token-auth", "true")),
    ],
)
def test_a_plan_as_text(number, change):
    shown = copy.deepcopy(SHOWN)
    change(shown)
    assert (HARDENED[number], statuses(shown)[number]) == ("PASS", "MANUAL")


def test_a_program_that_does_not_run_proves_nothing():
    shown = copy.deepcopy(SHOWN)
    del shown["processes"][SCHEDULER]
    assert {statuses(shown)[number] for number in ("1.1.5", "1.4.1", "1.4.2")} == {"FAIL"}


def test_a_kubelet_that_says_nothing_proves_nothing():
    shown = copy.deepcopy(SHOWN)
    del shown["kubelet"]
    lost = {number for number, status in statuses(shown).items() if status == "FAIL"}
    assert lost == {
        "4.1.7",
        "4.1.8",
        "X.5",
        "X.6",
        "X.7",
        *(number for number in HARDENED if number.startswith("4.2.")),
    } - {"4.2.7"}


@pytest.mark.parametrize(
    ("program", "name", "lost"),
    [
        ("etcd", "config-file", {"X.3", *(f"2.{number}" for number in range(1, 8))}),
        ("kube-proxy", "config", {"4.3.1", "X.8"}),
    ],
)
def test_flags_beside_a_configuration_file_prove_nothing(program, name, lost):
    shown = copy.deepcopy(SHOWN)
    flag(program, name, "/etc/elsewhere.yml")(shown)
    assert {number for number, status in statuses(shown).items() if status == "FAIL"} == lost


@pytest.mark.parametrize(
    ("number", "change"),
    [
        ("1.1.9", mode("/var/lib/cni/networks/k8sgu/10.200.0.2", "0644")),
        ("1.1.10", owner("/var/lib/cni/networks/k8sgu/10.200.0.2", "ubuntu:root")),
        ("1.1.19", owner("/etc/etcd/pki/server.key", "etcd:etcd")),
        ("1.2.6", flag(API, "authorization-mode")),
        ("X.2", owner("/run/kube-apiserver/sa.key", "etcd:root")),
        ("X.2", mode("/run/etcd", "0755")),
        ("X.2", lambda shown: shown.update(files={})),
        ("X.4", flag(API, "service-account-max-token-expiration")),
        ("X.6", kubelet("maxPods", 0)),
        ("X.6", kubelet("eventBurst")),
        ("X.7", kubelet("enableDebugFlagsHandler", True)),
        # What the flags say counts, wherever it is.
        ("1.1.11", flag("etcd", "data-dir", "/var/lib/elsewhere")),
        ("4.1.9", flag("kubelet", "config", "/etc/elsewhere.yml")),
    ],
)
def test_other_ways_to_fail(number, change):
    shown = copy.deepcopy(SHOWN)
    change(shown)
    assert statuses(shown)[number] == "FAIL"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--a=1", "--b", "2", "--c", "--d=x=y"], {"a": "1", "b": "2", "c": "true", "d": "x=y"}),
        (["-v=2", "run"], {"v": "2"}),
    ],
)
def test_flags(arguments, found):
    assert node.flags(arguments) == found


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}, True),
        ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, True),
        ({"apiGroups": ["apps"], "resources": ["secrets"], "verbs": ["get"]}, False),
        ({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, False),
        ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}, False),
        ({"nonResourceURLs": ["*"], "verbs": ["*"]}, False),
    ],
)
def test_rules(rule, allowed):
    assert policies.allows(rule, "", "secrets", ["get", "list"]) is allowed


@pytest.mark.parametrize("resources", [["nodes/proxy"], ["nodes/*"], ["*/proxy"], ["*"]])
def test_subresources(resources):
    rule = {"apiGroups": [""], "resources": resources, "verbs": ["create"]}
    assert policies.allows(rule, "", "nodes/proxy", ["create"])
    assert not policies.allows({**rule, "resources": ["nodes"]}, "", "nodes/proxy", ["create"])


def test_accepted_items_say_so():
    found = [items.Finding("5.2.5", "t", "FAIL", "seen"), items.Finding("5.2.4", "t", "FAIL", "seen")]
    accepted = report.accept(found, {"5.2.5": "our monitoring"})
    assert [(one.status, one.reason) for one in accepted] == [
        ("MANUAL", "accepted (our monitoring): seen"), ("FAIL", "seen")
    ]  # fmt: skip


def test_items_count_by_their_worst_answer_and_nodes_share_lines():
    found = [items.Finding("4.2.1", "t", "PASS", "fine", name) for name in ("a", "b")]
    found += [items.Finding("4.2.1", "t", "FAIL", "open", "c"), items.Finding("5.1.1", "t", "PASS", "fine")]
    assert report.counts(found) == {"PASS": 1, "FAIL": 1, "MANUAL": 0}
    assert len(report.table(found)) == 4
    assert report.order("X.1") > report.order("5.2.10") > report.order("5.2.9")


def test_a_node_that_was_not_read_fails():
    found = project_items.coverage(["a", "b"], ["b"])
    assert [(one.node, one.status) for one in found] == [("a", "FAIL"), ("b", "PASS")]


@pytest.mark.parametrize(
    ("duration", "expected"), [("24h", 86400), ("1h30m0s", 5400), ("60s", 60), ("", None), ("1d", None), ("h", None)]
)
def test_durations(duration, expected):
    assert project_items.seconds(duration) == expected
