# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Items 2: etcd's TLS, from its configuration file; with --config-file, etcd ignores all other flags."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.items import (
    Item,
    Node,
    Question,
    Verdict,
    failed,
    judged,
    mapping,
)

ETCD = "etcd"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


def configuration(node: Node, part: str) -> dict[str, Any]:
    path = node.flag(ETCD, "config-file") or ""
    document: dict[str, Any] = mapping(node.texts.get(path, ""))
    return dict(document.get(part) or {})


def has_pair(part: str) -> Question:
    def question(node: Node) -> Verdict:
        settings = configuration(node, part)
        missing = [name for name in ("cert-file", "key-file") if not settings.get(name)]
        return judged(not missing, f"{part}: {'without ' + ', '.join(missing) if missing else settings['cert-file']}")

    return question


def setting_is(part: str, name: str, wanted: bool) -> Question:
    """Both are off in etcd where nothing is said."""

    def question(node: Node) -> Verdict:
        value = configuration(node, part).get(name, False)
        return judged(value is wanted, f"{part}.{name}: {str(value).lower()}")

    return question


def certificates(text: str) -> set[str]:
    return {"".join(block.split()) for block in _CERTIFICATE.findall(text)}


def own_authority(node: Node) -> Verdict:
    """No certificate that the API server accepts clients by is etcd's."""
    path = configuration(node, "client-transport-security").get("trusted-ca-file", "")
    clients = node.flag("kube-apiserver", "client-ca-file") or ""
    if path not in node.texts or clients not in node.texts:
        return failed(f"{path or 'trusted-ca-file'} and {clients or '--client-ca-file'} were not both found")
    shared = certificates(node.texts[path]) & certificates(node.texts[clients])
    return judged(not shared, f"{path} {'is among' if shared else 'is none of'} the CAs of {clients}")


def items() -> list[Item]:
    client, peer = "client-transport-security", "peer-transport-security"
    return [
        Item("2.1", "etcd serves with TLS", ETCD, has_pair(client)),
        Item("2.2", "etcd's clients need a certificate", ETCD, setting_is(client, "client-cert-auth", True)),
        Item("2.3", "etcd's certificate is not its own invention", ETCD, setting_is(client, "auto-tls", False)),
        Item("2.4", "etcd's members speak TLS", ETCD, has_pair(peer)),
        Item("2.5", "etcd's members need a certificate", ETCD, setting_is(peer, "client-cert-auth", True)),
        Item(
            "2.6", "etcd's members' certificates are not their own invention", ETCD, setting_is(peer, "auto-tls", False)
        ),
        Item("2.7", "etcd has a CA of its own", ETCD, own_authority),
    ]
