"""Translates moto's objects to `model.Desired`: the network and the machines that should exist."""

from __future__ import annotations

import base64
import ipaddress
from typing import Any, get_args

from ec2lab import addresses, model
from ec2lab.api.backends import ACCOUNT, ENDPOINTS, REGION, all_ec2, elbv2
from ec2lab.api.patches import buckets, machines
from ec2lab.api.patches.balancers import balancer_interfaces, used_target_groups
from ec2lab.api.patches.instances import FIRST_BOOT_TAG
from ec2lab.api.patches.routes import is_live, target_instance
from ec2lab.image import DISK_GIB
from ec2lab.machine import MachineSpec
from ec2lab.volumes import VolumeSpec

# A machine that is being deleted keeps its link until it is gone.
WITH_MACHINE = ("pending", "running", "stopping", "shutting-down")


def desired(lab: str, public_range: str, cut: frozenset[str]) -> model.Desired:
    """The description of the whole lab. `cut` are the instances with the fault `network`."""
    vpcs = [_vpc(region, backend, vpc, cut) for region, backend in all_ec2() for vpc in backend.vpcs.values()]
    # A VPC without subnets is empty and needs no namespace.
    return model.Desired(
        lab, public_range, tuple(vpc for vpc in vpcs if vpc.nodes or vpc.load_balancers or vpc.nat_gateways)
    )


def _vpc(region: str, backend: Any, vpc: Any, cut: frozenset[str]) -> model.Vpc:
    ranges = (str(item["cidr_block"]) for item in vpc.get_cidr_block_association_set(ipv6=False))
    subnets = [subnet for zone in backend.subnets.values() for subnet in zone.values() if subnet.vpc_id == vpc.id]
    elb = elbv2(region)
    balancers = [balancer for balancer in elb.load_balancers.values() if balancer.vpc_id == vpc.id]
    used = used_target_groups(elb)
    instances = [
        instance
        for instance in backend.all_instances()
        if instance.vpc_id == vpc.id and instance.state in WITH_MACHINE and 0 in instance.nics
    ]
    return model.Vpc(
        id=vpc.id,
        cidrs=tuple(dict.fromkeys((str(vpc.cidr_block), *ranges))),  # the one it was made with first
        subnets=tuple(_subnet(backend, subnet) for subnet in sorted(subnets, key=lambda subnet: str(subnet.id))),
        security_groups=tuple(_group(group) for group in backend.groups.get(vpc.id, {}).values()),
        nodes=tuple(_node(instance, instance.id in cut) for instance in instances),
        nat_gateways=tuple(_nat_gateways(backend, vpc.id)),
        load_balancers=tuple(_balancer(elb, balancer) for balancer in balancers),
        target_groups=tuple(
            _target_group(backend, group)
            for arn, group in elb.target_groups.items()
            if group.vpc_id == vpc.id and used.get(arn)
        ),
        internet_gateway=any(
            gateway.vpc is not None and gateway.vpc.id == vpc.id for gateway in backend.internet_gateways.values()
        ),
    )


def route_table(backend: Any, subnet: Any) -> Any:
    """The route table associated with the subnet, or else the VPC's main table."""
    tables = [table for table in backend.route_tables.values() if table.vpc_id == subnet.vpc_id]
    for table in tables:
        if subnet.id in table._associations.values():
            return table
    return next(table for table in tables if table.main_association_id)


def _subnet(backend: Any, subnet: Any) -> model.Subnet:
    routes = [_route(route) for route in route_table(backend, subnet).routes if route.destination_cidr_block]
    return model.Subnet(subnet.id, str(subnet.cidr_block), tuple(routes))


def _route(route: Any) -> model.Route:
    destination = str(route.destination_cidr_block)
    if route.local:
        return model.Route(destination, "local")
    if not is_live(route):
        return model.Route(destination, "blackhole")
    if instance := target_instance(route):
        return model.Route(destination, "instance", str(instance.id))
    if route.nat_gateway:
        return model.Route(destination, "nat", str(route.nat_gateway.id))
    if route.gateway_id and route.gateway_id.startswith("igw-"):
        return model.Route(destination, "internet")
    return model.Route(destination, "blackhole")


