# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each gate passes a healthy cluster, and refuses what it is for with what it is about and the way out."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import (
    description,
    flags,
    members,
    nodes,
    objects,
    report,
    versions,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import Api, Asked, Gate, Machine

NOW = datetime.datetime(2026, 11, 29, tzinfo=datetime.timezone.utc)
GIB = 1 << 30
NAMES = ("c-0", "c-1", "c-2", "w-0", "w-1")


def member(version: str = "3.6.14", storage: str = "3.6.0", target: str = "") -> dict[str, Any]:
    one = {"version": version, "storage": storage, "target": target, "learner": False, "alarms": ()}
    return {
        "problem": "",
        "size": 50 << 20,
        "in_use": 20 << 20,
        "quota": 2 * GIB,
        "running": [{**one, "name": f"c-{n}", "leads": not n} for n in range(3)],
        "silent": [],
        "alarms": [],
        "alarms_problem": "",
        "back": "",
    }


def facts(control_plane: bool, version: str = "1.36.4", emulated: str = "") -> dict[str, Any]:
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler") if control_plane else ()
    told = {"emulated-version": emulated} if emulated else {}
    disk = {"device": 1, "free": 20 * GIB}
    places = {"programs": "/opt/k8sgu", "images": "/var/lib/containerd", "snapshot": "/var/lib/k8sgu", "root": "/"}
    return {
        "architecture": "x86_64",
        "installed": {},
        "running": {
            **{name: {"version": version, "flags": told} for name in names},
            # Nodes follow when the control plane behaves as what it is.
            **{name: {"version": "1.36.4" if emulated else version, "flags": {}} for name in ("kubelet", "kube-proxy")},
        },
        "files": [{"path": "/opt/k8sgu/kubelet/1.37.2/kubelet", "name": "kubelet", "size": 50 << 20, "state": "there"}],
        "images": {
            "problem": "",
            "images": [{"name": "registry.k8s.io/pause:3.10.2", "size": 1 << 20, "state": "there"}],
        },
        "disks": {name: {**disk, "path": path} for name, path in places.items()},
        "known": {"kube-apiserver": {"flags": ["feature-gates", "v"]}} if control_plane else {},
        "refused_gates": {},
        "kubelet_config": {"asked": True, "problem": ""},
        "etcd": member() if control_plane else {},
        "certificates": [],
        "certificates_unread": [],
        "deprecated": [],
    }


def node(name: str, **more: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]
    status = {"conditions": conditions, "nodeInfo": {"kubeletVersion": "v1.36.4"}}
    return {"metadata": {"name": name, "uid": name}, "spec": {}, "status": status, **more}


def healthy() -> Asked:
    """Three control-plane nodes and two workers on the way from 1.36.4 to 1.37.2, everything staged."""
    machines = [
        Machine(name, "control_plane" if name[0] == "c" else "worker", True, facts(name[0] == "c")) for name in NAMES
    ]
    return Asked(
        runs="1.36.4",
        target="1.37.2",
        direction="forward",
        staged=True,
        released=["1.36.4", "1.37.2"],
        releases_dir="releases",
        machines=machines,
        api=Api(nodes=[node(name) for name in NAMES], metrics=[[], [], []]),
        etcd_target="3.7.3",
        architectures=("amd64", "arm64"),
        flags={"c-0": {"k8sgu_apiserver_extra_flags": {"v": 2, "feature-gates": "Kept=true"}}},
    )


def certificate(days: int) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubelet")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - datetime.timedelta(days=1))
        .not_valid_after(NOW + datetime.timedelta(days=days, hours=1))
    )
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def lasting(asked: Asked) -> Gate:
    return nodes.certificates(asked, [], NOW)


GATES: dict[str, Callable[[Asked], Gate]] = {
    "release": versions.release,
    "hop": versions.hop,
    "reached": nodes.reached,
    "api": objects.answered,
    "skew": versions.skew,
    "description": description.description,
    "verify": description.verify,
    "etcd": members.etcd,
    "architecture": nodes.architecture,
    "certificates": lasting,
    "disk": nodes.disk,
    "files": nodes.files,
    "flags": flags.flags,
    "nodes": nodes.ready,
    "removed APIs": objects.removed_apis,
    "stored versions": objects.stored_versions,
    "aggregated APIs": objects.aggregated,
    "webhooks": objects.webhooks,
    "budgets": nodes.budgets,
}


