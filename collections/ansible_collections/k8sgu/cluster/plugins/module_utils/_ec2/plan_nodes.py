# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans the nodes: which instances to launch, change, replace and end, and which part of the pod range each gets."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, plan, ranges, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError, Pool
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_access import key_pair_used, profile_steps
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_network import node_subnets


def check_twins(current: state.Current) -> None:
    """Two instances of one name: which of them is the node is not ours to guess."""
    seen: dict[str, str] = {}
    for instance in current.instances:
        if not instance.alive:
            continue
        if not instance.name:
            raise DescriptionError(
                f"name: instance {instance.id} has the cluster's tag and no Name; give it back its Name, take the "
                "tag off it, or end it"
            )
        if instance.name in seen:
            raise DescriptionError(
                f"name: instances {seen[instance.name]} and {instance.id} are both named {instance.name} and have "
                "the cluster's tag; "
                "end one of them or take the tag off it"
            )
        seen[instance.name] = instance.id


def nodes_wanted(draft: plan.Draft) -> list[plan.Node]:
    """Every node with its subnet and its pods' range. Nodes keep what they have; new ones get the first free range.

    What is held back from removal is among them, behind the others of its pool.
    """
    if draft.removing:
        return []
    description = draft.description
    subnets = node_subnets(draft)
    alive = draft.current.nodes()
    by_id = {draft.known(reference): (zone, reference) for zone, reference in subnets if draft.known(reference)}
    pods = ranges.network(description.pod_cidr)
    wanted = [
        (pool, number, pool.node_name(draft.cluster, number))
        for pool in description.pools
        for number in range(pool.count)
    ]
    members = [pool for pool in description.pools if pool.role == tags.CONTROL_PLANE]
    surplus = sorted(draft.held.keys() - {name for _pool, _number, name in wanted})
    wanted = sorted(
        [*wanted, *((members[0], members[0].count + place, name) for place, name in enumerate(surplus))],
        key=lambda entry: description.pools.index(entry[0]),
    )
    kept: dict[str, str] = {}
    for _pool, _number, name in wanted:
        instance = alive.get(name)
        cidr = instance.tags.get(tags.POD_CIDR, "") if instance else ""
        fits = name in draft.held or _fits(cidr, pods, description.pod_cidr_node_prefix)
        if cidr and fits and cidr not in kept.values():
            kept[name] = cidr
    free = ranges.free(pods, description.pod_cidr_node_prefix, kept.values())
    nodes = []
    for pool, number, name in wanted:
        zone, reference = subnets[number % len(subnets)]
        instance = alive.get(name)
        if instance and instance.subnet_id in by_id:
            zone, reference = by_id[instance.subnet_id]
        nodes.append(plan.Node(name, pool.role, pool.name, zone, reference, kept.get(name) or next(free)))
    return nodes


def _fits(cidr: str, pods: ranges.Network, prefix: int) -> bool:
    try:
        part = ranges.network(cidr)
    except ValueError:
        return False
    return part.prefixlen == prefix and part.subnet_of(pods)


def plan_nodes(draft: plan.Draft, nodes: list[plan.Node]) -> None:
    """Launches, changes in place and replacements. Ends are planned by `plan_removal`, after the routes to them."""
    alive = draft.current.nodes()
    pools = {pool.name: pool for pool in draft.description.pools}
    launches: list[str] = []
    for node in nodes:
        pool = pools[node.pool]
        instance = alive.get(node.name)
        if not instance:
            ended = [gone.id for gone in draft.current.instances if gone.name == node.name]
            reason = plan.MISSING if not ended else f"{', '.join(ended)} of this name has ended"
            launches.append(
                draft.add(
                    plan.CREATE,
                    f"instance/{node.name}",
                    reason,
                    "launch",
                    _before_launch(node),
                    **_launch(draft, node, pool, ended),
                )
            )
            continue
        draft.know(f"instance/{node.name}", instance.id)
        grounds = draft.replaced.get(node.name)
        if grounds:
            ended = [other.id for other in draft.current.instances if other.name == node.name]
            launches.append(
                draft.add(
                    plan.REPLACE,
                    f"instance/{node.name}",
                    "cannot be changed in place: " + "; ".join(grounds),
                    "replace",
                    _before_launch(node),
                    id=instance.id,
                    **_launch(draft, node, pool, ended),
                )
            )
        elif node.name not in draft.held:
            launches += _changes(draft, node, pool, instance)
    pending = [name for name in (node.name for node in nodes) if name in alive and alive[name].state == "pending"]
    if launches or pending:
        draft.add(
            plan.UPDATE,
            "wait/instances",
            "nodes must be running",
            "wait_running",
            launches,
            quiet=True,
            references=[*(key.partition(" ")[2] for key in launches), *(f"instance/{name}" for name in pending)],
        )


def _before_launch(node: plan.Node) -> list[str]:
    return [
        f"create {node.subnet}",
        f"update {node.subnet}",
        f"create security-group/{node.role}",
        "create key-pair",
        "replace key-pair",
        *profile_steps(node.role),
    ]


def _launch(draft: plan.Draft, node: plan.Node, pool: Pool, ended: list[str]) -> dict[str, Any]:
    """All that a launch needs; references stand for ids that there are not yet."""
    description = draft.description
    own = {"role": node.role, "pool": node.pool, "pod_cidr": node.pod_cidr}
    return {
        "reference": f"instance/{node.name}",
        "name": node.name,
        "image": draft.facts.images.get(pool.image),
        "instance_type": pool.instance_type,
        "key_name": key_pair_used(draft),
        "subnet": node.subnet,
        # With subnets that were brought, their own setting decides.
        "public_ip": None if description.subnet_ids else not description.private_nodes,
        "group": f"security-group/{node.role}",
        "profile": names.role(draft.cluster, description.region, node.role) if description.instance_profiles else "",
        "root_volume_size": pool.root_volume_size,
        "etcd_volume_size": pool.etcd_volume_size,
        "kms_key_id": description.kms_key_id,
        "ended": ended,
        "tags": draft.tags(node.name, **own),
        "volume_tags": draft.tags(node.name),
    }


