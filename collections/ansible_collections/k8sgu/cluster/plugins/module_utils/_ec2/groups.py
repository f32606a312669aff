# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Security groups: for each role of node, the load balancer and the bastion, with the port table's rules."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Iterable, Mapping, NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import ports as port_table
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, plan, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import NOT_FOUND
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import CHANGE, MAKE, READ, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import nat
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Node

API = "api"
TYPES = {"security-group": "security-group", "sg": "security-group"}
# The default quota of inbound rules of a group:
# https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html#vpc-limits-security-groups
RULES_QUOTA = 60
# The listener of a row of the port table is on these nodes, which have this group:
GROUP_OF = {
    port_table.CONTROL_PLANE: tags.CONTROL_PLANE,
    port_table.WORKER: tags.WORKER,
    port_table.LOAD_BALANCER: API,
    port_table.BASTION: tags.BASTION,
}
DUPLICATE = "InvalidPermission.Duplicate"
# What EC2 refuses in a rule's description.
_PLAIN = str.maketrans({";": ",", "'": "", '"': ""})


class Rule(NamedTuple):
    """One permission of a security group towards one peer: a group's id ("sg-...") or a range.

    -1 stands for every port or type.
    """

    protocol: str
    first: int
    last: int
    peer: str


@dataclass(frozen=True)
class SecurityGroup:
    id: str
    name: str
    vpc_id: str
    tags: Mapping[str, str]
    rules: Mapping[Rule, str]  # each with its description
    outgoing: Mapping[Rule, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WantedRule:
    """A rule to have.

    `peer` is a range, or the reference of a group ("security-group/worker"), or the public address of a node
    ("public-ip/NAME") or of a NAT gateway ("public-ip/elastic-ip/ZONE").
    """

    protocol: str
    first: int
    last: int
    peer: str
    why: str


def read(reader: Reader, current: Current) -> None:
    for item in reader.owned("describe_security_groups", "SecurityGroups"):
        current.groups.append(
            SecurityGroup(
                item["GroupId"],
                item["GroupName"],
                item["VpcId"],
                tags.as_mapping(item.get("Tags")),
                rules_of(item.get("IpPermissions", ())),
                rules_of(item.get("IpPermissionsEgress", ())),
            )
        )


def rules_of(permissions: Iterable[Mapping[str, Any]]) -> dict[Rule, str]:
    """The API's permissions as rules that can be compared, one for each peer, with its description."""
    rules = {}
    for item in permissions:
        first, last = int(item.get("FromPort", -1)), int(item.get("ToPort", -1))
        for peers, key in (
            (item.get("UserIdGroupPairs", ()), "GroupId"),
            (item.get("IpRanges", ()), "CidrIp"),
            (item.get("Ipv6Ranges", ()), "CidrIpv6"),
            (item.get("PrefixListIds", ()), "PrefixListId"),
        ):
            for peer in peers:
                rules[Rule(item["IpProtocol"], first, last, peer[key])] = peer.get("Description", "")
    return rules


def roles_wanted(description: Description) -> list[str]:
    if not description.pools:
        return []
    return [
        *(tags.CONTROL_PLANE, tags.WORKER),
        *([API] if description.balanced else []),
        *([tags.BASTION] if description.has_bastion else []),
    ]


def rules_wanted(description: Description, role: str, nodes: Iterable[str], internet_facing: bool) -> list[WantedRule]:
    """The rules of the group of `role`, each peer once for the same ports.

    `nodes` are what nodes come to the internet from: their names, or the Elastic IPs of NAT gateways.
    """
    rules: dict[tuple[str, int, int, str], WantedRule] = {}
    for row in port_table.ports(description.pod_network):
        if row.bind != "any" or role not in {GROUP_OF[node] for node in row.nodes}:
            continue
        first, last = (-1, -1) if row.protocol == "icmp" else (row.first, row.last)
        peers: list[str] = []
        for source in row.sources:
            if source == port_table.ADMIN:
                peers += description.admin_cidrs
            elif source == port_table.NODE_PORT_CLIENTS:
                peers += description.node_port_cidrs
            elif source == port_table.PODS:
                # Pods show their own addresses in a routed network only; otherwise their node's.
                peers += [description.pod_cidr] if description.pod_network == "routed" else []
            elif GROUP_OF[source] in roles_wanted(description):
                peers.append(f"security-group/{GROUP_OF[source]}")
        if role == API and internet_facing:
            # A node reaches public addresses of the load balancer, to which its name leads in the VPC too, from its own
            # public address or its NAT gateway's, which no group stands for.
            peers += [f"public-ip/{name}" for name in nodes]
        for peer in peers:
            rules.setdefault((row.protocol, first, last, peer), WantedRule(row.protocol, first, last, peer, row.why))
    return list(rules.values())


def check_quota(description: Description) -> None:
    """The rules of a group against the quota's default, which most accounts have. Raises DescriptionError."""
    nodes = [pool.node_name(description.name, number) for pool in description.pools for number in range(pool.count)]
    for role in roles_wanted(description):
        outside = [] if description.private_nodes else nodes
        number = len(rules_wanted(description, role, outside, description.faces_internet))
        if number <= RULES_QUOTA:
            continue
        if role == API:
            raise DescriptionError(
                "load_balancer_scheme: an internet-facing load balancer admits each node by its public address, "
                f"and {number} rules exceed a security group's {RULES_QUOTA}; give internal"
            )
        option = "node_port_cidrs" if len(description.node_port_cidrs) > len(description.admin_cidrs) else "admin_cidrs"
        raise DescriptionError(
            f"{option}: so many ranges make {number} rules in the group of {role}, and a security group has "
            f"{RULES_QUOTA} at most; join ranges"
        )


def wanted(draft: plan.Draft, nodes: list[Node]) -> None:
    """Groups first, then rules, which name groups."""
    vpc = draft.current.vpc
    there = {
        group.tags.get(tags.ROLE, ""): group
        for group in sorted(draft.current.groups, key=lambda group: group.id, reverse=True)
        if vpc and group.vpc_id == vpc.id
    }
    roles = [] if draft.removing else roles_wanted(draft.description)
    for role in roles:
        reference = f"security-group/{role}"
        group = there.get(role)
        name = names.security_group(draft.cluster, role)
        marks = draft.tags(name, role=role)
        if group:
            draft.know(reference, group.id)
            draft.keep_tags(reference, group.id, group.tags, marks)
        else:
            draft.add(CreateGroup(reference, plan.MISSING, name, marks), ["create vpc"])
    for role in roles:
        _rules(draft, role, there.get(role), nodes)


def _rules(draft: plan.Draft, role: str, group: SecurityGroup | None, nodes: list[Node]) -> None:
    """All rules of a group that are new in one step, and all that are surplus in another."""
    reference = f"security-group/{role}"
    alive = draft.current.nodes()
    have = group.rules if group else {}
    lacking: list[WantedRule] = []
    later: list[WantedRule] = []  # need the address of a node that is yet to be launched
    kept: set[Rule] = set()
    outside = [node.name for node in nodes]
    if draft.description.private_nodes:
        outside = [f"elastic-ip/{zone}" for zone in nat.zones(draft)]
    for rule in rules_wanted(draft.description, role, outside, draft.description.faces_internet):
        peer = rule.peer
        if peer.startswith("security-group/"):
            peer = draft.known(peer)
        elif peer.startswith("public-ip/"):
            name = peer.partition("/")[2]
            gate = next((item for item in draft.current.addresses if item.id == draft.known(name)), None)
            found = alive.get(name) or gate
            if not found or not found.public_ip or name in draft.replaced:
                later.append(rule)
                continue
            peer = f"{found.public_ip}/32"
            rule = replace(rule, peer=peer)
        exact = Rule(rule.protocol, rule.first, rule.last, peer)
        if peer and exact in have:
            kept.add(exact)
        else:
            lacking.append(rule)
    groups = [f"create security-group/{other}" for other in GROUP_OF.values()]
    if lacking:
        reason = (
            f"{_count(len(lacking))} of the port table {'is' if len(lacking) == 1 else 'are'} missing: "
            f"{_summary(lacking)}"
        )
        draft.add(Authorize(f"rules/{role}", reason, reference, lacking), groups)
    if later:
        launches = [f"{action} instance/{node.name}" for action in ("create", "replace") for node in nodes]
        gates = [f"create elastic-ip/{zone}" for zone in nat.zones(draft)]
        reason = f"admit the public addresses of {len(later)} new {'NAT gateways' if gates else 'nodes'}"
        draft.add(
            Authorize(f"rules/{role}/nodes", reason, reference, later),
            [*groups, *launches, *gates, "update wait/instances"],
        )
    extra = sorted(have.keys() - kept)
    if extra:
        reason = (
            f"{_count(len(extra))} not in the port table: "
            + ", ".join(f"{rule.protocol} {rule.first}-{rule.last} from {rule.peer}" for rule in extra[:5])
            + (" ..." if len(extra) > 5 else "")
        )
        rules = {rule: have[rule] for rule in extra}
        draft.add(Revoke(f"rules/{role}", reason, reference, rules), [f"update rules/{role}"])


def shown(rule: Rule) -> str:
    """A rule in words; its peer is where packets come from, or go to."""
    protocol = "every protocol" if rule.protocol == "-1" else rule.protocol
    ports = "" if rule.first == -1 else f" {rule.first}" if rule.first == rule.last else f" {rule.first}-{rule.last}"
    return f"{protocol}{ports}, {rule.peer}"


def _count(number: int) -> str:
    return "1 rule" if number == 1 else f"{number} rules"


def _summary(rules: list[WantedRule]) -> str:
    parts = []
    for rule in rules:
        ports = f" {rule.first}" if rule.first == rule.last else f" {rule.first}-{rule.last}"
        peer = rule.peer.rpartition("security-group/")[2]
        parts.append(f"{rule.protocol}{'' if rule.protocol == 'icmp' else ports} from {peer}")
    return ", ".join(parts[:4]) + (" ..." if len(parts) > 4 else "")


def surplus(draft: plan.Draft, users: list[str]) -> list[str]:
    """Returns the keys of the removals."""
    kept = draft.kept("security-group")
    extra = [group for group in draft.current.groups if group.id not in kept]
    # Groups that name each other cannot be deleted before their rules are gone.
    revokes = []
    for group in extra:
        reference = f"security-group/{group.id}"
        draft.know(reference, group.id)
        rules = {rule: why for rule, why in sorted(group.rules.items()) if rule.peer.startswith("sg-")}
        if rules:
            reason = "its group goes, and groups that name each other cannot"
            revokes.append(draft.add(Revoke(f"rules/{group.name}", reason, reference, rules), users))
    return [
        draft.add(DeleteGroup(f"security-group/{group.name}", plan.SURPLUS, group.id), [*users, *revokes])
        for group in extra
    ]


@dataclass
class CreateGroup(plan.Asked):
    """`resource` is the reference of the group, too."""

    name: str
    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        answer = context.when_known("the VPC", lambda: self.send(context))
        context.know(self.resource, answer["GroupId"])

    def needs(self, place: Place) -> Iterable[Found]:
        return place.creates("CreateSecurityGroup", "security-group", "vpc")

    def request(self, ids: plan.Ids) -> plan.Request:
        return "create_security_group", {
            "GroupName": self.name,
            "Description": f"{self.resource.partition('/')[2]} of the cluster {ids.cluster}",
            "VpcId": ids.id("vpc"),
            "TagSpecifications": tags.at_creation("security-group", self.tags),
        }


@dataclass
class _OfRules(plan.Asked):
    reference: str

    def questions(self, ids: plan.StandIns) -> Iterable[plan.Request]:
        """For a group that is there: a stand-in has no tag, which the policy asks for."""
        return super().questions(ids) if ids.known(self.reference) else ()


@dataclass
class Authorize(_OfRules):
    rules: list[WantedRule]
    action = plan.UPDATE

    def request(self, ids: plan.Ids) -> plan.Request:
        permissions = [found for found in (self._permission(ids, rule) for rule in self.rules) if found]
        return "authorize_security_group_ingress", {"GroupId": ids.id(self.reference), "IpPermissions": permissions}

    def apply(self, context: Context) -> None:
        operation, request = self.request(context)
        permissions = request["IpPermissions"]
        if not permissions:
            return

        def call(some: list[dict[str, Any]]) -> None:
            plan.sent(context, (operation, {**request, "IpPermissions": some}))

        def each() -> None:
            try:
                call(permissions)
            except Exception as error:
                # A call repeated after a lost answer. One rule that is there keeps EC2 from making the others.
                if session.error_code(error) != DUPLICATE:
                    raise
                for permission in permissions:
                    context.gone(lambda permission=permission: call([permission]), [DUPLICATE])  # type: ignore[misc]

        context.when_known(self.reference, each)

    def _permission(self, ids: plan.Ids, rule: WantedRule) -> dict[str, Any] | None:
        """None for a node without a public address."""
        why = rule.why.translate(_PLAIN)[:255]
        permission: dict[str, Any] = {"IpProtocol": rule.protocol, "FromPort": rule.first, "ToPort": rule.last}
        if rule.peer.startswith("security-group/"):
            return {**permission, "UserIdGroupPairs": [{"GroupId": ids.id(rule.peer), "Description": why}]}
        peer = rule.peer
        if peer.startswith("public-ip/"):
            address = ids.public_ip(peer.partition("/")[2])
            if not address:
                return None
            peer = f"{address}/32"
        return {**permission, "IpRanges": [{"CidrIp": peer, "Description": why}]}

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("AuthorizeSecurityGroupIngress", self.reference)


@dataclass
class Revoke(_OfRules):
    rules: dict[Rule, str]
    action = plan.DELETE

    def request(self, ids: plan.Ids) -> plan.Request:
        permissions = []
        for rule, why in self.rules.items():
            permission: dict[str, Any] = {"IpProtocol": rule.protocol}
            if rule.protocol != "-1":
                permission.update(FromPort=rule.first, ToPort=rule.last)
            kind, key = _peer_kind(rule.peer)
            # EC2 goes by the peer alone; an emulator may want the description too.
            permission[kind] = [{key: rule.peer, "Description": why} if why else {key: rule.peer}]
            permissions.append(permission)
        return "revoke_security_group_ingress", {"GroupId": ids.id(self.reference), "IpPermissions": permissions}

    def apply(self, context: Context) -> None:
        context.gone(lambda: self.send(context), [*NOT_FOUND, "InvalidPermission.NotFound"])

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("RevokeSecurityGroupIngress", self.reference)


def _peer_kind(peer: str) -> tuple[str, str]:
    if peer.startswith("sg-"):
        return "UserIdGroupPairs", "GroupId"
    if peer.startswith("pl-"):
        return "PrefixListIds", "PrefixListId"
    return ("Ipv6Ranges", "CidrIpv6") if ":" in peer else ("IpRanges", "CidrIp")


@dataclass
class DeleteGroup(plan.Asked):
    id: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        # The interfaces of a load balancer outlive it by minutes.
        context.remove(f"{self.id} to be free for deletion", lambda: self.send(context))

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("DeleteSecurityGroup", self.id)

    def request(self, ids: plan.Ids) -> plan.Request:
        return "delete_security_group", {"GroupId": self.id}


PERMISSIONS = (
    Grant(READ, ("ec2:DescribeSecurityGroups",)),
    Grant(MAKE, ("ec2:CreateSecurityGroup",), tags=True),
    Grant(
        CHANGE,
        (
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:RevokeSecurityGroupIngress",
            "ec2:DeleteSecurityGroup",
        ),
    ),
)