def with_facts(name: str, **more: Any) -> Asked:
    """The healthy cluster with other facts of a node; of `etcd` and the like a part is enough."""
    asked = healthy()
    machines = []
    for machine in asked.machines:
        found = copy.deepcopy(dict(machine.facts))
        if machine.name == name:
            for key, value in more.items():
                found[key] = {**found[key], **value} if isinstance(value, dict) else value
        machines.append(replace(machine, facts=found))
    return replace(asked, machines=machines)


def with_api(**more: Any) -> Asked:
    asked = healthy()
    return replace(asked, api=replace(asked.api, **more))


def runs(versions_: dict[str, tuple[str, str]], asked: Asked) -> Asked:
    """With other versions by node: (version, emulated); those of etcd stay."""
    found = {name: versions_.get(name, ("1.36.4", "")) for name in NAMES}
    machines = [
        replace(machine, facts=facts(machine.role == "control_plane", *found[machine.name]))
        for machine in asked.machines
    ]
    return replace(asked, machines=machines)


def problems(gate: str, asked: Asked) -> tuple[str, ...]:
    found = GATES[gate](asked)
    assert found.name == gate
    return found.problems


@pytest.mark.parametrize("gate", GATES)
def test_a_healthy_cluster_passes(gate: str) -> None:
    found = GATES[gate](healthy())
    assert found.problems == () and found.passed and found.why


def test_every_gate_is_judged_and_told_in_a_table() -> None:
    gates = report.judge(healthy(), [], NOW)
    assert [gate.name for gate in gates] == list(GATES)
    lines = report.table(gates)
    assert len(lines) == len(GATES) and all(" passed " in line for line in lines)


def test_without_the_api_its_gates_are_left_out_and_the_reason_is_told() -> None:
    gates = report.judge(with_api(problem="the API server https://x: cannot be reached"), [], NOW)
    refused = {gate.name for gate in gates if not gate.passed}
    assert "api" in refused and "budgets" not in {gate.name for gate in gates}


def test_all_problems_are_in_one_message() -> None:
    text = report.refusal("1.37.2", ["a", "b"])
    assert text == "2 problems on the way to 1.37.2, and nothing was changed:\n- a\n- b"


RELEASES = ["1.36.4", "1.37.2", "1.38.0"]


@pytest.mark.parametrize(
    ("runs_", "target", "direction", "expected"),
    [
        ("1.36.4", "1.37.2", "forward", ""),
        ("1.36.4", "1.36.5", "forward", ""),
        # One that has come to its end.
        ("1.37.2", "1.37.2", "forward", ""),
        ("1.36.4", "1.36.3", "back", ""),
        (
            "1.36.4",
            "1.38.0",
            "forward",
            "2 minor versions after 1.36.4, and none can be skipped; upgrade to 1.37.2 first",
        ),
        ("1.35.1", "1.37.2", "forward", "upgrade to 1.36.4 first"),
        ("1.34.1", "1.36.4", "forward", "a release of 1.35 has to be added first"),
        ("1.37.2", "1.36.4", "forward", "to go back, say so: -e k8sgu_upgrade_back=true"),
        ("1.36.4", "1.37.2", "back", "is newer than 1.36.4, which the cluster runs; leave k8sgu_upgrade_back out"),
        ("1.38.0", "1.36.4", "back", "the way back leads to the release before alone, 1.37"),
        ("1.36.4", "2.0.0", "forward", "another major version"),
        ("1.36.4", "1.37", "forward", "'1.37' is not a complete version; give one such as 1.36.4"),
    ],
)
def test_hops(runs_: str, target: str, direction: str, expected: str) -> None:
    asked = replace(healthy(), runs=runs_, target=target, direction=direction, released=RELEASES)
    found = problems("hop", asked)
    assert (len(found) == 1 and expected in found[0]) if expected else found == ()


