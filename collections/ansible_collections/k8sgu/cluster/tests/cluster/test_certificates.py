# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every leaf is renewed under clients that lose nothing, and a cluster whose leaves have all expired comes back.

Runs as test_security.py does, against a cluster with k8sgu_control_plane_count: 3 and a worker; with one control-plane
node what has `expired` in its name. That takes a quarter of an hour, most of it until certificates have expired.
"""

from __future__ import annotations

import json
import re
import time
from datetime import datetime, timezone

import pytest
from cryptography import x509
from test_members import Visitor, Writer, check_written, namespace
from test_rolling import Reader
from test_security import STATE, hosts, kubectl, on, playbook, probe_pods, value

__all__ = ["hosts", "namespace", "on"]  # fixtures
pytestmark = pytest.mark.timeout(3000)

PKI = STATE / "pki"
AUTHORITIES = ("kubernetes-ca", "etcd-ca", "front-proxy-ca", "kubelet-client-ca")
# Everything from the certificates on the controller to the last program that has one.
PHASES = "pki,node,container_runtime,etcd,control_plane,worker,pod_network,observability"
# Less than what a certificate of a few minutes ago has left: it begins five minutes before it is made, as CFSSL has it.
ALL = {"k8sgu_pki_renew_before": "8759h50m"}
# So a new one has five minutes left; the kubelets' own, which the cluster signs, may have ten.
SHORT = {
    "k8sgu_pki_expiry": "10m",
    "k8sgu_pki_renew_before": "1m",
    "k8sgu_controller_manager_extra_flags": {"cluster-signing-duration": "10m"},
}
EXPIRE_S = 900
# Programs that read their certificates anew.
READS = ("etcd", "kube-apiserver", "kubelet", "node-exporter")
# {port: (the certificate on the controller, its copy on the node)}; the last two listen on loopback.
SERVERS = {
    6443: ("kube-apiserver", "/etc/kubernetes/pki/apiserver.crt"),
    2379: ("etcd-server-{node}", "/etc/etcd/pki/server.crt"),
    2380: ("etcd-peer-{node}", "/etc/etcd/pki/peer.crt"),
    10250: ("kubelet-{node}", "/etc/kubernetes/pki/kubelet.crt"),
    9100: ("node-exporter-{node}", "/etc/kubernetes/pki/node-exporter.crt"),
    10257: ("kube-controller-manager", "/etc/kubernetes/pki/kube-controller-manager.crt"),
    10259: ("kube-scheduler", "/etc/kubernetes/pki/kube-scheduler.crt"),
}
LOOPBACK = (10257, 10259)
EVERYWHERE = (9100, 10250)
KUBELETS_OWN = "/var/lib/kubelet/pki/kubelet-client-current.pem"


def every_node(hosts):
    groups, _variables = hosts
    return groups["control_plane"] + groups["worker"]


def leaves():
    """{name: certificate} of the controller's leaves."""
    names = [path.stem for path in PKI.glob("*.pem") if not path.stem.endswith(("-key", "-bundle"))]
    return {
        name: x509.load_pem_x509_certificate((PKI / f"{name}.pem").read_bytes())
        for name in sorted(set(names) - set(AUTHORITIES))
    }


def served(on, hosts):
    """{(node, port): serial number of the certificate that the server there presents}, asked on the node itself."""
    groups, variables = hosts
    found = {}
    for node in every_node(hosts):
        ports = list(SERVERS) if node in groups["control_plane"] else list(EVERYWHERE)
        own = value(variables[node]["ec2_private_ip"])
        asked = [["127.0.0.1" if port in LOOPBACK else own, port] for port in ports]
        ask = f"import json, ssl; print(json.dumps([ssl.get_server_certificate(tuple(one)) for one in {asked}]))"
        told = json.loads(on(node, f"python3 - <<'END'\n{ask}\nEND\n"))
        for port, pem in zip(ports, told):
            found[node, port] = x509.load_pem_x509_certificate(pem.encode()).serial_number
    return found


def starts(on, hosts, units=READS):
    """{(node, unit): what another start of it would change}."""
    show = "systemctl show -p LoadState -p InvocationID -p MainPID -p NRestarts"
    told = {(node, unit): on(node, f"{show} {unit}") for node in every_node(hosts) for unit in units}
    return {key: text for key, text in told.items() if "LoadState=loaded" in text}


def check_served(on, hosts):
    """Every server presents what the controller has, and every copy of it on the nodes is that."""
    mine = {name: one.serial_number for name, one in leaves().items()}
    found = served(on, hosts)
    assert found == {(node, port): mine[SERVERS[port][0].format(node=node)] for node, port in found}
    for node in hosts[0]["control_plane"]:
        for program, place in (("etcd", "/etc/etcd/pki"), ("kube-apiserver", "/etc/kubernetes/pki")):
            on(node, f"for f in /run/{program}/*.crt /run/{program}/*.key; do cmp $f {place}/$(basename $f); done")
    return found


