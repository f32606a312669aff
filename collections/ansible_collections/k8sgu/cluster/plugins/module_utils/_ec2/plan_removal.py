# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans removals: whatever carries our tag and has no place in the description, each thing after those that use it."""

from __future__ import annotations

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_network import nat_zones

BALANCER = ("delete load-balancer", "delete target-group", "replace load-balancer", "detach targets")


def plan_removal(draft: plan.Draft, nodes: list[plan.Node], routes: list[str]) -> None:
    """Everything surplus; for `state: absent` that is everything."""
    instances = _instances(draft, nodes, routes)
    replaced = [step.key for step in draft.plan.steps if step.action == plan.REPLACE]
    users = [*instances, *replaced, *BALANCER]
    volumes = _volumes(draft, users)
    nat = _nat(draft, [*instances, *replaced, *_table_moves(draft)])
    groups = _groups(draft, [*users, *_set_groups(draft)])
    tables = _tables(draft, users)
    subnets = _subnets(draft, [*users, *nat, *tables, *groups, "update load-balancer/subnets"])
    gateway = _gateways(draft, [*users, *nat, *tables])
    if draft.removing:
        for vpc in draft.current.vpcs:
            everything = [*users, *volumes, *nat, *groups, *tables, *subnets, *gateway]
            draft.know(f"vpc/{vpc.id}", vpc.id)
            draft.add(plan.DELETE, f"vpc/{vpc.id}", plan.SURPLUS, "delete_vpc", everything, id=vpc.id)
    else:
        for vpc in draft.current.empty_twins():
            reason = f"it is empty and a second one like {draft.known('vpc')}: a call was repeated"
            draft.add(plan.DELETE, f"vpc/{vpc.id}", reason, "delete_vpc", id=vpc.id)
    _access(draft, users)


def _table_moves(draft: plan.Draft) -> list[str]:
    """Changes of routes and associations, which come before what they lead away from is removed."""
    return [step.key for step in draft.plan.steps if step.call in ("put_route", "associate")]


def _set_groups(draft: plan.Draft) -> list[str]:
    return [step.key for step in draft.plan.steps if step.call in ("set_group", "revoke", "set_balancer_group")]


def _instances(draft: plan.Draft, nodes: list[plan.Node], routes: list[str]) -> list[str]:
    wanted = {node.name for node in nodes}
    keys, ids = [], []
    for instance in draft.current.instances:
        if instance.state == "terminated" or (instance.alive and instance.name in wanted):
            continue
        ids.append(instance.id)
        if instance.alive:
            before = [*routes, "detach targets", "delete load-balancer"]
            keys.append(
                draft.add(
                    plan.DELETE,
                    f"instance/{instance.name or instance.id}",
                    plan.SURPLUS,
                    "terminate",
                    before,
                    id=instance.id,
                )
            )
    if keys or (ids and draft.removing):
        # What is on its way down still holds its subnet and its groups.
        keys.append(
            draft.add(plan.UPDATE, "wait/ended", "nodes must have ended", "wait_terminated", keys, quiet=True, ids=ids)
        )
    return keys


def _volumes(draft: plan.Draft, users: list[str]) -> list[str]:
    """Volumes outlive an instance only when somebody detached them or switched their deletion off."""
    attached = {
        volume for instance in draft.current.instances if instance.alive for volume in instance.volumes.values()
    }
    return [
        draft.add(plan.DELETE, f"volume/{volume.id}", "no node has it", "delete_volume", users, id=volume.id)
        for volume in draft.current.volumes.values()
        if volume.id not in attached and volume.state in ("available", "error")
    ]


def _nat(draft: plan.Draft, users: list[str]) -> list[str]:
    kept_ids = {draft.known(f"nat-gateway/{zone}") for zone in nat_zones(draft)}
    kept_addresses = {draft.known(f"elastic-ip/{zone}") for zone in nat_zones(draft)}
    gateways = [
        draft.add(
            plan.DELETE,
            f"nat-gateway/{nat.id}",
            plan.SURPLUS,
            "delete_nat",
            users,
            quiet=nat.state == "deleting",
            id=nat.id,
        )
        for nat in draft.current.nat_gateways
        if nat.id not in kept_ids and nat.state not in ("deleted", "failed")
    ]
    addresses = [
        draft.add(
            plan.DELETE, f"elastic-ip/{address.id}", plan.SURPLUS, "release_address", [*users, *gateways], id=address.id
        )
        for address in draft.current.addresses
        if address.id not in kept_addresses
    ]
    return gateways + addresses


