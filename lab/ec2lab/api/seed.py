"""What the lab's account holds before the first call: the lab's image, and a user with every permission."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models.amis import Ami

from ec2lab.api.backends import REGION, ec2, iam
from ec2lab.image import Image

# The accounts that publish these distributions' images on AWS: a look-up by owner and name finds the lab's image.
# https://wiki.debian.org/Cloud/AmazonEC2Image  https://documentation.ubuntu.com/aws/aws-how-to/instances/find-ubuntu-images/
OWNERS = {"debian": "136693071363", "ubuntu": "099720109477"}
DEBIAN_VERSIONS = {"bullseye": "11", "bookworm": "12", "trixie": "13"}
UBUNTU_VERSIONS = {"focal": "20.04", "jammy": "22.04", "noble": "24.04"}
ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
USER = "lab-admin"
EVERYTHING = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'


@dataclass(frozen=True)
class Credentials:
    access_key_id: str
    secret_access_key: str


def image_name(image: Image, built: datetime) -> str:
    """The name in the publisher's own pattern."""
    architecture = ARCHITECTURES[image.architecture]
    if image.distribution == "ubuntu":
        version = UBUNTU_VERSIONS.get(image.release, image.release)
        return f"ubuntu/images/hvm-ssd/ubuntu-{image.release}-{version}-{architecture}-server-{built:%Y%m%d}"
    serial = int(hashlib.sha256(image.key.encode()).hexdigest()[:8], 16) % 10000
    return f"debian-{DEBIAN_VERSIONS.get(image.release, image.release)}-{architecture}-{built:%Y%m%d}-{serial:04d}"


def image_id(image: Image) -> str:
    """The image's AMI id; the same recipe has the same id in every lab."""
    return "ami-" + hashlib.sha256(image.key.encode()).hexdigest()[:17]


def add_image(image: Image) -> Any:
    """Registers the image in the lab's region unless it is there; returns moto's object."""
    backend = ec2(REGION)
    ami_id = image_id(image)
    if ami_id not in backend.amis:
        built = datetime.fromtimestamp(image.path.stat().st_mtime, UTC)
        name = image_name(image, built)
        owner = OWNERS.get(image.distribution, OWNERS["debian"])
        ami = Ami(
            backend,
            ami_id,
            name=name,
            description=f"{image.distribution.capitalize()} {image.release} ({image.architecture})",
            owner_id=owner,
            public=True,
            virtualization_type="hvm",
            architecture=image.architecture,
            hypervisor="xen",
            image_location=f"{owner}/{name}",
            root_device_type="ebs",
            root_device_name="/dev/xvda" if image.distribution == "debian" else "/dev/sda1",
            creation_date=built,
            boot_mode="uefi-preferred",
        )
        backend.amis[ami_id] = ami
    return backend.amis[ami_id]


def add_user(lab: str) -> Credentials:
    """The user whose access key `ec2lab env` prints; the key is made once. The user's path names the lab."""
    backend = iam()
    if USER not in backend.users:
        backend.create_user(REGION, USER, path=f"/{lab}/")
        backend.put_user_policy(USER, "everything", EVERYTHING)
    keys = backend.list_access_keys(USER)
    key = keys[0] if keys else backend.create_access_key(USER)
    return Credentials(key.access_key_id, key.secret_access_key)
