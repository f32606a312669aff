"""The packet filter's text by table."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fabric_data import OUT, node, vpc

from ec2lab import balancer, model, rules
from ec2lab.rules import Surroundings, rule_matches, ruleset

ANYWHERE = ("0.0.0.0/0",)


@pytest.mark.parametrize(
    ("rule", "ingress", "egress"),
    [
        (model.Rule("-1", None, None, ANYWHERE), ["meta nfproto ipv4"], ["meta nfproto ipv4"]),
        (model.Rule("tcp", 22, 22, ANYWHERE), ["tcp dport 22"], ["tcp dport 22"]),
        (model.Rule("udp", 30000, 32767, ANYWHERE), ["udp dport 30000-32767"], ["udp dport 30000-32767"]),
        (model.Rule("tcp", 0, 65535, ANYWHERE), ["meta l4proto tcp"], ["meta l4proto tcp"]),
        (model.Rule("tcp", None, None, ANYWHERE), ["meta l4proto tcp"], ["meta l4proto tcp"]),
        (model.Rule("icmp", 8, -1, ANYWHERE), ["icmp type 8"], ["icmp type 8"]),
        (model.Rule("icmp", 3, 4, ANYWHERE), ["icmp type 3 icmp code 4"], ["icmp type 3 icmp code 4"]),
        (model.Rule("icmp", -1, -1, ANYWHERE), ["meta l4proto icmp"], ["meta l4proto icmp"]),
        (model.Rule("-1", None, None, ("10.0.0.0/8",)), ["ip saddr { 10.0.0.0/8 }"], ["ip daddr { 10.0.0.0/8 }"]),
        (
            model.Rule("tcp", 80, 80, ("10.0.0.0/24", "10.0.1.0/24", "10.0.0.7/32")),  # overlapping, adjacent
            ["ip saddr { 10.0.0.0/23 } tcp dport 80"],
            ["ip daddr { 10.0.0.0/23 } tcp dport 80"],
        ),
        (
            model.Rule("tcp", 80, 80, ("10.0.0.0/8",), ("sg-b", "sg-a")),
            [
                "ip saddr { 10.0.0.0/8 } tcp dport 80",
                "ip saddr @members_sg_a tcp dport 80",
                "ip saddr @members_sg_b tcp dport 80",
            ],
            [
                "ip daddr { 10.0.0.0/8 } tcp dport 80",
                "ip daddr @members_sg_a tcp dport 80",
                "ip daddr @members_sg_b tcp dport 80",
            ],
        ),
        (model.Rule("tcp", 80, 80, ("::/0",)), [], []),  # IPv6 alone permits nothing here
        (model.Rule("tcp", 80, 80), [], []),
    ],
)
def test_a_permission_as_matches(rule: model.Rule, ingress: list[str], egress: list[str]) -> None:
    assert rule_matches(rule, "ingress") == ingress
    assert rule_matches(rule, "egress") == egress


def chain(text: str, name: str) -> list[str]:
    """The statements of a chain."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"  chain {name} "))
    return [line.strip() for line in lines[start + 1 : lines.index("  }", start)]]


def elements(text: str, name: str) -> set[str]:
    line = next(line for line in text.splitlines() if line.split()[1:2] == [name])
    _, _, listed = line.partition("elements = { ")
    return set(listed.partition(" }")[0].split(", ")) - {""}


def test_the_table_is_replaced_as_one() -> None:
    assert ruleset(vpc(), Surroundings()).splitlines()[:3] == [
        "table inet ec2lab {}",
        "delete table inet ec2lab",
        "table inet ec2lab {",
    ]


def test_groups_permit_and_everything_else_drops() -> None:
    text = ruleset(vpc(), Surroundings())
    assert chain(text, "ingress_0") == ["tcp dport 22 accept", "drop"]
    assert chain(text, "egress_0") == ["meta nfproto ipv4 accept", "drop"]


def test_nodes_with_the_same_groups_share_chains_and_others_do_not() -> None:
    other = dataclasses.replace(node(5), security_groups=("sg-b", "sg-a"))
    text = ruleset(vpc(nodes=(node(4), other, dataclasses.replace(node(7), security_groups=()))), Surroundings())
    assert elements(text, "ingress_of") == {'"n4" : jump ingress_1', '"n5" : jump ingress_2', '"n7" : jump ingress_0'}
    assert chain(text, "ingress_0") == ["drop"]  # no group permits nothing
    assert elements(text, "members_sg_a") == {"10.0.0.4", "10.0.0.5"}
    assert elements(text, "members_sg_b") == {"10.0.0.5"}  # worn, though never defined


