# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nodes to have, with their subnets and pod ranges, and the launch of those that are missing or replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import (
    billing,
    names,
    plan,
    ranges,
    session,
    tags,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access import key_pair, profiles
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import CONSISTENCY_S, NOT_FOUND
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, Pool
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import MAKE, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import subnets
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes import changes, instances, volumes

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.images import MachineImage

# How often a client token may turn out to belong to an instance that has ended.
GENERATIONS = 8


@dataclass(frozen=True)
class Node:
    """A node that there should be, with what has been decided for it."""

    name: str
    role: str
    pool: str
    subnet: str  # the reference of its subnet
    pod_cidr: str


def billed(description: Description, zones: int) -> Iterator[tuple[str, int]]:
    for pool in description.pools:
        yield f"{pool.instance_type} ({pool.name})", pool.count
    if not description.private_nodes and not description.subnet_ids:
        yield billing.ADDRESS, description.node_count


def nodes_wanted(draft: plan.Draft) -> list[Node]:
    """Every node with its subnet and its pods' range. Nodes keep what they have; new ones get the first free range.

    Nodes that are held back from removal are among them, behind the others of their pool.
    """
    if draft.removing:
        return []
    description = draft.description
    places = subnets.of_nodes(draft)
    alive = draft.current.nodes()
    by_id = {draft.known(reference): reference for reference in places if draft.known(reference)}
    pods = ranges.network(description.pod_cidr)
    wanted = [
        (pool, number, pool.node_name(draft.cluster, number))
        for pool in description.pools
        for number in range(pool.count)
    ]
    members = [pool for pool in description.pools if pool.role == tags.CONTROL_PLANE]
    held = sorted(draft.held.keys() - {name for _pool, _number, name in wanted})
    wanted = sorted(
        [*wanted, *((members[0], members[0].count + place, name) for place, name in enumerate(held))],
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
        subnet = places[number % len(places)]
        instance = alive.get(name)
        if instance:
            subnet = by_id.get(instance.subnet_id, subnet)
        nodes.append(Node(name, pool.role, pool.name, subnet, kept.get(name) or next(free)))
    return nodes


def _fits(cidr: str, pods: ranges.Network, prefix: int) -> bool:
    try:
        part = ranges.network(cidr)
    except ValueError:
        return False
    return part.prefixlen == prefix and part.subnet_of(pods)


def wanted(draft: plan.Draft, nodes: list[Node]) -> None:
    """Launches, changes in place and replacements. Surplus nodes end after the routes to them, see `instances`."""
    alive = draft.current.nodes()
    pools = {pool.name: pool for pool in draft.description.pools}
    launches: list[str] = []
    deprecated: dict[str, None] = {}
    for node in nodes:
        pool, instance = pools[node.pool], alive.get(node.name)
        resource = f"instance/{node.name}"
        before = [item.id for item in draft.current.instances if item.name == node.name]
        if not instance:
            reason = plan.MISSING if not before else f"{', '.join(before)} of this name has ended"
            step = Launch(resource, reason, **_arguments(draft, node, pool, before))
            launches.append(draft.add(step, _before_launch(node)))
            deprecated.update({step.image.id: None} if step.image and step.image.deprecated else {})
            continue
        draft.know(resource, instance.id)
        grounds = draft.replaced.get(node.name)
        if grounds:
            reason = "cannot be changed in place: " + "; ".join(grounds)
            again = Replace(resource, reason, **_arguments(draft, node, pool, before), id=instance.id)
            launches.append(draft.add(again, _before_launch(node)))
        elif node.name not in draft.held:
            launches += changes.in_place(draft, node, pool, instance)
    draft.plan.warnings += [
        f"image: {id} is deprecated by its owner, and the newest that the description means; new nodes get it all the "
        "same"
        for id in deprecated
    ]
    pending = [node.name for node in nodes if node.name in alive and alive[node.name].state == "pending"]
    if launches or pending:
        references = [*(key.partition(" ")[2] for key in launches), *(f"instance/{name}" for name in pending)]
        draft.add(WaitForRunning("wait/instances", "nodes must be running", references), launches, quiet=True)


def _before_launch(node: Node) -> list[str]:
    return [
        f"create {node.subnet}",
        f"update {node.subnet}",
        f"create security-group/{node.role}",
        "create key-pair",
        "replace key-pair",
        *profiles.before_launch(node.role),
    ]


def _arguments(draft: plan.Draft, node: Node, pool: Pool, ended: list[str]) -> dict[str, Any]:
    description = draft.description
    return {
        "name": node.name,
        # A first plan, made before the account is asked for images, has none.
        "image": draft.facts.images.get(pool.image),
        "instance_type": pool.instance_type,
        "key_name": key_pair.used(draft),
        "subnet": node.subnet,
        # With subnets that were brought, their own setting decides.
        "public_ip": None if description.subnet_ids else not description.private_nodes,
        "group": f"security-group/{node.role}",
        "profile": profiles.of_node(description, node.role),
        "root_volume_size": pool.root_volume_size,
        "etcd_volume_size": pool.etcd_volume_size,
        "kms_key_id": description.kms_key_id,
        "ended": ended,
        "tags": draft.tags(node.name, role=node.role, pool=node.pool, pod_cidr=node.pod_cidr),
        "volume_tags": draft.tags(node.name),
    }


@dataclass
class _Launch(plan.Asked):
    """All that a launch needs; `subnet` and `group` are references, `resource` is that of the instance."""

    name: str
    image: MachineImage
    instance_type: str
    key_name: str
    subnet: str
    public_ip: bool | None
    group: str
    profile: str
    root_volume_size: int
    etcd_volume_size: int
    kms_key_id: str
    ended: list[str]
    tags: dict[str, str]
    volume_tags: dict[str, str]

    def launch(self, context: Context) -> None:
        """Launches the node and switches its source/destination check off. One step for all waits until they run."""
        found = self._run(context)
        context.know(self.resource, found.id)
        if found.source_dest_check:
            changes.switch_off_source_dest_check(context, found.id)

    def _run(self, context: Context) -> instances.Instance:
        ended = list(self.ended)
        for generation in range(GENERATIONS):
            token = names.launch_token(context.cluster, context.id("vpc"), self.name, ended)
            try:
                answer = _accepted(context, lambda token=token: self.send(context, ClientToken=token))  # type: ignore[misc]
                found = instances.instance(answer["Instances"][0])
            except Exception as error:
                # The token has launched something before: something that is gone, or with another description.
                if session.error_code(error) == "IdempotentInstanceTerminated":
                    # EC2 shows what has ended for an hour and knows its token for longer. Without its id the
                    # generation's number stands for it, so that every run comes to the same token.
                    gone = _by_token(context, token)
                    ended.append(gone.id if gone else f"forgotten-{generation}")
                    continue
                if session.error_code(error) != "IdempotentParameterMismatch":
                    raise
                found = context.until(
                    f"the instance that was launched as {self.name} to be shown",
                    lambda token=token: _by_token(context, token),  # type: ignore[misc]
                    CONSISTENCY_S,
                )
            if found.alive:
                return found
            ended.append(found.id)
        raise session.AwsError(
            f"cannot launch {self.name}: {', '.join(ended)} were launched for it and have ended; wait until EC2 "
            "has forgotten them"
        )

    @property
    def variant(self) -> str:
        return self.tags[tags.POOL]

    def request(self, ids: plan.Ids) -> plan.Request:
        interface: dict[str, Any] = {
            "DeviceIndex": 0,
            "SubnetId": ids.id(self.subnet),
            "Groups": [ids.id(self.group)],
            "DeleteOnTermination": True,
        }
        if self.public_ip is not None:
            interface["AssociatePublicIpAddress"] = self.public_ip
        request: dict[str, Any] = {
            "MinCount": 1,
            "MaxCount": 1,
            "ImageId": self.image.id,
            "InstanceType": self.instance_type,
            "KeyName": self.key_name,
            "NetworkInterfaces": [interface],
            "BlockDeviceMappings": volumes.mappings(
                self.image.root_device, self.root_volume_size, self.etcd_volume_size, self.kms_key_id
            ),
            "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "TagSpecifications": [
                *tags.at_creation("instance", self.tags),
                *tags.at_creation("volume", self.volume_tags),
                *tags.at_creation("network-interface", self.volume_tags),
            ],
        }
        if self.profile:
            request["IamInstanceProfile"] = {"Name": self.profile}
        return "run_instances", request

    def launch_needs(self, place: Place) -> Iterator[Found]:
        run = "ec2:RunInstances"
        for kind in ("instance", "volume", "network-interface"):
            yield from place.creates("RunInstances", kind)
        yield run, place.arn("ec2", f"image/{self.image.id}", account=""), place.region
        yield from place.changes("RunInstances", self.subnet, self.group)
        # Whose key pair it is makes no difference to the policy that is documented.
        yield run, place.arn("ec2", f"key-pair/{self.key_name}"), place.region
        changed = {**place.region, **place.tagged(None, "ec2")}
        yield "ec2:ModifyInstanceAttribute", place.arn("ec2", "instance/*"), changed
        yield from place.pass_role(self.profile)


