"""Images and block devices: each unknown image id is refused; a root volume is deleted with its instance by default."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.amis import AmiBackend
from moto.ec2.responses.instances import InstanceResponse

from ec2lab.api.errors import error


def install() -> None:
    describe = AmiBackend.describe_images
    parse = InstanceResponse._parse_block_device_mapping

    def describe_images(self: Any, ami_ids: Any = None, *args: Any, **kwargs: Any) -> Any:
        images = describe(self, ami_ids, *args, **kwargs)
        known = {image.id for image in images}
        for ami_id in ami_ids or []:
            if ami_id not in known:
                raise error("InvalidAMIID.NotFound", f"The image id '[{ami_id}]' does not exist")
        return images

    def parse_block_device_mapping(self: Any) -> Any:
        mappings = parse(self)
        for given, mapping in zip(self._get_param("BlockDeviceMappings", []), mappings, strict=True):
            if "DeleteOnTermination" not in (given.get("Ebs") or {}):
                mapping["Ebs"]["DeleteOnTermination"] = True
        return mappings

    AmiBackend.describe_images = describe_images
    InstanceResponse._parse_block_device_mapping = parse_block_device_mapping
