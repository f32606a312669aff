# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The description of a cluster: the module's options as data, checked as far as possible without the account."""

from __future__ import annotations

import ipaddress
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import buckets
from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import names as name_rules
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import ranges, tags

INSTANCE_TYPE = re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+")
IMAGE_ID = re.compile(r"ami-[0-9a-f]{8,17}")
PUBLIC_KEY = re.compile(r"(ssh-ed25519|ssh-rsa) [A-Za-z0-9+/]+={0,3}(?: .*)?")
DEFAULT_POOLS: tuple[dict[str, Any], ...] = ({"name": "control_plane", "count": 1}, {"name": "workers", "count": 2})


# The statements that the control-plane nodes' role gets for `backup_bucket`: for objects, and for the bucket's key.
BACKUP_SIDS = BACKUP_UPLOAD, BACKUP_KEY = ("BackupUpload", "BackupKey")


class DescriptionError(Exception):
    """The description is not valid. The message names the option, what is wrong with it and what would be valid."""


@dataclass(frozen=True)
class Image:
    """Either an id, or an owner and a pattern of names of which the newest counts."""

    id: str = ""
    owner: str = ""
    name: str = ""


@dataclass(frozen=True)
class Pool:
    name: str
    role: str
    count: int
    instance_type: str
    image: Image
    root_volume_size: int
    etcd_volume_size: int

    def node_name(self, cluster: str, number: int) -> str:
        return name_rules.node_name(cluster, self.name, number)


@dataclass(frozen=True)
class Description:
    """What there should be. `pools` is empty for a cluster that should not be."""

    name: str
    region: str
    vpc_id: str = ""
    vpc_cidr: str = "10.240.0.0/16"
    zones: tuple[str, ...] = ()
    subnet_ids: tuple[str, ...] = ()
    subnet_prefix: int = 24
    private_nodes: bool = False
    nat_gateways: str = "one"
    pod_cidr: str = "10.200.0.0/16"
    pod_cidr_node_prefix: int = 24
    service_cidr: str = "10.32.0.0/16"
    pod_network: str = "routed"
    pod_route_tables: tuple[str, ...] = ()
    admin_cidrs: tuple[str, ...] = ()
    node_port_cidrs: tuple[str, ...] = ()
    key_name: str = ""
    public_key: str = ""
    pools: tuple[Pool, ...] = ()
    kms_key_id: str = ""
    instance_profiles: bool = True
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    load_balancer_scheme: str = "internal"
    bastion: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    allow_replace: bool = False
    lives: bool = False
    # A load balancer that is there and still in use; see `nodes.members`.
    keeps_balancer: bool = False
    backup_bucket: str = ""
    backup_days: int = 30
    # The region's: "aws", "aws-cn", ...
    partition: str = "aws"

    @property
    def control_plane_count(self) -> int:
        return sum(pool.count for pool in self.pools if pool.role == tags.CONTROL_PLANE)

    @property
    def node_count(self) -> int:
        return sum(pool.count for pool in self.pools)

    @property
    def balanced(self) -> bool:
        """Whether there is a load balancer: for several control-plane nodes, or for private nodes towards outside."""
        outward = self.private_nodes and self.load_balancer_scheme == "internet-facing" and bool(self.pools)
        return self.control_plane_count > 1 or self.keeps_balancer or outward

    @property
    def has_bastion(self) -> bool:
        """Whether administrators outside need a bastion: in a VPC that was brought, the way in is the user's matter."""
        outside = any(ranges.public(cidr) for cidr in self.admin_cidrs)
        return self.private_nodes and self.bastion and outside and not self.vpc_id and bool(self.pools)

    @property
    def inside(self) -> bool:
        """Whether administrators come from private addresses alone: from the VPC, or a network connected to it."""
        return bool(self.admin_cidrs) and not any(ranges.public(cidr) for cidr in self.admin_cidrs)

    @property
    def faces_internet(self) -> bool:
        """Whether a load balancer has public addresses."""
        return self.balanced and self.load_balancer_scheme == "internet-facing"


