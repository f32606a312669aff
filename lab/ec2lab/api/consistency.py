"""AWS a moment after a change: what was made is not known everywhere yet, what was removed still holds on to others.

Counted by calls and not by time, so that every run sees the same. The first calls that name a new thing are refused and
lists leave it out, in each service by itself; the first attempts to remove what another removal frees are refused.

https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.sax.saxutils import escape

from ec2lab.api import s3_calls

EC2, ELB, S3 = "ec2", "elasticloadbalancing", "s3"


class Refusal(NamedTuple):
    code: str
    message: str

    @property
    def status(self) -> str:
        """S3 tells errors by HTTP's statuses too."""
        return {"NoSuchBucket": "404 Not Found", "OperationAborted": "409 Conflict"}.get(self.code, "400 Bad Request")


class Kind(NamedTuple):
    """A kind of thing: the element with its id in answers, the lists that show it, and EC2's code for one not known."""

    element: str
    lists: str
    code: str


# By the call that makes it.
MADE = {
    "CreateVpc": Kind("vpcId", "DescribeVpcs", "InvalidVpcID.NotFound"),
    "CreateSubnet": Kind("subnetId", "DescribeSubnets", "InvalidSubnetID.NotFound"),
    "CreateSecurityGroup": Kind("groupId", "DescribeSecurityGroups", "InvalidGroup.NotFound"),
    "CreateRouteTable": Kind("routeTableId", "DescribeRouteTables", "InvalidRouteTableID.NotFound"),
    "CreateInternetGateway": Kind("internetGatewayId", "DescribeInternetGateways", "InvalidInternetGatewayID.NotFound"),
    "AllocateAddress": Kind("allocationId", "DescribeAddresses", "InvalidAllocationID.NotFound"),
    "CreateNatGateway": Kind("natGatewayId", "DescribeNatGateways", "NatGatewayNotFound"),
    "RunInstances": Kind("instanceId", "DescribeInstances", "InvalidInstanceID.NotFound"),
    "ImportKeyPair": Kind("keyName", "DescribeKeyPairs", "InvalidKeyPair.NotFound"),
    "CreateRole": Kind("RoleName", "ListRoles", "NoSuchEntity"),
    "CreateInstanceProfile": Kind("InstanceProfileName", "ListInstanceProfiles", "NoSuchEntity"),
    "CreateLoadBalancer": Kind("LoadBalancerArn", "DescribeLoadBalancers", "LoadBalancerNotFound"),
    "CreateTargetGroup": Kind("TargetGroupArn", "DescribeTargetGroups", "TargetGroupNotFound"),
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel
    "CreateBucket": Kind("Bucket", "ListBuckets", "NoSuchBucket"),
}
# The other services that come to know of what a call makes, each by itself.
OTHERS = {
    "CreateVpc": [ELB],
    "CreateSubnet": [ELB],
    "CreateSecurityGroup": [ELB],
    "RunInstances": [ELB],
    "CreateInstanceProfile": [EC2],
}
# What another service or another call than that of the kind's own says.
ELSEWHERE = {
    ("CreateRoute", "internetGatewayId"): "InvalidGatewayID.NotFound",
    ("ReplaceRoute", "internetGatewayId"): "InvalidGatewayID.NotFound",
    ("CreateRoute", "natGatewayId"): "InvalidNatGatewayID.NotFound",
    ("ReplaceRoute", "natGatewayId"): "InvalidNatGatewayID.NotFound",
    ("CreateTargetGroup", "vpcId"): "ValidationError",
    ("CreateLoadBalancer", "subnetId"): "SubnetNotFound",
    ("CreateLoadBalancer", "groupId"): "InvalidSecurityGroup",
    ("RegisterTargets", "instanceId"): "InvalidTarget",
}
MESSAGES = {
    "NoSuchBucket": "The specified bucket does not exist",
    "OperationAborted": "A conflicting conditional operation is currently in progress against this resource. "
    "Please try again.",
    "ValidationError": "The VPC ID '{}' is not found",
    "InvalidParameterValue": "Value ({}) for parameter iamInstanceProfile.name is invalid. "
    "Invalid IAM Instance Profile name",
}
# Removals that something else holds up for a while, by the parameter that names what is removed, and changes of a
# bucket, of which S3 makes one at a time (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
BUSY = {
    "DeleteSecurityGroup": ("GroupId", "DependencyViolation"),
    "DeleteSubnet": ("SubnetId", "DependencyViolation"),
    "DeleteRouteTable": ("RouteTableId", "DependencyViolation"),
    "DetachInternetGateway": ("InternetGatewayId", "DependencyViolation"),
    "DeleteInternetGateway": ("InternetGatewayId", "DependencyViolation"),
    "DeleteVpc": ("VpcId", "DependencyViolation"),
    "ReleaseAddress": ("AllocationId", "InvalidIPAddress.InUse"),
    "DeleteVolume": ("VolumeId", "VolumeInUse"),
    "DeleteInstanceProfile": ("InstanceProfileName", "DeleteConflict"),
    "DeleteRole": ("RoleName", "DeleteConflict"),
    "DeleteTargetGroup": ("TargetGroupArn", "ResourceInUse"),
    **{f"Put{setting}": ("Bucket", "OperationAborted") for setting in s3_calls.SETTINGS.values()},
}
# Parameters that only describe or look for something.
NO_USE = ("Filter.", "TagSpecification.", "Tag", "Description", "Names.", "PathPrefix")
# The parameters with the names of things that are told by name.
BY_NAME = {
    "KeyName": "keyName",
    "RoleName": "RoleName",
    "InstanceProfileName": "InstanceProfileName",
    "Bucket": "Bucket",
}


