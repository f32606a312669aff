# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Members of etcd lose their data, are replaced and removed, wherever the run is cut off, and no write is lost.

Runs as test_security.py does, against a cluster with k8sgu_control_plane_count: 3. It leaves one of them, of another
instance type.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import time

import pytest
from test_rolling import PATIENCE_S, Client, Reader, several
from test_security import BIN, ENVIRONMENT, ROOT, VARIABLES, hosts, inventory, kubectl, on, playbook, value

__all__ = ["hosts", "on", "several"]  # fixtures
pytestmark = pytest.mark.timeout(1800)

NAMESPACE = "k8sgu-test-members"
ETCDCTL = "set -a; . /etc/etcd/etcdctl.env; etcdctl"
SETTLED_S = 120
# A busy machine may hold etcd's heartbeats up until an election begins; what was proposed to the old leader then times
# out. Nothing that was acknowledged is lost by it.
ELECTIONS = 2
OTHER_TYPE = {"k8sgu_control_plane_instance_type": "m5.xlarge", "k8sgu_allow_replace": True}
LESS = {**OTHER_TYPE, "k8sgu_control_plane_count": 1}
# What the run prints when it is cut off, and how many seconds later: etcd has a learner then that never started.
CUTS = [(1, "etcd : Add the node", 1)]


class Writer(Client):
    """Creates numbered objects; `written` has those that were acknowledged."""

    namespace = NAMESPACE

    def __init__(self, folder, series) -> None:
        super().__init__(folder)
        self.series, self.written = series, []

    def ask(self) -> None:
        name = f"n{self.series}-{self.asked}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
        self.send("POST", f"/api/v1/namespaces/{self.namespace}/configmaps", json.dumps(body))
        self.written.append(name)