def _group(group: Any) -> model.SecurityGroup:
    return model.SecurityGroup(
        str(group.id),
        ingress=tuple(rule for each in group.ingress_rules for rule in _rule(each)),
        egress=tuple(rule for each in group.egress_rules for rule in _rule(each)),
    )


def _rule(rule: Any) -> list[model.Rule]:
    """The permission as rules; leaves out IPv6, prefix lists and other protocols, which the lab does not support."""
    if rule.ip_protocol not in get_args(model.Protocol):
        return []
    cidrs = (str(rule.cidr_ipv4),) if rule.cidr_ipv4 else ()
    groups = (str(rule.source_group["GroupId"]),) if rule.source_group.get("GroupId") else ()
    if not cidrs and not groups:
        return []
    first, last = rule.from_port, rule.to_port
    if rule.ip_protocol == "-1" or (rule.ip_protocol in ("tcp", "udp") and -1 in (first, last)):
        first = last = None
    return [model.Rule(rule.ip_protocol, first, last, cidrs, groups)]


def short_host_name(instance: Any) -> str:
    return str(instance.private_dns_name).split(".", 1)[0]


def _node(instance: Any, cut: bool) -> model.Node:
    eni = instance.nics[0]
    return model.Node(
        id=instance.id,
        subnet_id=eni.subnet.id,
        private_ip=eni.private_ip_address,
        mac=eni.mac_address,
        hostname=short_host_name(instance),
        security_groups=tuple(str(group.id) for group in instance.security_groups),
        public_ip=eni.public_ip,
        source_dest_check=bool(instance.source_dest_check),
        cut=cut,
        tap=machines.kind(instance) == "vm",
    )


def _nat_gateways(backend: Any, vpc_id: str) -> list[model.NatGateway]:
    return [
        model.NatGateway(gateway.id, gateway.subnet_id, gateway._eni.private_ip_address, gateway._eni.public_ip or "")
        for gateway in backend.nat_gateways.values()
        if gateway.vpc_id == vpc_id and gateway.state == "available"
    ]


def _balancer(elb: Any, balancer: Any) -> model.LoadBalancer:
    listeners = []
    for listener in balancer.listeners.values():
        forward = [action for action in listener.default_actions if action.type == "forward"]
        arns = elb._get_target_group_arns_from(action_data=forward[0].data) if forward else []
        if arns:
            listeners.append(model.Listener(int(listener.port), arns[0]))
    return model.LoadBalancer(
        arn=balancer.arn,
        dns_name=balancer.dns_name,
        security_groups=tuple(balancer.security_groups),
        addresses=tuple(
            (str(eni.subnet.id), str(eni.private_ip_address), eni.public_ip) for eni in balancer_interfaces(balancer)
        ),
        listeners=tuple(listeners),
    )


def _target_group(backend: Any, group: Any) -> model.TargetGroup:
    targets = []
    by_address = {instance.private_ip: instance for instance in backend.all_instances() if 0 in instance.nics}
    for target in group.targets.values():
        instance = (
            backend.get_instance_by_id(target["Id"]) if target["Id"].startswith("i-") else by_address.get(target["Id"])
        )
        if instance is not None and 0 in instance.nics and instance.state in ("pending", "running", "shutting-down"):
            targets.append(model.Target(target["Id"], str(instance.private_ip), int(target["Port"])))
    preserve = group.attributes.get(
        "preserve_client_ip.enabled", "true" if group.target_type == "instance" else "false"
    )
    return model.TargetGroup(group.arn, tuple(targets), _health_check(group), str(preserve).lower() == "true")


def _health_check(group: Any) -> model.HealthCheck:
    protocol = str(group.health_check_protocol or "TCP")
    port = str(group.health_check_port or "traffic-port")
    matcher = (getattr(group, "matcher", None) or {}).get("HttpCode", "200-399")
    return model.HealthCheck(
        protocol="HTTPS" if protocol == "HTTPS" else "HTTP" if protocol == "HTTP" else "TCP",
        port=int(port) if port.isdigit() else None,
        path=group.health_check_path or "/",
        interval_s=float(group.health_check_interval_seconds),
        timeout_s=float(group.health_check_timeout_seconds),
        healthy_threshold=int(group.healthy_threshold_count),
        unhealthy_threshold=int(group.unhealthy_threshold_count),
        matcher=str(matcher),
    )


