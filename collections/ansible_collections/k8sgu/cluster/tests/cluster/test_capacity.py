# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks/etcd_capacity.yml expects of objects is what they take in etcd.

Runs like test_security.py, in a few minutes; leaves nothing.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess

import pytest
from test_members import ETCDCTL
from test_security import ENVIRONMENT, STATE, hosts, kubectl, on, playbook, put_back

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(900)

NAMESPACE = "k8sgu-test-capacity"
GROUP = "capacity.test.k8sgu.io"
# Bytes of one object's data, and how many.
SECRETS, CONFIGMAPS, WIDGETS = (500, 2048), (300, 4096), (100, 1024)
AIM = 0.2
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"widgets.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def text(size):
    return base64.b64encode(os.urandom(size * 3 // 4)).decode()


def create(kind, count, version="v1", **content):
    items = [
        {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": f"capacity-{number}", "namespace": NAMESPACE},
            **{name: {"value": make()} for name, make in content.items()},
        }
        for number in range(count)
    ]
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    argv = ["kubectl", "create", "--filename=-"]
    subprocess.run(argv, env=ENVIRONMENT, input=document, capture_output=True, text=True, timeout=300, check=True)


def in_use(on):
    """Bytes of what is in etcd, without history: what the API servers compact sooner or later."""
    revision = json.loads(on("control_plane", f"{ETCDCTL} endpoint status -w json"))[0]["Status"]["header"]["revision"]
    on("control_plane", f"{ETCDCTL} compact {revision} --physical")
    # The pages are counted with the next write, which is a lease a moment later.
    on("control_plane", "sleep 3")
    return json.loads(on("control_plane", f"{ETCDCTL} endpoint status -w json"))[0]["Status"]["dbSizeInUse"]


def report(**variables):
    playbook("playbooks/etcd_capacity.yml", **variables)
    return json.loads((STATE / "etcd-capacity.json").read_text())


def test_what_is_expected_is_what_is_measured(on):
    expected = {
        "nodes": 2,
        "secrets": {"count": SECRETS[0], "bytes": SECRETS[1]},
        "configmaps": {"count": CONFIGMAPS[0], "bytes": CONFIGMAPS[1]},
        "others": [{"name": "widgets", "count": WIDGETS[0], "bytes": WIDGETS[1]}],
    }
    kinds = {kind["name"]: kind["total"] for kind in report(k8sgu_etcd_expected=expected)["kinds"]}
    wanted = sum(kinds[name] for name in ("secrets", "configmaps", "widgets"))
    with put_back(
        lambda: kubectl("delete", "namespace", NAMESPACE),
        lambda: kubectl("delete", "customresourcedefinition", DEFINITION["metadata"]["name"]),
    ):
        kubectl("create", "namespace", NAMESPACE)
        subprocess.run(
            ["kubectl", "create", "--filename=-"],
            env=ENVIRONMENT,
            input=json.dumps(DEFINITION),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        kubectl("wait", "--for=condition=Established", f"crd/widgets.{GROUP}", "--timeout=60s")
        before = in_use(on)
        create("Secret", SECRETS[0], data=lambda: base64.b64encode(os.urandom(SECRETS[1])).decode())
        create("ConfigMap", CONFIGMAPS[0], data=lambda: text(CONFIGMAPS[1]))
        create("Widget", WIDGETS[0], f"{GROUP}/v1", spec=lambda: text(WIDGETS[1]))
        after = in_use(on)
        measured = after - before
        print(f"expected {wanted}, measured {measured}: {wanted / measured - 1:+.1%}")
        assert wanted == pytest.approx(measured, rel=AIM)

        # Of what is there, when the API server has counted it, which it does once a minute.
        on("control_plane", "sleep 70")
        found = report()
        print(f"found {found['bytes']['live']}, measured {after}: {found['bytes']['live'] / after - 1:+.1%}")
        assert found["bytes"]["live"] == pytest.approx(after, rel=AIM)
        counts = {kind["name"]: kind["count"] for kind in found["kinds"]}
        assert counts[f"widgets.{GROUP}"] == WIDGETS[0] and counts["secrets"] >= SECRETS[0]
