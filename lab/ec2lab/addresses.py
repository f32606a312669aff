"""Address arithmetic: how a lab's public range is divided, and which addresses a subnet reserves.

A lab owns one range out of 198.18.0.0/15, which RFC 2544 sets aside for tests and which nobody routes. The upper
eighth holds the links between the host and each VPC (two addresses each); the rest are public and Elastic IPs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ec2lab.errors import LabError

POOL = ipaddress.IPv4Network("198.18.0.0/15")
LAB_PREFIX = 22
IMDS = "169.254.169.254"
DNS = "169.254.169.253"
MIRROR = "169.254.169.251"
NTP = "169.254.169.123"
SERVICES = (IMDS, DNS, MIRROR)  # link-local, the same in every VPC
# slirp4netns uses a small network of its own in each VPC's namespace; link-local, so no VPC can use the same range.
SLIRP_RANGE = "169.254.240.0/24"
SLIRP_ADDRESS = "169.254.240.100"
SLIRP_GATEWAY = "169.254.240.2"
# The lab's own internet has one public address, from a range set aside for documentation (RFC 5737), and a link to each
# VPC's namespace with the same two addresses at its ends.
OUTSIDE = "198.51.100.10"
OUTSIDE_GATEWAY = "169.254.241.1"
OUTSIDE_ADDRESS = "169.254.241.2"


@dataclass(frozen=True)
class Link:
    """The two ends of a VPC's link to the host."""

    host: str
    vpc: str


def _links(public_range: str) -> ipaddress.IPv4Network:
    network = ipaddress.IPv4Network(public_range)
    if network.prefixlen > 27:
        raise LabError(f"the public range {public_range} is too small: it must be a /27 or larger")
    return list(network.subnets(prefixlen_diff=3))[-1]


def link(public_range: str, index: int) -> Link:
    """The link of the VPC with this index (0, 1, ...); LabError when the range has no link left."""
    links = _links(public_range)
    if not 0 <= index < links.num_addresses // 2:
        raise LabError(f"the public range {public_range} has links for {links.num_addresses // 2} VPCs and no more")
    return Link(host=str(links[2 * index]), vpc=str(links[2 * index + 1]))


def link_count(public_range: str) -> int:
    return _links(public_range).num_addresses // 2


def public_addresses(public_range: str) -> Iterator[str]:
    """Every address that can be a public or Elastic IP, in ascending order."""
    network, links = ipaddress.IPv4Network(public_range), _links(public_range)
    for number in range(int(network.network_address) + 1, int(links.network_address)):
        yield str(ipaddress.IPv4Address(number))


def free_range(in_use: Iterable[str]) -> str:
    """The first range for a lab that overlaps no network in use; LabError when every range does."""
    taken = list(in_use)
    for candidate in POOL.subnets(new_prefix=LAB_PREFIX):
        if first_overlap(str(candidate), taken) is None:
            return str(candidate)
    raise LabError(f"every /{LAB_PREFIX} of {POOL} is in use on this host: take a lab down first")


def first_overlap(network: str, in_use: Iterable[str]) -> str | None:
    """The first network in use that overlaps `network`, ignoring default routes; None when none does."""
    wanted = ipaddress.IPv4Network(network)
    for text in in_use:
        other = ipaddress.ip_network(text, strict=False)
        if isinstance(other, ipaddress.IPv4Network) and other.prefixlen and wanted.overlaps(other):
            return text
    return None


def router(subnet_cidr: str) -> str:
    """The VPC router's address in a subnet: its first host address."""
    return str(ipaddress.IPv4Network(subnet_cidr)[1])


def resolver(vpc_cidr: str) -> str:
    """The address of a VPC's name server, which instances learn by DHCP: the base of its first range plus two.

    https://docs.aws.amazon.com/vpc/latest/userguide/AmazonDNS-concepts.html
    """
    return str(ipaddress.IPv4Network(vpc_cidr)[2])


def name_servers(vpc_cidr: str) -> tuple[str, str]:
    """Both addresses of a VPC's name server."""
    return DNS, resolver(vpc_cidr)


def services(vpc_cidr: str) -> tuple[str, ...]:
    """Every address at which a VPC serves its instances."""
    return (*SERVICES, NTP, resolver(vpc_cidr))


def prefix_length(cidr: str) -> int:
    return ipaddress.IPv4Network(cidr).prefixlen
