# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What listens against the port table, both ways; how exposed our units are against their limits."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import ports as port_table
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import ports, sandbox
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.listeners import Listener

WORKER = [
    Listener("0.0.0.0", 22, "sshd"),
    Listener("10.240.0.5", 10250, "kubelet"),
    Listener("10.240.0.5", 9100, "node_exporter"),
    Listener("127.0.0.1", 10249, "kube-proxy"),
    Listener("127.0.0.1", 35707, "containerd"),
]
SYSTEM = [{"listener": "chronyd", "protocol": "udp", "first": 323, "last": 323, "bind": "loopback"}]


def judge(found, role="worker", network="routed", runtime="containerd"):
    checks = ports.check_ports(port_table.as_dictionaries(network, runtime), SYSTEM, role, found, "node")
    return [(check.passed, check.seen) for check in checks]


def test_a_worker_as_it_should_be():
    assert [passed for passed, _seen in judge([*WORKER, Listener("127.0.0.1", 323, "chronyd", "udp")])] == [True, True]


@pytest.mark.parametrize(
    "stranger",
    [
        Listener("0.0.0.0", 8080, "python3.11"),
        Listener("0.0.0.0", 10250, "nc"),  # a known port, another program
        Listener("10.240.0.5", 10249, "kube-proxy"),  # what only the node may reach, for all to reach
        Listener("0.0.0.0", 323, "chronyd", "udp"),
        Listener("0.0.0.0", 10250, "kubelet", "udp"),
        Listener("0.0.0.0", 30080, "kube-proxy"),  # node ports are packet rules
        Listener("10.240.0.5", 2379, "etcd"),  # a row of the control plane, on a worker
    ],
)
def test_a_stranger_is_named(stranger):
    (passed, seen), (others_passed, _others) = judge([*WORKER, stranger])
    assert not passed
    assert seen == str(stranger)
    assert others_passed


@pytest.mark.parametrize("gone", WORKER)
def test_a_program_that_does_not_listen_is_noticed(gone):
    (_passed, _seen), (passed, seen) = judge([one for one in WORKER if one != gone])
    assert not passed
    assert seen.startswith("not listening: ")


def test_each_runtime_has_its_own_port_for_streams():
    docker = [*WORKER[:-1], Listener("127.0.0.1", 10010, "cri-dockerd")]
    assert [passed for passed, _seen in judge(docker, runtime="docker")] == [True, True]
    assert [passed for passed, _seen in judge(docker, runtime="containerd")] == [False, False]


def test_node_exporter_listens_where_the_description_has_it():
    without = port_table.as_dictionaries("routed", observability=False)
    rest = [one for one in WORKER if one.program != "node_exporter"]
    assert [one.passed for one in ports.check_ports(without, SYSTEM, "worker", rest, "node")] == [True, True]
    assert judge(rest)[1] == (False, "not listening: node-exporter")
    assert not ports.check_ports(without, SYSTEM, "worker", WORKER, "node")[0].passed


def test_vxlan_is_the_kernels():
    envelope = Listener("0.0.0.0", 8472, "kernel", "udp")
    assert [passed for passed, _seen in judge([*WORKER, envelope], network="vxlan")] == [True, True]
    assert not judge([*WORKER, envelope])[0][0]
    assert judge(WORKER, network="vxlan")[1] == (False, "not listening: vxlan")


def test_a_question_under_way_is_no_service():
    asked = Listener("0.0.0.0", 41000, "kubelet", "udp")
    assert judge([*WORKER, asked])[0][0]
    assert not judge([*WORKER, dataclasses.replace(asked, protocol="tcp")])[0][0]


def test_the_controller_manager_and_the_scheduler_are_for_their_node_only():
    control_plane = [
        *WORKER,
        Listener("0.0.0.0", 6443, "kube-apiserver"),
        Listener("10.240.0.4", 2379, "etcd"),
        Listener("10.240.0.4", 2380, "etcd"),
        Listener("127.0.0.1", 10257, "kube-controller-manager"),
    ]
    inside, outside = (Listener(address, 10259, "kube-scheduler") for address in ("127.0.0.1", "0.0.0.0"))
    assert [passed for passed, _seen in judge([*control_plane, inside], "control_plane")] == [True, True]
    assert judge([*control_plane, outside], "control_plane")[0] == (False, str(outside))


def test_nothing_found_proves_nothing():
    assert [passed for passed, _seen in judge([])] == [False, False]


UNIT = re.compile(r"(?:unit:|-) \{name: (\S+?\.service)[,}]")
RATED = """...
→ Overall exposure level for etcd.service: 1.2 OK :-)

→ Overall exposure level for containerd.service: 9.6 UNSAFE :-{
"""


def test_exposures_are_read():
    assert sandbox.exposures(RATED) == {"etcd.service": 1.2, "containerd.service": 9.6}
    assert sandbox.exposures("Failed to connect") == {}


@pytest.mark.parametrize(
    ("limits", "units", "passed"),
    [
        # The limit of a unit that the node does not have does not count.
        ({"etcd.service": 3, "containerd.service": 9.6, "a.service": 1}, ["containerd.service", "etcd.service"], True),
        ({"etcd.service": 1.1, "containerd.service": 9.6}, ["containerd.service", "etcd.service"], False),
        # A unit without a limit, one that systemd does not rate, and a node on which nothing of ours is found.
        ({"etcd.service": 3.0}, ["containerd.service", "etcd.service"], False),
        ({"etcd.service": 3.0, "flanneld.service": 10.0}, ["etcd.service", "flanneld.service"], False),
        ({"etcd.service": 3.0}, [], False),
    ],
)  # fmt: skip
def test_every_unit_has_a_limit_and_keeps_it(monkeypatch, limits, units, passed):
    done = subprocess.CompletedProcess([], 0, RATED, "Unit flanneld.service not found.")
    monkeypatch.setattr(sandbox.subprocess, "run", lambda *_args, **_options: done)
    assert sandbox.check_exposure(limits, units, "node").passed is passed


def test_every_unit_that_a_role_installs_has_a_limit():
    roles = Path(__file__).parents[3] / "roles"
    names = {name for path in roles.glob("*/vars/**/*.yml") for name in UNIT.findall(path.read_text())}
    limits = yaml.safe_load((roles / "verify/vars/main.yml").read_text())["verify_exposure_limits"]
    assert names == set(limits)


def test_without_systemd_nothing_is_confined(monkeypatch):
    def nothing_to_run(*_args, **_options):
        raise FileNotFoundError

    monkeypatch.setattr(sandbox.subprocess, "run", nothing_to_run)
    assert not sandbox.check_exposure({"etcd.service": 3.0}, ["etcd.service"], "node").passed


def test_our_units_are_those_that_components_started(tmp_path):
    (tmp_path / "etcd.json").write_text(json.dumps({"schema": 1, "started_with": {"etcd.service": {"/a": "1"}}}))
    (tmp_path / "etcd.undo.json").write_text(json.dumps({"paths": {}, "units": {"other.service": {}}}))
    (tmp_path / "half.json").write_text("{")
    assert sandbox.own_units(tmp_path) == ["etcd.service"]
