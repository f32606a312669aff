"""Routes: a route to an instance leads to its primary interface; a route whose target is gone is a blackhole.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Route.html
"""

from __future__ import annotations

from typing import Any

from moto.ec2.models.route_tables import Route, RouteBackend

from ec2lab.api.errors import error


def target_instance(route: Any) -> Any:
    """The instance that a route leads to, or None."""
    if route.instance:
        return route.instance
    return route.interface.instance if route.interface else None


def is_live(route: Any) -> bool:
    if route.instance or route.interface:
        instance = target_instance(route)
        return instance is not None and instance.state in ("pending", "running")
    if route.nat_gateway:
        return str(route.nat_gateway.state) == "available"
    if route.gateway is not None and hasattr(route.gateway, "vpc"):
        return route.gateway.vpc is not None and route.gateway.vpc.id == route.route_table.vpc_id
    return True


def install() -> None:
    create, replace = RouteBackend.create_route, RouteBackend.replace_route

    def check(backend: Any, nat_gateway_id: str | None, instance_id: str | None) -> None:
        if nat_gateway_id:
            gateway = backend.nat_gateways.get(nat_gateway_id)
            if gateway is None or gateway.state in ("deleting", "deleted"):
                raise error("InvalidNatGatewayID.NotFound", f"The natGateway ID '{nat_gateway_id}' does not exist")
        if instance_id and backend.get_instance(instance_id).state in ("shutting-down", "terminated"):
            raise error("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")

    def create_route(self: Any, *args: Any, **kwargs: Any) -> Any:
        check(self, kwargs.get("nat_gateway_id"), kwargs.get("instance_id"))
        return create(self, *args, **kwargs)

    def replace_route(self: Any, *args: Any, **kwargs: Any) -> Any:
        check(self, kwargs.get("nat_gateway_id"), kwargs.get("instance_id"))
        return replace(self, *args, **kwargs)

    def instance_id(self: Any) -> str | None:
        instance = target_instance(self)
        return str(instance.id) if instance else None

    def network_interface_id(self: Any) -> str | None:
        if self.interface:
            return str(self.interface.id)
        eni = self.instance.nics.get(0) if self.instance else None
        return str(eni.id) if eni else None

    RouteBackend.create_route = create_route
    RouteBackend.replace_route = replace_route
    Route.instance_id = property(instance_id)
    Route.network_interface_id = property(network_interface_id)
    Route.instance_owner_id = property(lambda self: self.instance_id and self.route_table.ec2_backend.account_id)
    Route.state = property(lambda self: "active" if is_live(self) else "blackhole")
