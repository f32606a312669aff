# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans the load balancer in front of several control-plane nodes, with its target group, listener and targets."""

from __future__ import annotations

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, plan, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_network import PUBLIC, node_subnets

RESOURCE, GROUP, LISTENER = "load-balancer", "target-group", "listener"


def check_owner(draft: plan.Draft) -> None:
    """Names of load balancers are unique in a region: one of our name without our tag is somebody else's."""
    mark = tags.cluster_tag(draft.cluster)
    everything: list[state.LoadBalancer | state.TargetGroup] = []
    for found in everything + draft.current.load_balancers + draft.current.target_groups:
        if found.tags.get(mark) != tags.OWNED and not draft.removing:
            raise DescriptionError(
                f"name: there is a load balancer or target group {found.name} that is not the cluster's ({found.arn}); "
                "choose another name for the cluster, or rename that"
            )


def _mine(draft: plan.Draft) -> tuple[state.LoadBalancer | None, state.TargetGroup | None]:
    mark = tags.cluster_tag(draft.cluster)
    balancers = [item for item in draft.current.load_balancers if item.tags.get(mark) == tags.OWNED]
    groups = [item for item in draft.current.target_groups if item.tags.get(mark) == tags.OWNED]
    return (balancers[0] if balancers else None), (groups[0] if groups else None)


def plan_balancer(draft: plan.Draft, nodes: list[plan.Node]) -> None:
    """The steps for having it, or for being rid of it."""
    check_owner(draft)
    balancer, group = _mine(draft)
    if balancer:
        draft.know(RESOURCE, balancer.arn)
    if group:
        draft.know(GROUP, group.arn)
    if draft.removing or not draft.description.balanced:
        _removal(draft, balancer, group)
        return
    # The scheme cannot be changed; a load balancer is made again for it.
    scheme = draft.description.load_balancer_scheme
    if scheme == "internal":
        subnets = [reference for _zone, reference in node_subnets(draft)]
    elif draft.description.subnet_ids:
        subnets = [f"subnet/{id}" for id in draft.description.subnet_ids]
    else:
        subnets = [f"subnet/{PUBLIC}/{zone}" for zone in draft.facts.zones]
    again = bool(balancer and balancer.scheme != scheme)
    wanted = draft.tags(names.load_balancer(draft.cluster), role="api")
    if not balancer or again:
        reason = (
            "more than one control-plane node" if not balancer else f"its scheme is {balancer.scheme} and not {scheme}"
        )
        draft.add(
            plan.REPLACE if again else plan.CREATE,
            RESOURCE,
            reason,
            "replace_balancer" if again else "create_balancer",
            [
                "create vpc",
                "create security-group/api",
                "attach internet-gateway",
                *(f"create {subnet}" for subnet in subnets),
            ],
            name=names.load_balancer(draft.cluster),
            scheme=scheme,
            subnets=subnets,
            group="security-group/api",
            tags=wanted,
        )
    else:
        _changes(draft, balancer, subnets)
    _target_group(draft, group, wanted)
    serving = [
        item
        for item in draft.current.listeners
        if item.port == names.API_PORT and group and item.target_group_arn == group.arn
    ]
    if not serving or again:
        draft.add(
            plan.CREATE,
            LISTENER,
            plan.MISSING,
            "create_listener",
            [f"create {RESOURCE}", f"replace {RESOURCE}", f"create {GROUP}", f"delete {LISTENER}"],
            tags=wanted,
        )
    stray = [item.arn for item in draft.current.listeners if item not in serving]
    if stray and not again:
        draft.add(plan.DELETE, LISTENER, plan.SURPLUS, "delete_listeners", arns=stray)
    _targets(draft, group, nodes)
    if not balancer or again or balancer.state == "provisioning":
        keys = [f"create {RESOURCE}", f"replace {RESOURCE}", f"create {LISTENER}", "attach targets"]
        draft.add(plan.UPDATE, f"wait/{RESOURCE}", "it must be active", "wait_balancer", keys, quiet=True)


def _changes(draft: plan.Draft, balancer: state.LoadBalancer, subnets: list[str]) -> None:
    if balancer.groups != {draft.known("security-group/api")}:
        reason = f"its security groups are {', '.join(sorted(balancer.groups)) or 'none'}"
        draft.add(
            plan.UPDATE,
            f"{RESOURCE}/groups",
            reason,
            "set_balancer_group",
            ["create security-group/api"],
            group="security-group/api",
        )
    if balancer.subnet_ids != {draft.known(subnet) for subnet in subnets}:
        reason = "its subnets are not those of the description"
        draft.add(
            plan.UPDATE,
            f"{RESOURCE}/subnets",
            reason,
            "set_balancer_subnets",
            [f"create {subnet}" for subnet in subnets],
            subnets=subnets,
        )


def _target_group(draft: plan.Draft, group: state.TargetGroup | None, wanted: dict[str, str]) -> None:
    if not group:
        draft.add(
            plan.CREATE,
            GROUP,
            plan.MISSING,
            "create_target_group",
            ["create vpc"],
            name=names.load_balancer(draft.cluster),
            tags=wanted,
        )
    else:
        _health_check(draft, group)
    if not group or group.preserves_client_ip:
        reason = "a control-plane node must reach itself through it, which kept client addresses prevent"
        draft.add(plan.UPDATE, GROUP, reason, "target_group_attributes", [f"create {GROUP}"])


def _health_check(draft: plan.Draft, group: state.TargetGroup) -> None:
    differs = {key: value for key, value in names.HEALTH_CHECK.items() if group.health_check.get(key) != str(value)}
    if differs:
        listed = ", ".join(f"{key} {group.health_check.get(key, 'unset')} -> {value}" for key, value in differs.items())
        draft.add(plan.UPDATE, f"{GROUP}/health-check", listed, "modify_health_check", settings=differs)


def _targets(draft: plan.Draft, group: state.TargetGroup | None, nodes: list[plan.Node]) -> None:
    there = group.targets if group else frozenset()
    members = [node.name for node in nodes if node.role == tags.CONTROL_PLANE]
    lacking = [name for name in members if name in draft.replaced or draft.known(f"instance/{name}") not in there]
    if lacking:
        steps = [f"{action} instance/{name}" for name in lacking for action in ("create", "replace")]
        draft.add(
            plan.ATTACH,
            "targets",
            f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not behind it",
            "register",
            [*steps, "update wait/instances", f"create {GROUP}", f"create {LISTENER}"],
            instances=[f"instance/{name}" for name in lacking],
        )
    kept = {draft.known(f"instance/{name}") for name in members}
    stray = sorted(id for id in there if id not in kept)
    if stray:
        draft.add(plan.DETACH, "targets", f"{', '.join(stray)} is no control-plane node", "deregister", ids=stray)


def _removal(draft: plan.Draft, balancer: state.LoadBalancer | None, group: state.TargetGroup | None) -> None:
    if balancer:
        draft.add(plan.DELETE, RESOURCE, plan.SURPLUS, "delete_balancer", arn=balancer.arn)
    if group:
        draft.add(plan.DELETE, GROUP, plan.SURPLUS, "delete_target_group", [f"delete {RESOURCE}"], arn=group.arn)
