# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup is made of a cluster that lives, and opened elsewhere; and the cluster comes back when all but it is lost.

Runs as test_security.py does. The last test ends every instance and removes the state directory.
"""

from __future__ import annotations

import base64
import json
import shutil
import stat
import time
from pathlib import Path

import pytest
from test_boots import machines, visits
from test_members import cut_off
from test_neighbours import ec2
from test_restore import WORD, written
from test_security import STATE, VARIABLES, hosts, inventory, kubectl, on, playbook, value

__all__ = ["ec2", "hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(1800)

NAMESPACE = "k8sgu-test-restore"
CLUSTER = VARIABLES.get("k8sgu_cluster_name", "demo")
PASSPHRASE = {"k8sgu_backup_passphrase": "correct horse battery staple"}
OBJECTS = 100


def keys(state: Path) -> dict[str, bytes]:
    return {
        path.relative_to(state).as_posix(): path.read_bytes()
        for name in ("pki", "secrets", "ssh")
        for path in sorted((state / name).rglob("*"))
        if path.is_file() and path.name != "known_hosts"
    }


@pytest.fixture(scope="module")
def backup(on, tmp_path_factory):
    """One that was made after some objects were written."""
    folder = tmp_path_factory.mktemp("backups")
    refused = " ".join(playbook("playbooks/backup.yml", fails=True, k8sgu_backup_dir=str(folder)).split())
    assert "is made only encrypted" in refused and "changed=1" not in refused.partition("PLAY RECAP")[2]
    kubectl("create", "namespace", NAMESPACE)
    kubectl("create", "secret", "generic", "word", "-n", NAMESPACE, f"--from-literal=word={WORD}")
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"n{number}", "namespace": NAMESPACE}}
        for number in range(OBJECTS)
    ]
    kubectl("create", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    said = playbook("playbooks/backup.yml", k8sgu_backup_dir=str(folder), **PASSPHRASE)
    [path] = folder.iterdir()
    assert str(path) in said and PASSPHRASE["k8sgu_backup_passphrase"] not in said
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # Nothing that is not encrypted stays behind.
    assert not (STATE / ".backup").exists() and on("control_plane", "ls /var/tmp | grep backup || true") == ""
    yield path
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")


def test_it_opens_elsewhere_with_its_passphrase_and_description(backup, tmp_path):
    there = tmp_path / "elsewhere" / "demo"
    given = {"k8sgu_backup_file": str(backup), "k8sgu_state_dir": str(there)}
    for wrong, said in (
        ({"k8sgu_backup_passphrase": "wrong horse"}, "cannot be opened: the passphrase or the key is another one"),
        ({**PASSPHRASE, "k8sgu_cluster_domain": "other.local"}, "and the cluster of this backup was made with "),
    ):
        told = " ".join(playbook("playbooks/open_backup.yml", fails=True, **{**given, **wrong}).split())
        assert said in told and not there.exists(), told
    playbook("playbooks/open_backup.yml", **given, **PASSPHRASE)
    assert keys(there) == keys(STATE)
    assert "changed=1" not in playbook("playbooks/open_backup.yml", **given, **PASSPHRASE).partition("PLAY RECAP")[2]


def test_the_cluster_comes_back_when_all_but_it_is_lost(backup, hosts, on, ec2):
    groups, variables = hosts
    before, known = keys(STATE), kubectl("get", "namespaces", "-o", "name").split()
    ids = [item["InstanceId"] for item in machines(ec2, groups).values()]
    ec2.terminate_instances(InstanceIds=ids)
    ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 300})
    shutil.rmtree(STATE)

    began = time.monotonic()
    said = playbook("playbooks/open_backup.yml", k8sgu_backup_file=str(backup), **PASSPHRASE)
    [name] = [path.name for path in (STATE / "snapshots").iterdir()]
    assert "k8sgu_restore_snapshot=latest" in " ".join(said.split())
    playbook("site.yml")
    made_s = time.monotonic() - began
    _groups, fresh = inventory()
    variables.update(fresh)
    # The new cluster's own are newer. The backup's is in the state directory alone.
    on("control_plane", "systemctl start etcd-snapshot.service")
    source = min(groups["control_plane"])
    told = f"{source}: get {name} from the state directory"
    planned = playbook("playbooks/restore.yml", "--check", k8sgu_restore_snapshot="latest")
    assert told in planned and "changed=0" in planned.partition("PLAY RECAP")[2]
    cut_off("restore : Send it", 0, "playbooks/restore.yml", k8sgu_restore_snapshot="latest", confirm=CLUSTER)
    assert name not in on(source, "ls /var/lib/k8sgu/snapshots")
    assert told in playbook("playbooks/restore.yml", k8sgu_restore_snapshot="latest", confirm=CLUSTER)
    assert on(source, f"stat -c %a:%U /var/lib/k8sgu/snapshots/{name}").strip() == "600:root"
    assert on("control_plane", "ls -d /var/lib/k8sgu/incoming || true") == ""
    print(f"from no instance to verified: {time.monotonic() - began:.0f} s, of which site.yml {made_s:.0f} s")

    now = keys(STATE)
    assert {path: now[path] for path in before if "ca" in path or path.startswith("secrets/encryption-keys")} == {
        path: before[path] for path in before if "ca" in path or path.startswith("secrets/encryption-keys")
    }
    assert written() - {"kube-root-ca.crt"} == {f"n{number}" for number in range(OBJECTS)}
    found = kubectl("get", "secret", "word", "-n", NAMESPACE, "-o", "jsonpath={.data.word}")
    assert base64.b64decode(found).decode() == WORD
    assert kubectl("get", "namespaces", "-o", "name").split() == known
    names = kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
    assert sorted(names) == sorted(groups["control_plane"] + groups["worker"])
    assert visits(value(fresh[groups["worker"][0]]["ec2_public_ip"]))["count"] >= 0
    assert "changed=1" not in playbook("site.yml").partition("PLAY RECAP")[2]