def test_a_group_referred_to_is_a_set_even_when_empty() -> None:
    group = model.SecurityGroup("sg-a", (model.Rule("-1", None, None, groups=("sg-elsewhere",)),), (OUT,))
    assert elements(ruleset(vpc(security_groups=(group,)), Surroundings()), "members_sg_elsewhere") == set()


def test_checks_and_cuts_are_per_node() -> None:
    text = ruleset(vpc(nodes=(node(4), node(5, source_dest_check=False), node(6, cut=True))), Surroundings())
    assert elements(text, "checked") == {'"n4"', '"n6"'}
    assert elements(text, "cut") == {'"n6"'}
    assert elements(text, "owned") == {'"n4" . 10.0.0.4', '"n5" . 10.0.0.5', '"n6" . 10.0.0.6'}


def test_the_name_server_answers_an_interface_s_own_address_alone() -> None:
    statements = chain(ruleset(vpc(), Surroundings()), "input")
    refusal = next(n for n, line in enumerate(statements) if "ip saddr != @owned drop" in line)
    assert "{ 169.254.169.253, 10.0.0.2 }" in statements[refusal]
    assert "10.0.0.2" in statements[refusal + 1] and statements[refusal + 1].endswith("accept")


def test_ways_out_and_public_addresses() -> None:
    text = ruleset(vpc(), Surroundings(forbidden=("127.0.0.0/8", "192.0.2.2/32")))
    assert elements(text, "may_go_out") == {'"n4"', '"n5"', '"n6"'}
    assert elements(text, "outward") == {
        "10.0.0.4 : 198.18.0.4",
        "10.0.0.5 : 198.18.0.5",
        "10.0.1.6 : 198.18.0.9",  # the NAT gateway's
    }
    assert elements(text, "private_of") == {"198.18.0.4 : 10.0.0.4", "198.18.0.5 : 10.0.0.5"}
    assert elements(text, "forbidden") == {"127.0.0.0/8", "192.0.2.2/32"}
    closed = ruleset(vpc(internet_gateway=False), Surroundings())
    assert not elements(closed, "may_go_out") | elements(closed, "private_of")


TARGETS = (model.Target("i-4", "10.0.0.4", 6443), model.Target("i-5", "10.0.0.5", 6443))
BALANCER = model.LoadBalancer(
    "lb", "lb", ("sg-lb",), (("subnet-public", "10.0.0.8", "198.18.0.8"),), (model.Listener(443, "tg"),)
)


def balanced(**more: object) -> model.Vpc:
    group = model.TargetGroup("tg", TARGETS, model.HealthCheck())
    return vpc(load_balancers=(BALANCER,), target_groups=(dataclasses.replace(group, **more),))  # type: ignore[arg-type]


def healthy(*instances: str) -> Surroundings:
    return Surroundings(healthy=frozenset(("tg", instance, 6443) for instance in instances))


BOTH = "numgen random mod 2 map { 0 : 10.0.0.4 . 6443, 1 : 10.0.0.5 . 6443 }"


@pytest.mark.parametrize(
    ("around", "destination"),
    [
        (healthy("i-4", "i-5"), BOTH),
        # The other one failed, or nobody has checked it yet.
        (healthy("i-4"), "10.0.0.4:6443"),
        (healthy("i-5"), "10.0.0.5:6443"),
        (healthy(), BOTH),  # a network load balancer fails open
    ],
)
def test_a_listener_leads_to_healthy_targets(around: Surroundings, destination: str) -> None:
    statements = chain(ruleset(balanced(), around), "destination")
    assert statements[0] == f"ip daddr 10.0.0.8 tcp dport 443 ct mark set 256 dnat ip to {destination}"
    assert statements[1] == (
        f'iifname "host" ip daddr 198.18.0.8 tcp dport 443 ct mark set 256 dnat ip to {destination}'
    )


def test_a_listener_without_targets_leads_nowhere() -> None:
    assert not [line for line in chain(ruleset(balanced(targets=()), healthy()), "destination") if "443" in line]
    gone = (model.Target("i-77", "10.0.0.77", 6443),)
    assert not [line for line in chain(ruleset(balanced(targets=gone), healthy()), "destination") if "443" in line]