def _groups(draft: plan.Draft, users: list[str]) -> list[str]:
    kept = {id for reference, id in draft.plan.ids.items() if reference.startswith("security-group/")}
    surplus = [group for group in draft.current.groups if group.id not in kept]
    # Groups that name each other cannot be deleted before their rules are gone.
    revokes = []
    for group in surplus:
        draft.know(f"security-group/{group.id}", group.id)
        if any(rule.peer.startswith("sg-") for rule in group.rules):
            revokes.append(
                draft.add(
                    plan.DELETE,
                    f"rules/{group.name}",
                    "its group goes, and groups that name each other cannot",
                    "revoke",
                    users,
                    reference=f"security-group/{group.id}",
                    rules={rule: why for rule, why in sorted(group.rules.items()) if rule.peer.startswith("sg-")},
                )
            )
    return [
        draft.add(
            plan.DELETE, f"security-group/{group.name}", plan.SURPLUS, "delete_group", [*users, *revokes], id=group.id
        )
        for group in surplus
    ]


def _tables(draft: plan.Draft, users: list[str]) -> list[str]:
    kept = {id for reference, id in draft.plan.ids.items() if reference.startswith("route-table/")}
    return [
        draft.add(
            plan.DELETE,
            f"route-table/{table.id}",
            plan.SURPLUS,
            "delete_table",
            [*users, *_table_moves(draft)],
            id=table.id,
            associations=sorted(table.associations.values()),
        )
        for table in draft.current.route_tables
        if table.id not in kept and not table.main
    ]


def _subnets(draft: plan.Draft, users: list[str]) -> list[str]:
    kept = {id for reference, id in draft.plan.ids.items() if reference.startswith("subnet/")}
    return [
        draft.add(
            plan.DELETE,
            f"subnet/{subnet.id}",
            f"{plan.SURPLUS}: {subnet.cidr} in {subnet.zone}",
            "delete_subnet",
            users,
            id=subnet.id,
        )
        for subnet in draft.current.subnets
        if subnet.id not in kept
    ]


def _gateways(draft: plan.Draft, users: list[str]) -> list[str]:
    kept = draft.known("gateway")
    keys = []
    for gateway in draft.current.gateways:
        if gateway.id == kept:
            continue
        detach = []
        if gateway.vpc_id:
            detach.append(
                draft.add(
                    plan.DETACH,
                    f"internet-gateway/{gateway.id}",
                    plan.SURPLUS,
                    "detach_gateway",
                    users,
                    id=gateway.id,
                    vpc_id=gateway.vpc_id,
                )
            )
        keys += detach
        keys.append(
            draft.add(
                plan.DELETE,
                f"internet-gateway/{gateway.id}",
                plan.SURPLUS,
                "delete_gateway",
                [*users, *detach],
                id=gateway.id,
            )
        )
    return keys


def _access(draft: plan.Draft, users: list[str]) -> None:
    description = draft.description
    for pair in draft.current.key_pairs:
        if draft.removing or not description.public_key or pair.name != names.key_pair(draft.cluster):
            draft.add(plan.DELETE, f"key-pair/{pair.name}", plan.SURPLUS, "delete_key", users, name=pair.name)
    if not draft.removing and description.instance_profiles:
        return
    moved = [step.key for step in draft.plan.steps if step.call == "set_profile"]
    for profile in draft.current.profiles.values():
        for name in profile.roles:
            draft.add(
                plan.DETACH,
                f"instance-profile/{profile.name}/{name}",
                plan.SURPLUS,
                "remove_role",
                [*users, *moved],
                profile=profile.name,
                role=name,
            )
        detached = [f"detach instance-profile/{profile.name}/{name}" for name in profile.roles]
        draft.add(
            plan.DELETE,
            f"instance-profile/{profile.name}",
            plan.SURPLUS,
            "delete_profile",
            [*users, *moved, *detached],
            name=profile.name,
        )
    for role in draft.current.roles.values():
        detached = [
            f"detach instance-profile/{profile.name}/{role.name}" for profile in draft.current.profiles.values()
        ]
        if role.policy is not None:
            draft.add(plan.DELETE, f"iam-policy/{role.name}", plan.SURPLUS, "delete_policy", users, name=role.name)
        draft.add(
            plan.DELETE,
            f"iam-role/{role.name}",
            plan.SURPLUS,
            "delete_role",
            [*users, *detached, f"delete iam-policy/{role.name}"],
            name=role.name,
        )
