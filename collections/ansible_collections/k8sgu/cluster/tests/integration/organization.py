# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An organization's service control policy for moto's server, which knows none: what it denies EC2 refuses, DryRun too.

Which keys a request has for which of its resources:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ec2lab.api.policies import EXPLICIT, decide

ARN = "arn:aws:ec2:us-east-1:123456789012:"
INSTANCES, VOLUMES = "arn:aws:ec2:*:*:instance/*", "arn:aws:ec2:*:*:volume/*"


def deny(resource: Any, **condition: Mapping[str, Any]) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": "ec2:RunInstances", "Resource": resource, "Condition": condition}


# As AWS's own examples have it: IMDSv2, encryption, a cost center on everything, and a role for each instance.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ExamplePolicies_EC2.html#iam-example-instance-metadata
DEMANDS = {
    "IMDSv2": deny(INSTANCES, StringNotEquals={"ec2:MetadataHttpTokens": "required"}),
    "encryption": deny(VOLUMES, Bool={"ec2:Encrypted": "false"}),
    "a tag": deny([INSTANCES, VOLUMES], Null={"aws:RequestTag/cost-center": "true"}),
    "a role": deny(INSTANCES, Null={"ec2:InstanceProfile": "true"}),
}
POLICY = {"Version": "2012-10-17", "Statement": list(DEMANDS.values())}


def denied(policy: Mapping[str, Any], parameters: Mapping[str, str]) -> str:
    """The resource for which the request is denied; empty where it is not."""
    action = f"ec2:{parameters.get('Action', '')}"
    for resource, context in _resources(parameters):
        if decide([policy], action, resource, context) == EXPLICIT:
            return resource
    return ""


def refusal(parameters: Mapping[str, str], resource: str) -> bytes:
    """As EC2 writes it."""
    action = parameters["Action"]
    message = (
        "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/caller is not "
        f"authorized to perform: ec2:{action} on resource: {resource} with an explicit deny in a service control policy"
    )
    return (
        "<Response><Errors><Error><Code>UnauthorizedOperation</Code>"
        f"<Message>{message}</Message></Error></Errors><RequestID>1</RequestID></Response>"
    ).encode()


def _resources(parameters: Mapping[str, str]) -> Iterator[tuple[str, dict[str, list[str]]]]:
    """What a request makes, with the keys of its context."""
    if parameters.get("Action") != "RunInstances":
        return
    instance = {f"aws:RequestTag/{key}": [value] for key, value in _tags(parameters, "instance").items()}
    # Without it the image decides, which asks for nothing.
    instance["ec2:MetadataHttpTokens"] = [parameters.get("MetadataOptions.HttpTokens", "optional")]
    instance["ec2:InstanceType"] = [parameters.get("InstanceType", "m1.small")]
    profile = parameters.get("IamInstanceProfile.Name") or parameters.get("IamInstanceProfile.Arn")
    if profile:
        instance["ec2:InstanceProfile"] = [profile]
    yield f"{ARN}instance/*", instance
    volume = {f"aws:RequestTag/{key}": [value] for key, value in _tags(parameters, "volume").items()}
    numbers = [key.split(".")[1] for key in parameters if key.startswith("BlockDeviceMapping.") and ".Ebs." in key]
    # The image's own root volume is there without a mapping too.
    for number in dict.fromkeys(numbers or ["0"]):
        encrypted = parameters.get(f"BlockDeviceMapping.{number}.Ebs.Encrypted", "false")
        yield f"{ARN}volume/*", {**volume, "ec2:Encrypted": [encrypted]}


def _tags(parameters: Mapping[str, str], kind: str) -> dict[str, str]:
    found = {}
    for key, value in parameters.items():
        parts = key.split(".")
        if parts[0] == "TagSpecification" and parts[2:] == ["ResourceType"] and value == kind:
            prefix = f"TagSpecification.{parts[1]}.Tag."
            for tag, name in parameters.items():
                if tag.startswith(prefix) and tag.endswith(".Key"):
                    found[name] = parameters.get(tag[: -len("Key")] + "Value", "")
    return found