def machine_spec(instance: Any) -> MachineSpec:
    """The description from which the instance's machine is made."""
    backend = instance.ec2_backend
    eni = instance.nics[0]
    key = backend.key_pairs.get(instance.key_name) if instance.key_name else None
    keys = getattr(instance, "launch_keys", None)
    if keys is None:  # recorded at launch, so that it stays when the key pair is deleted
        keys = instance.launch_keys = (key.public_key.strip(),) if key is not None else ()
    tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
    _host, domain = str(instance.private_dns_name).split(".", 1)
    root = instance.block_device_mapping.get(instance.root_device_name)
    if root is None:  # moto's own default has another name; it is the only one then
        root = max(instance.block_device_mapping.values(), key=lambda volume: volume.size or 0)
    kind = machines.kind(instance)
    return MachineSpec(
        instance_id=instance.id,
        vpc_id=instance.vpc_id,
        private_ip=eni.private_ip_address,
        subnet_cidr=str(ipaddress.IPv4Network(eni.subnet.cidr_block)),
        mac=eni.mac_address,
        hostname=short_host_name(instance),
        domain=domain,
        resolver=addresses.resolver(backend.get_vpc(instance.vpc_id).cidr_block),
        authorized_keys=tuple(keys),
        user_data=base64.b64decode(str(instance.user_data)) if instance.user_data else None,
        # Looked at when the disk is made only; what is no number was put there after the launch.
        first_boot=int(asked) if (asked := tags.get(FIRST_BOOT_TAG, "")).isdecimal() else None,
        disk_gib=int(root.size or DISK_GIB),
        memory_mib=machines.memory_mib(instance) if kind == "vm" else None,
        cpus=machines.cpus(instance) if kind == "vm" else None,
        kind=kind,
        instance_type=str(instance.instance_type),
        root_volume_id=str(root.volume_id),
    )


def volume_spec(volume: Any) -> VolumeSpec:
    """The description from which a volume's file is made."""
    return VolumeSpec(str(volume.id), int(volume.size), str(volume.snapshot_id or ""))


def dns_names(vpc_id: str) -> dict[str, list[str]]:
    """Names that resolve inside a VPC, of its instances and load balancers: {name: [address, ...]}.

    An instance's public name stands for its private address there, an internet-facing load balancer's for public ones.
    https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/how-elastic-load-balancing-works.html
    """
    names: dict[str, list[str]] = {}
    for region, backend in all_ec2():
        for eni in backend.enis.values():
            if eni.vpc_id == vpc_id and eni.private_ip_address:
                domain = "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"
                names[f"ip-{eni.private_ip_address.replace('.', '-')}.{domain}"] = [eni.private_ip_address]
                if eni.public_ip:  # inside the VPC the public name resolves to the private address
                    middle = "compute-1" if region == "us-east-1" else f"{region}.compute"
                    public = f"ec2-{eni.public_ip.replace('.', '-')}.{middle}.amazonaws.com"
                    names[public] = [eni.private_ip_address]
        for balancer in elbv2(region).load_balancers.values():
            if balancer.vpc_id == vpc_id:
                interfaces = balancer_interfaces(balancer)
                names[balancer.dns_name.lower()] = [str(eni.public_ip or eni.private_ip_address) for eni in interfaces]
    return names


def aws_names() -> set[str]:
    """The names of AWS's endpoints that the API serves, in each region that is used, and of buckets.

    Only of buckets that exist: publishers keep downloads in buckets of their own, under the same domain.
    https://docs.aws.amazon.com/general/latest/gr/rande.html
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
    """
    domains = ["amazonaws.com", *(f"{region}.amazonaws.com" for region in {REGION, *(name for name, _ in all_ec2())})]
    names = [*buckets.s3().buckets, buckets.TAKEN]
    return {f"{service}.{domain}" for service in ENDPOINTS for domain in domains} | {
        f"{bucket}.s3.{domain}" for bucket in names for domain in domains
    }


__all__ = ["ACCOUNT", "aws_names", "desired", "dns_names", "machine_spec", "short_host_name", "volume_spec"]