BACK = replace(healthy(), runs="1.37.2", target="1.36.4", direction="back", etcd_target="3.6.14")


@pytest.mark.parametrize("flag", ["1.36", "kube=1.36", "kube:1.36"])
def test_the_way_back_over_a_minor_version_is_open_while_the_api_servers_emulate_it(flag: str) -> None:
    asked = runs({name: ("1.37.2", flag) for name in NAMES if name[0] == "c"}, BACK)
    assert problems("hop", asked) == () and problems("skew", asked) == ()


def test_the_way_back_says_what_is_lost_once_an_api_server_behaves_as_what_it_is() -> None:
    emulating = dict.fromkeys(("c-0", "c-1", "c-2"), ("1.37.2", "1.36"))
    assert "stay in etcd" not in versions.hop(runs(emulating, BACK)).why
    gate = versions.hop(runs({**emulating, "c-1": ("1.37.2", "")}, BACK))
    assert gate.problems == ()
    assert "objects that only 1.37 serves stay in etcd" in gate.why


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("changed", [("c-0",), ("c-0", "c-1", "c-2")])
def test_an_upgrade_that_was_cut_off_goes_on_to_either_end(changed: tuple[str, ...], back: bool) -> None:
    asked = runs(dict.fromkeys(changed, ("1.37.2", "1.36")), BACK if back else healthy())
    assert problems("hop", asked) == () and problems("skew", asked) == ()


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        # Upgraded to its end, some nodes are still to follow.
        ({"c-0": ("1.37.2", ""), "c-1": ("1.37.2", ""), "c-2": ("1.37.2", ""), "w-0": ("1.37.2", "")}, ""),
        ({"c-0": ("1.38.0", ""), "c-1": ("1.36.4", "")}, "the API servers are 1.36.4, 1.38.0"),
        ({"c-0": ("1.38.0", "")}, "c-0: kube-apiserver 1.38.0 is neither of 1.36.4 nor of 1.37.2"),
        ({"w-1": ("1.37.2", "")}, "w-1: kubelet 1.37.2 is newer than what the oldest API server behaves as, 1.36"),
        (
            {**{f"c-{n}": ("1.37.2", "1.36") for n in range(3)}, "w-1": ("1.37.2", "")},
            "w-1: kubelet 1.37.2 is newer than what the oldest API server behaves as, 1.36",
        ),
        ({"w-1": ("1.33.9", "")}, "w-1: kube-proxy 1.33.9 is more than 3 minor versions older than 1.37"),
    ],
)
def test_skew(there: dict[str, tuple[str, str]], expected: str) -> None:
    found = problems("skew", runs(there, healthy()))
    assert any(expected in problem for problem in found) if expected else found == ()


def test_a_controller_manager_newer_than_every_api_server() -> None:
    asked = with_facts("c-1", running={"kube-controller-manager": {"version": "1.37.2", "flags": {}}})
    [problem] = problems("skew", asked)
    assert problem.startswith("c-1: kube-controller-manager 1.37.2, and the API servers are 1.36.4")


def test_the_nearest_release_is_named() -> None:
    [problem] = problems("release", replace(healthy(), target="1.37.9"))
    assert "the nearest is 1.37.2" in problem


