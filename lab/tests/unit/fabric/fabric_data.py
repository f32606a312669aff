"""A VPC to plan with: two public nodes, one private one."""

from __future__ import annotations

from ec2lab import model

LOCAL = model.Route("10.0.0.0/16", "local")
OUT = model.Rule("-1", None, None, cidrs=("0.0.0.0/0",))


def node(number: int, subnet: str = "subnet-public", public: bool = True, **more: object) -> model.Node:
    return model.Node(
        f"i-{number}",
        subnet,
        f"10.0.{0 if subnet == 'subnet-public' else 1}.{number}",
        f"02:00:00:00:00:{number:02x}",
        f"host-{number}",
        security_groups=("sg-a",),
        public_ip=f"198.18.0.{number}" if public else None,
        **more,  # type: ignore[arg-type]
    )


def vpc(**more: object) -> model.Vpc:
    fields: dict[str, object] = {
        "subnets": (
            model.Subnet("subnet-public", "10.0.0.0/24", (LOCAL, model.Route("0.0.0.0/0", "internet"))),
            model.Subnet("subnet-private", "10.0.1.0/24", (LOCAL, model.Route("0.0.0.0/0", "nat", "nat-1"))),
        ),
        "security_groups": (model.SecurityGroup("sg-a", (model.Rule("tcp", 22, 22, ("0.0.0.0/0",)),), (OUT,)),),
        "nodes": (node(4), node(5), node(6, "subnet-private", public=False)),
        "nat_gateways": (model.NatGateway("nat-1", "subnet-public", "10.0.0.9", "198.18.0.9"),),
        "internet_gateway": True,
    } | more
    return model.Vpc("vpc-1", ("10.0.0.0/16",), **fields)  # type: ignore[arg-type]
