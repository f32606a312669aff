# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""EC2's service model, reduced to the one call and the few fields that an inventory needs.

botocore parses an answer by its service model, field by field. EC2's own model has thousands of shapes, and most of an
inventory's time goes into reading it and into 60 fields of every instance. With this model botocore still finds
credentials and endpoint, signs, retries and follows redirects; it only reads fewer fields. A unit test compares every
name with the full model.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
"""

from __future__ import annotations

from typing import Any

API_VERSION = "2016-11-15"


def _member(shape: str, location: str | None = None) -> dict[str, str]:
    return {"shape": shape, "locationName": location} if location else {"shape": shape}


def _list_of(shape: str, location: str = "item") -> dict[str, Any]:
    return {"type": "list", "member": _member(shape, location)}


def _structure(**members: dict[str, str]) -> dict[str, Any]:
    return {"type": "structure", "members": members}


MODEL: dict[str, Any] = {
    "version": "2.0",
    "metadata": {
        "apiVersion": API_VERSION,
        "endpointPrefix": "ec2",
        "protocol": "ec2",
        "protocols": ["ec2"],
        "serviceAbbreviation": "Amazon EC2",
        "serviceFullName": "Amazon Elastic Compute Cloud",
        "serviceId": "EC2",
        "signatureVersion": "v4",
        "uid": "ec2-2016-11-15",
        "xmlNamespace": "http://ec2.amazonaws.com/doc/2016-11-15",
        "auth": ["aws.auth#sigv4"],
    },
    "operations": {
        "DescribeInstances": {
            "name": "DescribeInstances",
            "http": {"method": "POST", "requestUri": "/"},
            "input": {"shape": "DescribeInstancesRequest"},
            "output": {"shape": "DescribeInstancesResult"},
        }
    },
    "shapes": {
        "String": {"type": "string"},
        "Integer": {"type": "integer"},
        "DescribeInstancesRequest": _structure(
            Filters=_member("FilterList", "Filter"),
            NextToken=_member("String", "nextToken"),
            MaxResults=_member("Integer", "maxResults"),
        ),
        "FilterList": _list_of("Filter", "Filter"),
        "Filter": _structure(Name=_member("String"), Values=_member("ValueStringList", "Value")),
        "ValueStringList": _list_of("String"),
        "DescribeInstancesResult": _structure(
            NextToken=_member("String", "nextToken"),
            Reservations=_member("ReservationList", "reservationSet"),
        ),
        "ReservationList": _list_of("Reservation"),
        "Reservation": _structure(
            Instances=_member("InstanceList", "instancesSet"), OwnerId=_member("String", "ownerId")
        ),
        "InstanceList": _list_of("Instance"),
        "Instance": _structure(
            InstanceId=_member("String", "instanceId"),
            InstanceType=_member("String", "instanceType"),
            Architecture=_member("String", "architecture"),
            State=_member("InstanceState", "instanceState"),
            Placement=_member("Placement", "placement"),
            VpcId=_member("String", "vpcId"),
            SubnetId=_member("String", "subnetId"),
            PrivateIpAddress=_member("String", "privateIpAddress"),
            PrivateDnsName=_member("String", "privateDnsName"),
            PublicIpAddress=_member("String", "ipAddress"),
            PublicDnsName=_member("String", "dnsName"),
            BlockDeviceMappings=_member("InstanceBlockDeviceMappingList", "blockDeviceMapping"),
            Tags=_member("TagList", "tagSet"),
        ),
        "InstanceBlockDeviceMappingList": _list_of("InstanceBlockDeviceMapping"),
        "InstanceBlockDeviceMapping": _structure(
            DeviceName=_member("String", "deviceName"), Ebs=_member("EbsInstanceBlockDevice", "ebs")
        ),
        "EbsInstanceBlockDevice": _structure(VolumeId=_member("String", "volumeId")),
        "InstanceState": _structure(Name=_member("String", "name")),
        "Placement": _structure(AvailabilityZone=_member("String", "availabilityZone")),
        "TagList": _list_of("Tag"),
        "Tag": _structure(Key=_member("String", "key"), Value=_member("String", "value")),
    },
}