TRIPS: list[tuple[str, Asked, str]] = [
    (
        "reached",
        replace(healthy(), machines=[*healthy().machines, Machine("w-2", "worker", False, {})]),
        "w-2: does not answer over SSH; start it",
    ),
    ("reached", replace(healthy(), machines=[]), "the inventory has no node"),
    ("api", with_api(problem="the API server https://x:6443: cannot be reached for 20 s"), "cannot be reached"),
    ("skew", replace(healthy(), machines=[]), "no API server's version is known"),
    (
        "description",
        replace(healthy(), description=["k8sgu_pod_cidr: a, and this cluster was made with b"]),
        "made with b",
    ),
    (
        "description",
        replace(
            healthy(),
            infrastructure={
                "differences": [
                    {"kind": "instance-missing", "where": "w-2", "expected": "an instance", "seen": "none"},
                    {"kind": "rule-added", "where": "sg", "expected": "no rule", "seen": "one"},
                ]
            },
        ),
        "w-2: instance-missing: an instance is described, and there is none; one thing at a time",
    ),
    ("description", replace(healthy(), infrastructure={"msg": "no credentials"}), "no credentials"),
    (
        "verify",
        replace(
            healthy(),
            verify=[
                {
                    "name": "swap is off",
                    "passed": False,
                    "expected": "off",
                    "seen": "on",
                    "where": "w-0",
                    "look": "free",
                },
                {"name": "nodes are Ready", "passed": True, "expected": "5", "seen": "5"},
            ],
        ),
        "verify: swap is off (w-0): expected off, seen on; look: free",
    ),
    ("verify", replace(healthy(), verify=["the demo does not answer"]), "verify: the demo does not answer"),
    ("etcd", with_facts("c-1", etcd={"problem": "connection refused"}), "c-1: its member of etcd does not answer"),
    ("etcd", with_facts("c-1", etcd={"silent": ["c-2"]}), "etcd's member c-2 does not answer; look there"),
    (
        "etcd",
        with_facts("c-1", etcd={"running": [{**member()["running"][0], "learner": True}]}),
        "c-0: this member of etcd has no vote yet; let it join first: playbooks/etcd.yml",
    ),
    (
        "etcd",
        with_facts("c-1", etcd={"running": [{**one, "leads": False} for one in member()["running"]]}),
        "etcd has no leader now",
    ),
    (
        "etcd",
        with_facts("c-1", etcd={"alarms": [{"member": "c-2", "alarm": "NOSPACE"}]}),
        "etcd's member c-2 has the alarm NOSPACE: it takes no more writes; make room (etcdctl defrag)",
    ),
    ("etcd", with_facts("c-1", etcd={"alarms": [{"member": "c-2", "alarm": "CORRUPT"}]}), "replace the member"),
    ("etcd", with_facts("c-1", etcd={"alarms_problem": "timed out"}), "does not list its alarms (timed out)"),
    ("etcd", with_facts("c-1", etcd={"size": 1900 << 20}), "1900 MiB of its quota of 2048 MiB (20 MiB in use)"),
    (
        "etcd",
        with_facts("c-1", disks={"snapshot": {"path": "/var/lib/k8sgu", "device": 1, "free": 60 << 20}}),
        "c-1: etcd's database has 50 MiB, so that its snapshot needs 155 MiB with room to spare,",
    ),
    ("etcd", replace(healthy(), etcd_target="3.8.1"), "etcd goes one minor version at a time"),
    ("etcd", with_facts("c-1", etcd=member("3.6.9")), "members of etcd 3.7 join only those of 3.6.11 or later"),
    ("etcd", replace(healthy(), machines=healthy().machines[3:]), "no member of etcd answered"),
    (
        "architecture",
        with_facts("w-1", architecture="riscv64"),
        "w-1: is of the architecture riscv64, and 1.37.2 has amd64",
    ),
    (
        "certificates",
        with_facts("w-1", certificates=[{"place": "/x.crt", "pem": certificate(6)}]),
        "w-1:/x.crt: 6 days left",
    ),
    ("certificates", with_facts("w-1", certificates=[{"place": "/x.crt", "pem": "no"}]), "w-1:/x.crt: unreadable"),
    ("certificates", with_facts("w-1", certificates_unread=["/y: no"]), "w-1: certificates cannot be read: /y: no"),
    (
        "disk",
        with_facts("w-1", disks={"root": {"path": "/", "device": 2, "free": 100 << 20}}),
        "w-1: / has 100 MiB free, and 0 MiB are still to be fetched with 512 MiB to spare",
    ),
    (
        "disk",
        with_facts("w-1", files=[{"path": "/p", "name": "p", "size": 20 * GIB, "state": "missing"}]),
        "w-1: /opt/k8sgu has 20480 MiB free, and 20480 MiB are still to be fetched",
    ),
    (
        "disk",
        with_facts("w-1", images={"images": [{"name": "i", "size": 7 * GIB, "state": "missing"}]}),
        "w-1: /opt/k8sgu has 20480 MiB free, and 21504 MiB are still",
    ),
    (
        "files",
        with_facts("w-1", files=[{"path": "/p", "name": "p", "size": 1, "state": "different"}]),
        "w-1: 1 of 1.37.2's files and images are not there: /p (with another checksum); run this again",
    ),
    (
        "files",
        with_facts("w-1", images={"images": [{"name": "i", "size": 1, "state": "missing"}]}),
        "w-1: 1 of 1.37.2's files and images are not there: i; run this again",
    ),
    (
        "files",
        with_facts("w-1", images={"problem": "no socket"}),
        "w-1: its runtime does not list its images (no socket)",
    ),
    (
        "flags",
        with_facts("w-1", kubelet_config={"problem": "unknown field x"}),
        "does not take /var/lib/kubelet/config.yaml: unknown field x",
    ),
    ("nodes", with_api(nodes=[node(name) for name in NAMES[:4]]), "w-1: has no Node object"),
    (
        "nodes",
        with_api(nodes=[node(name) for name in (*NAMES, "w-9")]),
        "w-9: is a Node of the cluster and not in the inventory",
    ),
    (
        "nodes",
        with_api(
            nodes=[
                *map(node, NAMES[:4]),
                node("w-1", status={"conditions": [{"type": "Ready", "status": "Unknown", "message": "stopped."}]}),
            ]
        ),
        "w-1: is not Ready (stopped); look at its kubelet",
    ),
    (
        "nodes",
        with_api(nodes=[*map(node, NAMES[:4]), node("w-1", spec={"unschedulable": True})]),
        "w-1: somebody cordoned it, and may be at work there; when that is done: kubectl uncordon w-1",
    ),
    (
        "nodes",
        with_api(
            nodes=[
                *map(node, NAMES[:4]),
                node(
                    "w-1",
                    status={
                        "conditions": [
                            {"type": "Ready", "status": "True"},
                            {"type": "DiskPressure", "status": "True", "message": "full."},
                        ]
                    },
                ),
            ]
        ),
        "w-1: has DiskPressure (full)",
    ),
    (
        "stored versions",
        with_api(
            definitions=[
                {
                    "metadata": {"name": "boxes.example.org"},
                    "spec": {"versions": [{"name": "v1", "served": True}, {"name": "v1beta1", "served": False}]},
                    "status": {"storedVersions": ["v1", "v1beta1"]},
                }
            ]
        ),
        "Definition boxes.example.org: objects may be stored as v1beta1, which is not served (served: v1)",
    ),
    (
        "aggregated APIs",
        with_api(
            services=[
                {
                    "metadata": {"name": "v1.metrics"},
                    "status": {"conditions": [{"type": "Available", "status": "False", "message": "no endpoints."}]},
                }
            ]
        ),
        "APIService v1.metrics: is not available (no endpoints); start what serves it",
    ),
]


