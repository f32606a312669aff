"""Allocates private addresses from the subnet and public ones from the lab's range, never the same one twice.

moto picks them at random, and fails with an internal error when an address is taken.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from moto.ec2.models import elastic_ip_addresses, elastic_network_interfaces, nat_gateways, subnets

from ec2lab.addresses import public_addresses
from ec2lab.api.backends import all_ec2
from ec2lab.api.errors import error


def public_in_use() -> set[str]:
    """Public addresses of interfaces and Elastic IPs in every region."""
    used: set[str] = set()
    for _region, backend in all_ec2():
        used.update(eni.public_ip for eni in backend.enis.values() if eni.public_ip)
        used.update(address.public_ip for address in backend.addresses)
    return used


def lowest_free(candidates: Iterable[Any], used: set[str]) -> str | None:
    return next((str(address) for address in candidates if str(address) not in used), None)


class PublicAddresses:
    """Hands out the lowest free address of the lab's public range."""

    def __init__(self, public_range: str) -> None:
        self.range = public_range

    def next(self) -> str:
        found = lowest_free(public_addresses(self.range), public_in_use())
        if found is None:
            raise error(
                "InsufficientAddressCapacity",
                f"Not enough free public addresses in {self.range}, the range of this lab.",
            )
        return found


def private_in_use(subnet: Any) -> set[str]:
    return {
        str(item["PrivateIpAddress"])
        for eni in subnet.ec2_backend.enis.values()
        if eni.subnet.id == subnet.id
        for item in eni.private_ip_addresses
    }


def next_private(subnet: Any) -> str:
    """The lowest free address: EC2 reserves a subnet's first four and its last.

    https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html
    """
    first, last = int(subnet.cidr.network_address) + 4, int(subnet.cidr.broadcast_address)
    found = lowest_free((ipaddress.IPv4Address(number) for number in range(first, last)), private_in_use(subnet))
    if found is None:
        raise error(
            "InsufficientFreeAddressesInSubnet",
            f"There are not enough free addresses in subnet '{subnet.id}' to satisfy the requested number of "
            "instances.",
        )
    return found


def check_private(subnet: Any, address: str) -> str:
    """Returns `address` if a new interface of `subnet` can use it; otherwise raises EC2's error."""
    try:
        number = ipaddress.IPv4Address(address)
    except ValueError:
        raise error("InvalidParameterValue", f"invalid value for parameter address: {address}") from None
    if number not in subnet.cidr:
        raise error("InvalidParameterValue", f"Address {address} does not fall within the subnet's address range")
    offset = int(number) - int(subnet.cidr.network_address)
    if offset < 4 or number == subnet.cidr.broadcast_address:
        raise error("InvalidParameterValue", f"Address {address} is in subnet's reserved address range")
    if address in private_in_use(subnet):
        raise error("InvalidIPAddress.InUse", f"Address {address} is in use.")
    return address


def install(public_range: str) -> None:
    public = PublicAddresses(public_range)
    elastic_network_interfaces.random_public_ip = public.next
    elastic_ip_addresses.random_ip = public.next
    # This gives a NAT gateway an address of its subnet, like any other interface made without one.
    nat_gateways.random_private_ip = lambda: ""

    def get_available_subnet_ip(self: Any, instance: Any) -> str:
        return next_private(self)

    def request_ip(self: Any, ip: str, instance: Any) -> None:
        check_private(self, ip)

    def del_subnet_ip(self: Any, ip: str) -> None:
        """Does nothing: an address is free as soon as no interface has it."""

    subnets.Subnet.get_available_subnet_ip = get_available_subnet_ip
    subnets.Subnet.request_ip = request_ip
    subnets.Subnet.del_subnet_ip = del_subnet_ip
