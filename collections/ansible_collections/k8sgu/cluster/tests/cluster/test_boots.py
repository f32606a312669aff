# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes that reboot, stop and start with other public addresses, or are terminated by hand.

Runs like test_security.py. The tests build on each other: the last one makes the cluster whole again.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
import urllib.request

import pytest
from test_neighbours import ec2
from test_security import STATE, hosts, kubectl, on, playbook, value

__all__ = ["ec2", "hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(1800)

# However busy the machine is, and whatever EC2 takes to boot one.
PATIENCE_S = 300
PORT = 30080
# The state of every unit that is ours, the kernel settings and the modules: what has to be as before after a boot.
LOOK = """
cd /etc/systemd/system
for unit in *.service *.mount; do [ ! -e "$unit" ] || echo "$unit $(systemctl is-active "$unit")"; done
grep -oE '^[^# =]+' /etc/sysctl.d/90-k8sgu.conf | xargs sysctl
for module in overlay br_netfilter nf_conntrack; do modprobe -q "$module" && echo "$module"; done
findmnt -no FSTYPE,TARGET /var/lib/etcd || true
nft list tables | sort
"""
BOOT = "journalctl --list-boots | tail -1 | grep -oE '[0-9a-f]{32}'"


def eventually(what, probe):
    """Waits until `probe` returns something true; it says what is missing by an AssertionError or an OSError."""
    began, last = time.monotonic(), None
    while time.monotonic() - began < PATIENCE_S:
        try:
            found = probe()
        except (AssertionError, OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
            last = error
        else:
            if found:
                return found
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {PATIENCE_S} s; last: {last}")


def visits(address, method="GET"):
    request = urllib.request.Request(f"http://{address}:{PORT}/api/visits", method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def database(api=()):
    """The uid of the demo's database, whose data is as old as its pod."""
    return kubectl(*api, "-n", "demo", "get", "pods", "-l", "app=database", "-o", "jsonpath={.items[*].metadata.uid}")


def names(groups):
    return groups["control_plane"] + groups["worker"]


def machines(ec2, groups):
    """{node: what EC2 says of its instance}, without those that have ended."""
    found = ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": names(groups)}])["Reservations"]
    return {
        tag["Value"]: item
        for entry in found
        for item in entry["Instances"]
        for tag in item["Tags"]
        if tag["Key"] == "Name" and item["State"]["Name"] not in ("terminated", "shutting-down")
    }


def ready(api):
    nodes = json.loads(kubectl(*api, "get", "nodes", "-o", "json"))["items"]
    return sorted(
        node["metadata"]["name"]
        for node in nodes
        if any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])
    )


def serve(addresses, groups, known, began, what):
    """Waits until every node is Ready and the demo answers at each with its data; prints how long both took."""
    # By this name and not by the kubeconfig's address, which a boot may change.
    api = [f"--server=https://{addresses[groups['control_plane'][0]]}:6443", "--tls-server-name=kubernetes.default.svc"]
    eventually("nodes Ready", lambda: ready(api) == sorted(names(groups)))
    ready_s = time.monotonic() - began
    for name, address in addresses.items():
        eventually(f"demo at {name}", lambda address=address: visits(address))
    print(f"{what}: Ready after {ready_s:.0f} s, the demo at every node after {time.monotonic() - began:.0f} s")
    count, uid = known
    # A pod that was moved while its node was away has lost its emptyDir.
    if uid == database(api):
        assert eventually("demo", lambda: visits(addresses[groups["worker"][0]]))["count"] >= count


def matches(now, before):
    assert now.splitlines() == before.splitlines()
    return True


def stop(ec2, ids):
    ec2.stop_instances(InstanceIds=ids)
    ec2.get_waiter("instance_stopped").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": PATIENCE_S})


def certificate_names(address):
    """What the API server's certificate is for, as openssl prints it."""
    served = ssl.get_server_certificate((address, 6443))
    argv = ["openssl", "x509", "-noout", "-ext", "subjectAltName"]
    return subprocess.run(argv, input=served, capture_output=True, text=True, timeout=30, check=True).stdout


@pytest.fixture
def public(hosts, ec2):
    groups, _variables = hosts
    return {name: item["PublicIpAddress"] for name, item in machines(ec2, groups).items()}


@pytest.mark.parametrize("which", ["all at once", "each alone"])
def test_nodes_reboot(which, hosts, on, ec2, public):
    groups, variables = hosts
    known = eventually("demo", lambda: visits(public[groups["worker"][0]], "POST"))["count"], database()
    before = {name: on(name, LOOK) for name in names(groups)}
    for going in [names(groups)] if which == "all at once" else [[name] for name in names(groups)]:
        boots = {name: on(name, BOOT) for name in going}
        began = time.monotonic()
        ec2.reboot_instances(InstanceIds=[value(variables[name]["ec2_instance_id"]) for name in going])
        for name in going:
            eventually(f"{name} booted", lambda name=name, boot=boots[name]: on(name, BOOT) != boot)
        serve(public, groups, known, began, ", ".join(going))
        for name in going:
            eventually(f"{name} as before", lambda name=name: matches(on(name, LOOK), before[name]))
    if which == "all at once":
        # Rules, the pod network, name servers, the mirror and the rest, from inside.
        playbook("playbooks/verify.yml")


def test_a_stopped_node_stays_and_comes_back_with_another_address(hosts, ec2, public):
    """All stop, and start with other public addresses. The nodes themselves need none; one run of site.yml follows.

    Meanwhile one worker is terminated by hand, which the same run makes anew, and another's Node is deleted.
    """
    groups, _variables = hosts
    ids = {name: item["InstanceId"] for name, item in machines(ec2, groups).items()}
    victim = groups["worker"][-1]
    node = eventually("API", lambda: json.loads(kubectl("get", "node", victim, "-o", "json")))
    known = eventually("demo", lambda: visits(public[groups["worker"][0]], "POST"))["count"], database()

    stop(ec2, [ids[victim]])
    playbook("playbooks/worker.yml")
    assert kubectl("get", "node", victim, "-o", "jsonpath={.metadata.uid}") == node["metadata"]["uid"]

    stop(ec2, [id for name, id in ids.items() if name != victim])
    held = [ec2.allocate_address(Domain="vpc") for _name in ids]
    try:
        began = time.monotonic()
        ec2.start_instances(InstanceIds=list(ids.values()))
        ec2.get_waiter("instance_running").wait(InstanceIds=list(ids.values()), WaiterConfig={"Delay": 1})
        moved = {name: item["PublicIpAddress"] for name, item in machines(ec2, groups).items()}
    finally:
        for address in held:
            ec2.release_address(AllocationId=address["AllocationId"])
    assert set(moved.values()).isdisjoint(public.values())
    serve(moved, groups, known, began, "with other addresses, before site.yml")

    attachment = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": {"name": "k8sgu-test-boots"},
        "spec": {"attacher": "example.org", "nodeName": victim, "source": {"persistentVolumeName": "none"}},
    }
    first = moved[groups["control_plane"][0]]
    api = [f"--server=https://{first}:6443", "--tls-server-name=kubernetes.default.svc"]
    kubectl(*api, "create", "-f", "-", given=json.dumps(attachment))
    ec2.terminate_instances(InstanceIds=[ids[victim]])
    # Its kubelet goes on, and registers a Node only when it starts.
    kubectl(*api, "delete", "node", groups["worker"][0])
    playbook("site.yml")

    # Nothing but the kubeconfig says where the API is.
    assert f"https://{first}:6443" in (STATE / "admin.kubeconfig").read_text()
    assert first in certificate_names(first)
    assert public[groups["control_plane"][0]] not in certificate_names(first)
    now = json.loads(kubectl("get", "node", victim, "-o", "json"))
    assert now["metadata"]["uid"] != node["metadata"]["uid"]
    assert now["spec"]["providerID"].endswith(machines(ec2, groups)[victim]["InstanceId"])
    assert kubectl("get", "volumeattachments", "-o", "name") == ""
    assert ready(()) == sorted(names(groups))
