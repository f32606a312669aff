# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Arithmetic of address ranges: what overlaps, what is free. IPv4 only, as the cluster is."""

from __future__ import annotations

import ipaddress
from typing import Iterable, Iterator

Network = ipaddress.IPv4Network

# EC2 keeps the first four addresses and the last of every subnet:
# https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html
RESERVED_IN_SUBNET = 5


def network(text: str) -> Network:
    """A range in canonical form. Raises ValueError, also when bits beyond the prefix are set."""
    return ipaddress.IPv4Network(text, strict=True)


# https://www.rfc-editor.org/rfc/rfc1918 and https://www.rfc-editor.org/rfc/rfc6598
PRIVATE = tuple(map(network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))


def public(text: str) -> bool:
    """Whether a range has addresses of the internet."""
    return not any(network(text).subnet_of(private) for private in PRIVATE)


def free(within: Network, prefix: int, taken: Iterable[str]) -> Iterator[str]:
    """The parts of `within` of this prefix length, in order, that overlap none of `taken`."""
    busy = [network(text) for text in taken]
    exact = {part for part in busy if part.prefixlen == prefix}
    wider_or_narrower = [part for part in busy if part.prefixlen != prefix]
    for part in within.subnets(new_prefix=prefix):
        # With the set the usual case, a thousand parts of equal size, takes linear time.
        if part not in exact and not any(part.overlaps(other) for other in wider_or_narrower):
            yield str(part)
