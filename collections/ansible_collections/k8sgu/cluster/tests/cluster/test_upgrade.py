# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another minor version and back, though the run is cut off, with a node that cannot take it, and no request lost.

Runs as test_security.py does, against a cluster with two workers and k8sgu_control_plane_count: 3; what has
"one_server" in its name needs one control-plane node. It leaves the cluster as it found it.
"""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from test_boots import eventually
from test_cgroups import drivers, made_with
from test_members import ELECTIONS, Visitor, Writer, cut_off, settled
from test_rolling import Reader
from test_security import VARIABLES, hosts, kubectl, on, playbook

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(1800)

OLDER, OLD, NEW = "1.35.9", "1.36.4", "1.37.2"
ETCD = {OLD: "3.6", NEW: "3.7"}
UP = {"k8sgu_kubernetes_version": NEW}
FINISH = {**UP, "k8sgu_upgrade_finish": True}
BACK = {**UP, "k8sgu_upgrade_back": True}
UPGRADE = "playbooks/upgrade.yml"
NAMESPACE = "k8sgu-test-upgrade"
# Only who is known is told the version.
PKI = "/etc/kubernetes/pki"
AS_API_SERVER = (
    f"curl -s --cacert {PKI}/ca.crt --cert {PKI}/apiserver-kubelet-client.crt --key {PKI}/apiserver-kubelet-client.key"
)
KUBELETS = "/opt/k8sgu/kubelet"
# The new kubelet does not start on this node, and the old one does.
BROKEN = "/etc/systemd/system/kubelet.service.d/k8sgu-test.conf"
BREAKS = f"[Service]\nExecStartPre=/bin/sh -c '! readlink /opt/k8sgu/kubelet/current | grep -F {NEW}'\n"


@pytest.fixture(scope="module", autouse=True)
def namespace():
    kubectl("create", "namespace", NAMESPACE)
    yield
    kubectl("delete", "namespace", NAMESPACE)


class UpgradeWriter(Writer):
    namespace = NAMESPACE


@contextlib.contextmanager
def clients(folder, hosts, series):
    """A writer, a reader and a visitor of the website at each worker's node port, who lose nothing that was written."""
    groups, variables = hosts
    settled(folder / "settled")
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(UpgradeWriter(folder / "writer", series).running())
        reader = stack.enter_context(Reader(folder / "reader").running())
        visitors = [stack.enter_context(Visitor(folder / name, variables[name]).running()) for name in groups["worker"]]
        yield
    told = [writer.told("written"), reader.told("read"), *(visitor.told("visited") for visitor in visitors)]
    print(*told, sep="\n")
    kept = kubectl("get", "configmaps", "-n", NAMESPACE, "-o", "jsonpath={.items[*].metadata.name}").split()
    assert len(writer.written) > 50
    assert set(writer.written) - set(kept) == set()
    assert len(writer.lost) + len(reader.lost) <= ELECTIONS, (writer.lost, reader.lost)
    assert [visitor.lost for visitor in visitors] == [[]] * len(visitors)


def kubelets():
    listed = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    assert not [node["metadata"]["name"] for node in listed if node["spec"].get("unschedulable")]
    return {node["metadata"]["name"]: node["status"]["nodeInfo"]["kubeletVersion"][1:] for node in listed}


def control_planes(on, groups):
    """(program's version, minor version that it behaves as, etcd's version as a whole), of every control-plane node."""
    asked = "set -a; . /etc/etcd/etcdctl.env; curl -s --cacert $ETCDCTL_CACERT --cert $ETCDCTL_CERT --key $ETCDCTL_KEY"
    found = set()
    for name in groups["control_plane"]:
        api = json.loads(on(name, f"{AS_API_SERVER} https://127.0.0.1:6443/version"))
        etcd = json.loads(on(name, f"{asked} https://127.0.0.1:2379/version"))
        found.add((api["gitVersion"][1:], api.get("emulationMinor", api["minor"]), etcd["etcdcluster"][:3]))
    return found


@contextlib.contextmanager
def broken(on, node):
    """A node on which the new kubelet does not start."""
    folder = BROKEN.rpartition("/")[0]
    on(node, f"mkdir -p {folder}; cat >{BROKEN} <<'END'\n{BREAKS}END\nsystemctl daemon-reload")
    try:
        yield
    finally:
        on(node, f"rm -r {folder}; systemctl daemon-reload")


def without_database(node):
    """Moves the demo's only database, which takes a machine's own time to start, before visits are counted."""
    pods = ["-n", "demo", "get", "pods", "-l", "app=database", "-o", "jsonpath={.items[*].spec.nodeName}"]
    if node in kubectl(*pods).split():
        kubectl("cordon", node)
        kubectl("delete", "pod", "-n", "demo", "-l", "app=database")
        kubectl("rollout", "status", "-n", "demo", "deployment/database", "--timeout=120s")
        kubectl("uncordon", node)


def steady(visitor):
    """Whether nothing was lost in the last seconds."""
    lost, asked = len(visitor.lost), visitor.asked
    time.sleep(5)
    return len(visitor.lost) == lost and visitor.asked > asked + 10


