"""Route planning by table."""

from __future__ import annotations

import dataclasses

import pytest
from fabric_data import LOCAL, node, vpc

from ec2lab import fabric, model, routes
from ec2lab.routes import MAIN, SHARED, KernelRoute, KernelRule

PUBLIC, PRIVATE = routes.table("subnet-public"), routes.table("subnet-private")
PODS = "10.200.4.0/24"


def with_routes(*more: model.Route) -> model.Vpc:
    made = vpc()
    first, *others = made.subnets
    return dataclasses.replace(made, subnets=(dataclasses.replace(first, routes=(LOCAL, *more)), *others))


def in_public(made: model.Vpc, internet: bool = True) -> set[KernelRoute]:
    return {route for route in routes.kernel_routes(made, internet) if route.table == PUBLIC}


INTERNET = KernelRoute(PUBLIC, "default", device="internet", via="169.254.240.2")
# The lab's own internet, to which the same route leads.
OUTSIDE = KernelRoute(PUBLIC, "198.51.100.10", device="outside", via="169.254.241.1")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([], {KernelRoute(PUBLIC, "default", "blackhole")}),
        ([model.Route("0.0.0.0/0", "internet")], {INTERNET, OUTSIDE}),
        ([model.Route("0.0.0.0/0", "blackhole")], {KernelRoute(PUBLIC, "default", "blackhole")}),
        (
            [model.Route("0.0.0.0/0", "internet"), model.Route(PODS, "instance", "i-5")],
            {INTERNET, OUTSIDE, KernelRoute(PUBLIC, PODS, device="n5", via="10.0.0.5")},
        ),
        (  # an instance that does not run
            [model.Route("0.0.0.0/0", "internet"), model.Route(PODS, "instance", "i-77")],
            {INTERNET, OUTSIDE, KernelRoute(PUBLIC, PODS, "blackhole")},
        ),
        (  # an instance for a part of the internet, the lab's own in it: the most specific route wins
            [model.Route("0.0.0.0/0", "internet"), model.Route("198.51.100.0/24", "instance", "i-5")],
            {INTERNET, KernelRoute(PUBLIC, "198.51.100.0/24", device="n5", via="10.0.0.5")},
        ),
        (  # an instance for everything: a NAT instance
            [model.Route("0.0.0.0/0", "instance", "i-5")],
            {KernelRoute(PUBLIC, "default", device="n5", via="10.0.0.5")},
        ),
        ([model.Route("0.0.0.0/0", "nat", "nat-9")], {KernelRoute(PUBLIC, "default", "blackhole")}),
    ],
)
def test_a_route_table_in_the_kernel(more: list[model.Route], expected: set[KernelRoute]) -> None:
    assert in_public(with_routes(*more)) == expected


def test_without_a_way_out_the_internet_is_unreachable() -> None:
    """But for the lab's own, which needs nothing of the host."""
    assert in_public(vpc(), internet=False) == {KernelRoute(PUBLIC, "default", "unreachable"), OUTSIDE}


def test_without_an_internet_gateway_its_routes_lead_nowhere() -> None:
    assert in_public(vpc(internet_gateway=False)) == {KernelRoute(PUBLIC, "default", "blackhole")}


def test_nodes_are_reached_and_the_rest_of_the_range_is_not() -> None:
    main = {route for route in routes.kernel_routes(vpc(), True) if route.table == MAIN}
    assert main == {
        KernelRoute(MAIN, "10.0.0.4", device="n4"),
        KernelRoute(MAIN, "10.0.0.5", device="n5"),
        KernelRoute(MAIN, "10.0.1.6", device="n6"),
        KernelRoute(MAIN, "10.0.0.0/16", "blackhole"),
    }


def test_what_the_vpc_itself_sends_finds_routed_ranges() -> None:
    made = routes.kernel_routes(with_routes(model.Route(PODS, "instance", "i-5")), True)
    assert KernelRoute(SHARED, PODS, device="n5", via="10.0.0.5") in made


def test_a_table_per_subnet_chosen_by_mark() -> None:
    assert routes.kernel_rules(vpc()) == {
        KernelRule(100, 0, MAIN),
        KernelRule(200, PUBLIC, PUBLIC),
        KernelRule(200, PRIVATE, PRIVATE),
        KernelRule(300, 0, SHARED),
    }


