# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets access, for how long, and what is recorded of it. Runs like test_security.py."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import uuid

import pytest
from test_security import ENVIRONMENT, ROOT, hosts, kubectl, on, probe_pods, put_back

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(900)

AUDIT_LOG = "/var/log/kubernetes/audit.log"


def connect(pod, target):
    """The result of a connection from a pod: empty if it succeeds, otherwise DNS, TIMEOUT, REFUSED or OTHER."""
    argv = ["kubectl", "-n", "k8sgu-verify", "exec", pod, "--", "/agnhost", "connect", "--timeout=3s", target]
    done = subprocess.run(argv, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout + done.stderr).split("command terminated")[0].strip()


def settled(pod, targets, *, closed):
    """The results of the targets once all are closed or all are open, since a policy takes a moment to take effect.

    It takes two minutes if an API server was restarted several times: kube-router then reconnects after up to a
    minute, learns that its version of the objects is too old, and waits for up to a minute again
    (https://pkg.go.dev/k8s.io/client-go/tools/cache#Reflector).
    """
    deadline = time.monotonic() + 300
    while True:
        said = [connect(pod, target) for target in targets]
        if (all(said) if closed else not any(said)) or time.monotonic() > deadline:
            break
        time.sleep(1)
    return said


def test_the_example_closes_a_namespace_to_all_but_dns():
    """Before test_security.py, which restarts the API server: kube-router reconnects late to it."""
    pods = probe_pods()
    pod, other = pods[0]["metadata"]["name"], f"{pods[1]['status']['podIP']}:8080"
    service, dns = "website.demo.svc.cluster.local:80", "kube-dns.kube-system.svc.cluster.local:53"
    policy = str(ROOT / "examples" / "default-deny.yml")
    assert settled(pod, [other, service, dns], closed=False) == ["", "", ""]
    with put_back(lambda: kubectl("-n", "k8sgu-verify", "delete", "--ignore-not-found", "-f", policy)):
        kubectl("-n", "k8sgu-verify", "apply", "-f", policy)
        assert set(settled(pod, [other, service], closed=True)) <= {"TIMEOUT", "REFUSED"}
        # The name was found, so the question to the name server got through.
        assert connect(pod, dns) == ""
    assert settled(pod, [other, service, dns], closed=False) == ["", "", ""]


def test_a_token_lives_for_a_day_at_most():
    token = kubectl("-n", "default", "create", "token", "default", "--duration=48h").strip()
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert 0 < claims["exp"] - claims["iat"] <= 24 * 3600


def test_the_record_of_a_request(on):
    """Records the change of a role with its body, of a Secret without; readable by root only, and every line JSON."""
    name = f"k8sgu-test-{uuid.uuid4().hex[:8]}"
    kubectl("-n", "default", "create", "role", name, "--verb=get", "--resource=pods")
    kubectl("-n", "default", "create", "secret", "generic", name, f"--from-literal=words={name}-secret")
    kubectl("-n", "default", "delete", "role,secret", name)
    assert on("control_plane", f"stat -c '%a %U' {AUDIT_LOG}").split() == ["600", "kube-apiserver"]
    assert on("control_plane", f"stat -c '%a' $(dirname {AUDIT_LOG})").strip() == "700"
    lines = on("control_plane", f"tail -n 2000 {AUDIT_LOG}").splitlines()
    events = [json.loads(line) for line in lines]
    created = {
        event["objectRef"]["resource"]: event
        for event in events
        if event["verb"] == "create" and name in event["requestURI"] + json.dumps(event.get("objectRef", {}))
    }
    assert created["roles"]["requestObject"]["rules"] == [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]
    assert not {"requestObject", "responseObject"} & set(created["secrets"])
    assert not any(f"{name}-secret" in line for line in lines)
