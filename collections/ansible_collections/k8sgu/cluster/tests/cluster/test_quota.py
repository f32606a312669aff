# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""etcd's quota is used up: verify says so, playbooks/etcd_maintenance.yml brings the cluster back, and nothing is lost.

Runs like test_security.py.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess

import pytest
from test_members import ETCDCTL
from test_security import ENVIRONMENT, hosts, kubectl, on, playbook, put_back

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(900)

NAMESPACE = "k8sgu-test-quota"
MIB = 1 << 20
# The least that leaves room beside what is there, and the smallest quota that is taken.
ROOM = 6 * MIB
LEAST = 32 * MIB
MOST = 90


def rewrite(number):
    """Writes one object of half a mebibyte anew, with its number; what the API server answers."""
    data = base64.b64encode(os.urandom(MIB * 3 // 8)).decode()
    name = {"name": "large", "namespace": NAMESPACE}
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": name, "data": {"n": str(number), "large": data}}
    argv = ["kubectl", "replace", "--filename=-"] if number else ["kubectl", "create", "--filename=-"]
    done = subprocess.run(
        argv, env=ENVIRONMENT, input=json.dumps(document), capture_output=True, text=True, timeout=60, check=False
    )
    return done.stderr if done.returncode else ""


def test_a_quota_that_is_used_up_is_seen_and_cured(on):
    kubectl("create", "namespace", NAMESPACE)
    with put_back(
        lambda: kubectl("delete", "namespace", NAMESPACE),
        lambda: playbook("playbooks/etcd.yml"),
    ):
        status = json.loads(on("control_plane", f"{ETCDCTL} endpoint status -w json"))[0]["Status"]
        refused = " ".join(playbook("playbooks/etcd.yml", fails=True, k8sgu_etcd_quota_bytes=LEAST - 1).split())
        assert "Nothing was changed. k8sgu_etcd_quota_bytes: 33554431" in refused
        playbook("playbooks/etcd.yml", k8sgu_etcd_quota_bytes=max(LEAST, status["dbSize"] + ROOM))
        refused, number = "", 0
        while not refused:
            refused, number = rewrite(number), number + 1
            assert number < MOST, "the quota was never used up"
        assert "database space exceeded" in refused
        output = " ".join(playbook("playbooks/verify.yml", fails=True).split())
        assert "its quota is used up, and it takes no writes (alarm NOSPACE): playbooks/etcd_maintenance.yml" in output

        output = " ".join(playbook("playbooks/etcd_maintenance.yml").split())
        assert "compact etcd''s history" in output and "clear the alarm NOSPACE" in output
        # What was acknowledged last is there, or the one that was refused, which etcd may carry out; and one is taken.
        kept = kubectl("get", "configmap", "large", "-n", NAMESPACE, "-o", "jsonpath={.data.n}")
        assert int(kept) in (number - 2, number - 1)
        assert rewrite(number) == ""
        assert "nothing to do" in playbook("playbooks/etcd_maintenance.yml")
