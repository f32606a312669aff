"""The image that virtual machines' disks are made from: what a cloud image of the distribution is.

Made by mmdebstrap from the same archive as the containers' image (`ec2lab.image`), and cached beside it. Its packages
are in `recipe/vm-packages.txt`, its own files in `recipe/vm`. An image is a directory:

    kernel, initrd  from its /boot; QEMU loads them, so that the disk needs no boot loader
    disk.raw        a partition table and the root file system on its first partition, sparse. A machine's disk is a
                    copy, enlarged; the partition grows at boot
    skeleton/       its trusted certificates, to which a machine's seed may add
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ec2lab import image
from ec2lab.errors import LabError
from ec2lab.shell import run

RECIPE = image.RECIPE
# Raise this when this module treats the recipe's files differently.
FORMAT = 1
KERNELS = {"debian": "linux-image-cloud-amd64"}
# The size of the image; a machine's volume is never smaller.
DISK_GIB = 2
FREE_BYTES = 3 << 30
PARTITION_START = 1 << 20
PARTITION_UUID = "3d7d1f0e-6a0b-4a1c-9d0e-2f5c8c1b7a11"
_TABLE_END = 1 << 20  # the copy of the partition table at the end of the disk
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
ENABLED = {
    "ec2lab-first-boot.service": "multi-user.target",
    "ec2lab-grow.service": "multi-user.target",
    "ec2lab-ready.service": "multi-user.target",
    "ec2lab-user-data.service": "multi-user.target",
    "systemd-networkd.service": "multi-user.target",
    "systemd-networkd-wait-online.service": "network-online.target",
}
# What a machine needs to become a node, and the package that brings it.
NEEDED = {
    "usr/sbin/sshd": "openssh-server",
    "usr/bin/python3": "python3-minimal",
    "usr/sbin/qemu-ga": "qemu-guest-agent",
    "usr/bin/growpart": "cloud-guest-utils",
    "usr/sbin/resize2fs": "e2fsprogs",
    "usr/bin/sudo": "sudo",
    "usr/lib/systemd/systemd-networkd": "systemd",
}


@dataclass(frozen=True)
class VmImage:
    """A finished image in the cache."""

    key: str
    distribution: str
    release: str
    kernel_version: str
    path: Path

    @property
    def kernel(self) -> Path:
        return self.path / "kernel"

    @property
    def initrd(self) -> Path:
        return self.path / "initrd"

    def disk(self, gib: int) -> Path:
        """What a disk of this size is a copy of; the copy is enlarged. LabError when the image does not fit."""
        if gib < DISK_GIB:
            raise LabError(f"a volume of {gib} GiB is too small for the image: a virtual machine needs {DISK_GIB} GiB")
        return self.path / "disk.raw"


def cached_image() -> VmImage | None:
    """The image if it is in the cache, else None."""
    return _load(_key(_archive()))


def load(key: str) -> VmImage:
    """The image from which a machine was made, even if the recipe has changed since; LabError if it is gone."""
    found = _load(key)
    if found is None:
        raise LabError(
            f"the image {key} is gone from {image.cache_directory()}, and machines made from it cannot start"
        )
    return found


def ensure_image(progress: Callable[[str], None]) -> VmImage:
    """The image, made when first used (one or two minutes). Safe to kill at any time."""
    archive = _archive()
    key = _key(archive)
    found = _load(key)
    if found is None:
        with image.locked(progress):
            found = _load(key)  # another lab may have made it while this one waited
            if found is None:
                image.sweep()
                found = _build(archive, key, progress)
    return found


def refusal() -> str | None:
    """Why no image for virtual machines can be made here; None when it can."""
    if platform.machine() != "x86_64":
        return f"virtual machines need an amd64 host, and this one is {platform.machine()}"
    distribution = image.chosen_archive().distribution
    if distribution not in KERNELS:
        return (
            f"there is no recipe for virtual machines of {distribution}: set {image.DISTRIBUTION_VARIABLE} to one of "
            f"{', '.join(image.DEBIAN_RELEASES)} on a Debian host, or use containers"
        )
    return None


def _archive() -> image.Archive:
    if reason := refusal():
        raise LabError(reason)
    return image.chosen_archive()


def _packages(archive: image.Archive) -> list[str]:
    return [*image.listed(RECIPE / "vm-packages.txt"), KERNELS[archive.distribution]]


def _key(archive: image.Archive) -> str:
    digest = hashlib.sha256()
    facts = ["vm", FORMAT, asdict(archive), _packages(archive), ENABLED, DISK_GIB, PARTITION_UUID]
    digest.update(json.dumps(facts).encode())
    image.digest_files(digest, RECIPE / "vm")
    return digest.hexdigest()[:16]


def _load(key: str) -> VmImage | None:
    path = image.cache_directory() / "images" / key
    try:
        facts = json.loads((path / "vm-image.json").read_text())
    except FileNotFoundError:
        return None
    return VmImage(**facts, path=path)


def _build(archive: image.Archive, key: str, progress: Callable[[str], None]) -> VmImage:
    directory = image.cache_directory() / "images"
    free = shutil.disk_usage(directory).free
    if free < FREE_BYTES:
        raise LabError(
            f"{directory} has {free >> 20} MiB free; making the image of virtual machines takes {FREE_BYTES >> 30} GiB"
        )
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=directory))
    try:
        progress(f"making the virtual machines' image from {archive.distribution} {archive.release} (minutes, once)")
        root = building / "root"
        image.bootstrap(archive, _packages(archive), building, root)
        progress("preparing the virtual machines' image")
        _prepare(root)
        version = take_kernel(root, building)
        check(root)
        make_disk(root, building / "disk.raw")
        (building / "skeleton" / CERTIFICATES).parent.mkdir(parents=True)
        shutil.copyfile(root / CERTIFICATES, building / "skeleton" / CERTIFICATES)
        shutil.rmtree(root)
        facts = {
            "key": key,
            "distribution": archive.distribution,
            "release": archive.release,
            "kernel_version": version,
        }
        building.chmod(0o755)
        (building / "vm-image.json").write_text(json.dumps(facts))
        os.sync()
        building.rename(directory / key)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return load(key)


def _prepare(root: Path) -> None:
    image.copy_recipe(RECIPE / "vm", root)
    units = root / "etc/systemd/system"
    for unit, target in ENABLED.items():
        own = (RECIPE / "vm/etc/systemd/system" / unit).exists()
        image.link(units / f"{target}.wants" / unit, f"../{unit}" if own else f"/usr/lib/systemd/system/{unit}")
    image.link(root / "etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")
    (root / "etc/fstab").write_text(f"PARTUUID={PARTITION_UUID} / ext4 rw,discard,errors=remount-ro 0 1\n")
    image.settle(root)


def take_kernel(root: Path, place: Path) -> str:
    """Copies the newest kernel and its initrd out of the root's /boot; returns the version."""
    kernels = sorted((root / "boot").glob("vmlinuz-*"), key=_by_version)
    versions = [kernel.name.removeprefix("vmlinuz-") for kernel in kernels]
    complete = [version for version in versions if (root / f"boot/initrd.img-{version}").exists()]
    if not complete:
        raise LabError(
            "the image of virtual machines has no kernel with an initrd in /boot: "
            f"{RECIPE / 'vm-packages.txt'} needs initramfs-tools, and the archive {', '.join(KERNELS.values())}"
        )
    shutil.copyfile(root / f"boot/vmlinuz-{complete[-1]}", place / "kernel")
    shutil.copyfile(root / f"boot/initrd.img-{complete[-1]}", place / "initrd")
    return complete[-1]


