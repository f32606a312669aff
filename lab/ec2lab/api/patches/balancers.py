"""Network load balancers with addresses of their own, unique names, and target health from real checks.

https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetHealth.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.elbv2 import models
from moto.elbv2.exceptions import (
    DuplicateListenerError,
    DuplicateLoadBalancerName,
    ELBClientError,
    LoadBalancerNotFoundError,
)
from moto.elbv2.models import ELBv2Backend, FakeHealthStatus, FakeLoadBalancer, FakeTargetGroup, elbv2_backends

from ec2lab.balancer import TargetHealth

# Returns the health of a target, given (target group ARN, instance id, port).
Health = Callable[[str, str, int], TargetHealth]

_IN_PROGRESS = TargetHealth("initial", "Elb.RegistrationInProgress", "Target registration is in progress")


class _Source:
    """Where target health comes from; set by the daemon."""

    health: Health = staticmethod(lambda _arn, _instance, _port: _IN_PROGRESS)


source = _Source()

_STOPPED = ("unused", "Target.InvalidState", "Target is in the stopped state")
_NOT_USED = ("unused", "Target.NotInUse", "Target group is not configured to receive traffic from the load balancer")


def balancer_interfaces(balancer: Any) -> list[Any]:
    """The load balancer's interfaces, one per subnet."""
    backend = elbv2_backends_of(balancer).ec2_backend
    return [backend.enis[eni_id] for eni_id in getattr(balancer, "eni_ids", []) if eni_id in backend.enis]


def elbv2_backends_of(balancer: Any) -> Any:
    _arn, _partition, _service, region, account, _rest = balancer.arn.split(":", 5)
    return elbv2_backends[account][region]


def _add_interface(backend: Any, balancer: Any, subnet: Any, mapping: dict[str, str]) -> None:
    ec2 = backend.ec2_backend
    eni = ec2.create_network_interface(
        subnet,
        mapping.get("PrivateIPv4Address", ""),
        group_ids=balancer.security_groups,
        description=f"ELB net/{balancer.name}/{balancer.arn.rsplit('/', 1)[1]}",
    )
    eni.requester_managed, eni.interface_type, eni.status = True, "network_load_balancer", "in-use"
    if mapping.get("AllocationId"):
        ec2.associate_address(eni=eni, allocation_id=mapping["AllocationId"])
    elif balancer.scheme == "internet-facing":
        eni.public_ip_auto_assign = True
        eni.check_auto_public_ip()
    if not balancer.security_groups:
        eni._group_set = []
    balancer.eni_ids.append(eni.id)


def _remove_interface(ec2: Any, eni: Any) -> None:
    for address in ec2.addresses:
        if address.eni is eni:
            address.instance = address.eni = address.association_id = None
    ec2.enis.pop(eni.id, None)


def install() -> None:
    _install_balancers()
    _install_targets()


