# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Machine images (AMIs): which one a description of an image stands for.

Its publisher deprecates an image, after two years at the latest, and may deregister it. A deprecated one is in no list
unless it is asked for, a deregistered one is gone; nodes that were launched from either go on as before.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-deprecate.html
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
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
    deprecated: bool = False


def read(reader: Reader, images: set[Image], current: Current) -> None:
    """The images that are meant, all those by id in one call, and one call for each pattern.

    The newest first, and deprecated ones behind all others.
    """
    ids = {image.id for image in images if image.id}
    if ids:
        found = _by_id(reader, ids)
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
                IncludeDeprecated=True,
            )
            current.images[image] = sorted(
                (_image(item) for item in found), key=lambda entry: (not entry.deprecated, entry.created), reverse=True
            )


def read_of_nodes(reader: Reader, ids: set[str], current: Current) -> None:
    """Which of these images, from which nodes were launched, are still to be had."""
    current.images_there |= {item["ImageId"] for item in _by_id(reader, ids)}


def _by_id(reader: Reader, ids: set[str]) -> list[Any]:
    # By filter: an unknown id is then missing from the answer and not an error for all.
    filters = [{"Name": "image-id", "Values": sorted(ids)}]
    return reader.pages("ec2", "describe_images", "Images", Filters=filters, IncludeDeprecated=True)


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
        # The time is there as soon as it is set, and may be to come.
        "" < item.get("DeprecationTime", "") <= datetime.now(timezone.utc).isoformat(),
    )


def fitting(description: Description, current: Current, pool: Pool, kind: Any) -> MachineImage:
    """The image for a pool; `kind` is its instance type as the API describes it. Raises DescriptionError."""
    wanted = pool.image
    found = current.images.get(wanted, [])
    option = f"image: {wanted.id}" if wanted.id else f"image: {wanted.name} of {wanted.owner}"
    if not found:
        raise DescriptionError(
            f"{option}: there is no such AMI in {description.region} that this account may use; "
            "check id, owner and name, and that it is of this region. Where it was deregistered, nodes that run stay "
            "as they are; give new ones another image in a pool of their own (pools[].image), or all nodes with "
            "allow_replace: true"
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
