# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Items 4: files and configuration of kubelet and kube-proxy, on every node."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.items import (
    Item,
    Node,
    Question,
    Verdict,
    failed,
    files_mode,
    files_owner,
    from_flags,
    is_path,
    judged,
    manual,
    passed,
    strong_ciphers,
)

KUBELET, PROXY = "kubelet", "kube-proxy"
UNIT = "/etc/systemd/system/kubelet.service"
Select = Callable[[Node], str]


def setting(node: Node, name: str) -> Any:
    """A field of the kubelet's running configuration by its dotted name; None if it is not set."""
    value: Any = node.kubelet
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def configured(items: list[Item]) -> list[Item]:
    """The items, failing if the kubelet did not report its running configuration."""

    def asked(item: Item) -> Item:
        def question(node: Node) -> Verdict:
            return (
                item.question(node)
                if node.kubelet
                else failed("the kubelet did not report its running configuration (/configz)")
            )

        return replace(item, question=question)

    return [asked(item) for item in items]


def setting_is(name: str, *allowed: Any, default: Any = None) -> Question:
    """The setting has one of the allowed values; `default` is its value if it is not set."""

    def question(node: Node) -> Verdict:
        value = setting(node, name)
        seen = f"{name}: {value}" if value is not None else f"{name} is not set (default {default})"
        return judged((default if value is None else value) in allowed, seen)

    return question


def setting_set(*names: str) -> Question:
    def question(node: Node) -> Verdict:
        missing = [name for name in names if not setting(node, name)]
        seen = ", ".join(f"{name}: {setting(node, name)}" for name in names)
        return judged(not missing, f"not set: {', '.join(missing)}" if missing else seen)

    return question


def client_authority(node: Node) -> str:
    return str(setting(node, "authentication.x509.clientCAFile") or "")


def authority_mode(node: Node) -> Verdict:
    return files_mode("0644", is_path(client_authority(node)), "authentication.x509.clientCAFile")(node)


def authority_owner(node: Node) -> Verdict:
    return files_owner(["root:root"], is_path(client_authority(node)), "authentication.x509.clientCAFile")(node)


def authorization(node: Node) -> Verdict:
    mode = setting(node, "authorization.mode")
    return judged(mode == "Webhook", f"authorization.mode: {mode}")


def streams_end(node: Node) -> Verdict:
    value = setting(node, "streamingConnectionIdleTimeout")
    return judged(str(value) not in ("0", "0s"), f"streamingConnectionIdleTimeout: {value or 'not set (default 4h)'}")


def host_name(node: Node) -> Verdict:
    value = node.flag(KUBELET, "hostname-override")
    if value is None:
        return passed("--hostname-override is not set")
    return manual(
        "--hostname-override is set: the node's name is the one in its certificate, and the API server checks that"
    )


def events(node: Node) -> Verdict:
    value = setting(node, "eventRecordQPS")
    good = value is None or (isinstance(value, int) and value >= 0)
    return judged(good, f"eventRecordQPS: {'not set (default 50)' if value is None else value}")


def ciphers(node: Node) -> Verdict:
    return strong_ciphers(setting(node, "tlsCipherSuites") or [])


def process_limit(node: Node) -> Verdict:
    value = setting(node, "podPidsLimit")
    return judged(isinstance(value, int) and value > 0, f"podPidsLimit: {value}")


def server_rotation(node: Node) -> Verdict:
    """The kubelet either requests its serving certificate itself, or is given one."""
    gates = setting(node, "featureGates") or {}
    if gates.get("RotateKubeletServerCertificate") is False:
        return failed("featureGates.RotateKubeletServerCertificate: false")
    given = setting(node, "tlsCertFile")
    origin = "renewed by the playbooks" if given else "requested by the kubelet"
    return passed(f"on by default; the serving certificate is {origin}")


def proxy_metrics(node: Node) -> Verdict:
    value = node.flag(PROXY, "metrics-bind-address") or "127.0.0.1:10249"
    return judged(value.startswith(("127.", "[::1]", "localhost")), f"--metrics-bind-address={value}")


def _file_items(number: int, title: str, program: str, path: Select) -> list[Item]:
    def mode(node: Node) -> Verdict:
        return files_mode("0600", is_path(path(node)), path(node) or title)(node)

    def owner(node: Node) -> Verdict:
        return files_owner(["root:root"], is_path(path(node)), path(node) or title)(node)

    return [
        Item(f"4.1.{number}", f"{title} is readable by root only", program, mode),
        Item(f"4.1.{number + 1}", f"{title} is owned by root", program, owner),
    ]


def _named(program: str, flag: str) -> Select:
    return lambda node: node.flag(program, flag) or ""


def items() -> list[Item]:
    return [
        *_file_items(1, "kubelet's unit", KUBELET, lambda _node: UNIT),
        *_file_items(3, "kube-proxy's kubeconfig", PROXY, _named(PROXY, "kubeconfig")),
        *_file_items(5, "kubelet's kubeconfig", KUBELET, _named(KUBELET, "kubeconfig")),
        *configured(
            [
                Item(
                    "4.1.7",
                    "The kubelet's client CA is writable by root only",
                    KUBELET,
                    authority_mode,
                ),
                Item("4.1.8", "The kubelet's client CA is owned by root", KUBELET, authority_owner),
            ]
        ),
        *_file_items(9, "kubelet's configuration", KUBELET, _named(KUBELET, "config")),
        Item("4.2.7", "The node's name is not overridden", KUBELET, host_name),
        *configured(_settings()),
        *from_flags(
            PROXY, "config", [Item("4.3.1", "kube-proxy's metrics are for the node only", PROXY, proxy_metrics)]
        ),
    ]


def _settings() -> list[Item]:
    return [
        Item(
            "4.2.1",
            "The kubelet refuses anonymous requests",
            KUBELET,
            setting_is("authentication.anonymous.enabled", False),
        ),
        Item("4.2.2", "The kubelet asks the API server for authorization", KUBELET, authorization),
        Item("4.2.3", "The kubelet verifies clients by a CA", KUBELET, setting_set("authentication.x509.clientCAFile")),
        Item("4.2.4", "The kubelet's read-only port is closed", KUBELET, setting_is("readOnlyPort", 0, default=0)),
        Item("4.2.5", "Idle streams end", KUBELET, streams_end),
        Item(
            "4.2.6",
            "The kubelet keeps its packet rules",
            KUBELET,
            setting_is("makeIPTablesUtilChains", True, default=True),
        ),
        Item("4.2.8", "The kubelet records events", KUBELET, events),
        Item(
            "4.2.9", "The kubelet serves with a certificate", KUBELET, setting_set("tlsCertFile", "tlsPrivateKeyFile")
        ),
        Item("4.2.10", "The kubelet's client certificate is renewed", KUBELET, setting_is("rotateCertificates", True)),
        Item("4.2.11", "Renewal of the kubelet's serving certificate is not turned off", KUBELET, server_rotation),
        Item("4.2.12", "The kubelet uses only strong cipher suites", KUBELET, ciphers),
        Item("4.2.13", "Pods have a process limit", KUBELET, process_limit),
        Item("4.2.14", "Pods have a seccomp profile by default", KUBELET, setting_is("seccompDefault", True)),
    ]
