# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load balancer stays as long as more than one control-plane node uses it, and keeps its health check."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from test_ec2_members import members, wanted
from test_ec2_plan import FACTS, OURS

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import cluster, names, plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer.load_balancer import Listener, LoadBalancer
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer.target_group import (
    HEALTH_CHECK,
    Deregister,
    ModifyHealthCheck,
    TargetGroup,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.groups import Rule, SecurityGroup, rules_wanted
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.check import SHUTDOWN_DELAY

HEALTHY = {key: str(value) for key, value in HEALTH_CHECK.items()}


def balanced(count: int, **of_group: Any) -> Current:
    """An account with so many control-plane nodes behind a load balancer."""
    current = members(count)
    nodes = [node for node in current.instances if "control-plane" in node.name]
    group = TargetGroup("tg-1", "demo-api", False, frozenset(node.id for node in nodes), OURS, {**HEALTHY, **of_group})
    given = wanted(3)
    current.groups = []
    for role in (tags.CONTROL_PLANE, tags.WORKER, "api"):
        found = rules_wanted(given, role, [], False)
        rules = {
            Rule(rule.protocol, rule.first, rule.last, rule.peer.replace("security-group/", "sg-")): ""
            for rule in found
        }
        name = names.security_group("demo", role)
        own = {**OURS, tags.NAME: name, tags.ROLE: role}
        current.groups.append(SecurityGroup(f"sg-{role}", name, "vpc-1", own, rules))
    subnets, groups = frozenset({"subnet-1"}), frozenset({"sg-api"})
    current.load_balancers = [LoadBalancer("lb-1", "demo-api", "dns", "internal", "active", subnets, groups, OURS)]
    current.target_groups = [group]
    current.listeners = [Listener("listener-1", names.API_PORT, "tg-1")]
    return current


def carried_out(current: Current, made: plan.Plan) -> Current:
    """The account after a plan that only removes."""
    gone = {vars(step).get("id") or vars(step).get("arn") for step in made.changes}
    stray = {id for step in made.of(Deregister) for id in step.ids}
    current.instances = [node for node in current.instances if node.id not in gone]
    current.load_balancers = [item for item in current.load_balancers if item.arn not in gone]
    current.target_groups = [
        dataclasses.replace(item, targets=item.targets - stray)
        for item in current.target_groups
        if item.arn not in gone
    ]
    current.groups = [item for item in current.groups if item.id not in gone]
    return current


def of_balancer(made: plan.Plan) -> list[str]:
    parts = ("load-balancer", "target-group", "listener", "targets", "security-group/k8sgu-demo-api")
    return [step.key for step in made.changes if any(part in step.resource for part in parts)]


ALL_OF_IT = ["delete load-balancer", "delete target-group", "delete security-group/k8sgu-demo-api"]


@pytest.mark.parametrize("count", [3, 5])
def test_it_is_removed_in_the_run_that_ends_with_one_node(count: int) -> None:
    current = balanced(count)
    assert cluster.make(wanted(count), current, FACTS).steps == []
    for left in range(count - 1, 1, -1):
        made = cluster.make(wanted(1), current, FACTS)
        assert made.balanced and made.warnings
        # The node that goes is taken from behind it first, and nothing else of it changes.
        assert of_balancer(made) == ["detach targets"]
        order = [step.key for step in made.changes]
        assert order.index("detach targets") < order.index(f"delete instance/demo-control-plane-{left}")
        current = carried_out(current, made)
    made = cluster.make(wanted(1), current, FACTS)
    assert of_balancer(made) == ALL_OF_IT and not made.balanced and made.warnings == []
    again = cluster.make(wanted(1), carried_out(current, made), FACTS)
    assert of_balancer(again) == [] and not again.balanced


def test_it_stays_while_no_member_may_go() -> None:
    current = balanced(3)
    current.instances = [
        dataclasses.replace(node, state="stopped") if node.name == "demo-control-plane-0" else node
        for node in current.instances
    ]
    assert of_balancer(cluster.make(wanted(1), current, FACTS)) == []


def test_one_that_is_gone_is_not_made_for_members_that_are_left() -> None:
    current = balanced(3)
    current.load_balancers, current.listeners = [], []
    made = cluster.make(wanted(1), current, FACTS)
    assert of_balancer(made) == ALL_OF_IT[1:] and not made.balanced


@pytest.mark.parametrize(
    ("key", "value"),
    [("HealthCheckTimeoutSeconds", "10"), ("HealthCheckIntervalSeconds", "30"), ("HealthCheckPath", "/")],
)
def test_a_health_check_that_was_changed_is_put_back(key: str, value: str) -> None:
    (step,) = cluster.make(wanted(3), balanced(3, **{key: value}), FACTS).steps
    assert step.key == "update target-group/health-check" and isinstance(step, ModifyHealthCheck)
    assert step.settings == {key: HEALTH_CHECK[key]}
    assert step.reason == f"{key} {value} -> {HEALTH_CHECK[key]}"


def test_the_health_check_is_within_what_a_network_load_balancer_takes() -> None:
    check = {key: value for key, value in HEALTH_CHECK.items() if isinstance(value, int)}
    assert 2 <= check["HealthCheckTimeoutSeconds"] < check["HealthCheckIntervalSeconds"]
    assert 5 <= check["HealthCheckIntervalSeconds"] <= 300 and check["HealthCheckTimeoutSeconds"] <= 120


def test_a_server_that_stops_serves_for_longer_than_its_balancer_needs_to_notice() -> None:
    check = {key: value for key, value in HEALTH_CHECK.items() if isinstance(value, int)}
    least, _most = SHUTDOWN_DELAY
    assert least > check["HealthCheckIntervalSeconds"] * check["UnhealthyThresholdCount"]
    # The one that stopped before is back by then.
    assert least > check["HealthCheckIntervalSeconds"] * check["HealthyThresholdCount"]
