# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets access, by which TLS, for how long, and what is recorded of it. Runs like test_security.py."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import time
import uuid

import pytest
from test_security import ENVIRONMENT, ROOT, hosts, kubectl, node_checks, on, playbook, probe_pods, put_back

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(900)

AUDIT_LOG = "/var/log/kubernetes/audit.log"
READY = "until curl -fsk https://127.0.0.1:6443/readyz >/dev/null; do sleep 0.5; done"


def failed_checks(tmp_path):
    return {
        (name, where): check["seen"] for (name, where), check in node_checks(tmp_path).items() if not check["passed"]
    }


def swapped(on, group, path, script, unit, after="true"):
    """Changes a file of a node by a sed script and restarts a unit; returns what puts it back."""
    on(
        group,
        f"cp -p {path} {path}.k8sgu-test; sed -i '{script}' {path}; "
        f"systemctl daemon-reload; systemctl restart {unit}; {after}",
    )
    return lambda: on(group, f"mv {path}.k8sgu-test {path}; systemctl daemon-reload; systemctl restart {unit}; {after}")


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
    """Runs first: the tests after it restart API servers, to which kube-router reconnects late."""
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


def test_anonymous_access_is_seen(on, hosts, tmp_path):
    """Anonymous and without a role is a 403, and not good enough."""
    groups, _variables = hosts
    config = on("worker", "tr '\\0' '\\n' < /proc/$(pgrep -x kubelet)/cmdline | sed -n 's/^--config=//p'").strip()
    api = swapped(
        on, "control_plane", "/etc/kubernetes/authentication.yml", "/conditions:/,$d", "kube-apiserver", READY
    )
    with put_back(api):
        kubelet = swapped(
            on, "worker", config, "/anonymous:/,/enabled:/s/enabled: false/enabled: true/", "kubelet", "sleep 3"
        )
        with put_back(kubelet):
            failed = failed_checks(tmp_path)
    api_server = failed.pop(("the API server refuses a client without a certificate", groups["control_plane"][0]))
    assert "/livez: 200, /version: 200, /api/v1/secrets: 403" in api_server
    assert "/pods: 403" in failed.pop(("the kubelet refuses a client without a certificate", groups["worker"][0]))
    assert failed == {}
    assert failed_checks(tmp_path) == {}


def test_old_tls_and_weak_suites_are_seen(on, hosts, tmp_path):
    groups, _variables = hosts
    script = (
        "s/tls-min-version=VersionTLS12/tls-min-version=VersionTLS10/; "
        "s/tls-cipher-suites=/&TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,/"
    )
    unit = "/etc/systemd/system/kube-scheduler.service"
    with put_back(swapped(on, "control_plane", unit, script, "kube-scheduler", "sleep 3")):
        failed = failed_checks(tmp_path)
    (name, where), seen = failed.popitem()
    assert (name, where) == ("TLS 1.2 or later with modern suites, and nothing else", groups["control_plane"][0])
    assert "kube-scheduler at tcp 127.0.0.1:10259: its answer to TLS 1.1: agrees to TLS 1.1" in seen
    assert "its answer to TLS 1.2 with weak suites: agrees to TLS 1.2" in seen
    assert failed == {}


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


def test_a_policy_that_records_nothing_is_seen(on):
    empty = "apiVersion: audit.k8s.io/v1\\nkind: Policy\\nrules:\\n  - level: None"
    policy = "/etc/kubernetes/audit-policy.yml"
    on(
        "control_plane",
        f"cp -p {policy} {policy}.k8sgu-test; printf '{empty}\\n' > {policy}; "
        f"systemctl restart kube-apiserver; {READY}",
    )
    with put_back(
        lambda: on("control_plane", f"mv {policy}.k8sgu-test {policy}; systemctl restart kube-apiserver; {READY}")
    ):
        # Controllers reconnect late to an API server that was restarted several times, see settled().
        output = playbook("playbooks/verify.yml", fails=True, k8sgu_verify_timeout=180)
    assert re.search(r"\b1 of \d+ checks failed", output), output[-5000:]
    assert "a request that was just made is in the audit log" in output