def check_streams():
    """The API server reaches every kubelet, and that the runtime, with certificates that each accepts."""
    for pod in probe_pods():
        place = ["-n", pod["metadata"]["namespace"], pod["metadata"]["name"]]
        assert kubectl("exec", *place, "--", "echo", "here") == "here\n"
        kubectl("logs", *place, "--tail=1")


def test_no_request_is_lost_while_every_leaf_is_renewed(hosts, on, namespace, tmp_path):
    groups, variables = hosts
    if len(groups["control_plane"]) < 2:
        pytest.skip("one control-plane node: nobody takes over from it")
    before, ran, presented = leaves(), starts(on, hosts), served(on, hosts)
    runtime = starts(on, hosts, ["containerd", "kube-proxy"])
    clients = [Reader(tmp_path / "reader"), Writer(tmp_path / "writer", "renewed")]
    clients += [Visitor(tmp_path / node, variables[node]) for node in groups["worker"]]
    with clients[0].running(), clients[1].running(), clients[-1].running():
        playbook("site.yml", "--tags", PHASES, **ALL)
        time.sleep(5)
    for client in clients:
        print(client.told(type(client).__name__))
    after = leaves()
    assert set(after) == set(before)
    assert [name for name in after if after[name].serial_number == before[name].serial_number] == []
    assert starts(on, hosts) == ran
    # What reads its certificate once was restarted, or it would not have the new one.
    again = starts(on, hosts, ["containerd", "kube-proxy"])
    assert again.keys() == runtime.keys()
    assert [key for key in again if again[key] == runtime[key]] == []
    now = check_served(on, hosts)
    assert [key for key in now if now[key] == presented[key]] == []
    check_streams()
    assert all(client.asked > 100 for client in clients)
    assert [client.lost for client in clients] == [[]] * len(clients)
    check_written(clients[1])


def test_nothing_is_left_to_renew():
    assert "changed=1" not in playbook("site.yml", "--tags", PHASES).partition("PLAY RECAP")[2]


def test_a_copy_that_was_not_read_is_noticed(hosts, on):
    """As after a run that was killed between a file and the reload: the program has the former certificate."""
    node = hosts[0]["control_plane"][0]
    before = starts(on, hosts)
    record = "/var/lib/k8sgu/component/etcd.json"
    on(
        node,
        f"cp -p /run/etcd/server.crt /run/etcd/server.key /run/; sed -i 's/\\(server.crt\": \"\\)./\\1x/' {record}",
    )
    told = playbook("site.yml", "--tags", "etcd", "--check", "--diff")
    assert re.search(r"reload etcd.service: it has not yet read its changed files", told)
    playbook("site.yml", "--tags", "etcd")
    on(node, "rm /run/server.crt /run/server.key")
    assert starts(on, hosts) == before
    check_served(on, hosts)


@pytest.fixture
def expired(hosts, on):
    """A cluster in which no leaf is valid any more; an object that was written before."""
    kubectl("create", "configmap", "k8sgu-test-expired", "--from-literal=written=before")
    for name in leaves():
        (PKI / f"{name}.pem").unlink()
    # Each kubelet begins with the certificate in its kubeconfig again, and asks for one of its own.
    for node in every_node(hosts):
        on(node, f"rm -f {KUBELETS_OWN}")
    playbook("site.yml", "--tags", PHASES, **SHORT)
    deadline = time.monotonic() + EXPIRE_S
    while True:
        ends = [one.not_valid_after_utc for one in leaves().values()]
        for node in every_node(hosts):
            # The first certificate of the file; the kubelet renews it for as long as it can.
            (line,) = re.findall("notAfter=(.*)", on(node, f"openssl x509 -noout -enddate -in {KUBELETS_OWN}"))
            ends.append(datetime.strptime(line, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=timezone.utc))
        left = (max(ends) - datetime.now(timezone.utc)).total_seconds()
        if left < 0:
            break
        assert time.monotonic() < deadline, f"a certificate has {left:.0f} s left after {EXPIRE_S} s"
        time.sleep(min(left + 1, 30))
    yield
    kubectl("delete", "configmap", "k8sgu-test-expired")


def test_a_cluster_whose_leaves_have_expired_comes_back(expired, hosts, on):
    for node in hosts[0]["control_plane"]:
        # A power cut in the meantime: no connection of former days is left.
        on(node, "systemctl restart --no-block etcd kube-apiserver")
    playbook("site.yml")
    check_served(on, hosts)
    check_streams()
    assert kubectl("get", "configmap", "k8sgu-test-expired", "-o", "jsonpath={.data.written}") == "before"
    assert "changed=1" not in playbook("site.yml", "--tags", PHASES).partition("PLAY RECAP")[2]
