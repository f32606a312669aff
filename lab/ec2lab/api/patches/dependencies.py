"""Refuses to delete what something else still uses, with EC2's errors (DependencyViolation and similar)."""

from __future__ import annotations

from typing import Any

from moto.ec2.models import EC2Backend

from ec2lab.api.errors import error


def _violation(message: str) -> Any:
    return error("DependencyViolation", message)


def install() -> None:
    delete_group = EC2Backend.delete_security_group
    delete_subnet_ = EC2Backend.delete_subnet
    delete_vpc_ = EC2Backend.delete_vpc
    detach = EC2Backend.detach_internet_gateway
    release = EC2Backend.release_address
    delete_nat = EC2Backend.delete_nat_gateway

    def delete_security_group(self: Any, name: str | None = None, group_id: str | None = None) -> None:
        group = self.get_security_group_from_id(group_id) if group_id else self.get_security_group_from_name(name)
        if group is not None:
            if group.name == "default" and group.vpc_id in self.vpcs and not getattr(self, "vpc_going", False):
                raise error(
                    "CannotDelete", f'the specified group: "{group.id}" name: "default" cannot be deleted by a user'
                )
            users = [eni for eni in self.enis.values() if any(member.id == group.id for member in eni._group_set)]
            others = [
                other
                for groups in self.groups.values()
                for other in groups.values()
                if other.id != group.id
                and any(
                    rule.source_group.get("GroupId") == group.id for rule in other.ingress_rules + other.egress_rules
                )
            ]
            if users or others:
                raise _violation(f"resource {group.id} has a dependent object")
        delete_group(self, name, group_id)

    def delete_subnet(self: Any, subnet_id: str) -> Any:
        self.get_subnet(subnet_id)
        if any(eni.subnet.id == subnet_id for eni in self.enis.values()):
            raise _violation(f"The subnet '{subnet_id}' has dependencies and cannot be deleted.")
        for table in self.route_tables.values():
            for association, target in list(table._associations.items()):
                if target == subnet_id:
                    del table._associations[association]
        return delete_subnet_(self, subnet_id)

    def delete_vpc(self: Any, vpc_id: str) -> Any:
        self.get_vpc(vpc_id)
        attached = any(gateway.vpc and gateway.vpc.id == vpc_id for gateway in self.internet_gateways.values())
        groups = [group for group in self.groups.get(vpc_id, {}).values() if group.name != "default"]
        if attached or groups:
            raise _violation(f"The vpc '{vpc_id}' has dependencies and cannot be deleted.")
        self.vpc_going = True
        try:
            return delete_vpc_(self, vpc_id)
        finally:
            del self.vpc_going

    def detach_internet_gateway(self: Any, internet_gateway_id: str, vpc_id: str) -> None:
        if any(eni.public_ip and eni.vpc_id == vpc_id for eni in self.enis.values()):
            raise _violation(
                f"Network {vpc_id} has some mapped public address(es). "
                "Please unmap those public address(es) before detaching the gateway."
            )
        detach(self, internet_gateway_id, vpc_id)

    def release_address(self: Any, address: str | None = None, allocation_id: str | None = None) -> None:
        found = self.address_by_ip([address]) if address else self.address_by_allocation([allocation_id])
        if found[0].association_id or found[0].eni:
            raise error("InvalidIPAddress.InUse", f"The address {found[0].public_ip} is in use.")
        release(self, address, allocation_id)

    def delete_nat_gateway(self: Any, nat_gateway_id: str) -> Any:
        gateway = self.nat_gateways.get(nat_gateway_id)
        if gateway is None:
            raise error("NatGatewayNotFound", f"The Nat Gateway {nat_gateway_id} was not found")
        if gateway.state != "deleted":
            for address in self.addresses:
                if address.eni is gateway._eni:
                    address.instance = address.eni = address.association_id = None
            self.enis.pop(gateway._eni.id, None)
        return delete_nat(self, nat_gateway_id)

    EC2Backend.delete_security_group = delete_security_group
    EC2Backend.delete_subnet = delete_subnet
    EC2Backend.delete_vpc = delete_vpc
    EC2Backend.detach_internet_gateway = detach_internet_gateway
    EC2Backend.release_address = release_address
    EC2Backend.delete_nat_gateway = delete_nat_gateway