def statements(policy: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Those of a policy document, of which one may stand by itself."""
    found = (policy or {}).get("Statement") or []
    return list(found) if isinstance(found, (list, tuple)) else [found]


def check_name(name: str) -> None:
    _refuse("name", [name_rules.cluster_fault(name)])


def check_bucket(name: str) -> None:
    """Of the bucket of backups; empty for none."""
    _refuse("backup_bucket", [buckets.name_fault(name)] if name else [])


def _refuse(option: str, faults: Iterable[str]) -> None:
    """Raises DescriptionError for the first fault, if there is one."""
    for fault in faults:
        if fault:
            raise DescriptionError(f"{option}: {fault}")


def parse(options: Mapping[str, Any], region: str, partition: str = "aws") -> Description:
    """The description that the options give. Raises DescriptionError for the first fault."""
    check_name(options["name"])
    if options["wait_timeout"] < 1:
        raise DescriptionError(f"wait_timeout: {options['wait_timeout']} s is too short to wait; give 1 or more")
    pools = tuple(_pools(options))
    description = Description(
        name=options["name"],
        region=region,
        vpc_id=options["vpc_id"] or "",
        vpc_cidr=options["vpc_cidr"],
        zones=tuple(options["zones"]),
        subnet_ids=tuple(options["subnet_ids"]),
        subnet_prefix=options["subnet_prefix"],
        private_nodes=options["private_nodes"],
        nat_gateways=options["nat_gateways"],
        pod_cidr=options["pod_cidr"],
        pod_cidr_node_prefix=options["pod_cidr_node_prefix"],
        service_cidr=options["service_cidr"],
        pod_network=options["pod_network"],
        pod_route_tables=tuple(options["pod_route_tables"]),
        admin_cidrs=tuple(_cidrs(options, "admin_cidrs")),
        node_port_cidrs=tuple(_cidrs(options, "node_port_cidrs")),
        key_name=options["key_name"] or "",
        public_key=_public_key(options),
        pools=pools,
        kms_key_id=options["kms_key_id"] or "",
        instance_profiles=options["instance_profiles"],
        policies=_policies(options),
        load_balancer_scheme=_scheme(options),
        bastion=options["bastion"],
        tags=_tags(options["tags"]),
        allow_replace=options["allow_replace"],
        lives=options["lives"],
        backup_bucket=options["backup_bucket"] or "",
        backup_days=options["backup_days"],
        partition=partition,
    )
    _check_pools(description)
    _check_ranges(description)
    _check_network(description)
    _check_backups(description)
    return description


def _pools(options: Mapping[str, Any]) -> list[Pool]:
    pools = []
    for number, given in enumerate(options["pools"] if options["pools"] is not None else DEFAULT_POOLS):
        where = f"pools[{number}]"
        pool = {key: value for key, value in given.items() if value is not None}
        name = pool["name"]
        _refuse(f"{where}.name", [name_rules.pool_fault(name)])
        instance_type = pool.get("instance_type", "m5.large")
        if not INSTANCE_TYPE.fullmatch(instance_type):
            raise DescriptionError(
                f"{where}.instance_type: {instance_type!r} is not an instance type; give one like m5.large"
            )
        image = pool.get("image") or options["image"]
        if not image:
            raise DescriptionError(
                f"image: neither image nor {where}.image is given; give an AMI id, or owner and name"
            )
        root, etcd = pool.get("root_volume_size", 20), pool.get("etcd_volume_size", 0)
        if not 8 <= root <= 16384:
            raise DescriptionError(f"{where}.root_volume_size: {root} GiB; a gp3 root volume has 8 to 16384 GiB")
        role = tags.CONTROL_PLANE if name == tags.CONTROL_PLANE else tags.WORKER
        if etcd and role != tags.CONTROL_PLANE:
            raise DescriptionError(
                f"{where}.etcd_volume_size: workers do not run etcd; give it for the pool control_plane only"
            )
        if etcd and not 1 <= etcd <= 16384:
            raise DescriptionError(f"{where}.etcd_volume_size: {etcd} GiB; a gp3 volume has 1 to 16384 GiB, 0 is none")
        pools.append(
            Pool(
                name=name,
                role=role,
                count=pool["count"],
                instance_type=instance_type,
                image=_image(image, f"{where}.image" if pool.get("image") else "image"),
                root_volume_size=root,
                etcd_volume_size=etcd,
            )
        )
    return pools


def _image(given: Any, option: str) -> Image:
    if isinstance(given, str):
        if not IMAGE_ID.fullmatch(given):
            raise DescriptionError(
                f"{option}: {given!r} is not an AMI id (ami- and 8 or 17 hexadecimal digits); a pattern needs owner "
                "and name"
            )
        return Image(id=given)
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - {"owner", "name"})
        if unknown:
            raise DescriptionError(f"{option}: unknown key {', '.join(map(str, unknown))}; the keys are owner and name")
        # Without an owner an image of anybody with such a name would be taken.
        if given.get("owner") and given.get("name"):
            return Image(owner=str(given["owner"]), name=str(given["name"]))
    raise DescriptionError(
        f"{option}: give an AMI id, or a dictionary with both owner (account id or alias) and name (pattern)"
    )


def _cidrs(options: Mapping[str, Any], option: str) -> list[str]:
    result = []
    for given in options[option]:
        try:
            result.append(str(ranges.network(given)))
        except ValueError as error:
            raise DescriptionError(
                f"{option}: {given!r} is not an IPv4 range ({error}); give ranges like 203.0.113.7/32"
            ) from None
    return sorted(set(result))


def _public_key(options: Mapping[str, Any]) -> str:
    option, text = "public_key", options["public_key"]
    if options["public_key_file"]:
        option = "public_key_file"
        try:
            text = Path(options["public_key_file"]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DescriptionError(
                f"public_key_file: cannot read it ({error}); make a key with ssh-keygen -t ed25519"
            ) from None
    if not text:
        if options["key_name"]:
            return ""
        raise DescriptionError(
            "public_key: there is no key for SSH; give one of key_name, public_key and public_key_file"
        )
    text = text.strip()
    if "PRIVATE KEY" in text:
        raise DescriptionError(f"{option}: this is a private key; give the public one (the file that ends in .pub)")
    if not PUBLIC_KEY.fullmatch(text):
        raise DescriptionError(
            f"{option}: this is not an OpenSSH public key of a kind that EC2 takes; give ssh-ed25519 or ssh-rsa"
        )
    # Without the comment, which is not part of the key.
    return " ".join(text.split()[:2])


def _policies(options: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    policies = {}
    for role, option in ((tags.CONTROL_PLANE, "control_plane_policy"), (tags.WORKER, "worker_policy")):
        policy = options[option]
        if not policy:
            continue
        if not options["instance_profiles"]:
            raise DescriptionError(
                f"{option}: there is no role that could have it with instance_profiles: false; leave out one of the two"
            )
        if not {"Version", "Statement"} <= set(policy):
            raise DescriptionError(f"{option}: this is not a policy document, which has Version and Statement")
        policies[role] = policy
    return policies


def _scheme(options: Mapping[str, Any]) -> str:
    scheme: str = options["load_balancer_scheme"]
    if scheme != "auto":
        return scheme
    # Administrators with private addresses come by a way of their own, a VPN for example.
    outside = any(ranges.public(cidr) for cidr in _cidrs(options, "admin_cidrs"))
    brought = options["private_nodes"] and options["vpc_id"]
    return "internet-facing" if outside and not brought else "internal"


def _tags(given: Mapping[str, Any]) -> dict[str, str]:
    _refuse("tags", name_rules.tags_faults(given))
    return {str(key): str(value) for key, value in given.items()}


def _check_pools(description: Description) -> None:
    names = [pool.name for pool in description.pools]
    _refuse("pools", name_rules.pools_faults(description.name, [(pool.name, pool.count) for pool in description.pools]))
    if tags.CONTROL_PLANE not in names:
        raise DescriptionError("pools: there is no pool control_plane; add one with count 1, 3 or 5")
    for number, pool in enumerate(description.pools):
        if pool.count < 0:
            raise DescriptionError(f"pools[{number}].count: {pool.count}; give 0 or more")
        if pool.role == tags.CONTROL_PLANE and pool.count < 1:
            raise DescriptionError(f"pools[{number}].count: a cluster has a control-plane node; give 1, 3 or 5")
        if pool.role == tags.CONTROL_PLANE and pool.count % 2 == 0:
            raise DescriptionError(
                f"pools[{number}].count: {pool.count} etcd members survive no more failures than {pool.count - 1} do; "
                f"give an odd number, {pool.count - 1} or {pool.count + 1}"
            )
        if pool.role == tags.CONTROL_PLANE and pool.count > 7:
            raise DescriptionError(
                f"pools[{number}].count: etcd is slow with {pool.count} members; give 3, 5 or at most 7"
            )


def _network(description: Description, option: str) -> ranges.Network:
    text = getattr(description, option)
    try:
        return ranges.network(text)
    except ValueError as error:
        raise DescriptionError(
            f"{option}: {text!r} is not an IPv4 range ({error}); give one like 10.240.0.0/16"
        ) from None


def _check_ranges(description: Description) -> None:
    nets = {option: _network(description, option) for option in ("vpc_cidr", "pod_cidr", "service_cidr")}
    if description.vpc_id:
        # The existing VPC's range is read later; `network.vpc` compares it.
        del nets["vpc_cidr"]
    elif not 16 <= nets["vpc_cidr"].prefixlen <= 28:
        raise DescriptionError(f"vpc_cidr: {description.vpc_cidr}: EC2 takes /16 to /28; give one like 10.240.0.0/16")
    for option, net in nets.items():
        for special in ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "0.0.0.0/8"):
            if net.overlaps(ipaddress.IPv4Network(special)):
                raise DescriptionError(
                    f"{option}: {net} overlaps {special}, which no network may use; choose a private range"
                )
    for (one, first), (other, second) in itertools.combinations(nets.items(), 2):
        if first.overlaps(second):
            raise DescriptionError(f"{other}: {second} overlaps {one} {first}; each needs a range of its own")
    if not 12 <= nets["service_cidr"].prefixlen <= 27:
        raise DescriptionError(
            f"service_cidr: {nets['service_cidr']}: the API server takes /12 or smaller, and fewer than 32 "
            "services are too few; give /12 to /27"
        )
    prefix = description.pod_cidr_node_prefix
    pods = nets["pod_cidr"]
    if not pods.prefixlen <= prefix <= 28:
        raise DescriptionError(
            f"pod_cidr_node_prefix: a /{prefix} of pod_cidr {pods} cannot be a node's range of pods; give "
            f"{pods.prefixlen} to 28"
        )
    parts = 2 ** (prefix - pods.prefixlen)
    if parts < description.node_count:
        raise DescriptionError(
            f"pod_cidr: {pods} has {parts} parts of /{prefix} and {description.node_count} nodes need one each; "
            "widen it or give a longer pod_cidr_node_prefix"
        )
    if not description.subnet_ids:
        check_subnet_room(description, ipaddress.IPv4Network(description.vpc_cidr) if not description.vpc_id else None)


def check_subnet_room(description: Description, vpc: ranges.Network | None) -> None:
    """The nodes of a zone must fit its subnet, and the subnets the VPC (None: not known yet)."""
    prefix = description.subnet_prefix
    if not 16 <= prefix <= 28:
        raise DescriptionError(f"subnet_prefix: /{prefix}: EC2 takes /16 to /28; give one like 24")
    zones = max(1, len(description.zones))
    per_zone = -(-description.node_count // zones)
    room = 2 ** (32 - prefix) - ranges.RESERVED_IN_SUBNET
    # The load balancer and a NAT gateway take an address each.
    if room < per_zone + 2:
        raise DescriptionError(
            f"subnet_prefix: a /{prefix} has room for {room} addresses and a zone has up to {per_zone} nodes "
            "beside load "
            "balancer and NAT gateway; give a shorter prefix or more zones"
        )
    if vpc is not None:
        wanted = zones * (2 if description.private_nodes else 1)
        if prefix < vpc.prefixlen or 2 ** (prefix - vpc.prefixlen) < wanted:
            raise DescriptionError(
                f"vpc_cidr: {vpc} has no room for {wanted} subnets of /{prefix}; widen it or give a longer "
                "subnet_prefix"
            )


def _check_network(description: Description) -> None:
    zones = description.zones
    _refuse("zones", [name_rules.zones_fault(zones, description.region)])
    if description.subnet_ids and not description.vpc_id:
        raise DescriptionError("subnet_ids: existing subnets need vpc_id, the VPC that they are in")
    if description.pod_route_tables and not description.vpc_id:
        raise DescriptionError(
            "pod_route_tables: the VPC that is made has no tables but those of the nodes, which have the pods' routes; "
            "leave it out, or give vpc_id"
        )
    if description.pod_route_tables and description.pod_network != "routed":
        raise DescriptionError(
            f"pod_route_tables: with pod_network: {description.pod_network} the VPC has no routes to pods; leave it out"
        )
    if description.subnet_ids and zones:
        raise DescriptionError("zones: existing subnets have their own zones; give either zones or subnet_ids")
    if description.subnet_ids and description.private_nodes:
        raise DescriptionError(
            "private_nodes: how nodes in existing subnets reach the internet is up to those subnets; leave it out "
            "with subnet_ids"
        )
    enclosed = description.private_nodes and description.nat_gateways == "none"
    if enclosed and description.faces_internet and description.control_plane_count > 1:
        raise DescriptionError(
            "nat_gateways: without one, private workers have no way to an internet-facing load balancer; give one or "
            "per_zone, or load_balancer_scheme: internal"
        )
    if description.load_balancer_scheme == "internet-facing" and description.private_nodes and description.vpc_id:
        raise DescriptionError(
            "load_balancer_scheme: private nodes in an existing VPC get an internal one; give internal or auto"
        )


def _check_backups(description: Description) -> None:
    _refuse("backup_days", [buckets.days_fault(description.backup_days)])
    check_bucket(description.backup_bucket)
    if not description.backup_bucket:
        return
    if not description.instance_profiles:
        raise DescriptionError(
            f"backup_bucket: nodes put their backups into {description.backup_bucket} with their role, and they have "
            "none with instance_profiles: false; leave out one of the two"
        )
    given = description.policies.get(tags.CONTROL_PLANE, {})
    taken = [sid for sid in BACKUP_SIDS if sid in [statement.get("Sid") for statement in statements(given)]]
    if taken:
        raise DescriptionError(
            f"control_plane_policy: its statement {taken[0]} has the name of one that backup_bucket adds; give it "
            "another Sid"
        )
