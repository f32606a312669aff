# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Items 2: etcd's TLS, from its flags."""

from __future__ import annotations

import re

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.items import (
    Item,
    Node,
    Verdict,
    failed,
    flag_is,
    flags_set,
    from_flags,
    judged,
)

ETCD = "etcd"
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


def certificates(text: str) -> set[str]:
    return {"".join(block.split()) for block in _CERTIFICATE.findall(text)}


def own_authority(node: Node) -> Verdict:
    """etcd's CA is not among the CAs by which the API server accepts clients."""
    path = node.flag(ETCD, "trusted-ca-file") or ""
    clients = node.flag("kube-apiserver", "client-ca-file") or ""
    if path not in node.texts or clients not in node.texts:
        return failed(f"{path or '--trusted-ca-file'} and {clients or '--client-ca-file'} were not both found")
    shared = certificates(node.texts[path]) & certificates(node.texts[clients])
    return judged(not shared, f"{path} {'is among' if shared else 'is none of'} the CAs of {clients}")


def items() -> list[Item]:
    return from_flags(
        ETCD,
        "config-file",
        [
            Item("2.1", "etcd serves with TLS", ETCD, flags_set(ETCD, "cert-file", "key-file")),
            Item("2.2", "etcd's clients need a certificate", ETCD, flag_is(ETCD, "client-cert-auth", "true")),
            Item(
                "2.3",
                "etcd's certificate is not self-generated",
                ETCD,
                flag_is(ETCD, "auto-tls", "false", default="false"),
            ),
            Item("2.4", "etcd's members use TLS", ETCD, flags_set(ETCD, "peer-cert-file", "peer-key-file")),
            Item("2.5", "etcd's members need a certificate", ETCD, flag_is(ETCD, "peer-client-cert-auth", "true")),
            Item(
                "2.6",
                "etcd's members' certificates are not self-generated",
                ETCD,
                flag_is(ETCD, "peer-auto-tls", "false", default="false"),
            ),
            Item("2.7", "etcd has a CA of its own", ETCD, own_authority),
        ],
    )