def test_the_source_is_the_balancers_unless_the_clients_is_preserved() -> None:
    text = ruleset(balanced(), healthy())
    assert "ct mark 256 ip daddr 10.0.0.0/24 snat ip to 10.0.0.8" in chain(text, "source")
    preserved = ruleset(balanced(preserve_client_ip=True), healthy())
    assert "ct mark set 256" not in preserved


def test_a_balancer_wears_groups_too() -> None:
    text = ruleset(balanced(), healthy())
    assert elements(text, "members_sg_lb") == {"10.0.0.8"}
    (statement,) = [line for line in chain(text, "balancer_ingress") if "jump" in line]
    assert statement.startswith("ip daddr { 10.0.0.8, 198.18.0.8 } jump ingress_")
    bare = dataclasses.replace(BALANCER, security_groups=())
    open_text = ruleset(dataclasses.replace(balanced(), load_balancers=(bare,)), healthy())
    assert not [line for line in chain(open_text, "balancer_ingress") if "jump" in line]


def test_a_balancer_s_public_address_is_reached_by_a_public_one() -> None:
    """By a node's own or its NAT gateway's: no group stands for these."""
    shape = balanced()

    def permitted(*rules: model.Rule) -> list[str]:
        group = model.SecurityGroup("sg-lb", rules)
        text = ruleset(dataclasses.replace(shape, security_groups=(*shape.security_groups, group)), healthy())
        lines = [line for line in chain(text, "balancer_ingress") if "ip daddr { 198.18.0.8 }" in line]
        assert lines[-1] == 'iifname "n*" ip daddr { 198.18.0.8 } drop'
        return [line.partition("} ")[2] for line in lines[:-1]]

    assert permitted(model.Rule("tcp", 443, 443, groups=("sg-a",))) == []
    nat = model.Rule("tcp", 443, 443, cidrs=("198.18.0.9/32",))
    assert permitted(nat) == ["ip saddr { 10.0.1.6 } tcp dport 443 accept"]
    own = model.Rule("tcp", 443, 443, cidrs=("198.18.0.4/31",))
    assert permitted(own, nat)[0] == "ip saddr { 10.0.0.4, 10.0.0.5 } tcp dport 443 accept"


@pytest.mark.parametrize(
    ("cidrs", "collapsed"),
    [(["10.0.0.0/8", "10.1.0.0/16"], ["10.0.0.0/8"]), (["10.0.0.5/24"], ["10.0.0.0/24"]), (["::/0"], [])],
)
def test_networks_without_overlaps(cidrs: list[str], collapsed: list[str]) -> None:
    assert rules.collapse(cidrs) == collapsed


# Health


@pytest.mark.parametrize(
    ("matcher", "status", "fits"),
    [
        ("200-399", 200, True),
        ("200-399", 399, True),
        ("200-399", 400, False),
        ("200,301", 301, True),
        ("200", 204, False),
    ],
)
def test_matchers(matcher: str, status: int, fits: bool) -> None:
    assert balancer.matches(matcher, status) is fits


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("", "initial"),
        ("+", "healthy"),
        ("-", "initial"),
        ("--", "unhealthy"),
        ("+-", "healthy"),
        ("+--", "unhealthy"),
        ("+-+-+-", "healthy"),
        ("--++", "unhealthy"),
        ("--+++", "healthy"),
        ("--++-+", "unhealthy"),
    ],
)
def test_thresholds(outcomes: str, state: str) -> None:
    check = model.HealthCheck(healthy_threshold=3, unhealthy_threshold=2)
    record = balancer._Record(balancer.Probe(Path("/"), "", "", 0, check))
    for outcome in outcomes:
        balancer.assess(record, None if outcome == "+" else "refused")
    assert record.health.state == state


def test_what_is_checked_and_what_is_not_in_use() -> None:
    group = model.TargetGroup("tg", (*TARGETS, model.Target("i-9", "10.0.0.9", 6443)), model.HealthCheck(port=80))
    probes, idle = balancer.plan(vpc(load_balancers=(BALANCER,), target_groups=(group,)), Path("/n"))
    assert {(p.source, p.address, p.port) for p in probes.values()} == {
        ("10.0.0.8", "10.0.0.4", 80),
        ("10.0.0.8", "10.0.0.5", 80),
    }
    assert [health.reason for health in idle.values()] == ["Target.InvalidState"]
    probes, idle = balancer.plan(vpc(target_groups=(group,)), Path("/n"))
    assert not probes
    assert sorted(health.reason for health in idle.values()) == [
        "Target.InvalidState",
        "Target.NotInUse",
        "Target.NotInUse",
    ]