def _accepted(context: Context, launch: Callable[[], Any]) -> Any:
    """RunInstances, repeated while EC2 does not know the new instance profile, key pair, subnet or group yet."""
    return context.when_known(
        "the instance profile, the key pair, the subnet and the group",
        launch,
        [*NOT_FOUND, "InvalidKeyPair.NotFound"],
        profiles.unknown_to_ec2,
    )


def _by_token(context: Context, token: str) -> instances.Instance | None:
    answer = context.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": [token]}])
    found = [instances.instance(item) for entry in answer["Reservations"] for item in entry["Instances"]]
    return found[0] if found else None


@dataclass
class Launch(_Launch):
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        self.launch(context)

    def needs(self, place: Place) -> Iterable[Found]:
        return self.launch_needs(place)


@dataclass
class Replace(_Launch):
    """Ends the instance `id` and launches the node again."""

    id: str
    action = plan.REPLACE

    def apply(self, context: Context) -> None:
        instances.terminate(context, self.id)
        instances.wait_terminated(context, [self.id])
        self.launch(context)

    def needs(self, place: Place) -> Iterable[Found]:
        yield from place.changes("TerminateInstances", self.id)
        yield from self.launch_needs(place)

    def requests(self, ids: plan.Ids) -> Iterable[plan.Request]:
        return [instances.termination(self.id), self.request(ids)]


@dataclass
class WaitForRunning(plan.Step):
    references: list[str]
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        """Waits for all, asking for many at once."""
        pending = {context.id(reference): reference for reference in self.references}

        def probe() -> bool | None:
            for item in instances.described(context, list(pending)):
                found = instances.instance(item)
                if found.state in ("shutting-down", "terminated"):
                    reason = item.get("StateReason", {}).get("Message") or "no reason given"
                    raise session.AwsError(f"{found.name} ({found.id}) ended instead of running: {reason}")
                if found.state == "running":
                    context.instances[found.name] = found
                    del pending[found.id]
            return True if not pending else None

        try:
            context.until("nodes to be running", probe)
        except session.AwsError as error:
            left = ", ".join(f"{reference.partition('/')[2]} ({id})" for id, reference in sorted(pending.items())[:10])
            raise type(error)(f"{error}; not running: {left}") from error

    def needs(self, place: Place) -> Iterable[Found]:
        return ()


PERMISSIONS = (Grant(MAKE, ("ec2:RunInstances",), tags=True),)