@pytest.mark.parametrize(
    ("gate", "asked", "expected"), TRIPS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_gate_refuses(gate: str, asked: Asked, expected: str) -> None:
    found = problems(gate, asked)
    assert [problem for problem in found if expected in problem], found
    assert len(found) == 1 or gate == "etcd"


def test_what_every_member_says_of_the_cluster_is_told_once() -> None:
    asked = healthy()
    for machine in asked.machines[:3]:
        machine.facts["etcd"]["alarms"].append({"member": "c-2", "alarm": "NOSPACE"})
    assert len(problems("etcd", asked)) == 1


def with_etcd(found: dict[str, Any], asked: Asked) -> Asked:
    for machine in asked.machines[:3]:
        machine.facts["etcd"].update(copy.deepcopy(found))
    return asked


def test_etcd_itself_refuses_the_way_back() -> None:
    asked = with_etcd(member("3.7.3", "3.7.0"), runs({f"c-{n}": ("1.37.2", "1.36") for n in range(3)}, BACK))
    assert problems("etcd", asked) == ()
    asked.machines[0].facts["etcd"]["back"] = "etcdserver: cluster is not healthy"
    [problem] = problems("etcd", asked)
    assert problem.startswith("etcd refuses to go back to 3.6.14: etcdserver: cluster is not healthy; https://")


@pytest.mark.parametrize("back", [False, True])
def test_a_way_back_of_etcd_that_was_cut_off_is_told_and_passes_to_either_end(back: bool) -> None:
    asked = runs({}, BACK if back else healthy())
    with_etcd(member("3.7.3", "3.6.0", "3.6.0"), asked)
    assert problems("etcd", asked) == ()
    assert "it is on its way back to 3.6.0" in members.etcd(asked).why


def test_what_an_earlier_run_of_ours_left_so_passes() -> None:
    mark = {"name": "w-1", "uid": "w-1", "annotations": {"k8sgu.io/cordoned": "upgrade"}}
    status = {"conditions": [{"type": "Ready", "status": "False"}]}
    left = node("w-1", metadata=mark, spec={"unschedulable": True}, status=status)
    assert problems("nodes", with_api(nodes=[*map(node, NAMES[:4]), left])) == ()


def test_before_staging_no_file_has_to_be_there_and_there_is_nothing_to_ask() -> None:
    asked = with_facts("w-1", files=[{"path": "/p", "name": "p", "size": 1, "state": "missing"}])
    asked = replace(asked, staged=False)
    assert problems("files", asked) == () and "10 of 11" not in nodes.files(asked).why
    for machine in asked.machines:
        machine.facts["known"].clear()
    assert problems("flags", asked) == ()
    [problem] = problems("flags", replace(asked, staged=True))
    assert "no node has 1.37.2's programs" in problem


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"k8sgu_apiserver_extra_flags": {"gone-flag": 1}}, ["knows no flag gone-flag; take it out"]),
        ({"k8sgu_apiserver_extra_flags": {"feature_gate": 1}}, ["no flag feature-gate (did you mean feature-gates?)"]),
        ({"k8sgu_apiserver_extra_flags": {"feature_gates": "A=true"}}, []),
        # Nobody was asked about these.
        ({"k8sgu_scheduler_extra_flags": {"whatever": 1}}, []),
        ({}, []),
    ],
)
def test_flags_of_the_users_own(given: dict[str, Any], expected: list[str]) -> None:
    found = problems("flags", replace(healthy(), flags={"c-0": given, "w-0": {}}))
    assert len(found) == len(expected)
    assert all(
        text in problem and "_flags (c-0): 1.37.2's kube-api" in problem for text, problem in zip(expected, found)
    )


