"""VPCs as EC2 makes them: the default VPC reaches the internet; default groups let their members reach each other.

https://docs.aws.amazon.com/vpc/latest/userguide/default-security-group.html
https://docs.aws.amazon.com/vpc/latest/userguide/default-vpc.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateDefaultVpc.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateDefaultSubnet.html
"""

from __future__ import annotations

import ipaddress
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import DefaultVpcDoesNotExistError
from moto.ec2.models import EC2Backend
from moto.ec2.models.internet_gateways import InternetGatewayBackend
from moto.ec2.models.subnets import SubnetBackend
from moto.ec2.models.vpcs import VPCBackend
from moto.ec2.responses.account_attributes import AccountAttributes

from ec2lab.api.errors import error

EVERYWHERE = "0.0.0.0/0"
SUBNET_PREFIX = 20


def main_table(backend: Any, vpc_id: str) -> Any:
    return next(
        table for table in backend.route_tables.values() if table.vpc_id == vpc_id and table.main_association_id
    )


def first_free(taken: list[Any], cidr: str) -> str:
    """The lowest /20 of a default VPC that overlaps none of its subnets."""
    networks = [ipaddress.IPv4Network(str(subnet.cidr_block)) for subnet in taken]
    for candidate in ipaddress.IPv4Network(cidr).subnets(new_prefix=SUBNET_PREFIX):
        if not any(candidate.overlaps(network) for network in networks):
            return str(candidate)
    raise error("InvalidSubnet.Conflict", f"No /{SUBNET_PREFIX} of the default VPC {cidr} is free for a subnet.")


def install() -> None:
    make, make_default, make_subnet = VPCBackend.create_vpc, VPCBackend.create_default_vpc, SubnetBackend.create_subnet
    make_default_subnet, attach = SubnetBackend.create_default_subnet, InternetGatewayBackend.attach_internet_gateway

    def create_vpc(self: Any, *args: Any, **kwargs: Any) -> Any:
        vpc = make(self, *args, **kwargs)
        group = self.get_security_group_from_name("default", vpc_id=vpc.id)
        self.authorize_security_group_ingress(
            group.id, "-1", None, None, [], source_groups=[{"GroupId": group.id}], vpc_id=vpc.id
        )
        return vpc

    def create_default_vpc(self: Any) -> Any:
        vpc = make_default(self)
        gateway = self.create_internet_gateway()
        self.attach_internet_gateway(gateway.id, vpc.id)
        self.create_route(main_table(self, vpc.id).id, EVERYWHERE, gateway_id=gateway.id)
        return vpc

    def create_subnet(self: Any, vpc_id: str, *args: Any, **kwargs: Any) -> Any:
        """Undoes that moto makes the first subnet of a zone the default one, whichever VPC it is in."""
        subnet = make_subnet(self, vpc_id, *args, **kwargs)
        subnet.default_for_az = subnet.map_public_ip_on_launch = self.__dict__.get("making_default_subnet", False)
        return subnet

    def create_default_subnet(self: Any, availability_zone: str) -> Any:
        """Picks a free range; moto's follows from the number of default subnets and may be taken after a removal."""
        vpc = self.get_default_vpc()
        if vpc is None:
            raise DefaultVpcDoesNotExistError
        if availability_zone in self.get_default_subnets():
            return make_default_subnet(self, availability_zone)  # moto raises the error
        taken = [subnet for subnet in self.describe_subnets() if subnet.vpc_id == vpc.id]
        self.making_default_subnet = True
        try:
            return self.create_subnet(vpc.id, first_free(taken, vpc.cidr_block), availability_zone=availability_zone)
        finally:
            del self.making_default_subnet

    def attach_internet_gateway(self: Any, internet_gateway_id: str, vpc_id: str) -> Any:
        self.get_internet_gateway(internet_gateway_id)
        if any(gateway.vpc and gateway.vpc.id == vpc_id for gateway in self.internet_gateways.values()):
            raise error("InvalidParameterValue", f"Network {vpc_id} already has an internet gateway attached")
        return attach(self, internet_gateway_id, vpc_id)

    def default_vpc(self: Any) -> Any:
        found = self.get_default_vpc()
        if found is None:
            raise error("VPCIdNotSpecified", "No default VPC for this user")
        return found

    def describe_account_attributes(self: Any) -> ActionResult:
        vpc = self.ec2_backend.get_default_vpc()
        values = {
            "supported-platforms": "VPC",
            "default-vpc": vpc.id if vpc else "none",
            "max-instances": "20",
            "vpc-max-security-groups-per-interface": "5",
            "max-elastic-ips": "5",
            "vpc-max-elastic-ips": "5",
        }
        wanted = self._get_param("AttributeNames", [])
        return ActionResult(
            {
                "AccountAttributes": [
                    {"AttributeName": name, "AttributeValues": [{"AttributeValue": value}]}
                    for name, value in values.items()
                    if not wanted or name in wanted
                ]
            }
        )

    VPCBackend.create_vpc = create_vpc
    VPCBackend.create_default_vpc = create_default_vpc
    SubnetBackend.create_subnet = create_subnet
    SubnetBackend.create_default_subnet = create_default_subnet
    InternetGatewayBackend.attach_internet_gateway = attach_internet_gateway
    # moto remembers the first default VPC even after it is deleted, so its stored value is not used.
    EC2Backend.default_vpc = property(default_vpc, lambda self, vpc: None)
    AccountAttributes.describe_account_attributes = describe_account_attributes
