# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done with a volume, and what is refused: the plan of the module data_volume, and what is read of names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._volume import disk as disks
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume import plan as plans
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.disk import Disk, Place, VolumeError
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.plan import FORMAT, GROW, MOUNT, UNIT, Wanted
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.run import unit_name

GIB = 1 << 30
ID = "vol-0123456789abcdef0"
LINK = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0"
WANTED = Wanted(ID, "/var/lib/etcd", "demo", "demo-control-plane-0")
BLANK = Disk(LINK, "/dev/nvme1n1", 2 * GIB, "")
OURS = Disk(LINK, "/dev/nvme1n1", 2 * GIB, "ext4", 2 * GIB, [".k8sgu.json", "member"], plans.mark(WANTED))
MOUNTED = Place(mounted=True, source="/dev/nvme1n1")


@pytest.mark.parametrize(
    ("disk", "place", "unit", "half_made", "steps"),
    [
        (BLANK, Place(), "missing", False, [FORMAT, UNIT, MOUNT]),
        (replace(BLANK, kind="data"), Place(), "missing", True, [FORMAT, UNIT, MOUNT]),  # a run was cut off
        (OURS, Place(), "missing", False, [UNIT, MOUNT]),  # cut off after the format
        (OURS, Place(), "missing", True, [UNIT, MOUNT]),
        (OURS, Place(), "", False, [MOUNT]),
        (OURS, MOUNTED, "", False, []),
        (OURS, MOUNTED, "differs", False, [UNIT]),
        (replace(OURS, size=3 * GIB), MOUNTED, "", False, [GROW]),
        (replace(OURS, file_system_size=2 * GIB - 4096), MOUNTED, "", False, []),
    ],
)
def test_the_steps(disk: Disk, place: Place, unit: str, half_made: bool, steps: list[str]) -> None:
    assert plans.problems(WANTED, disk, place, half_made) == []
    made = plans.plan(WANTED, disk, place, unit, half_made)
    assert made.steps == steps and len(made.reasons) == len(steps)


@pytest.mark.parametrize(
    ("disk", "place", "half_made", "words"),
    [
        (replace(BLANK, kind="xfs"), Place(), False, ["(xfs)", "is not formatted", "wipefs --all /dev/nvme1n1"]),
        (replace(BLANK, kind="xfs"), Place(), True, ["(xfs)"]),  # whatever was cut off, this is not what it left
        (replace(BLANK, kind="gpt"), Place(), False, ["partition table (gpt)"]),
        (replace(BLANK, kind="data"), Place(), False, ["data that is no file system", "blkdiscard"]),
        (replace(OURS, mark={}), Place(), False, ["not of this node's making", "member", "no .k8sgu.json"]),
        (replace(OURS, mark={}, names=[]), Place(), True, ["not of this node's making", "no files"]),
        (
            replace(OURS, mark={"cluster": "prod", "node": "prod-control-plane-2"}),
            Place(),
            False,
            [ID, "the cluster 'prod' (its node prod-control-plane-2)", "not of 'demo'", "attach a new volume"],
        ),
        (
            replace(OURS, mark={"cluster": "demo", "node": "demo-control-plane-1"}),
            Place(),
            False,
            ["this cluster's node demo-control-plane-1", "attach it there"],
        ),
        (BLANK, Place(names=["member"]), False, ["data on the root disk (member)", "k8sgu_etcd_volume_size: 0"]),
        (OURS, Place(source="/dev/nvme2n1"), False, ["/var/lib/etcd is on /dev/nvme2n1", f"not the volume {ID}"]),
    ],
)
def test_what_is_refused(disk: Disk, place: Place, half_made: bool, words: list[str]) -> None:
    [problem] = plans.problems(WANTED, disk, place, half_made)
    for word in words:
        assert word in problem


def test_a_disk_is_found_by_the_volumes_id_alone(tmp_path: Path) -> None:
    links = tmp_path / "dev/disk/by-id"
    assert disks.find(ID, tmp_path) == ""
    links.mkdir(parents=True)
    (tmp_path / "dev/nvme3n1").touch()
    for name in (
        "nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef1",
        "nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0-part1",
        "nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0_1",
        "scsi-vol0123456789abcdef0",
    ):
        (links / name).symlink_to("../../nvme3n1")
    assert disks.find(ID, tmp_path) == ""
    (links / "nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0").symlink_to("../../nvme4n1")
    assert disks.find(ID, tmp_path) == ""  # its disk is not there yet
    (tmp_path / "dev/nvme4n1").touch()
    assert disks.find(ID, tmp_path) == LINK


def test_waiting_says_for_what(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=f"waited 0 s for a disk of the volume {ID}.*Nitro system"):
        disks.wait(ID, 0)
    small = tmp_path / "disk"
    small.touch()
    found: Any = lambda _id: str(small)  # noqa: E731
    monkeypatch.setattr(disks, "find", found)
    with pytest.raises(VolumeError, match=r"to have 2 GiB, and it has 0 GiB; run playbooks/infrastructure.yml"):
        disks.wait(ID, 0, 2)
    assert disks.wait(ID, 0) == str(small)


def test_a_damaged_mark_is_nobodys() -> None:
    assert disks.parsed("") == disks.parsed("{") == disks.parsed("[1]") == {}


def test_the_name_of_a_mount_unit() -> None:
    assert unit_name("/var/lib/etcd") == "var-lib-etcd.mount"
    assert unit_name("/srv/my-data/") == "srv-my\\x2ddata.mount"