def test_the_same_flag_of_every_host_is_told_once() -> None:
    given = {"k8sgu_apiserver_extra_flags": {"gone": 1}}
    [problem] = problems("flags", replace(healthy(), flags=dict.fromkeys((*NAMES, "localhost"), given)))
    assert problem.startswith("k8sgu_apiserver_extra_flags: 1.37.2's kube-apiserver knows no flag gone")


def test_a_feature_gate_that_a_program_does_not_take() -> None:
    asked = with_facts("c-1", refused_gates={"kube-scheduler": {"Gone": "unrecognized feature gate: Gone"}})
    [problem] = problems("flags", asked)
    assert problem == (
        "k8sgu_scheduler_extra_flags (c-1): 1.37.2's kube-scheduler: unrecognized feature gate: Gone; take it out, "
        "and run site.yml before the upgrade"
    )


def test_which_feature_gates_are_asked_about() -> None:
    given = {
        "k8sgu_apiserver_extra_flags": {"feature-gates": "A=true, kube:B=false", "v": 2},
        "k8sgu_kube_proxy_extra_flags": {"feature_gates": "C=true"},
        "k8sgu_kubelet_extra_config": {"featureGates": {"D": True}},
    }
    assert flags.feature_gates(given) == {
        "kube-apiserver": {"A": "true", "kube:B": "false"},
        "kube-proxy": {"C": "true"},
    }


def test_a_program_that_does_not_start_is_told() -> None:
    asked = with_facts("c-0", known={"kube-apiserver": {"problem": "exec format error"}})
    for machine in asked.machines[1:3]:
        machine.facts["known"].clear()
    [problem] = problems("flags", asked)
    assert problem == "kube-apiserver: 1.37.2's program does not say what it knows: exec format error"