def test_other_playbooks_do_not_upgrade():
    said = " ".join(playbook("site.yml", fails=True, **UP).split())
    assert f"k8sgu_kubernetes_version: {NEW}, and this cluster runs {OLD}" in said
    assert "run playbooks/upgrade.yml, or put back" in said
    assert "changed=1" not in said


def test_a_node_that_cannot_take_it_serves_as_before(hosts, on, tmp_path):
    groups, _variables = hosts
    canary, other = groups["worker"]
    made_with(on, canary, "cgroupfs")
    with broken(on, canary), clients(tmp_path, hosts, 1):
        cut_off("Upgrade etcd, batch 2", 3, UPGRADE, **FINISH)
        said = " ".join(playbook(UPGRADE, fails=True, **FINISH).split())
    assert f"{canary} runs {OLD} again and serves as before" in said
    assert control_planes(on, groups) == {(NEW, "37", ETCD[NEW])}
    assert set(kubelets().values()) == {OLD}
    assert on(canary, "readlink /opt/k8sgu/containerd/current") == on(other, "readlink /opt/k8sgu/containerd/current")
    assert (drivers(on, canary), drivers(on, other)) == ({"cgroupfs"}, {"systemd"})


def test_the_nodes_follow(hosts, on, tmp_path):
    groups, _variables = hosts
    # As an upgrade before the last one has left it.
    on("worker", f"cp -r {KUBELETS}/{OLD} {KUBELETS}/{OLDER}")
    with clients(tmp_path, hosts, 2):
        playbook(UPGRADE, **FINISH)
    assert set(kubelets().values()) == {NEW}
    assert set(on("worker", f"ls {KUBELETS}").split()) == {"current", OLD, NEW}
    assert [drivers(on, name) for name in groups["worker"]] == [{"systemd"}] * 2


def test_and_back(hosts, on, tmp_path):
    groups, _variables = hosts
    with clients(tmp_path, hosts, 3):
        cut_off("Take the control plane back, batch 2", 3, UPGRADE, **BACK)
        playbook(UPGRADE, **BACK)
    assert control_planes(on, groups) == {(OLD, "36", ETCD[OLD])}
    assert set(kubelets().values()) == {OLD}


def test_one_server_takes_the_first_part_a_node_fails_then_takes_it_and_all_goes_back(hosts, on, tmp_path):
    """The API is away while its only server restarts; the website never is."""
    groups, variables = hosts
    canary, other = groups["worker"]
    made_with(on, canary, "cgroupfs")
    without_database(canary)
    with Visitor(tmp_path, variables[other]).running() as visitor:
        said = playbook(UPGRADE, **UP)
        for name in groups["control_plane"]:
            assert f"{name}: etcd 3.6" in said and f"{name}: kube-apiserver {OLD} -> {NEW}" in said
        assert f"{other}: containerd" in said
        assert "going back loses nothing" in " ".join(said.split())
        # It stores and offers what the release before knows, and so kubelets stay as they are.
        assert control_planes(on, groups) == {(NEW, "36", ETCD[NEW])}
        assert set(kubelets().values()) == {OLD}
        with broken(on, canary):
            said = " ".join(playbook(UPGRADE, fails=True, **FINISH).split())
        assert f"{canary} runs {OLD} again and serves as before" in said
        assert control_planes(on, groups) == {(NEW, "37", ETCD[NEW])}
        assert set(kubelets().values()) == {OLD}
        assert drivers(on, canary) == {"cgroupfs"}
        playbook(UPGRADE, **FINISH)
        assert set(kubelets().values()) == {NEW}
        assert drivers(on, canary) == {"systemd"}
        playbook(UPGRADE, **BACK)
    assert control_planes(on, groups) == {(OLD, "36", ETCD[OLD])}
    assert set(kubelets().values()) == {OLD}
    print(visitor.told("visited"))
    assert visitor.lost == []


def test_the_snapshot_before_it_takes_back_what_the_new_release_wrote(hosts, on, tmp_path):
    """After the tests above, with one server or three."""
    groups, variables = hosts
    first, other = groups["control_plane"][0], groups["worker"][1]
    kubectl("create", "configmap", "later", "-n", NAMESPACE)
    (name,) = on(first, f"cd /var/lib/k8sgu/snapshots; ls *_upgrade_{OLD}-to-{NEW}.db").split()
    # Pods have moved since, as each node was drained; those that the snapshot knows start anew, with the website.
    with Visitor(tmp_path, variables[other]).running() as visitor:
        playbook("playbooks/restore.yml", k8sgu_restore_snapshot=name, confirm=VARIABLES["k8sgu_cluster_name"])
        eventually("a website that answers as before", lambda: steady(visitor))
    print(visitor.told("visited"))
    kept = kubectl("get", "configmaps", "-n", NAMESPACE, "-o", "jsonpath={.items[*].metadata.name}").split()
    assert "later" not in kept and "kube-root-ca.crt" in kept
    assert control_planes(on, groups) == {(OLD, "36", ETCD[OLD])}
    assert set(kubelets().values()) == {OLD}
    for node in groups["control_plane"]:
        on(node, "rm -r /var/lib/etcd/member-before-*")
