# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""node_drain against a real API server, and infrastructure.yml with it and an EC2 API: no worker ends undrained.

There is no kubelet and no controller: pods have no grace period, so that an eviction that is granted ends them, and how
many evictions a budget allows is written by the tests.
"""

from __future__ import annotations

import json
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import api_server
from ec2_account import AMI, account, pool, run
from moto_server import Server, reset
from test_manifest import client, programs, server

from ansible_collections.k8sgu.cluster.plugins.module_utils._drain import run as drain
from ansible_collections.k8sgu.cluster.plugins.module_utils._drain import work
from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.plan import MARK
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import run as cluster_run
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

__all__ = ["client", "programs", "server"]  # fixtures
NODES, BUDGETS = "/api/v1/nodes", "/apis/policy/v1/namespaces/{}/poddisruptionbudgets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
MERGE = "application/merge-patch+json"


class Cluster:
    """Nodes, pods and budgets of one test, with names and a namespace of its own."""

    def __init__(self, client: Client, server: api_server.ApiServer, directory: Path) -> None:
        self.client, self.server = client, server
        self.name = "t" + uuid.uuid4().hex[:8]
        self.record = directory / "cordoned.json"
        self.pods = f"/api/v1/namespaces/{self.name}/pods"
        client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": self.name}})

    def node(self, name: str, ready: str = "True", **spec: Any) -> str:
        self.client.request("POST", NODES, body={"metadata": {"name": name}, "spec": spec})
        self.say(name, ready)
        return name

    def say(self, name: str, ready: str) -> None:
        status = {"conditions": [{"type": "Ready", "status": ready, "message": "as the test says"}]}
        self.client.request("PATCH", f"{NODES}/{name}/status", body={"status": status}, content_type=MERGE)

    def pod(self, name: str, node: str, owner: str | None = "ReplicaSet", grace: int = 0, **more: Any) -> str:
        metadata: dict[str, Any] = {"name": name, "labels": {"app": name.partition("-")[0]}, **more}
        if owner:
            owned = {"apiVersion": "apps/v1", "kind": owner, "name": name, "uid": str(uuid.uuid4()), "controller": True}
            metadata["ownerReferences"] = [owned]
        spec = {
            "nodeName": node,
            "terminationGracePeriodSeconds": grace,
            "containers": [{"name": "c", "image": "none:1"}],
        }
        self.client.request("POST", self.pods, body={"metadata": metadata, "spec": spec})
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self.client.request("PATCH", f"{self.pods}/{name}/status", body={"status": status}, content_type=MERGE)
        return name

    def budget(self, name: str, allowed: int) -> None:
        body = {"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": name}}}}
        self.client.request("POST", BUDGETS.format(self.name), body=body)
        self.allow(name, allowed)

    def allow(self, name: str, allowed: int) -> None:
        status = {
            "observedGeneration": 1,
            "disruptionsAllowed": allowed,
            "currentHealthy": 1 + allowed,
            "desiredHealthy": 1,
            "expectedPods": 1 + allowed,
        }
        path = f"{BUDGETS.format(self.name)}/{name}/status"
        self.client.request("PATCH", path, body={"status": status}, content_type=MERGE)

    def drain(self, *nodes: str, check_mode: bool = False, **more: Any) -> drain.Outcome:
        given = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
        given.update(kubeconfig=str(self.server.kubeconfig), record=str(self.record), nodes=list(nodes), timeout=60)
        call = Call({**given, **more}, check_mode)
        return drain.Outcome(drain.run(call), call.warnings)

    def left(self) -> list[str]:
        return sorted(pod["metadata"]["name"] for pod in self.client.get(self.pods)["items"])

    def cordoned(self, name: str) -> tuple[bool, bool]:
        """(whether it is cordoned, whether we cordoned it)."""
        node = self.client.get(f"{NODES}/{name}")
        return bool(node["spec"].get("unschedulable")), MARK in node["metadata"].get("annotations", {})


@pytest.fixture
def cluster(client: Client, server: api_server.ApiServer, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(client, server, tmp_path)
    yield made
    client.request("DELETE", made.pods, body={"gracePeriodSeconds": 0})
    for kind in (ATTACHMENTS, LEASES):
        for entry in client.get(kind)["items"]:
            client.request("DELETE", f"{kind}/{entry['metadata']['name']}")
    for node in client.get(NODES)["items"]:
        client.request("DELETE", f"{NODES}/{node['metadata']['name']}")


def test_a_node_is_drained_and_another_is_not_touched(cluster: Cluster) -> None:
    """The four steps: check, drain, check, drain; what stays is what has to."""
    going, staying = cluster.node("going"), cluster.node("staying")
    cluster.budget("web", 1)
    for name, node in (("web-1", going), ("web-2", staying), ("bare-1", going)):
        cluster.pod(name, node, None if name == "bare-1" else "ReplicaSet")
    cluster.pod("agent-1", going, "DaemonSet")
    cluster.pod("static-1", going, "Node", annotations={"kubernetes.io/config.mirror": "x"})

    predicted = cluster.drain(going, check_mode=True)
    assert predicted.result["changed"] and cluster.cordoned(going) == (False, False) and not cluster.record.exists()
    assert [line.partition("  #")[0] for line in predicted.result["plan"]] == [
        "cordon node/going",
        *(f"{what} pod/{cluster.name}/{name}" for what, name in (
            ("leave", "agent-1"), ("evict", "bare-1"), ("leave", "static-1"), ("evict", "web-1"),
        )),
    ]  # fmt: skip
    assert f"PodDisruptionBudget {cluster.name}/web allows 1 evictions now" in predicted.result["diff"]["after"]
    assert cluster.left() == ["agent-1", "bare-1", "static-1", "web-1", "web-2"]

    made = cluster.drain(going)
    assert made.result["plan"] == predicted.result["plan"] and made.result["drained"] == [going]
    assert made.result["evicted"] == [f"{cluster.name}/bare-1", f"{cluster.name}/web-1"]
    assert made.warnings == predicted.warnings and f"Pod {cluster.name}/bare-1 on going" in made.warnings[0]
    assert cluster.left() == ["agent-1", "static-1", "web-2"]
    assert cluster.cordoned(going) == (True, True) and cluster.cordoned(staying) == (False, False)
    assert json.loads(cluster.record.read_text()) == {"nodes": [going]}

    for check_mode in (True, False):
        again = cluster.drain(going, check_mode=check_mode)
        assert not again.result["changed"] and again.result["evicted"] == [] and again.result["drained"] == [going]


def test_a_budget_that_gives_way_is_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    going = cluster.node("going")
    cluster.budget("web", 1)
    cluster.pod("web-1", going)
    cluster.pod("web-2", going)
    refused: list[str] = []
    evict = work.Nodes._evict

    def seen(self: work.Nodes, step: Any) -> str:
        """Gives the budget room again once it has refused: as its controller does when a pod runs elsewhere."""
        refusal = evict(self, step)
        if refusal:
            refused.append(refusal)
            cluster.allow("web", 1)
        return refusal

    monkeypatch.setattr(work.Nodes, "_evict", seen)
    assert cluster.drain(going).result["drained"] == [going]
    assert cluster.left() == [] and refused and "does not allow evicting pods currently" in refused[0]


def test_a_budget_that_holds_is_named_and_everything_takes_pods_again(cluster: Cluster) -> None:
    first, second, closed = cluster.node("a"), cluster.node("b"), cluster.node("c", unschedulable=True)
    cluster.budget("web", 0)
    cluster.pod("free-1", first)
    cluster.pod("web-1", second)
    with pytest.raises(drain.DrainError) as failed:
        cluster.drain(first, second, closed, timeout=1)
    said = str(failed.value)
    for part in (
        "b is not drained after 1 s",
        f"Pod {cluster.name}/web-1 is kept by PodDisruptionBudget {cluster.name}/web",
        f"kubectl --namespace {cluster.name} edit poddisruptionbudget web",
        "k8sgu_drain_timeout",
        "accept pods again: a, b, c",
    ):
        assert part in said, said
    assert failed.value.result["drained"] == [] and failed.value.result["evicted"] == [f"{cluster.name}/free-1"]
    assert cluster.cordoned(first) == cluster.cordoned(second) == (False, False)
    # Somebody else had closed it.
    assert cluster.cordoned(closed) == (True, False)
    assert cluster.left() == ["web-1"] and not cluster.record.exists()


def test_a_budget_that_waits_for_a_place_is_explained(cluster: Cluster) -> None:
    going = cluster.node("going")
    cluster.budget("web", 0)
    cluster.pod("web-1", going)
    cluster.pod("web-2", "")
    scheduled = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    status = {"phase": "Pending", "conditions": [scheduled]}
    cluster.client.request("PATCH", f"{cluster.pods}/web-2/status", body={"status": status}, content_type=MERGE)
    with pytest.raises(drain.DrainError, match=r"web-2, of the same budget: not scheduled: 0/1 nodes are available"):
        cluster.drain(going, timeout=1)


def test_a_pod_that_does_not_end_is_named(cluster: Cluster) -> None:
    going = cluster.node("going")
    cluster.pod("slow-1", going, grace=3600)
    with pytest.raises(drain.DrainError, match=r"slow-1 does not terminate \(it has 3600 s to terminate\)") as failed:
        cluster.drain(going, timeout=1)
    assert failed.value.result["evicted"] == [f"{cluster.name}/slow-1"] and failed.value.result["changed"]
    assert cluster.cordoned(going) == (False, False)


def test_two_budgets_for_a_pod_are_refused_before_anything_is_changed(cluster: Cluster) -> None:
    going = cluster.node("going")
    cluster.budget("web", 1)
    body = {"metadata": {"name": "all"}, "spec": {"minAvailable": 0, "selector": {}}}
    cluster.client.request("POST", BUDGETS.format(cluster.name), body=body)
    cluster.pod("web-1", going)
    for check_mode in (True, False):
        with pytest.raises(work.NotDrained, match=rf"web-1 .*{cluster.name}/all, {cluster.name}/web.*disjoint"):
            cluster.drain(going, check_mode=check_mode)
    assert cluster.cordoned(going) == (False, False) and cluster.left() == ["web-1"] and not cluster.record.exists()


def test_dead_and_unknown_nodes_may_go(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "SETTLE_S", 1.0)
    dead = cluster.node("dead", ready="Unknown")
    cluster.pod("web-1", dead)
    made = cluster.drain(dead, "never")
    assert made.result["drained"] == [dead, "never"] and made.result["evicted"] == []
    assert len(made.warnings) == 1 and "dead was not drained: it is not Ready" in made.warnings[0]
    assert cluster.left() == ["web-1"] and cluster.cordoned(dead) == (True, True)
    assert cluster.drain(dead, "never", state="absent").result["plan"] == ["delete node/dead"]
    assert cluster.client.find(f"{NODES}/dead") is None and not cluster.record.exists()


def test_a_node_that_comes_back_in_time_is_drained(cluster: Cluster) -> None:
    going = cluster.node("going", ready="False")
    cluster.pod("web-1", going)
    back = threading.Timer(1.5, cluster.say, (going, "True"))
    back.start()
    try:
        assert cluster.drain(going).warnings == [
            "no other node takes pods: " + f"{cluster.name}/web-1 will wait for one"
        ]
    finally:
        back.join()
    assert cluster.left() == []


def test_only_drained_nodes_are_removed_with_all_that_belongs_to_them(cluster: Cluster) -> None:
    going, other = cluster.node("going"), cluster.node("other")
    for name in (going, other):
        cluster.client.request("POST", LEASES, body={"metadata": {"name": name}, "spec": {"holderIdentity": name}})
    attached(cluster, going, other)
    cluster.drain(going)
    assert cluster.drain(going, other, state="absent").result == {"changed": True, "plan": ["delete node/going"]}
    assert attachments(cluster) == [other]
    assert [node["metadata"]["name"] for node in cluster.client.get(NODES)["items"]] == [other]
    assert cluster.client.find(f"{LEASES}/{going}") is None and cluster.client.find(f"{LEASES}/{other}")
    assert not cluster.drain(going, other, state="absent").result["changed"]


def attached(cluster: Cluster, *nodes: str) -> None:
    for node in nodes:
        spec = {"attacher": "ebs.csi.aws.com", "nodeName": node, "source": {"persistentVolumeName": f"pv-{node}"}}
        body = {"metadata": {"name": f"{cluster.name}-{node}"}, "spec": spec}
        cluster.client.request("POST", ATTACHMENTS, body=body)


def attachments(cluster: Cluster) -> list[str]:
    found = [entry["metadata"]["name"] for entry in cluster.client.get(ATTACHMENTS)["items"]]
    return [name.rpartition("-")[2] for name in found if name.startswith(cluster.name)]


@pytest.mark.parametrize("killed_after", range(5))
def test_nodes_of_machines_that_are_gone_are_removed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    """One was replaced by hand, one has left, and one may be stopped; killed after each change and run again."""
    for name, id in (("same", "i-1"), ("replaced", "i-old"), ("left", "i-2")):
        cluster.node(name, providerID=f"aws:///us-east-1a/{id}")
        body = {"metadata": {"labels": {"k8sgu.io/pool": "workers"}}}
        cluster.client.request("PATCH", f"{NODES}/{name}", body=body, content_type=MERGE)
        cluster.client.request("POST", LEASES, body={"metadata": {"name": name}, "spec": {"holderIdentity": name}})
    attached(cluster, "same", "replaced", "left")
    here = {"same": "i-1", "replaced": "i-new"}

    def match(**more: Any) -> drain.Outcome:
        return cluster.drain(nodes=None, state="matching", instances=here, **more)

    def there() -> list[str]:
        return sorted(node["metadata"]["name"] for node in cluster.client.get(NODES)["items"])

    predicted = match(check_mode=True)
    assert [line.partition("  #")[0] for line in predicted.result["plan"]] == [
        "delete node/replaced",
        f"delete volumeattachment/{cluster.name}-replaced",
    ]
    assert predicted.result["nodes"] == ["left", "same"]
    assert there() == ["left", "replaced", "same"] and attachments(cluster) == ["left", "replaced", "same"]
    if killed_after:
        with monkeypatch.context() as patch:
            kill_after(patch, killed_after)
            with pytest.raises(Killed):
                match(complete=True)
    else:
        assert match().result["plan"] == predicted.result["plan"]
        assert there() == ["left", "same"] and attachments(cluster) == ["left", "same"]
        assert not match().result["changed"]
    match(complete=True)
    assert there() == attachments(cluster) == ["same"]
    # Leases of Nodes that are gone are also the garbage collector's, which does not run here.
    assert cluster.client.find(f"{LEASES}/same") and (killed_after or not cluster.client.find(f"{LEASES}/left"))
    again = match(complete=True).result
    assert (again["changed"], again["nodes"]) == (False, ["same"])


class Killed(BaseException):
    """What a killed process does: nothing more."""


def kill_after(patch: pytest.MonkeyPatch, requests: int) -> None:
    """Kills the run after so many requests that change something."""
    made: list[str] = []
    request = Client.request

    def counted(self: Client, method: str, path: str, *more: Any, **named: Any) -> dict[str, Any]:
        answer = request(self, method, path, *more, **named)
        if method != "GET":
            made.append(path)
            if len(made) == requests:
                raise Killed
        return answer

    patch.setattr(Client, "request", counted)


@pytest.mark.parametrize(("batch", "together"), [(1, 1), (2, 2)])
def test_a_batch_is_drained_at_the_same_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, batch: int, together: int
) -> None:
    """The first drains wait until as many of them as may be are at work."""
    for name in ("a", "b", "c"):
        cluster.node(name)
        cluster.pod(f"web-{name}", name)
    at_work, most, lock = 0, 0, threading.Lock()
    met = threading.Barrier(together)
    drained = work.Nodes.drain

    def watched(self: work.Nodes, node: Any, *more: Any) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        if node.name != "c":
            met.wait(timeout=30)
        drained(self, node, *more)
        with lock:
            at_work -= 1

    monkeypatch.setattr(work.Nodes, "drain", watched)
    made = cluster.drain("a", "b", "c", batch=batch)
    assert made.result["drained"] == ["a", "b", "c"] and len(made.result["evicted"]) == 3
    assert most == together and cluster.left() == []


def test_a_batch_keeps_budgets_and_names_every_node_that_is_held(cluster: Cluster) -> None:
    for name in ("a", "b"):
        cluster.node(name)
        cluster.pod(f"web-{name}", name)
    cluster.budget("web", 0)
    with pytest.raises(drain.DrainError, match=r"(?s)a is not drained.*b is not drained.*accept pods again: a, b"):
        cluster.drain("a", "b", batch=2, timeout=1)
    assert cluster.left() == ["web-a", "web-b"] and cluster.cordoned("a") == cluster.cordoned("b") == (False, False)
    for batch in (0, -1):
        with pytest.raises(KubernetesError, match=rf"drain_batch\): {batch} nodes at a time are none; give at least 1"):
            cluster.drain("a", batch=batch)


@pytest.mark.parametrize("requests", range(1, 7))
def test_a_run_that_is_killed_is_ended_by_the_next(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    """After each request that changes something in turn: two cordons, then evictions."""
    for name in ("a", "b"):
        cluster.node(name)
        cluster.pod(f"web-{name}", name)
        cluster.pod(f"db-{name}", name)
    with monkeypatch.context() as patch:
        kill_after(patch, requests)
        with pytest.raises(Killed):
            cluster.drain("a", "b")
    assert json.loads(cluster.record.read_text()) == {"nodes": ["a", "b"]}
    if requests % 2:
        assert cluster.drain("a", "b").result["drained"] == ["a", "b"]
        assert cluster.left() == [] and cluster.cordoned("a") == cluster.cordoned("b") == (True, True)
    # The other way: the description is taken back, and the phase `worker` finds the record.
    opened = cluster.drain(state="serving", nodes=None)
    marked = ["a", "b"] if requests % 2 or requests > 1 else ["a"]
    assert opened.result["plan"] == [f"uncordon node/{name}" for name in marked]
    assert cluster.cordoned("a") == cluster.cordoned("b") == (False, False) and not cluster.record.exists()
    assert not cluster.drain(state="serving", nodes=None).result["changed"]


def test_a_node_that_someone_else_cordoned_too_stays_cordoned(cluster: Cluster) -> None:
    going = cluster.node("going")
    cluster.drain(going)
    body = {"spec": {"unschedulable": True}}
    query = {"fieldManager": "kubectl-cordon", "force": "true"}
    content = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": going}, **body}
    cluster.client.request("PATCH", f"{NODES}/{going}", query, content, content_type="application/apply-patch+yaml")
    assert cluster.drain(going, state="serving").result["plan"] == ["uncordon node/going"]
    assert cluster.cordoned(going) == (True, False)


def test_a_node_that_was_just_deleted_is_not_created(cluster: Cluster, client: Client) -> None:
    nodes = work.Nodes(client)
    cluster.node("going")
    (made,) = nodes.plan(["going"], nodes.all())
    client.request("DELETE", f"{NODES}/going")
    with pytest.raises(KubernetesError):
        Client(client.access, 1).request("GET", f"{NODES}/going")
    with pytest.raises(KubernetesError):
        work.Nodes(Client(client.access, 1)).cordon(made, "test")
    assert client.find(f"{NODES}/going") is None


def test_without_an_api_server(cluster: Cluster, tmp_path: Path) -> None:
    nowhere = api_server.write_kubeconfig(
        tmp_path / "nowhere",
        f"https://127.0.0.1:{api_server.free_port()}",
        *(str(cluster.server.directory / name) for name in ("ca.pem", "admin.pem", "admin-key.pem")),
    )
    with pytest.raises(
        KubernetesError, match=r"cannot be reached(?s:.*)nothing was changed(?s:.*)k8sgu_drain_timeout: 0"
    ):
        cluster.drain("a", kubeconfig=str(nowhere), request_timeout=1)
    never = {"kubeconfig": str(nowhere), "request_timeout": 1, "lives": False}
    for told, given in (
        ("is 0", {"timeout": 0, "kubeconfig": str(nowhere)}),
        ("no cluster was made", {"kubeconfig": str(tmp_path / "none")}),
        ("no cluster has come up here yet", never),
    ):
        made = cluster.drain("a", **given)
        assert made.result["drained"] == ["a"] and not made.result["changed"]
        assert len(made.warnings) == 1 and told in made.warnings[0]
    with pytest.raises(KubernetesError, match=r"k8sgu_drain_timeout\): -1 seconds are too few"):
        cluster.drain("a", timeout=-1)
    # Machines that are gone are gone: their Nodes are another phase's then.
    cluster.record.write_text('{"nodes": ["a"]}')
    left = cluster.drain("a", state="absent", kubeconfig=str(nowhere), request_timeout=1)
    assert not left.result["changed"] and "phase worker" in left.warnings[0] and cluster.record.exists()
    cluster.record.write_text("{")
    with pytest.raises(KubernetesError, match=r"record: .*kubectl uncordon.*k8sgu.io/cordoned"):
        cluster.drain(nodes=None, state="serving")


@pytest.fixture(scope="module")
def running_account() -> Iterator[Server]:
    with account() as running:
        yield running


class Description:
    """A cluster of EC2 and its API server, both on loopback, and runs of the playbooks on it."""

    def __init__(self, ec2: Server, cluster: Cluster, state: Path) -> None:
        reset(ec2)
        self.ec2, self.state = ec2, state
        # The state directory is demo's, and so is the cluster that its kubeconfig names.
        access = yaml.safe_load(cluster.server.kubeconfig.read_text())
        access["clusters"][0]["name"] = access["contexts"][0]["context"]["cluster"] = "demo"
        (state / "admin.kubeconfig").write_text(json.dumps(access))
        ec2.client("ec2").create_key_pair(KeyName="mine")
        run(key_name="mine", public_key=None)
        for name in ("demo-control-plane-0", "demo-worker-0", "demo-worker-1"):
            cluster.node(name)

    def play(self, playbook: str, *arguments: str, **variables: Any) -> tuple[int, str]:
        """Exit status and output without its line breaks."""
        given = {
            "k8sgu_cluster_name": "demo",
            "k8sgu_region": "us-east-1",
            "k8sgu_state_dir": str(self.state),
            "k8sgu_image": AMI,
            "k8sgu_admin_cidrs": ["203.0.113.7/32"],
            "k8sgu_key_name": "mine",
            "k8sgu_ssh_private_key": str(self.state / "key"),
            **variables,
        }
        inventory = self.state / "inventory.yml"
        inventory.write_text(json.dumps({"all": {"children": {"control_plane": {}, "etcd": {}, "worker": {}}}}))
        status, output = ansible_program.run_playbook(playbook, inventory, *arguments, variables=given)
        return status, " ".join(output.split())

    def instances(self) -> dict[str, str]:
        """{name: type} of the existing instances."""
        return {
            tag["Value"]: item["InstanceType"]
            for entry in self.ec2.client("ec2").describe_instances()["Reservations"]
            for item in entry["Instances"]
            for tag in item["Tags"]
            if tag["Key"] == "Name" and item["State"]["Name"] == "running"
        }

    def protect(self, on: bool) -> None:
        """Termination protection of the second worker, which makes EC2 refuse to end it."""
        ec2 = self.ec2.client("ec2")
        found = ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["demo-worker-1"]}])
        (id,) = [item["InstanceId"] for entry in found["Reservations"] for item in entry["Instances"]]
        ec2.modify_instance_attribute(InstanceId=id, DisableApiTermination={"Value": on})


@pytest.fixture
def described(running_account: Server, cluster: Cluster, tmp_path: Path) -> Description:
    return Description(running_account, cluster, tmp_path)


ALL = {"demo-control-plane-0": "m5.large", "demo-worker-0": "m5.large", "demo-worker-1": "m5.large"}
SECOND = "demo-worker-1"


def test_a_worker_that_leaves_is_drained_before_it_ends(described: Description, cluster: Cluster) -> None:
    cluster.budget("web", 0)
    cluster.pod("web-1", SECOND)

    status, said = described.play("infrastructure", "--check", "--diff", k8sgu_worker_count=1)
    assert status == 0, said[-3000:]
    assert f"+evict pod/{cluster.name}/web-1" in said and "+delete instance/demo-worker-1" in said, said[-3000:]
    assert cluster.cordoned(SECOND) == (False, False)

    # A budget keeps it: it serves as before, and its instance stays.
    status, said = described.play("infrastructure", k8sgu_worker_count=1, k8sgu_drain_timeout=1)
    assert status != 0 and f"PodDisruptionBudget {cluster.name}/web" in said and "accept pods again" in said, said[
        -3000:
    ]
    assert described.instances() == ALL and cluster.cordoned(SECOND) == (False, False) and cluster.left() == ["web-1"]

    # It is drained, but EC2 does not end it: it is uncordoned.
    cluster.allow("web", 1)
    described.protect(True)
    status, said = described.play("infrastructure", k8sgu_worker_count=1)
    assert status != 0 and "delete instance/demo-worker-1" in said, said[-3000:]
    assert described.instances() == ALL and cluster.cordoned(SECOND) == (False, False) and cluster.left() == []
    assert not (described.state / "cordoned.json").exists()

    described.protect(False)
    status, said = described.play("infrastructure", k8sgu_worker_count=1)
    assert status == 0 and sorted(described.instances()) == sorted(ALL)[:2], said[-3000:]
    assert cluster.client.find(f"{NODES}/{SECOND}") is None and cluster.client.find(f"{NODES}/demo-worker-0")
    assert not (described.state / "cordoned.json").exists()

    status, said = described.play("infrastructure", k8sgu_worker_count=1)
    assert status == 0 and "changed=0" in said, said[-3000:]

    # The removal of everything ignores budgets.
    cluster.pod("web-2", "demo-worker-0")
    cluster.allow("web", 0)
    status, said = described.play("destroy", confirm="demo")
    assert status == 0 and described.instances() == {} and cluster.left() == ["web-2"], said[-3000:]


def test_workers_that_serve_are_replaced_one_in_a_run(described: Description, cluster: Cluster) -> None:
    bigger = {"k8sgu_worker_instance_type": "m5.xlarge", "k8sgu_allow_replace": True}
    cluster.pod("web-0", "demo-worker-0")
    status, said = described.play("infrastructure", **bigger)
    assert status == 0 and "demo-worker-1 is not changed in this run, since demo-worker-0 leaves" in said, said[-3000:]
    assert described.instances() == {**ALL, "demo-worker-0": "m5.xlarge"} and cluster.left() == []
    # Its old Node is gone: another machine joins with its name.
    assert cluster.client.find(f"{NODES}/demo-worker-0") is None

    status, said = described.play("infrastructure", **bigger)
    assert status == 0 and "since demo-worker-0 is not Ready" in said, said[-3000:]
    assert described.instances() == {**ALL, "demo-worker-0": "m5.xlarge"}
    assert cluster.cordoned(SECOND) == (False, False)

    cluster.node("demo-worker-0")
    status, said = described.play("infrastructure", **bigger)
    assert status == 0 and "is not changed in this run" not in said, said[-3000:]
    assert described.instances() == {**ALL, "demo-worker-0": "m5.xlarge", SECOND: "m5.xlarge"}


def test_a_worker_that_came_to_leave_since_it_was_asked_is_not_ended(described: Description) -> None:
    few = {"key_name": "mine", "public_key": None, "pools": [pool("control_plane", 1), pool("workers", 0)]}
    with pytest.raises(cluster_run.RunFailed, match="drained: demo-worker-0 would end") as failed:
        run(nodes_leave="drained", drained=[SECOND], **few)
    assert failed.value.result["reached"] == [] and described.instances() == ALL
    asked = run(nodes_leave="ask", **few)
    assert not asked["changed"] and asked["plan"] == [] and described.instances() == ALL
    assert [item["name"] for item in asked["leaving"]] == ["demo-worker-0", SECOND]
    assert asked["members"] == ["demo-control-plane-0"]
