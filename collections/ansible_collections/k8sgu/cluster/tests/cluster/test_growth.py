# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One control-plane node becomes three, two of them are lost for good, and in the end there is one again.

Runs as test_security.py does, against a cluster with one control-plane node and two workers, and leaves it as it was.
The tests build on each other.
"""

from __future__ import annotations

import contextlib
import re
import time

import pytest
from test_boots import eventually, machines, names, ready
from test_members import ELECTIONS, Visitor, Writer, check_written, members, settled
from test_neighbours import ec2
from test_restore import take_snapshot
from test_rolling import Reader
from test_security import VARIABLES, hosts, inventory, kubectl, on, playbook

__all__ = ["ec2", "hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(1800)

THREE = {"k8sgu_control_plane_count": 3}
SITE, RESTORE = "site.yml", "playbooks/restore.yml"
NAMESPACE = "k8sgu-test-members"
TIMES = re.compile(r"\d+ PHASES in .*?(?=\nPLAY RECAP|\Z)", re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def namespace():
    kubectl("create", "namespace", NAMESPACE)
    yield
    kubectl("delete", "namespace", NAMESPACE)


@contextlib.contextmanager
def asking(folder, series, node):
    """A writer, a reader and a visitor of the website at a node."""
    settled(folder / "settled")
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(client.running())
            for client in (
                Writer(folder / "writer", series),
                Reader(folder / "reader"),
                Visitor(folder / "visitor", node),
            )
        ]


def run(what, name=SITE, **variables):
    """What a playbook says; prints how long its phases and its slowest tasks took."""
    began = time.monotonic()
    said = playbook(name, **variables)
    print(f"{what}: {time.monotonic() - began:.0f} s", *TIMES.findall(said), sep="\n")
    return said


def tell(*clients):
    for client, what in zip(clients, ("written", "read", "visited")):
        print(client.told(what))


def terminate(ec2, going):
    groups, _variables = inventory()
    there = machines(ec2, groups)
    ids = [there[name]["InstanceId"] for name in going]
    ec2.terminate_instances(InstanceIds=ids)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1})


def test_one_becomes_three(hosts, on, tmp_path):
    groups, variables = hosts
    first = groups["control_plane"][0]
    with asking(tmp_path, 1, variables[groups["worker"][0]]) as (writer, reader, visitor):
        run("from one to three", **THREE)
    tell(writer, reader, visitor)
    now, _variables = inventory()
    assert len(now["control_plane"]) == 3
    assert members(on, first) == dict.fromkeys(now["control_plane"], False)
    assert visitor.lost == []
    # The only server is away while it restarts with the new address in its certificate, and at no other time.
    assert writer.outages <= 1 and reader.outages <= 1, (writer.lost, reader.lost)
    check_written(writer)
    assert "changed=1" not in playbook(SITE, **THREE).partition("PLAY RECAP")[2]


def test_a_member_that_was_terminated_is_made_anew(hosts, on, ec2, tmp_path):
    """By now the kubeconfig has the load balancer's address."""
    groups, variables = hosts
    now, _variables = inventory()
    victim = now["control_plane"][-1]
    terminate(ec2, [victim])
    with asking(tmp_path, 2, variables[groups["worker"][0]]) as (writer, reader, visitor):
        run(f"{victim} anew", **THREE)
    tell(writer, reader, visitor)
    assert members(on, groups["control_plane"][0]) == dict.fromkeys(now["control_plane"], False)
    assert (writer.lost, reader.lost, visitor.lost) == ([], [], [])
    check_written(writer)


def test_a_worker_that_was_terminated_is_made_anew(hosts, ec2):
    groups, _variables = hosts
    now, _variables = inventory()
    victim = groups["worker"][-1]
    terminate(ec2, [victim])
    run(f"{victim} anew", **THREE)
    eventually("nodes Ready", lambda: ready(()) == sorted(names(now)))


def test_a_majority_that_is_gone_is_replaced_by_a_restore(hosts, on, ec2, tmp_path):
    groups, variables = hosts
    first = groups["control_plane"][0]
    now, _variables = inventory()
    with Writer(tmp_path / "before", 3).running() as writer:
        time.sleep(20)
    take_snapshot(first)
    with Visitor(tmp_path / "visitor", variables[groups["worker"][0]]).running() as visitor:
        terminate(ec2, now["control_plane"][1:])
        refused = " ".join(playbook(SITE, fails=True, **THREE).split())
        assert "the cluster's etcd has lost its quorum: 1 of 3 members answer" in refused
        assert "restore the database from a snapshot: playbooks/restore.yml" in refused
        given = {**THREE, "k8sgu_restore_snapshot": "latest"}
        said = run("restored", RESTORE, confirm=VARIABLES["k8sgu_cluster_name"], **given)
        gone = ", ".join(now["control_plane"][1:])
        assert f"Not touched, since etcd was never there: {gone}" in " ".join(said.split())
        assert members(on, first) == {first: False}
        # A Node that nobody runs would not get its taints from the kubelet that takes it over.
        nodes = kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
        assert sorted(nodes) == sorted([first, *groups["worker"]])
        run("whole again", **THREE)
    print(visitor.told("visited"))
    # Pods and Services need no API.
    assert visitor.lost == []
    assert members(on, first) == dict.fromkeys(now["control_plane"], False)
    check_written(writer)
    taints = "jsonpath={range .items[*]}{.metadata.name}={.spec.taints[*].key}{'\\n'}{end}"
    told = kubectl("get", "nodes", "-o", taints)
    for name in now["control_plane"]:
        assert f"{name}=node-role.kubernetes.io/control-plane\n" in told
    assert "changed=1" not in playbook(SITE, **THREE).partition("PLAY RECAP")[2]
    on(first, "rm -r /var/lib/etcd/member-before-*")


def test_three_become_one(hosts, on, tmp_path):
    groups, variables = hosts
    first = groups["control_plane"][0]
    with asking(tmp_path, 4, variables[groups["worker"][0]]) as (writer, reader, visitor):
        run("from three to one")
    tell(writer, reader, visitor)
    assert members(on, first) == {first: False}
    assert visitor.lost == []
    # The server that stays is away while it restarts without the delay that only a load balancer needs.
    outages = writer.outages + reader.outages
    assert outages <= 2 + ELECTIONS, (writer.lost, reader.lost)
    check_written(writer)
