# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Resource metrics: who has them, by which certificates, and what becomes of them when a certificate changes.

Runs like test_security.py.
"""

from __future__ import annotations

import json
import time

import pytest
from test_security import STATE, hosts, kubectl, on, playbook, put_back, value

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(900)

SYSTEM = ("-n", "kube-system")
# Two readings, 15 s apart, and what a busy machine adds.
TOLD_S = 180
CERTIFICATE = "/etc/kubernetes/pki/kubelet.crt"
KEY = "/etc/kubernetes/pki/kubelet.key"
REASON = "certificate signed by unknown authority"


def until(what, look, seconds=TOLD_S):
    """What `look` returns, once it is not empty."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(1)


def measured():
    """Names of the nodes that have metrics."""
    return {
        item["metadata"]["name"]
        for item in json.loads(kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"))["items"]
    }


def servers():
    """metrics-server's pods."""
    return json.loads(kubectl(*SYSTEM, "get", "pods", "-l", "k8s-app=metrics-server", "-o", "json"))["items"]


def restarts():
    return {
        pod["metadata"]["uid"]: [one["restartCount"] for one in pod["status"]["containerStatuses"]] for pod in servers()
    }


def test_an_administrator_sees_nodes_and_pods_and_others_what_is_theirs(hosts):
    groups, _variables = hosts
    names = {name for group in groups.values() for name in group}
    until("metrics of every node", lambda: measured() >= names)
    top = kubectl("top", "nodes", "--no-headers")
    assert {line.split()[0] for line in top.splitlines()} == names
    assert "unknown" not in top
    # Pods that were started anew a moment ago are not told yet.
    until("metrics of pods", lambda: namespaces() >= {"kube-system", "demo", "k8sgu-verify"})
    # Who may look at a namespace sees its pods' metrics, and no node's.
    binding = ("-n", "demo", "rolebinding", "k8sgu-test-view")
    with put_back(lambda: kubectl("delete", *binding, "--ignore-not-found")):
        assert (may_list("pods", "demo"), may_list("nodes", "")) == (False, False)
        kubectl("create", *binding, "--clusterrole=view", "--serviceaccount=demo:default")
        until("what the role allows", lambda: may_list("pods", "demo"))
        assert (may_list("pods", "default"), may_list("nodes", "")) == (False, False)


def namespaces():
    """Those of pods that have metrics."""
    pods = kubectl("top", "pods", "--all-namespaces", "--no-headers").splitlines()
    return {line.split()[0] for line in pods}


def may_list(resource, namespace):
    """Whether the demo's account may list the metrics of pods in a namespace, or of nodes."""
    asked = {"group": "metrics.k8s.io", "resource": resource, "verb": "list", "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": "system:serviceaccount:demo:default", "resourceAttributes": asked},
    }
    return json.loads(kubectl("create", "-f", "-", "-o", "json", given=json.dumps(review)))["status"]["allowed"]


def test_it_runs_where_it_should(hosts):
    """Two pods where there are two nodes, and nothing that is not verified."""
    groups, _variables = hosts
    nodes = sorted(name for group in groups.values() for name in group)
    found = [pod for pod in servers() if "deletionTimestamp" not in pod["metadata"]]
    assert len(found) == min(2, len(nodes))
    arguments = " ".join(found[0]["spec"]["containers"][0]["args"])
    assert "insecure" not in arguments
    service = json.loads(kubectl("get", "apiservice", "v1beta1.metrics.k8s.io", "-o", "json"))
    assert "insecureSkipTLSVerify" not in service["spec"]
    assert service["spec"]["caBundle"]


def test_a_kubelet_of_another_authority_is_not_read(on, hosts):
    """Verify names the node, and metrics-server the reason."""
    groups, variables = hosts
    worker = groups["worker"][0]
    address = value(variables[worker]["ec2_private_ip"])
    until("the worker's metrics", lambda: worker in measured())

    def own():
        for path in (CERTIFICATE, KEY):
            on("worker", f"test ! -e {path}.k8sgu-test || mv {path}.k8sgu-test {path}")
        on("worker", "systemctl restart kubelet")

    with put_back(own):
        on(
            "worker",
            f"cp -p {CERTIFICATE} {CERTIFICATE}.k8sgu-test; cp -p {KEY} {KEY}.k8sgu-test; "
            f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN={worker} -keyout {KEY} -out {CERTIFICATE} "
            f"-addext subjectAltName=DNS:{worker},IP:{address} 2>/dev/null; "
            "systemctl restart kubelet",
        )
        until("that the worker's metrics are gone", lambda: worker not in measured())
        # The API server does not trust this kubelet either, so what pods have written is read on their nodes.
        logs = "tail -q -n 50 /var/log/pods/kube-system_metrics-server-*/*/*.log 2>/dev/null || true"
        until("the reason", lambda: REASON in "".join(on(name, logs) for group in groups.values() for name in group))
        output = playbook("playbooks/verify.yml", fails=True, k8sgu_verify_timeout=15)
        assert f"{worker} has no cpu and memory" in " ".join(output.split())
    until("the worker's metrics again", lambda: worker in measured())


def served(on):
    """The serial numbers of the certificates that metrics-server's pods serve, as a control-plane node gets them."""
    ask = "openssl s_client -connect {}:10250 </dev/null 2>/dev/null | openssl x509 -noout -serial"
    return {on("control_plane", ask.format(pod["status"]["podIP"])).strip() for pod in servers()}


def test_a_renewed_certificate_is_served_without_a_restart(on):
    path = STATE / "pki" / "metrics-server.pem"
    before, running = served(on), restarts()
    assert len(before) == 1
    path.unlink()
    playbook("playbooks/pki.yml")
    playbook("playbooks/metrics_server.yml")
    # A kubelet looks every minute, and when a pod's object changes.
    kubectl(*SYSTEM, "annotate", "--overwrite", "pods", "-l", "k8s-app=metrics-server", f"k8sgu-test={time.time_ns()}")
    until("another certificate of every pod", lambda: len(served(on)) == 1 and not served(on) & before)
    assert restarts() == running
    assert measured()