def _install_balancers() -> None:
    create = ELBv2Backend.create_load_balancer
    create_listener_ = ELBv2Backend.create_listener

    def arn_of(account_id: str, lb_id: str, name: str, region_name: str) -> str:
        return f"arn:aws:elasticloadbalancing:{region_name}:{account_id}:loadbalancer/net/{name}/{lb_id}"

    models.make_arn_for_load_balancer = arn_of

    def create_load_balancer(
        self: Any,
        name: str,
        security_groups: list[str],
        subnet_ids: list[str],
        subnet_mappings: list[dict[str, str]] | None = None,
        scheme: str | None = "internet-facing",
        loadbalancer_type: str | None = None,
        **kwargs: Any,
    ) -> Any:
        scheme = scheme or "internet-facing"
        if loadbalancer_type != "network":
            raise ELBClientError("UnsupportedOperation", "This lab has load balancers of type network only.")
        wanted = [*subnet_ids, *(mapping["SubnetId"] for mapping in subnet_mappings or [])]
        for balancer in self.load_balancers.values():
            if balancer.name != name:
                continue
            same = (
                balancer.scheme == scheme
                and sorted(subnet.id for subnet in balancer.subnets) == sorted(wanted)
                and sorted(balancer.security_groups) == sorted(security_groups)
            )
            if same:  # the API documents that the call is idempotent
                return balancer
            raise DuplicateLoadBalancerName()
        balancer = create(self, name, security_groups, subnet_ids, subnet_mappings, scheme, loadbalancer_type, **kwargs)
        identity = balancer.arn.rsplit("/", 1)[1]
        balancer.dns_name = f"{name}-{identity}.elb.{self.region_name}.amazonaws.com"
        balancer.canonical_hosted_zone_id = "Z26RNL4JYFTOTI"
        balancer.eni_ids = []
        mappings = {mapping["SubnetId"]: mapping for mapping in subnet_mappings or []}
        for subnet in balancer.subnets:
            _add_interface(self, balancer, subnet, mappings.get(subnet.id, {}))
        return balancer

    def delete_load_balancer(self: Any, arn: str) -> None:
        balancer = self.load_balancers.get(arn)
        if balancer is None:
            return
        if str(balancer.attrs.get("deletion_protection.enabled")).lower() == "true":
            raise ELBClientError(
                "OperationNotPermitted",
                f"Load balancer '{arn}' cannot be deleted because deletion protection is enabled",
            )
        for eni in balancer_interfaces(balancer):
            _remove_interface(self.ec2_backend, eni)
        del self.load_balancers[arn]

    def describe_load_balancers(self: Any, arns: list[str] | None, names: list[str] | None) -> list[Any]:
        if not arns and not names:
            return list(self.load_balancers.values())
        found = []
        for arn in arns or []:
            if arn not in self.load_balancers:
                raise LoadBalancerNotFoundError()
            found.append(self.load_balancers[arn])
        by_name = {balancer.name: balancer for balancer in self.load_balancers.values()}
        for name in names or []:
            if name not in by_name:
                raise ELBClientError("LoadBalancerNotFound", f"Load balancers '[{name}]' not found")
            found.append(by_name[name])
        return found

    def set_subnets(self: Any, arn: str, subnets: list[str], subnet_mappings: list[dict[str, Any]]) -> list[Any]:
        balancer = self.load_balancers.get(arn)
        if balancer is None:
            raise LoadBalancerNotFoundError()
        mappings = {mapping["SubnetId"]: mapping for mapping in subnet_mappings or []}
        wanted = [self.ec2_backend.get_subnet(subnet_id) for subnet_id in [*subnets, *mappings]]
        keep = {subnet.id for subnet in wanted}
        for eni in balancer_interfaces(balancer):
            if eni.subnet.id in keep:
                keep.discard(eni.subnet.id)
            else:
                _remove_interface(self.ec2_backend, eni)
        for subnet in wanted:
            if subnet.id in keep:
                _add_interface(self, balancer, subnet, mappings.get(subnet.id, {}))
        balancer.eni_ids = [eni.id for eni in balancer_interfaces(balancer)]
        balancer.subnets = wanted
        return list(balancer.availability_zones)

    set_groups = ELBv2Backend.set_security_groups

    def set_security_groups(self: Any, arn: str, sec_groups: list[str]) -> None:
        set_groups(self, arn, sec_groups)
        balancer = self.load_balancers[arn]
        for eni in balancer_interfaces(balancer):
            eni._group_set = [self.ec2_backend.get_security_group_from_id(group) for group in sec_groups]

    def create_listener(self: Any, load_balancer_arn: str, protocol: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        balancer = self.load_balancers.get(load_balancer_arn)
        if balancer and any(str(listener.port) == str(port) for listener in balancer.listeners.values()):
            raise DuplicateListenerError()
        return create_listener_(self, load_balancer_arn, protocol, port, *args, **kwargs)

    def activate(self: Any) -> None:
        """Does nothing: the daemon activates the balancer once it forwards."""

    ELBv2Backend.create_load_balancer = create_load_balancer
    ELBv2Backend.delete_load_balancer = delete_load_balancer
    ELBv2Backend.describe_load_balancers = describe_load_balancers
    ELBv2Backend.set_subnets = set_subnets
    ELBv2Backend.set_security_groups = set_security_groups
    ELBv2Backend.create_listener = create_listener
    FakeLoadBalancer.activate = activate


def used_target_groups(backend: Any) -> dict[str, list[str]]:
    """{target group ARN: [balancer ARN, ...]} of the target groups that a listener forwards to."""
    used: dict[str, list[str]] = {}
    for balancer in backend.load_balancers.values():
        for listener in balancer.listeners.values():
            for action in listener.default_actions:
                if action.type == "forward":
                    for arn in backend._get_target_group_arns_from(action_data=action.data):
                        if balancer.arn not in used.setdefault(arn, []):
                            used[arn].append(balancer.arn)
    return used


def _install_targets() -> None:
    inherited = FakeTargetGroup.health_for

    def backend_of(group: Any) -> Any:
        return elbv2_backends[group.account_id][group.region_name]

    def health_for(self: Any, target: dict[str, Any], ec2_backend: Any) -> Any:
        registered = self.targets.get(target["Id"])
        if registered is None:
            return inherited(self, target, ec2_backend)

        def status(state: str, reason: str | None = None, description: str | None = None) -> Any:
            port = registered["Port"]
            health_port = port if self.health_check_port == "traffic-port" else self.health_check_port
            return FakeHealthStatus(target["Id"], port, str(health_port), state, reason, description)

        if not self.load_balancer_arns:
            return status(*_NOT_USED)
        instance = ec2_backend.get_instance_by_id(target["Id"]) if target["Id"].startswith("i-") else None
        if instance is not None and instance.state in ("stopping", "stopped"):
            return status(*_STOPPED)
        health = source.health(self.arn, target["Id"], int(registered["Port"]))
        return status(health.state, health.reason or None, health.description or None)

    FakeTargetGroup.health_for = health_for
    FakeTargetGroup.load_balancer_arns = property(
        lambda self: used_target_groups(backend_of(self)).get(self.arn, []), lambda self, value: None
    )