METRICS = """\
# HELP apiserver_requested_deprecated_apis [STABLE] Gauge of deprecated APIs
# TYPE apiserver_requested_deprecated_apis gauge
METRIC{group="",removed_release="",resource="endpoints",subresource="",version="v1"} 1
METRIC{group="apps.example",removed_release="1.37",resource="boxes",subresource="status",version="v1beta1"} 1
METRIC{group="apps.example",removed_release="1.38",resource="jars",subresource="",version="v1beta1"} 1
process_start_time_seconds 1.76441337e+09
""".replace("METRIC{", f"{objects.METRIC}{{")


def test_metrics_tell_servers_apart_and_what_goes() -> None:
    started, found = objects.deprecated_of(METRICS)
    assert started == "1.76441337e+09" and [item["resource"] for item in found] == ["endpoints", "boxes", "jars"]
    assert [objects.name_of(item) for item in objects.going([found, found], "1.37.2")] == ["boxes.v1beta1.apps.example"]


def test_an_api_that_goes_is_named_with_who_uses_it() -> None:
    _started, found = objects.deprecated_of(METRICS)
    row = {"group": "apps.example", "version": "v1beta1", "resource": "boxes", "removed": "1.37"}
    who = {"user": "system:serviceaccount:a:b", "agent": "boxer/1", "count": 3, "last": "2026-11-29T10:00:00.000000Z"}
    asked = with_facts("c-1", deprecated=[{**row, **who}])
    api = replace(asked.api, metrics=[found, [], []], managers={"boxes.v1beta1.apps.example": ["boxer wrote a/x"]})
    [problem] = problems("removed APIs", replace(asked, api=api))
    assert problem.startswith(
        "boxes.v1beta1.apps.example: is removed in 1.37, and it is used by system:serviceaccount:a:b (boxer/1), last "
        "2026-11-29T10:00:00Z; objects were written by it: boxer wrote a/x; "
    )
    # The way back removes nothing.
    assert problems("removed APIs", replace(asked, api=api, direction="back")) == ()


def test_an_api_that_goes_and_that_only_an_audit_log_has() -> None:
    row = {"group": "g", "version": "v1beta1", "resource": "r", "removed": "1.37"}
    later = {"group": "g", "version": "v1beta2", "resource": "r", "removed": "1.38"}
    who = {"user": "u", "agent": "a", "count": 1, "last": "2026-11-29T10:00:00.000000Z"}
    [problem] = problems("removed APIs", with_facts("c-1", deprecated=[{**row, **who}, {**later, **who}]))
    assert problem.startswith("r.v1beta1.g: is removed in 1.37, and it is used by u (a)")


def test_an_api_that_goes_without_anybody_in_the_logs() -> None:
    _started, found = objects.deprecated_of(METRICS)
    [problem] = problems("removed APIs", with_api(metrics=[found, [], []]))
    assert "used by somebody whom the audit logs no longer have" in problem


def test_an_api_server_that_nobody_reaches() -> None:
    [problem] = problems("removed APIs", with_api(metrics=[[], []]))
    assert problem.startswith("2 of 3 API servers told through the API's address")


def hook(name: str, **more: Any) -> dict[str, Any]:
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["pods"]}]
    client = {"service": {"namespace": "a", "name": "guard"}}
    return {"name": name, "clientConfig": client, "rules": rules, "failurePolicy": "Fail", **more}