def test_nodes_on_the_internet_and_their_addresses() -> None:
    assert routes.public_sources(vpc()) == {"i-4": "198.18.0.4", "i-5": "198.18.0.5", "i-6": "198.18.0.9"}
    assert routes.public_sources(vpc(internet_gateway=False)) == {}
    assert routes.public_sources(vpc(nat_gateways=())) == {"i-4": "198.18.0.4", "i-5": "198.18.0.5"}
    assert routes.public_sources(vpc(nodes=(node(4, public=False),))) == {}
    # A NAT gateway in a private subnet leads nowhere.
    buried = model.NatGateway("nat-1", "subnet-private", "10.0.1.9", "198.18.0.9")
    assert routes.public_sources(vpc(nodes=(node(6, "subnet-private", False),), nat_gateways=(buried,))) == {}


def test_public_addresses_are_those_that_answer() -> None:
    balancer = model.LoadBalancer("lb", "lb", (), (("subnet-public", "10.0.0.8", "198.18.0.8"),), ())
    assert routes.public_addresses(vpc(load_balancers=(balancer,))) == ["198.18.0.4", "198.18.0.5", "198.18.0.8"]
    assert routes.public_addresses(vpc(load_balancers=(balancer,), internet_gateway=False)) == []


# What is done about a difference


def seen(made: model.Vpc, **other: object) -> fabric.Seen:
    """A kernel that agrees with the description, but for `other`."""
    links = frozenset({f"n{n.id[2:]}" for n in made.nodes} | {"lo", "host", "internet"})
    agreeing = fabric.Seen(
        links,
        links,
        frozenset(routes.local_addresses(made)),
        frozenset(routes.kernel_routes(made, True)),
        frozenset(routes.kernel_rules(made)),
    )
    return dataclasses.replace(agreeing, **other)  # type: ignore[arg-type]


def test_agreement_needs_nothing() -> None:
    assert fabric.ip_commands(vpc(), seen(vpc()), True) == []


def test_a_new_node_is_plugged_in_before_routes_lead_through_it() -> None:
    before, after = vpc(nodes=(node(4),)), with_routes(model.Route(PODS, "instance", "i-5"))
    commands = fabric.ip_commands(after, seen(before), True)
    positions = [
        commands.index("link add name n5 mtu 9001 type veth peer name p5 mtu 9001 address 02:00:00:00:00:05"),
        commands.index("link set dev n5 up"),
        commands.index("route replace 10.0.0.5 dev n5 table 254"),
        commands.index(f"route replace {PODS} via 10.0.0.5 dev n5 onlink table {PUBLIC}"),
    ]
    assert positions == sorted(positions)


def test_a_node_that_left_takes_its_routes_along() -> None:
    commands = fabric.ip_commands(vpc(nodes=(node(4), node(5))), seen(vpc()), True)
    assert commands == ["link delete dev n6"]


def test_a_route_that_changed_is_replaced_and_not_deleted_first() -> None:
    before = with_routes(model.Route("0.0.0.0/0", "internet"), model.Route(PODS, "instance", "i-5"))
    after = with_routes(model.Route("0.0.0.0/0", "internet"), model.Route(PODS, "instance", "i-4"))
    commands = fabric.ip_commands(after, seen(before), True)
    assert not [command for command in commands if "delete" in command]
    assert f"route replace {PODS} via 10.0.0.4 dev n4 onlink table {PUBLIC}" in commands


def test_a_removed_route_and_a_removed_subnet_go() -> None:
    before = with_routes(model.Route("0.0.0.0/0", "internet"), model.Route(PODS, "instance", "i-5"))
    assert f"route delete {PODS} via 10.0.0.5 dev n5 onlink table {PUBLIC}" in fabric.ip_commands(
        vpc(), seen(before), True
    )
    after = vpc(subnets=vpc().subnets[:1], nodes=(node(4), node(5)))
    assert f"rule delete priority 200 fwmark {PRIVATE} table {PRIVATE}" in fabric.ip_commands(after, seen(vpc()), True)
    assert "address delete 10.0.1.1/32 dev lo" in fabric.ip_commands(after, seen(vpc()), True)
