# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of ec2_cluster share: an account on loopback, runs of the module, and pictures of the account."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import Any

import moto.ec2.models.amis
import pytest
from moto.servicequotas.resources.default_quotas.vpc import VPC_DEFAULT_QUOTAS
from moto_server import Server, moto_server

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.route_tables import ROUTES_QUOTA
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.run import converge

AMI, ARM_AMI, NEWER_AMI = "ami-00000000000000001", "ami-00000000000000002", "ami-00000000000000003"
OWNER = "136693071363"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGu4oWvIYh9nTjF5Xf1rDg2pD6oZbq5pyqyKXcUcFwqL"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7xQWmJ0lYzP3wE8V8T1sJr8Z7w3m5dZbqT4w1uK0aB"
READS = ("Describe", "List", "Get", "Simulate")


def image(id: str, name: str, architecture: str, created: str) -> dict[str, Any]:
    return {
        "ami_id": id,
        "name": name,
        "owner_id": OWNER,
        "architecture": architecture,
        "creation_date": created,
        "root_device_name": "/dev/xvda",
        "root_device_type": "ebs",
        "virtualization_type": "hvm",
        "hypervisor": "xen",
        "public": True,
        "image_location": f"{OWNER}/{name}",
        "image_type": "machine",
        "state": "available",
        "description": name,
    }


@contextlib.contextmanager
def account(direct: bool = True) -> Iterator[Server]:
    """A server whose every region has three images and no others, with the credentials for it in the environment.

    `direct`: as of moto_server.
    """
    patch = pytest.MonkeyPatch()
    images = [
        image(AMI, "debian-12-amd64-20260101", "x86_64", "2026-01-01T00:00:00.000Z"),
        image(ARM_AMI, "debian-12-arm64-20260101", "arm64", "2026-01-01T00:00:00.000Z"),
        image(NEWER_AMI, "debian-13-amd64-20260201", "x86_64", "2026-02-01T00:00:00.000Z"),
    ]
    patch.setattr(moto.ec2.models.amis, "AMIS", images)
    # AWS's default since 2025; moto has that of before.
    # https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html#vpc-limits-route-tables
    for quota in VPC_DEFAULT_QUOTAS:
        if quota["QuotaCode"] == ROUTES_QUOTA[1]:
            patch.setitem(quota, "Value", 500.0)
    patch.setenv("MOTO_AMIS_PATH", "set, so that moto takes the list above")
    try:
        with moto_server(direct) as running:
            for name in [name for name in os.environ if name.startswith(("AWS_", "EC2LAB_"))]:
                patch.delenv(name)
            for name, value in running.environment().items():
                if name.startswith("AWS_"):
                    patch.setenv(name, value)
            yield running
    finally:
        patch.undo()


def options(**changes: Any) -> dict[str, Any]:
    """The module's options as Ansible would hand them over."""
    spec = ARGUMENT_SPECS["ec2_cluster"]
    defaults = {name: option.get("default") for name, option in spec.items()}
    given = {"name": "demo", "image": AMI, "public_key": KEY, "wait_timeout": 60, **changes}
    unknown = set(given) - set(spec)
    assert not unknown, unknown
    return {**defaults, **given}


def pool(name: str, count: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "count": count, **more}


@functools.lru_cache(maxsize=None)
def clients(_url: str) -> session.Aws:
    """Clients kept for all runs against a server: making them is most of what a run against moto costs."""
    return session.Aws(session.Connection())


def run(check_mode: bool = False, aws: session.Aws | None = None, **changes: Any) -> dict[str, Any]:
    if aws is None and not {"region", "endpoint_url"} & set(changes):
        aws = clients(os.environ["AWS_ENDPOINT_URL"])
    return converge(options(**changes), check_mode, aws).result


def mutations(calls: list[str]) -> list[str]:
    """The calls that change something; those with DryRun count too."""
    return [call for call in calls if not call.rpartition(":")[2].startswith(READS)]


