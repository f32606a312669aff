"""The services of each VPC: metadata, DNS, time, mirror and API, on sockets inside its namespace."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ec2lab import addresses, model
from ec2lab.api import server, translate
from ec2lab.api.backends import ACCOUNT, all_ec2
from ec2lab.api.patches import roles
from ec2lab.api.server import Api
from ec2lab.fabric import Fabric
from ec2lab.services import dns, metadata, mirror, ntp
from ec2lab.services.metadata import Metadata, Tokens

log = logging.getLogger(__name__)

METADATA_PORT = 80
DNS_PORT = 53
MIRROR_PORT = 5080
API_PORT = 80


class GuestServices:
    def __init__(self, api: Api, fabric: Fabric, mirror_dir: Path, outside_names: Callable[[], set[str]] = set) -> None:
        """`outside_names` are the hosts of the lab's own internet."""
        self.api, self.fabric, self.mirror_dir = api, fabric, mirror_dir
        self._outside_names = outside_names
        self._tokens = Tokens()
        self._open: dict[str, list[Callable[[], None]]] = {}

    def reconcile(self, desired: model.Desired) -> None:
        """Starts the services of new VPCs and ends those of removed ones."""
        wanted = {vpc.id: vpc for vpc in desired.vpcs}
        for vpc_id in self._open.keys() - wanted.keys():
            self._close(vpc_id)
        for vpc_id in wanted.keys() - self._open.keys():
            self._serve(wanted[vpc_id])

    def close(self) -> None:
        for vpc_id in list(self._open):
            self._close(vpc_id)

    def _close(self, vpc_id: str) -> None:
        for close in self._open.pop(vpc_id):
            try:
                close()
            except OSError:
                log.debug("%s: a service did not close", vpc_id, exc_info=True)

    def _socket(self, vpc_id: str, kind: socket.SocketKind, address: str, port: int) -> socket.socket:
        return self.fabric.open_socket(vpc_id, socket.AF_INET, kind, address, port)

    def _serve(self, vpc: model.Vpc) -> None:
        vpc_id = vpc.id
        closers: list[Callable[[], None]] = []
        self._open[vpc_id] = closers
        try:
            stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
            imds = metadata.serve(
                self._socket(vpc_id, stream, addresses.IMDS, METADATA_PORT),
                lambda address: self._metadata(vpc_id, address),
                self._tokens,
                f"metadata {vpc_id}",
            )
            closers.append(imds.close)
            for address in addresses.name_servers(vpc.cidrs[0]):
                names = dns.NameServer(
                    self._socket(vpc_id, datagram, address, DNS_PORT),
                    self._socket(vpc_id, stream, address, DNS_PORT),
                    lambda: self._names(vpc_id),
                    f"dns {vpc_id}",
                )
                closers.append(names.close)
            clock = self._socket(vpc_id, datagram, addresses.NTP, ntp.NTP_PORT)
            closers.append(ntp.TimeServer(clock, f"time {vpc_id}").close)
            files = mirror.serve(
                self._socket(vpc_id, stream, addresses.MIRROR, MIRROR_PORT), self.mirror_dir, f"mirror {vpc_id}"
            )
            closers.append(files.close)
            listening = self._socket(vpc_id, stream, addresses.MIRROR, API_PORT)
            listening.listen(128)  # werkzeug does not call listen() on a socket that it is given
            with listening:  # the server has a duplicate of it
                endpoint = server.listen(self.api, addresses.MIRROR, API_PORT, fd=listening.fileno())
            server.start(endpoint, f"api {vpc_id}")

            def close_endpoint() -> None:
                endpoint.shutdown()
                endpoint.server_close()

            closers.append(close_endpoint)
        except BaseException:
            self._close(vpc_id)
            raise

    def _names(self, vpc_id: str) -> dict[str, list[str]]:
        outside = {name: [addresses.OUTSIDE] for name in self._outside_names()}
        with self.api.lock:
            return outside | translate.dns_names(vpc_id)

    def _metadata(self, vpc_id: str, address: str) -> Metadata | None:
        with self.api.lock:
            for region, backend in all_ec2():
                for instance in backend.all_instances():
                    alive = instance.state in ("pending", "running", "stopping", "shutting-down")
                    if alive and instance.vpc_id == vpc_id and instance.private_ip == address:
                        return self._describe(region, backend, instance)
        return None

    def _describe(self, region: str, backend: Any, instance: Any) -> Metadata:
        """Saves the credentials that the node is given, since they must outlive this daemon."""
        before = roles.last_credentials(instance)
        described = describe(region, backend, instance)
        if roles.last_credentials(instance) is not before:
            try:
                self.api.save()
            except OSError:
                log.exception("%s: its credentials could not be saved", instance.id)
        return described