@dataclass
class Lag:
    """How far AWS is behind: each thing costs `calls` calls. What was there before is known everywhere."""

    calls: int = 0
    # By service, kind's element and id: the kind, and the calls that are still to be refused.
    unknown: dict[tuple[str, str, str], tuple[Kind, int]] = field(default_factory=dict)
    attempts: dict[tuple[str, str], int] = field(default_factory=dict)
    ending: dict[str, int] = field(default_factory=dict)
    seen: set[tuple[str, str]] = field(default_factory=set)
    # The calls that were refused, each with its code.
    refused: list[tuple[str, str]] = field(default_factory=list)

    def refusal(self, service: str, action: str, parameters: Mapping[str, str]) -> Refusal | None:
        """How the call is refused before it is made, if it is."""
        if not self.calls or parameters.get("DryRun", "").lower() == "true":
            return None
        for key, value in parameters.items():
            kind = None if key.startswith(NO_USE) else self._named(service, action, key, value)
            if kind:
                self._look(service, kind, value)
                code = self._code(service, action, kind)
                return self._refused(action, code, MESSAGES.get(code, "The ID '{}' does not exist").format(value))
        parameter, code = BUSY.get(action, ("", ""))
        subject = (action, parameters.get(parameter, ""))
        if code and self.attempts.get(subject, 0) < self.calls:
            self.attempts[subject] = self.attempts.get(subject, 0) + 1
            message = MESSAGES.get(code, "{} has a dependent object that is being removed").format(subject[1])
            return self._refused(action, code, message)
        return None

    def answered(self, service: str, action: str, parameters: Mapping[str, str], body: bytes) -> bytes:
        """Takes notice of what a call that succeeded has made or ended, and leaves out of lists what is not known."""
        if not self.calls or parameters.get("DryRun", "").lower() == "true":
            return body
        kind = MADE.get(action)
        if kind:
            ids = re.findall(rf"<{kind.element}>([^<]+)</{kind.element}>", body.decode())
            # The answer of S3 has nothing of the bucket.
            for id in ids if service != S3 else [parameters["Bucket"]]:
                # A repeated call answers with what it made before.
                if (kind.element, id) not in self.seen:
                    self.seen.add((kind.element, id))
                    for place in (service, *OTHERS.get(action, ())):
                        self.unknown[place, kind.element, id] = (kind, self.calls)
        if action == "DeleteNatGateway":
            self.ending[parameters["NatGatewayId"]] = self.calls
        return self._shown(service, action, body)

    def _named(self, service: str, action: str, key: str, value: str) -> Kind | None:
        """The kind of what a parameter names, if that is not known yet."""
        last = key.rpartition(".")[2]
        element = BY_NAME.get(last) or ("InstanceProfileName" if key == "IamInstanceProfile.Name" else "")
        if element and MADE.get(action, Kind("", "", "")).element == element:
            return None  # the name of what the call makes
        for (place, kind_element, id), (kind, _left) in self.unknown.items():
            if (place, id) == (service, value) and (not element or element == kind_element):
                return kind
        return None

    def _look(self, service: str, kind: Kind, id: str) -> None:
        key = (service, kind.element, id)
        left = self.unknown.pop(key)[1]
        if left > 1:
            self.unknown[key] = (kind, left - 1)

    def _refused(self, action: str, code: str, message: str) -> Refusal:
        self.refused.append((action, code))
        return Refusal(code, message)

    def _code(self, service: str, action: str, kind: Kind) -> str:
        if service == EC2 and kind.element == "InstanceProfileName":
            return "InvalidParameterValue"
        return ELSEWHERE.get((action, kind.element), kind.code)

    def _shown(self, service: str, action: str, body: bytes) -> bytes:
        hidden = {
            id: kind
            for (place, _element, id), (kind, _left) in self.unknown.items()
            if place == service and kind.lists == action
        }
        ending = self.ending if action == "DescribeNatGateways" else {}
        if not hidden and not ending:
            return body
        root = ET.fromstring(body)  # noqa: S314 - moto's own answer
        space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
        ET.register_namespace("", space[1:-1])
        left_out: dict[str, Kind] = {}
        for parent in list(root.iter()):
            for child in [child for child in parent if child.tag in (f"{space}item", f"{space}member")]:
                for id, kind in hidden.items():
                    if child.findtext(space + kind.element) == id:
                        parent.remove(child)
                        left_out[id] = kind
        for id, kind in left_out.items():
            self._look(service, kind, id)
        for item in root.iter(f"{space}item"):
            id, state = item.findtext(f"{space}natGatewayId") or "", item.find(f"{space}state")
            if id in ending and state is not None:
                state.text = "deleting"
                self.ending[id] -= 1
        self.ending = {id: left for id, left in self.ending.items() if left > 0}
        shown: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
        return shown


def document(service: str, refusal: Refusal) -> bytes:
    """The refusal as the service writes it."""
    error = f"<Error><Code>{refusal.code}</Code><Message>{escape(refusal.message)}</Message></Error>"
    if service == S3:
        return error.encode()
    if service == EC2:
        return f"<Response><Errors>{error}</Errors><RequestID>lag</RequestID></Response>".encode()
    return f"<ErrorResponse>{error}<RequestId>lag</RequestId></ErrorResponse>".encode()