class WatchedAws(session.Aws):
    """Clients of a run that could be killed at any time: `left` has what it would leave after each call that changes
    something, as the name of the call, its number among those, and the account."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.left: list[tuple[str, int, bytes]] = []
        super().__init__(session.Connection())

    def client(self, service: str, region: str | None = None) -> Any:
        client = super().client(service, region)
        client.meta.events.register("after-call", self._after, unique_id="watched")
        return client

    def _after(self, model: Any, http_response: Any, **_event: Any) -> None:
        if not model.name.startswith(READS) and http_response.status_code < 300:
            self.left.append((model.name, len(self.left) + 1, self.server.saved()))


def picture(server: Server) -> dict[str, Any]:
    """The account in full, ids left out or replaced by names: two pictures are equal when the same things are there."""
    ec2, iam, elb = server.client("ec2"), server.client("iam"), server.client("elbv2")
    names: dict[str, str] = {}

    def named(id: str) -> str:
        return names.get(id, id)

    def tags(item: dict[str, Any]) -> dict[str, str]:
        return dict(sorted((tag["Key"], tag["Value"]) for tag in item.get("Tags", ())))

    def learn(items: list[dict[str, Any]], key: str, kind: str) -> None:
        for item in items:
            name = tags(item).get("Name") or ("default" if item.get("IsDefault") or item.get("DefaultForAz") else "")
            names[item[key]] = f"{kind}:{name}:{item.get('AvailabilityZone', '')}"

    vpcs = ec2.describe_vpcs()["Vpcs"]
    subnets = ec2.describe_subnets()["Subnets"]
    tables = ec2.describe_route_tables()["RouteTables"]
    gateways = ec2.describe_internet_gateways()["InternetGateways"]
    nats = [nat for nat in ec2.describe_nat_gateways()["NatGateways"] if nat["State"] != "deleted"]
    addresses = ec2.describe_addresses()["Addresses"]
    groups = ec2.describe_security_groups()["SecurityGroups"]
    instances = [
        instance
        for reservation in ec2.describe_instances()["Reservations"]
        for instance in reservation["Instances"]
        if instance["State"]["Name"] != "terminated"
    ]
    for items, key in (
        (vpcs, "VpcId"),
        (subnets, "SubnetId"),
        (tables, "RouteTableId"),
        (gateways, "InternetGatewayId"),
        (nats, "NatGatewayId"),
        (addresses, "AllocationId"),
        (groups, "GroupId"),
        (instances, "InstanceId"),
    ):
        learn(items, key, key)

    def chosen(peer: str) -> str:
        """Public addresses of nodes and NAT gateways are EC2's to choose."""
        if peer in [f"{item['PublicIp']}/32" for item in addresses]:
            return "gateway/32"
        return "node/32" if peer.startswith("54.") else peer

    def rules(group: dict[str, Any]) -> list[Any]:
        return sorted(
            (rule["IpProtocol"], rule.get("FromPort", -1), rule.get("ToPort", -1), peer)
            for rule in group["IpPermissions"]
            for peer in [named(pair["GroupId"]) for pair in rule["UserIdGroupPairs"]]
            + [chosen(entry["CidrIp"]) for entry in rule["IpRanges"]]
        )

    def routes(table: dict[str, Any]) -> list[Any]:
        return sorted(
            (
                route["DestinationCidrBlock"],
                named(route.get("InstanceId") or route.get("NatGatewayId") or route.get("GatewayId") or "none"),
                route["State"],
            )
            for route in table["Routes"]
        )

    return {
        "vpcs": sorted((vpc["CidrBlock"], str(tags(vpc))) for vpc in vpcs),
        "dns": sorted(
            (
                named(vpc["VpcId"]),
                ec2.describe_vpc_attribute(VpcId=vpc["VpcId"], Attribute="enableDnsHostnames")["EnableDnsHostnames"][
                    "Value"
                ],
            )
            for vpc in vpcs
        ),
        "subnets": sorted(
            (
                named(item["VpcId"]),
                item["CidrBlock"],
                item["AvailabilityZone"],
                item["MapPublicIpOnLaunch"],
                str(tags(item)),
            )
            for item in subnets
        ),
        "route_tables": sorted(
            (
                named(item["VpcId"]),
                str(tags(item)),
                str(routes(item)),
                str(
                    sorted(
                        # moto keeps associations with subnets that are gone; EC2 does not.
                        named(entry.get("SubnetId", "main"))
                        for entry in item["Associations"]
                        if entry.get("SubnetId", "main") in ("main", *names)
                    )
                ),
            )
            for item in tables
        ),
        "gateways": sorted(
            (str(tags(item)), str([named(entry["VpcId"]) for entry in item["Attachments"]])) for item in gateways
        ),
        "nats": sorted((str(tags(item)), named(item["SubnetId"]), item["State"]) for item in nats),
        "addresses": sorted((str(tags(item)), bool(item.get("AssociationId"))) for item in addresses),
        "groups": sorted(
            (named(item["VpcId"]), item["GroupName"], str(tags(item)), str(rules(item))) for item in groups
        ),
        "keys": sorted((item["KeyName"], str(tags(item))) for item in ec2.describe_key_pairs()["KeyPairs"]),
        "instances": sorted(
            (
                str(tags(item)),
                item["State"]["Name"],
                item["InstanceType"],
                item["ImageId"],
                item["SourceDestCheck"],
                named(item["SubnetId"]),
                item["MetadataOptions"]["HttpTokens"],
                item["MetadataOptions"]["HttpPutResponseHopLimit"],
                str(sorted(named(group["GroupId"]) for group in item["NetworkInterfaces"][0]["Groups"])),
                bool(item.get("PublicIpAddress")),
                item.get("IamInstanceProfile", {}).get("Arn", ""),
                str([entry["DeviceName"] for entry in item["BlockDeviceMappings"]]),
            )
            for item in instances
        ),
        "volumes": sorted(
            (item["Size"], item["Encrypted"], item["VolumeType"], str(tags(item)))
            for item in ec2.describe_volumes()["Volumes"]
        ),
        # moto forgets to remove those of NAT gateways.
        "interfaces": len(
            [
                item
                for item in ec2.describe_network_interfaces()["NetworkInterfaces"]
                if item.get("Attachment", {}).get("InstanceId")
            ]
        ),
        "roles": sorted(
            (
                role["RoleName"],
                role["Path"],
                str(sorted(iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"])),
                str(tags(iam.get_role(RoleName=role["RoleName"])["Role"])),
            )
            for role in iam.list_roles()["Roles"]
        ),
        "profiles": sorted(
            (item["InstanceProfileName"], item["Path"], str([role["RoleName"] for role in item["Roles"]]))
            for item in iam.list_instance_profiles()["InstanceProfiles"]
        ),
        "balancers": sorted(
            (
                item["LoadBalancerName"],
                item["Scheme"],
                item["Type"],
                str(sorted(named(zone["SubnetId"]) for zone in item["AvailabilityZones"])),
                str([named(group) for group in item.get("SecurityGroups", ())]),
                str(
                    [
                        listener["Port"]
                        for listener in elb.describe_listeners(LoadBalancerArn=item["LoadBalancerArn"])["Listeners"]
                    ]
                ),
            )
            for item in elb.describe_load_balancers()["LoadBalancers"]
        ),
        "target_groups": sorted(
            (
                item["TargetGroupName"],
                item["HealthCheckProtocol"],
                item.get("HealthCheckPath", ""),
                str(
                    sorted(
                        named(entry["Target"]["Id"])
                        for entry in elb.describe_target_health(TargetGroupArn=item["TargetGroupArn"])[
                            "TargetHealthDescriptions"
                        ]
                    )
                ),
                str(
                    sorted(
                        (entry["Key"], entry["Value"])
                        for entry in elb.describe_target_group_attributes(TargetGroupArn=item["TargetGroupArn"])[
                            "Attributes"
                        ]
                    )
                ),
            )
            for item in elb.describe_target_groups()["TargetGroups"]
        ),
    }