class Visitor(Client):
    """Asks for the demo's website at a node port."""

    def __init__(self, folder, node) -> None:
        super().__init__(folder)
        self.host = value(node["ec2_public_ip"])

    def ask(self) -> None:
        connection = http.client.HTTPConnection(self.host, 30080, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise OSError(f"status {answer.status}")


@pytest.fixture(scope="module")
def namespace():
    kubectl("create", "namespace", NAMESPACE)
    yield
    kubectl("delete", "namespace", NAMESPACE)


def members(on, node):
    """{name: whether it is a learner}, as etcd says on a node."""
    listed = json.loads(on(node, f"{ETCDCTL} member list -w json"))["members"]
    return {one["name"]: one.get("isLearner", False) for one in listed}


def lose_data(on, node):
    on(node, "systemctl stop etcd; rm -rf /var/lib/etcd/member; ! systemctl start etcd 2>/dev/null")


def settled(folder):
    """Waits until the API serves as before: what a failing member was doing is lost to whoever asked for it."""
    reader = Reader(folder)
    deadline, quick = time.monotonic() + SETTLED_S, 0
    while quick < 20:
        assert time.monotonic() < deadline, f"the API did not serve steadily within {SETTLED_S} s"
        began = time.monotonic()
        try:
            reader.ask()
            quick = quick + 1 if time.monotonic() - began < 1 else 0
        except (OSError, http.client.HTTPException):
            quick = 0


def cut_off(text, seconds, name="playbooks/etcd.yml", **variables):
    """Runs a playbook, and kills it."""
    killer = [sys.executable, str(ROOT / "molecule" / "resources" / "kill_at.py"), text, str(seconds)]
    command = [str(BIN / "ansible-playbook"), str(ROOT / name), "-e", json.dumps({**VARIABLES, **variables})]
    done = subprocess.run(
        [*killer, *command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr


def check_written(writer):
    """What was acknowledged is there."""
    assert len(writer.written) > 50
    kept = kubectl("get", "configmaps", "-n", NAMESPACE, "-o", "jsonpath={.items[*].metadata.name}").split()
    assert set(writer.written) - set(kept) == set()


@pytest.mark.parametrize(("number", "text", "seconds"), CUTS)
def test_a_member_without_data_joins_anew(number, text, seconds, hosts, on, namespace, tmp_path):
    groups, _variables = hosts
    first, *_others, victim = groups["control_plane"]
    lose_data(on, victim)
    settled(tmp_path / "settled")
    with Writer(tmp_path / "writer", number).running() as writer, Reader(tmp_path / "reader").running() as reader:
        cut_off(text, seconds)
        playbook("playbooks/etcd.yml")
    print(writer.told("written"), reader.told("read"), sep="\n")
    assert members(on, first) == dict.fromkeys(groups["control_plane"], False)
    assert len(writer.lost) + len(reader.lost) <= ELECTIONS, (writer.lost, reader.lost)
    check_written(writer)
    # Each member has the same data at the same revision.
    revision = json.loads(on(first, f"{ETCDCTL} endpoint status -w json"))[0]["Status"]["header"]["revision"]
    rows = json.loads(on(first, f"{ETCDCTL} endpoint hashkv --cluster --rev={revision} -w json"))
    assert len(rows) == len(groups["control_plane"])
    assert len({row["HashKV"]["hash"] for row in rows}) == 1


def test_nothing_is_left_to_do():
    assert "changed=1" not in playbook("playbooks/etcd.yml").partition("PLAY RECAP")[2]


def test_without_a_quorum_nothing_is_changed(hosts, on):
    groups, _variables = hosts
    first, second, victim = groups["control_plane"]
    before = members(on, first)
    on(second, "systemctl stop etcd")
    on(victim, "systemctl stop etcd; mv /var/lib/etcd/member /root/etcd-member")
    try:
        said = " ".join(playbook("playbooks/etcd.yml", fails=True).split())
        assert (
            f"{victim}: etcd has no data in /var/lib/etcd, and the cluster's etcd has lost its quorum: 1 of 3" in said
        )
        assert "changed=1" not in said
    finally:
        on(victim, "mv /root/etcd-member /var/lib/etcd/member; systemctl start etcd")
        on(second, "systemctl start etcd")
    assert members(on, first) == before


@contextlib.contextmanager
def clients(folder, hosts, series):
    """A writer, a reader and a visitor of the website, who lose nothing."""
    groups, variables = hosts
    settled(folder / "settled")
    with contextlib.ExitStack() as stack:
        writer, reader, visitor = (
            stack.enter_context(client.running())
            for client in (
                Writer(folder / "writer", series),
                Reader(folder / "reader"),
                Visitor(folder / "visitor", variables[groups["worker"][0]]),
            )
        )
        yield
    print(writer.told("written"), reader.told("read"), visitor.told("visited"), sep="\n")
    check_written(writer)
    assert len(writer.lost) + len(reader.lost) <= ELECTIONS, (writer.lost, reader.lost)
    assert visitor.lost == []


def lead(on, asked, name):
    """Makes a node the leader; `asked` is a member."""
    rows = json.loads(on(asked, f"{ETCDCTL} endpoint status --cluster -w json"))
    (id,) = [
        one["ID"] for one in json.loads(on(asked, f"{ETCDCTL} member list -w json"))["members"] if one["name"] == name
    ]
    leader = rows[0]["Status"]["leader"]
    (endpoint,) = [row["Endpoint"] for row in rows if row["Status"]["header"]["member_id"] == leader]
    if leader != id:
        on(asked, f"set -a; . /etc/etcd/etcdctl.env; ETCDCTL_ENDPOINTS={endpoint} etcdctl move-leader {id:x}")


def test_the_leader_is_replaced(hosts, on, namespace, tmp_path):
    groups, variables = hosts
    leader, second, _third = groups["control_plane"]
    lead(on, second, leader)
    with clients(tmp_path, hosts, 10):
        said = " ".join(playbook("site.yml", **OTHER_TYPE).split())
    assert "left as found, since one member of etcd at most is replaced in a run" in said
    assert members(on, second) == dict.fromkeys(groups["control_plane"], False)
    _groups, now = inventory()
    changed = [name for name in variables if now[name]["ec2_instance_id"] != variables[name]["ec2_instance_id"]]
    assert changed == [leader]


def test_two_of_three_are_removed(hosts, namespace, tmp_path):
    groups, _variables = hosts
    with clients(tmp_path, hosts, 20):
        said = playbook("playbooks/infrastructure.yml", "--check", "--diff", **LESS)
        for name in groups["control_plane"][1:]:
            assert f"-{name} " in said and f"delete instance/{name}" in said
        assert inventory()[0] == groups
        cut_off("infrastructure : Remove them from etcd", 1, "site.yml", **LESS)
        playbook("playbooks/infrastructure.yml", **LESS)
        left = inventory()[0]
        assert left == {**groups, "control_plane": groups["control_plane"][:1]}
        names = kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
        assert sorted(names) == sorted(left["control_plane"] + left["worker"])
    playbook("site.yml", **LESS)
    assert "changed=1" not in playbook("site.yml", **LESS).partition("PLAY RECAP")[2]


def test_the_only_one_cannot_be_replaced(namespace):
    another = {**LESS, "k8sgu_control_plane_instance_type": "m5.2xlarge"}
    said = " ".join(playbook("site.yml", fails=True, **another).split())
    assert "etcd has 1 member" in said and "nobody has its data" in said
    assert "changed=1" not in said
