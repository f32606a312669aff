"""Makes the kernel's network what the API describes: one network namespace per VPC and everything in it."""

from __future__ import annotations

import socket
from pathlib import Path

from ec2lab import addresses, model, names, netns
from ec2lab.balancer import TargetHealth


class Fabric:
    """The network of one lab.

    `reconcile` before a machine starts (its node must be in `desired`: that plugs its cable in) and after every
    change. Safe to call from any thread.
    """

    def __init__(self, lab_name: str, public_range: str) -> None:
        self.lab = names.check_lab_name(lab_name)
        self.public_range = public_range

    def reconcile(self, desired: model.Desired) -> None:
        """Makes the kernel agree with the description. Idempotent; a call that finds nothing to do costs few ms."""
        raise NotImplementedError

    def destroy(self) -> None:
        """Removes all that the lab has in the kernel's network, found by name: also after a crash."""
        raise NotImplementedError

    def namespace(self, vpc_id: str) -> Path:
        """The network namespace of a VPC, as `nsenter --net=` takes it."""
        return names.namespace_path(self.lab, vpc_id)

    def open_socket(
        self, vpc_id: str, family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int
    ) -> socket.socket:
        """A bound socket that lives in the VPC's namespace; `address` is one of `addresses.SERVICES`."""
        return netns.open_socket(self.namespace(vpc_id), family, kind, address, port)

    def health(self, target_group_arn: str, instance_id: str, port: int) -> TargetHealth:
        """What DescribeTargetHealth should say of a target."""
        raise NotImplementedError

    def public_addresses(self) -> list[str]:
        """What public and Elastic IPs may be taken from, in order."""
        return list(addresses.public_addresses(self.public_range))
