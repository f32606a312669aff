# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text options that YAML took for something else, as an action plugin sees them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.action.cfssl_cert import ActionModule as CfsslCert
from ansible_collections.k8sgu.cluster.plugins.action.kubeconfig import ActionModule as Kubeconfig
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.texts import text_faults


@pytest.mark.parametrize(
    ("module", "options", "told"),
    [
        (Kubeconfig, "clusters: [{name: 1234}]", "clusters[0].name: is a number to YAML, not text; put it in quotes"),
        (Kubeconfig, "users: [{name: yes}]", "users[0].name: is a truth value"),
        (Kubeconfig, "contexts: [{name: 2026-01-31}]", "contexts[0].name: is a date"),
        (Kubeconfig, "contexts: [{name: c, cluster: 1.30}]", "contexts[0].cluster: is a number"),
        (
            Kubeconfig,
            "kubeconfigs: [{path: a, users: [{name: u, token: 7}]}]",
            "kubeconfigs[0].users[0].token: is a num",
        ),
        (Kubeconfig, "users: [{name: u, exec: {command: on}}]", "users[0].exec.command: is a truth value"),
        (Kubeconfig, "users: [{name: u, exec: {command: a, args: [a, 5]}}]", "users[0].exec.args[1]: is a number"),
        (Kubeconfig, "current_context: 7", "current_context: is a number"),
        (Kubeconfig, "mode: 0644", "mode: is a number"),
        (Kubeconfig, "owner: true", "owner: is a truth value"),
        (Kubeconfig, "{owner: 0, group: 12, mode: '0600', embed_certs: yes, backup: no, current_context: null}", ""),
        (Kubeconfig, "clusters: [{name: '1234', insecure_skip_tls_verify: true}]", ""),
        (CfsslCert, "name: 0123", "name: is a number"),
        (CfsslCert, "certificates: [{name: a}, {name: 5}]", "certificates[1].name: is a number"),
        (CfsslCert, "{name: a, profile: off, initca: yes}", "profile: is a truth value"),
        (CfsslCert, "{name: a, renew_before: 1440, csr: {CN: 5}, unknown: 5}", ""),
    ],
)
def test_a_text_that_is_none_is_named(module: Any, options: str, told: str) -> None:
    spec = module.MODULE.argument_spec
    fault = next(text_faults(yaml.safe_load(options), spec, module.NUMBERS), "")
    assert fault.startswith(told) and bool(fault) == bool(told)