def guarded(entry: dict[str, Any], **more: Any) -> Asked:
    configuration = {"kind": "ValidatingWebhookConfiguration", "metadata": {"name": "guard"}, "webhooks": [entry]}
    spaces = [{"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}}}]
    return with_api(webhooks=[configuration], namespaces=spaces, **more)


def test_a_webhook_that_fails_closed_without_a_backend() -> None:
    [problem] = problems("webhooks", guarded(hook("guard.example.org"), backends={"a/guard": 0}))
    assert problem.startswith(
        "admission webhook guard.example.org (ValidatingWebhookConfiguration guard): fails closed for pods, and its "
        "Service a/guard has no endpoint that is ready; start what answers for it"
    )


@pytest.mark.parametrize(
    "asked",
    [
        guarded(hook("g"), backends={"a/guard": 1}),
        guarded(hook("g", failurePolicy="Ignore"), backends={"a/guard": 0}),
        guarded(hook("g", namespaceSelector={"matchLabels": {"guarded": "yes"}}), backends={"a/guard": 0}),
        guarded(hook("g", rules=[{"apiGroups": ["example.org"], "resources": ["*"]}]), backends={"a/guard": 0}),
        # Only the API servers know of what is outside; they were asked.
        guarded(hook("g", clientConfig={"url": "https://outside"})),
    ],
)
def test_webhooks_that_block_nothing(asked: Asked) -> None:
    assert problems("webhooks", asked) == ()


@pytest.mark.parametrize(
    ("resources", "matched"),
    [
        (["*"], ["configmaps", "nodes", "pods", "services"]),
        (["pods/*"], ["pods", "pods/binding", "pods/eviction", "pods/status"]),
        (["*/status"], ["nodes/status", "pods/status"]),
    ],
)
def test_what_rules_match(resources: list[str], matched: list[str]) -> None:
    rules = [{"apiGroups": [""], "resources": resources}]
    [problem] = problems("webhooks", guarded(hook("g", rules=rules), backends={"a/guard": 0}))
    assert f"fails closed for {', '.join(matched)}, and its Service" in problem


def test_what_the_api_server_says_when_it_is_asked_to_try() -> None:
    said = 'Internal error occurred: failed calling webhook "g": failed to call webhook: Post "https://x": refused'
    probes = [
        {"what": "evict a/b", "error": "Cannot evict pod as it would violate the pod's disruption budget."},
        {"what": "change the node w-0", "error": said},
        {"what": "make a pod in default", "error": said},
    ]
    [problem] = problems("webhooks", guarded(hook("g", clientConfig={"url": "https://x"}), probes=probes))
    assert problem.startswith(
        "admission webhook g: the API server cannot reach it when it is to change the node w-0 (failed to call "
        'webhook: Post "https://x": refused); start what answers'
    )


def pod(name: str, where: str, labels: dict[str, str]) -> dict[str, Any]:
    metadata = {"namespace": "a", "name": name, "uid": name, "labels": labels}
    return {"metadata": metadata, "spec": {"nodeName": where}, "status": {"phase": "Running"}}


def budget(name: str, allowed: int, labels: dict[str, str]) -> dict[str, Any]:
    status = {"disruptionsAllowed": allowed, "currentHealthy": 2, "desiredHealthy": 2}
    return {
        "metadata": {"namespace": "a", "name": name},
        "spec": {"selector": {"matchLabels": labels}},
        "status": status,
    }


def test_budgets_that_allow_no_eviction() -> None:
    pods = [pod("x-0", "w-0", {"app": "x"}), pod("x-1", "w-1", {"app": "x"}), pod("y", "w-0", {"app": "y"})]
    budgets = [budget("x", 0, {"app": "x"}), budget("y", 1, {"app": "y"}), budget("nobody", 0, {"app": "z"})]
    [problem] = problems("budgets", with_api(pods=pods, budgets=budgets))
    assert problem == (
        "PodDisruptionBudget a/x: allows no eviction now (2 healthy, 2 needed), and these have to leave their nodes: "
        "a/x-0 on w-0, a/x-1 on w-1; give it more replicas, or let the budget allow one to be away"
    )
    # Where these nodes are not drained, nothing has to leave them.
    assert problems("budgets", replace(with_api(pods=pods, budgets=budgets), drained=["c-0"])) == ()


def test_a_pod_with_two_budgets() -> None:
    budgets = [budget("x", 1, {"app": "x"}), budget("x2", 1, {"app": "x"})]
    [problem] = problems("budgets", with_api(pods=[pod("x-0", "w-0", {"app": "x"})], budgets=budgets))
    assert problem.startswith("w-0 cannot be drained: Pod a/x-0 is covered by several PodDisruptionBudgets")