def describe(region: str, backend: Any, instance: Any) -> Metadata:
    """The instance's metadata."""
    eni = instance.nics[0]
    vpc = backend.get_vpc(instance.vpc_id)
    options = instance.metadata_options
    groups = [group.name for group in instance.security_groups]
    values = {
        "ami-id": instance.image_id,
        "ami-launch-index": str(instance.ami_launch_index),
        "ami-manifest-path": "(unknown)",
        "hostname": instance.private_dns_name,
        "instance-action": "none",
        "instance-id": instance.id,
        "instance-life-cycle": "on-demand",
        "instance-type": instance.instance_type,
        "local-hostname": instance.private_dns_name,
        "local-ipv4": eni.private_ip_address,
        "mac": eni.mac_address,
        "placement/availability-zone": instance.availability_zone,
        "placement/availability-zone-id": eni.subnet.availability_zone_id,
        "placement/region": region,
        "reservation-id": next(
            each.id for each in backend.reservations.values() if any(one is instance for one in each.instances)
        ),
        "security-groups": "\n".join(groups),
        "services/domain": "amazonaws.com",
        "services/partition": "aws",
    }
    if eni.public_ip:
        values["public-hostname"] = instance.public_dns_name
        values["public-ipv4"] = eni.public_ip
    spec = translate.machine_spec(instance)
    if spec.authorized_keys:
        values["public-keys"] = f"0={instance.key_name}"
        values["public-keys/0/openssh-key"] = spec.authorized_keys[0]
    mac = f"network/interfaces/macs/{eni.mac_address}"
    values |= {
        f"{mac}/device-number": "0",
        f"{mac}/interface-id": eni.id,
        f"{mac}/local-hostname": instance.private_dns_name,
        f"{mac}/local-ipv4s": eni.private_ip_address,
        f"{mac}/mac": eni.mac_address,
        f"{mac}/owner-id": ACCOUNT,
        f"{mac}/security-groups": "\n".join(groups),
        f"{mac}/security-group-ids": "\n".join(group.id for group in instance.security_groups),
        f"{mac}/subnet-id": eni.subnet.id,
        f"{mac}/subnet-ipv4-cidr-block": eni.subnet.cidr_block,
        f"{mac}/vpc-id": instance.vpc_id,
        f"{mac}/vpc-ipv4-cidr-block": vpc.cidr_block,
    }
    if options.instance_metadata_tags == "enabled":
        values |= {f"tags/instance/{tag['key']}": tag["value"] for tag in instance.get_tags()}
    profile, role = roles.profile_of(instance), roles.role_of(instance)
    if profile is not None and role is not None:
        credentials = roles.credentials(instance)
        values["iam/info"] = as_json(
            {"Code": "Success", "InstanceProfileArn": profile.arn, "InstanceProfileId": profile.id}
        )
        values[f"iam/security-credentials/{role.name}"] = as_json(credentials)
    return Metadata(
        instance_id=instance.id,
        enabled=options.http_endpoint != "disabled",
        tokens_required=options.http_tokens == "required",
        hop_limit=int(options.http_put_response_hop_limit or 1),
        values={key: str(value) for key, value in values.items()},
        document={
            "accountId": ACCOUNT,
            "architecture": instance.architecture,
            "availabilityZone": instance.availability_zone,
            "billingProducts": None,
            "imageId": instance.image_id,
            "instanceId": instance.id,
            "instanceType": instance.instance_type,
            "kernelId": None,
            "pendingTime": instance.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "privateIp": eni.private_ip_address,
            "ramdiskId": None,
            "region": region,
            "version": "2017-09-30",
        },
        user_data=spec.user_data,
    )


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2)
