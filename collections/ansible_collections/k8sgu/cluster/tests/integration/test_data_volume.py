# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""data_volume on a booted node with EBS volumes: formatted once, mounted after a loss of power, grown, refused."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import lab_node

CODE = ansible_program.ROOT / "collections"
PACKAGES = ("_component", "_files", "_volume")
DEVICE = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_"
# A unit that uses the volume: it says where it runs, and never without the mount.
USER = """\
cat >/etc/systemd/system/etcd.service <<END
[Unit]
RequiresMountsFor=/var/lib/etcd
[Service]
ExecStart=/bin/sh -c 'findmnt -n -o SOURCE /var/lib/etcd >/run/where; exec sleep infinity'
[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --now etcd.service
echo kept >/var/lib/etcd/data
"""


@dataclass
class Machine:
    node: lab_node.Node
    ec2: Any
    zone: str

    def volume(self, device: str) -> str:
        made = str(self.ec2.create_volume(AvailabilityZone=self.zone, Size=1)["VolumeId"])
        self.ec2.get_waiter("volume_available").wait(VolumeIds=[made], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        self.ec2.attach_volume(InstanceId=self.node.instance, VolumeId=made, Device=device)
        self.ec2.get_waiter("volume_in_use").wait(VolumeIds=[made], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        self.node.run(f"for n in $(seq 100); do test -b {link(made)} && exit; sleep 0.1; done; exit 1")
        return made

    def ask(self, volume: str, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        """The module's work on the node, without Ansible, which takes seconds."""
        given = {
            "volume_id": volume, "size": 0, "path": "/var/lib/etcd", "unit": "etcd.service", "cluster": "demo",
            "node": "demo-control-plane-0", "timeout": 5, **options,
        }  # fmt: skip
        script = f"""cat >/tmp/ask.py <<'END'
import json, sys, types
sys.path.insert(0, "/opt/code")
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume import run
call = types.SimpleNamespace(options={given!r}, check_mode={check_mode!r}, diff=True)
try:
    print(json.dumps(run.run(call)))
except run.VolumeError as error:
    print(json.dumps({{"failed": str(error)}}))
END
python3 /tmp/ask.py"""
        found: dict[str, Any] = json.loads(self.node.run(script))
        return found


def link(volume: str) -> str:
    return DEVICE + volume.replace("-", "")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    reason = lab_node.missing()
    if reason:
        pytest.skip(reason)
    with lab_node.running(f"data-volume-{os.getpid()}", tmp_path_factory.mktemp("lab")) as node:
        ec2 = lab_node.client(lab_node.environment(node.lab))
        seen = ec2.describe_instances(InstanceIds=[node.instance])["Reservations"][0]["Instances"][0]
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for package in PACKAGES:
                for file in sorted((CODE / MODULE_UTILS / package).glob("*.py")):
                    archive.add(file, str(MODULE_UTILS / package / file.name))
        node.run(f"mkdir /opt/code && base64 -d <<END | tar -xz -C /opt/code\n{encoded(packed)}\nEND\n")
        yield Machine(node, ec2, seen["Placement"]["AvailabilityZone"])


MODULE_UTILS = Path("ansible_collections/k8sgu/cluster/plugins/module_utils")


def encoded(packed: io.BytesIO) -> str:
    return base64.encodebytes(packed.getvalue()).decode()


def by_ansible(machine: Machine, directory: Path, volume: str, *arguments: str) -> tuple[dict[str, Any], str]:
    task = {"volume_id": volume, "cluster": "demo", "node": "demo-control-plane-0"}
    given, environment, result = ansible_program.one_task(
        directory,
        machine.node.ansible_variables,
        {"k8sgu.cluster.data_volume": task},
        "[connection]\npipelining = true\n",
    )
    started = ansible_program.start("ansible-playbook", *given, *arguments, cwd=directory, environment=environment)
    output = started.communicate(timeout=ansible_program.TIMEOUT_S)[0]
    return json.loads(result.read_text()), output


def on_volume(node: lab_node.Node, volume: str) -> bool:
    return (
        node.run(f"findmnt -n -o SOURCE /var/lib/etcd; readlink -f {link(volume)}").split()
        == [node.run(f"readlink -f {link(volume)}").strip()] * 2
    )


@pytest.mark.timeout(600)
def test_a_volumes_life(machine: Machine, tmp_path: Path) -> None:
    node = machine.node
    volume = machine.volume("/dev/sdf")
    checked, output = by_ansible(machine, tmp_path, volume, "--check", "--diff")
    assert checked["changed"] and len(checked["reasons"]) == 3, checked
    assert f"+{volume}" in output and "blank; ext4" in output
    assert node.run(f"blkid -p {link(volume)}; test ! -e /etc/systemd/system/var-lib-etcd.mount", check=False) == ""

    made, _output = by_ansible(machine, tmp_path, volume)
    assert made["changed"] and made["reasons"] == checked["reasons"], made
    assert on_volume(node, volume)
    identifier = node.run(f"blkid -o value -s UUID {link(volume)}")
    assert machine.ask(volume) == {"changed": False, "reasons": [], "device": made["device"]}
    node.run(USER)

    # It grows, and what is on it stays; the unit that uses it runs again, wherever the kernel grows it.
    machine.ec2.modify_volume(VolumeId=volume, Size=2)
    grown = machine.ask(volume, size=2, timeout=60)
    assert grown["changed"] and "file system 1 GiB -> 2 GiB" in grown["reasons"][0]
    assert node.run("cat /var/lib/etcd/data; systemctl is-active etcd").split() == ["kept", "active"]
    assert int(node.run("df --output=size -B1 /var/lib/etcd | tail -1")) > 3 << 29
    assert not machine.ask(volume, size=2)["changed"]

    # After a loss of power the unit finds it mounted.
    node.run("sync")
    node.fault("power-off")
    node.fault("power-on")
    lab_node.wait_for_ssh(node)
    assert on_volume(node, volume)
    assert node.run("cat /run/where").strip() == node.run(f"readlink -f {link(volume)}").strip()
    assert node.run("cat /var/lib/etcd/data").strip() == "kept"
    assert node.run(f"blkid -o value -s UUID {link(volume)}") == identifier

    # Without its volume it does not start, and nothing is written to the directory below.
    node.run("systemctl stop etcd var-lib-etcd.mount")
    machine.ec2.detach_volume(VolumeId=volume)
    machine.ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    assert node.run("systemctl start etcd 2>&1 || echo refused", check=False).strip().endswith("refused")
    assert node.run("ls -A /var/lib/etcd") == ""
    failed = machine.ask(volume, timeout=1)["failed"]
    assert f"waited 1 s for a disk of the volume {volume}" in failed and "no NVMe disk" in failed


@pytest.mark.timeout(600)
def test_what_is_not_blank_is_refused_and_stays(machine: Machine) -> None:
    node, volume = machine.node, machine.volume("/dev/sdg")
    disk = link(volume)

    def refused(*words: str, **options: Any) -> None:
        before = node.run(f"head -c 64M {disk} | sha256sum")
        found = machine.ask(volume, **{"path": "/var/lib/data", **options})
        assert all(word in found.get("failed", "") for word in words), found
        assert node.run(f"head -c 64M {disk} | sha256sum") == before

    wipe = f"wipefs -qa {disk}; dd if=/dev/zero of={disk} bs=1M count=80 conv=fsync status=none"
    node.run("rm -rf /var/lib/data")
    for make, words in (
        (f"mkfs.ext4 -q {disk}", ["not of this node's making", "no files"]),
        (f"mkswap -q {disk}", ["(swap)", "wipefs --all"]),
        (rf"printf 'LUKS\272\276\000\001' | dd of={disk} status=none", ["(crypto_LUKS)"]),
        (f"echo a database of its own | dd of={disk} status=none", ["data that is no file system"]),
    ):
        node.run(make)
        refused(volume, *words)
        node.run(wipe)
    node.run("mkdir -p /var/lib/data && echo mine >/var/lib/data/member")
    refused("/var/lib/data has data on the root disk (member)")
    node.run("rm -rf /var/lib/data")

    # Another cluster's, and another node's.
    assert machine.ask(volume, path="/var/lib/data", cluster="prod", node="prod-control-plane-0")["changed"]
    node.run("systemctl stop var-lib-data.mount; rm /etc/systemd/system/var-lib-data.mount")
    refused("the data of the cluster 'prod' (its node prod-control-plane-0), not of 'demo'", "attach a new volume")
    refused(
        "this cluster's node prod-control-plane-0, not of prod-control-plane-1",
        cluster="prod",
        node="prod-control-plane-1",
    )
    node.run(wipe)

    # A run that was killed while it formatted, before there was a file system: the next one begins again.
    node.run(
        f"echo cut off | dd of={disk} bs=1k seek=5 status=none; mkdir -p /var/lib/k8sgu\n"
        f"echo '{json.dumps({'volume': volume})}' >/var/lib/k8sgu/formatting.json"
    )
    found = machine.ask(volume, path="/var/lib/data")
    assert found["changed"] and "cut off while it formatted" in found["reasons"][0]
    assert node.run("ls /var/lib/k8sgu; cat /var/lib/data/.k8sgu.json").split() == [
        "origin.json", "{", '"cluster":', '"demo",', '"node":', '"demo-control-plane-0"', "}",
    ]  # fmt: skip