def _by_version(kernel: Path) -> list[int]:
    return [int(number) for number in re.findall(r"[0-9]+", kernel.name)]


def check(root: Path) -> None:
    """LabError when the root lacks what a node needs: found here and not by a boot that waits for SSH in vain."""
    lacking = [f"/{path} (package {package})" for path, package in NEEDED.items() if not os.path.lexists(root / path)]
    if lacking:
        raise LabError(
            f"the image of virtual machines lacks {', '.join(lacking)}: add it to {RECIPE / 'vm-packages.txt'}"
        )


def make_disk(root: Path, disk: Path) -> None:
    """Writes a partition table and, on its first partition, an ext4 file system with the root's content."""
    disk.touch(0o600)
    os.truncate(disk, DISK_GIB << 30)
    table = f"label: gpt\nstart={PARTITION_START // 512}, type=linux, uuid={PARTITION_UUID}\n"
    run(["sfdisk", "--quiet", str(disk)], stdin=table)
    blocks = ((DISK_GIB << 30) - PARTITION_START - _TABLE_END) // 4096
    options = f"offset={PARTITION_START},lazy_itable_init=1,lazy_journal_init=1,nodiscard,resize=268435456"
    argv = ["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-E", options, "-J", "size=32", "-d", str(root)]
    run([*argv, str(disk), str(blocks)], timeout=300)
