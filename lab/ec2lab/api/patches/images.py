"""Images and block devices: each unknown image id is refused; a root volume is deleted with its instance by default.

A deprecated image is shown only to its owner, and to who asks for it by id or for deprecated ones.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ami-deprecate.html
"""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.models.amis import AmiBackend
from moto.ec2.responses import EC2Response
from moto.ec2.responses.instances import InstanceResponse

from ec2lab.api import backends
from ec2lab.api.errors import error


def install() -> None:
    _install_deprecation()
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


def _is_deprecated(image: Any) -> bool:
    when = getattr(image, "deprecation_time", None)
    return bool(when) and str(when) <= utcnow().isoformat()


def _install_deprecation() -> None:
    answer = EC2Response.describe_images

    def describe_images(self: Any) -> Any:
        found = answer(self)
        asked = self._get_param("ImageIds", []) or self._get_bool_param("IncludeDeprecated")
        found.result["Images"] = [
            image
            for image in found.result["Images"]
            if asked or image.owner_id == backends.ACCOUNT or not _is_deprecated(image)
        ]
        return found

    def enable_image_deprecation(self: Any) -> Any:
        """Owners alone may, and in the lab nobody owns the lab's image: everybody may."""
        when = self._get_param("DeprecateAt").strftime("%Y-%m-%dT%H:%M:%S.000Z")
        self.ec2_backend.describe_images(ami_ids=[self._get_param("ImageId")])[0].deprecation_time = when
        return ActionResult({"Return": True})

    def disable_image_deprecation(self: Any) -> Any:
        self.ec2_backend.describe_images(ami_ids=[self._get_param("ImageId")])[0].deprecation_time = None
        return ActionResult({"Return": True})

    EC2Response.describe_images = describe_images
    EC2Response.enable_image_deprecation = enable_image_deprecation
    EC2Response.disable_image_deprecation = disable_image_deprecation