def replacements(draft: plan.Draft, nodes: list[plan.Node]) -> dict[str, list[str]]:
    """The nodes that have to be launched again, each with its grounds."""
    alive = draft.current.nodes()
    pools = {pool.name: pool for pool in draft.description.pools}
    found = {
        node.name: replacement_grounds(draft, node, pools[node.pool], alive[node.name])
        for node in nodes
        if node.name in alive and node.name not in draft.held
    }
    return {name: grounds for name, grounds in found.items() if grounds}


def replacement_grounds(draft: plan.Draft, node: plan.Node, pool: Pool, instance: state.Instance) -> list[str]:
    """Why an instance cannot become what the description says without being launched again."""
    grounds = []

    def differs(what: str, there: object, wanted: object) -> None:
        grounds.append(f"{what} {there} -> {wanted}")

    if instance.instance_type != pool.instance_type:
        differs("instance_type", instance.instance_type, pool.instance_type)
    if pool.image.id:
        if instance.image_id != pool.image.id:
            differs("image", instance.image_id, pool.image.id)
    elif instance.image_id not in {image.id for image in draft.current.images.get(pool.image, ())}:
        differs("image", instance.image_id, f"{pool.image.name} of {pool.image.owner}")
    if draft.known(node.subnet) != instance.subnet_id:
        differs("subnet", f"{instance.subnet_id} in {instance.zone}", node.subnet.partition("/")[2])
    if instance.key_name != key_pair_used(draft):
        differs("key pair", instance.key_name or "none", key_pair_used(draft))
    pod_cidr = instance.tags.get(tags.POD_CIDR, "")
    if pod_cidr and pod_cidr != node.pod_cidr:
        differs("pod range", pod_cidr, node.pod_cidr)
    for what, device, size in (
        ("root volume", instance.root_device, pool.root_volume_size),
        ("etcd volume", names.ETCD_DEVICE, pool.etcd_volume_size),
    ):
        volume = draft.current.volumes.get(instance.volumes.get(device, ""))
        if not size and device in instance.volumes:
            differs(what, "there", "none")
        elif size and device == names.ETCD_DEVICE and device not in instance.volumes:
            differs(what, "none", f"{size} GiB")
        elif size and volume and volume.size > size:
            differs(what, f"{volume.size} GiB", f"{size} GiB")
        if volume and not volume.encrypted:
            differs(what, "not encrypted", "encrypted")
    return grounds


def _changes(draft: plan.Draft, node: plan.Node, pool: Pool, instance: state.Instance) -> list[str]:
    """What can be changed on a running instance. Gives the keys of steps after which it has to be waited for."""
    resource = f"instance/{node.name}"
    waited: list[str] = []
    if instance.state in ("stopped", "stopping"):
        waited.append(draft.add(plan.UPDATE, resource, f"it is {instance.state}", "start", id=instance.id))
    if instance.source_dest_check:
        reason = "its source/destination check would drop the traffic of pods"
        draft.add(plan.UPDATE, f"source-dest-check/{node.name}", reason, "no_source_dest_check", id=instance.id)
    if not instance.imds_tokens_required or instance.imds_hop_limit != 1:
        reason = "its metadata service must ask for tokens and not answer pods (IMDSv2, hop limit 1)"
        draft.add(plan.UPDATE, f"metadata-options/{node.name}", reason, "require_imdsv2", id=instance.id)
    group = f"security-group/{node.role}"
    if instance.groups != {draft.known(group)}:
        reason = f"its groups are {', '.join(sorted(instance.groups)) or 'none'} and not the role's alone"
        draft.add(
            plan.UPDATE, f"groups/{node.name}", reason, "set_group", [f"create {group}"], id=instance.id, group=group
        )
    _profile_of(draft, node, instance)
    for what, device, size in (
        ("root", instance.root_device, pool.root_volume_size),
        ("etcd", names.ETCD_DEVICE, pool.etcd_volume_size),
    ):
        volume = draft.current.volumes.get(instance.volumes.get(device, ""))
        if size and volume and (volume.size < size or volume.kind != "gp3"):
            reason = f"{volume.size} GiB {volume.kind} -> {size} GiB gp3; the file system grows at the next start"
            draft.add(plan.UPDATE, f"volume/{node.name}/{what}", reason, "modify_volume", id=volume.id, size=size)
    wanted = draft.tags(node.name, role=node.role, pool=node.pool, pod_cidr=node.pod_cidr)
    draft.keep_tags(resource, instance.id, instance.tags, wanted)
    return waited


def _profile_of(draft: plan.Draft, node: plan.Node, instance: state.Instance) -> None:
    description: Description = draft.description
    there = instance.profile_arn.rpartition("/")[2]
    wanted = names.role(draft.cluster, description.region, node.role) if description.instance_profiles else ""
    ours = {names.role(draft.cluster, description.region, role) for role in (tags.CONTROL_PLANE, tags.WORKER)}
    if there == wanted or (not wanted and there not in ours):
        return
    draft.add(
        plan.UPDATE,
        f"profile/{node.name}",
        f"its instance profile is {there or 'none'} and not {wanted or 'none'}",
        "set_profile",
        profile_steps(node.role),
        id=instance.id,
        profile=wanted,
    )
