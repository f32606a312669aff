# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data of a snapshot is given back to a cluster that deleted some of it, though the run is cut off; pods go on.

Runs as test_security.py does. Afterwards etcd's members keep what they had aside.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import subprocess
import time

import pytest
from test_members import ETCDCTL, Visitor, Writer, cut_off, members, settled
from test_rolling import Reader
from test_security import BIN, ENVIRONMENT, ROOT, VARIABLES, hosts, kubectl, on, playbook

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(1800)

NAMESPACE = "k8sgu-test-restore"
RESTORE = "playbooks/restore.yml"
WORD = "a word that only the cluster knows"
READY_S = 60


class RestoreWriter(Writer):
    namespace = NAMESPACE


def take_snapshot(node):
    """The snapshot's name."""
    argv = [str(BIN / "ansible"), node, "-b", "-m", "k8sgu.cluster.etcd_snapshot", "-a", "series=test"]
    argv += ["--playbook-dir", str(ROOT / "playbooks"), "-e", json.dumps(VARIABLES)]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.search(r"/var/lib/k8sgu/snapshots/(\S+\.db)", done.stdout)[1]


def written():
    return set(kubectl("get", "configmaps", "-n", NAMESPACE, "-o", "jsonpath={.items[*].metadata.name}").split())


def revision(on, node):
    return json.loads(on(node, f"{ETCDCTL} endpoint status -w json"))[0]["Status"]["header"]["revision"]


@contextlib.contextmanager
def registered_anew(on, node):
    """Has no Node for this node in the block, and then a new one, sooner than anybody ends its pods."""
    on(node, "systemctl stop kubelet")
    kubectl("delete", "node", node)
    yield
    on(node, "systemctl start kubelet")
    deadline = time.monotonic() + READY_S
    while "True" not in kubectl(
        *("get", "node", node, "--ignore-not-found"),
        *("-o", 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'),
    ):
        assert time.monotonic() < deadline, f"{node} did not register again within {READY_S} s"
        time.sleep(0.5)


def test_what_was_deleted_is_there_again(hosts, on, tmp_path):
    groups, variables = hosts
    # A second worker, since Services leave out what runs on a node that the API does not know.
    source, (other, *_more, worker) = groups["control_plane"][-1], groups["worker"]
    kubectl("create", "namespace", NAMESPACE)
    kubectl("create", "secret", "generic", "word", "-n", NAMESPACE, f"--from-literal=word={WORD}")
    settled(tmp_path / "settled")
    with RestoreWriter(tmp_path / "before", 1).running() as before:
        time.sleep(8)
    # The snapshot does not know this node. flannel keeps addresses in the Node, and writes them only when it starts.
    overlay = VARIABLES.get("k8sgu_pod_network") == "vxlan"
    with contextlib.nullcontext() if overlay else registered_anew(on, worker):
        name = take_snapshot(source)
    with RestoreWriter(tmp_path / "after", 2).running() as after:
        time.sleep(3)
    assert len(before.written) > 30 and after.written
    kubectl("delete", "namespace", NAMESPACE)
    highest = revision(on, source)

    listed = " ".join(playbook(RESTORE, fails=True).split())
    assert "k8sgu_restore_snapshot: empty; give one of these, or latest: " in listed
    assert f" {name} ({source}, " in listed
    wanted = {"k8sgu_restore_snapshot": name}
    planned = playbook(RESTORE, "--check", **wanted)
    assert f"{source}: check {name}" in planned and "changed=0" in planned.partition("PLAY RECAP")[2]
    refused = " ".join(playbook(RESTORE, fails=True, **wanted, confirm="other").split())
    assert "Nothing was changed: you gave the name 'other'" in refused and "is lost (" in refused
    assert revision(on, source) >= highest

    with Visitor(tmp_path / "visitor", variables[other]).running() as visitor:
        with Reader(tmp_path / "reader").running() as reader:
            cut_off("restore : Move its data aside", 1, RESTORE, **wanted, confirm=VARIABLES["k8sgu_cluster_name"])
            stopped = " ".join(playbook("playbooks/etcd.yml", fails=True).split())
            assert "changed=1" not in stopped.partition("PLAY RECAP")[2]
            assert f"{source}: a restore of {name} was begun and has not come to its end" in stopped
            began = time.monotonic()
            # It knows which one.
            said = playbook(RESTORE, confirm=VARIABLES["k8sgu_cluster_name"])
        print(f"restored and verified in {time.monotonic() - began:.0f} s", reader.told("read"), sep="\n")
    print(visitor.told("visited"))
    assert "A restore that was begun at " in said
    # Pods and Services need no API.
    assert visitor.lost == []
    assert written() - {"kube-root-ca.crt"} == set(before.written)
    found = kubectl("get", "secret", "word", "-n", NAMESPACE, "-o", "jsonpath={.data.word}")
    assert base64.b64decode(found).decode() == WORD
    assert members(on, source) == dict.fromkeys(groups["control_plane"], False)
    assert revision(on, source) > highest
    leases = on(source, f"{ETCDCTL} get --prefix --keys-only /registry/masterleases/").split()
    assert len(leases) == len(groups["control_plane"])
    kept = [on(node, "ls -d /var/lib/etcd/member-before-*").split() for node in groups["control_plane"]]
    assert len({tuple(paths) for paths in kept}) == 1
    assert "changed=1" not in playbook("site.yml").partition("PLAY RECAP")[2]
    kubectl("delete", "namespace", NAMESPACE)
    for node in groups["control_plane"]:
        on(node, "rm -r /var/lib/etcd/member-before-*")
