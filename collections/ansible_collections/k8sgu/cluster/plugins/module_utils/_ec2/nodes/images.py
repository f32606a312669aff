# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machine images (AMIs): which one a description of an image stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import (
    Description,
    DescriptionError,
    Image,
    Pool,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import READ, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current


@dataclass(frozen=True)
class MachineImage:
    id: str
    architecture: str
    root_device: str
    created: str
    smallest_root: int = 0  # GiB


def read(reader: Reader, images: set[Image], current: Current) -> None:
    """The images that are meant, all those by id in one call, and one call for each pattern; newest first."""
    ids = sorted({image.id for image in images if image.id})
    if ids:
        # By filter: an unknown id is then missing from the answer and not an error for all.
        found = reader.pages("ec2", "describe_images", "Images", Filters=[{"Name": "image-id", "Values": ids}])
        for image in images:
            current.images[image] = [_image(item) for item in found if item["ImageId"] == image.id]
    for image in images:
        if not image.id:
            found = reader.pages(
                "ec2",
                "describe_images",
                "Images",
                Owners=[image.owner],
                Filters=[{"Name": "name", "Values": [image.name]}, {"Name": "state", "Values": ["available"]}],
            )
            current.images[image] = sorted(
                (_image(item) for item in found), key=lambda entry: entry.created, reverse=True
            )


def _image(item: Mapping[str, Any]) -> MachineImage:
    root = item.get("RootDeviceName") or "/dev/sda1"
    sizes = [
        int(entry["Ebs"].get("VolumeSize") or 0)
        for entry in item.get("BlockDeviceMappings", ())
        if entry.get("DeviceName") == root and entry.get("Ebs")
    ]
    return MachineImage(
        item["ImageId"],
        item.get("Architecture", ""),
        root,
        item.get("CreationDate", ""),
        sizes[0] if sizes else 0,
    )


def fitting(description: Description, current: Current, pool: Pool, kind: Any) -> MachineImage:
    """The image for a pool; `kind` is its instance type as the API describes it. Raises DescriptionError."""
    wanted = pool.image
    found = current.images.get(wanted, [])
    option = f"image: {wanted.id}" if wanted.id else f"image: {wanted.name} of {wanted.owner}"
    if not found:
        raise DescriptionError(
            f"{option}: there is no such AMI in {description.region} that this account may use; "
            "check id, owner and name, and that it is of this region"
        )
    architectures = kind["ProcessorInfo"]["SupportedArchitectures"]
    usable = [image for image in found if image.architecture in architectures]
    if not usable:
        raise DescriptionError(
            f"{option}: {found[0].id} is {found[0].architecture}, and {pool.instance_type} of pool {pool.name} takes "
            f"{' or '.join(architectures)}; choose an AMI or a type of the other's architecture"
        )
    if usable[0].smallest_root > pool.root_volume_size:
        raise DescriptionError(
            f"pools: {pool.name}: root_volume_size {pool.root_volume_size} GiB is smaller than {usable[0].id}, which "
            f"has {usable[0].smallest_root} GiB; give at least that"
        )
    return usable[0]


PERMISSIONS = (Grant(READ, ("ec2:DescribeImages",)),)
