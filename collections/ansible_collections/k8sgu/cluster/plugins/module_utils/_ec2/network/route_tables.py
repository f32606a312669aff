# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Route tables: the subnets that use them, the routes to the internet and, in a routed pod network, to pods."""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, quotas, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import NOT_FOUND
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import CHANGE, MAKE, READ, Case, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import nat, subnets
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes import launch
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place

ANYWHERE = "0.0.0.0/0"
# An instance's id comes with its interface's; the instance counts.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Route.html
TARGETS = (
    *("InstanceId", "NatGatewayId", "GatewayId", "NetworkInterfaceId", "TransitGatewayId", "VpcPeeringConnectionId"),
    *("LocalGatewayId", "CarrierGatewayId", "CoreNetworkArn", "EgressOnlyInternetGatewayId"),
)
# 500 in an account that has asked for no other value:
# https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html#vpc-limits-route-tables
ROUTES_QUOTA = ("vpc", "L-93826ACB")
TARGET_NOT_FOUND = (*NOT_FOUND, *nat.NAT_NOT_FOUND)
TYPES = {"route-table": "route-table", "rtb": "route-table"}


@dataclass(frozen=True)
class Route:
    """`target` is the id of what the route leads to, of an instance rather than of its interface.

    A route that is not `active` leads to something that is gone, and a `propagated` one comes from a VPN's gateway.
    """

    destination: str
    target: str
    active: bool = True
    propagated: bool = False


@dataclass(frozen=True)
class RouteTable:
    id: str
    vpc_id: str
    tags: Mapping[str, str]
    main: bool
    associations: Mapping[str, str]  # subnet id -> association id
    routes: Mapping[str, Route]  # by destination
    others: tuple[Route, ...] = ()  # to IPv6 ranges and prefix lists, of which none is ours


def read(reader: Reader, vpc_id: str, current: Current, foreign_only: bool = False) -> None:
    found = (
        reader.in_vpc("describe_route_tables", "RouteTables", vpc_id)
        if vpc_id
        else reader.owned("describe_route_tables", "RouteTables")
    )
    for item in found:
        table = RouteTable(
            item["RouteTableId"],
            item["VpcId"],
            tags.as_mapping(item.get("Tags")),
            any(association.get("Main") for association in item.get("Associations", ())),
            {
                association["SubnetId"]: association["RouteTableAssociationId"]
                for association in item.get("Associations", ())
                if association.get("SubnetId")
                and association.get("AssociationState", {}).get("State", "associated") in ("associated", "associating")
            },
            {
                route["DestinationCidrBlock"]: _route(route, route["DestinationCidrBlock"])
                for route in item.get("Routes", ())
                if route.get("DestinationCidrBlock")
            },
            tuple(
                _route(route, route.get("DestinationIpv6CidrBlock") or route.get("DestinationPrefixListId", ""))
                for route in item.get("Routes", ())
                if not route.get("DestinationCidrBlock")
            ),
        )
        if not reader.mine(table.tags):
            current.foreign_route_tables.append(table)
        elif not foreign_only:
            current.route_tables.append(table)


def _route(item: Mapping[str, Any], destination: str) -> Route:
    return Route(
        destination,
        _target(item),
        item.get("State", "active") == "active",
        item.get("Origin") == "EnableVgwRoutePropagation",
    )


def _target(route: Mapping[str, Any]) -> str:
    return next((str(route[key]) for key in TARGETS if route.get(key)), "")


def check_quota(reader: Reader, description: Description, current: Current, changes: plan.Plan) -> None:
    """The routes of each table, beside those that are there. Raises DescriptionError."""
    new = Counter(step.table for step in changes.of(CreateRoute))
    if not changes.of(launch.Launch) or description.pod_network != "routed" or not new:
        return
    tables = {table.id: table for table in (*current.route_tables, *current.foreign_route_tables)}
    needed = 0
    for reference, number in new.items():
        table = tables.get(changes.ids.get(reference, ""))
        # A new one has the local route. Routes that a gateway propagates have a quota of their own.
        there = sum(not route.propagated for route in table.routes.values()) if table else 1
        needed = max(needed, number + there)
    allowed = quotas.quota(reader, ROUTES_QUOTA)
    if allowed is not None and needed > allowed:
        raise DescriptionError(
            f"pod_network: routed needs {needed} routes in a table and the quota is {allowed}; give vxlan, fewer "
            f"nodes, or have the quota {ROUTES_QUOTA[1]} raised"
        )


def tables_wanted(draft: plan.Draft) -> dict[str, list[str]]:
    """The route tables to have, by role, with the subnets (references) of each."""
    tables: dict[str, list[str]] = {}
    for kind, zone in subnets.places_wanted(draft):
        apart = kind == subnets.PRIVATE and draft.description.nat_gateways == "per_zone"
        tables.setdefault(f"{kind}-{zone}" if apart else kind, []).append(f"subnet/{kind}/{zone}")
    return tables


def _by_role(draft: plan.Draft) -> dict[str, RouteTable]:
    """Our route tables by role; of two of one role the one in use counts and the other is surplus."""
    found: dict[str, RouteTable] = {}
    for table in sorted(draft.current.route_tables, key=lambda table: (-len(table.associations), table.id)):
        if draft.current.vpc and table.vpc_id == draft.current.vpc.id:
            found.setdefault(table.tags.get(tags.ROLE, ""), table)
    return found


def wanted(draft: plan.Draft) -> None:
    """The tables with their default routes and subnets. Routes to pods come after the nodes, see `pod_routes`."""
    there = _by_role(draft)
    zones_with_nat = nat.zones(draft)
    for role, of_role in tables_wanted(draft).items():
        reference = f"route-table/{role}"
        table = there.get(role)
        marks = draft.tags(f"{draft.cluster}-{role}", role=role)
        if table:
            draft.know(reference, table.id)
            draft.keep_tags(reference, table.id, table.tags, marks)
        else:
            draft.add(CreateTable(reference, plan.MISSING, marks), ["create vpc"])
        gate = ""
        if role == subnets.PUBLIC:
            gate = "internet-gateway"
        elif zones_with_nat:
            gate = f"nat-gateway/{role[len(subnets.PRIVATE) + 1 :] or zones_with_nat[0]}"
        _default_route(draft, reference, table, gate)
        for subnet in of_role:
            _association(draft, reference, table, subnet)


def _default_route(draft: plan.Draft, reference: str, table: RouteTable | None, gate: str) -> None:
    there = table.routes.get(ANYWHERE) if table else None
    resource = f"route/{reference.partition('/')[2]}/{ANYWHERE}"
    if not gate:
        # A default route of somebody else's, to a transit gateway for example, is not ours to remove.
        if there and there.target.startswith(("nat-", "igw-")):
            draft.add(DeleteRoute(resource, plan.SURPLUS, reference, ANYWHERE))
        return
    target = "gateway" if gate == "internet-gateway" else gate
    if there and there.active and there.target == draft.known(target):
        return
    reason = "the way to the internet" if not there else f"it leads to {there.target if there.active else 'nothing'}"
    put = ReplaceRoute if there else CreateRoute
    draft.add(
        put(resource, reason, reference, ANYWHERE, target),
        [
            f"create {reference}",
            "create internet-gateway",
            "attach internet-gateway",
            f"create {gate}",
            f"update wait/{gate}",
        ],
    )


def _association(draft: plan.Draft, reference: str, table: RouteTable | None, subnet: str) -> None:
    subnet_id = draft.known(subnet)
    if table and subnet_id and subnet_id in table.associations:
        return
    elsewhere = [
        other.associations[subnet_id]
        for other in (*draft.current.route_tables, *draft.current.foreign_route_tables)
        if subnet_id and subnet_id in other.associations
    ]
    draft.add(
        Associate(
            f"route-table/{reference.partition('/')[2]}/{subnet.partition('/')[2]}",
            "the subnet has another route table" if elsewhere else "the subnet does not use its route table yet",
            table=reference,
            subnet=subnet,
            association=elsewhere[0] if elsewhere else "",
        ),
        [f"create {reference}", f"create {subnet}"],
    )


def pod_routes(draft: plan.Draft, nodes: Iterable[launch.Node]) -> list[str]:
    """A route for each node's pods in each table, and no other to an instance of ours.

    Returns the keys of the removals.
    """
    tables = _with_pod_routes(draft)
    by_range = {node.pod_cidr: node.name for node in nodes} if draft.description.pod_network == "routed" else {}
    if by_range:
        _check_others(draft, [table for table in tables.values() if table])
    for reference, table in tables.items():
        routes = table.routes if table else {}
        for cidr, name in by_range.items():
            there = routes.get(cidr)
            instance_id = draft.known(f"instance/{name}")
            if there and there.active and there.target == instance_id and name not in draft.replaced:
                continue
            reason = (
                f"the pods of {name} are there"
                if not there
                else f"it leads to {there.target if there.active else 'nothing'} and not to {name}"
            )
            put = ReplaceRoute if there else CreateRoute
            draft.add(
                put(f"route/{reference.partition('/')[2]}/{cidr}", reason, reference, cidr, f"instance/{name}"),
                [f"create {reference}", f"create instance/{name}", f"replace instance/{name}", "update wait/instances"],
            )
    return _surplus_pod_routes(draft, set(tables), set(by_range))


def _check_others(draft: plan.Draft, tables: Iterable[RouteTable]) -> None:
    """Refuses a range of pods to which a table has a route of somebody else's, which ours would replace or narrow."""
    pods = ipaddress.IPv4Network(draft.description.pod_cidr)
    ours = {instance.id for instance in draft.current.instances}
    for table in tables:
        for route in table.routes.values():
            net = ipaddress.IPv4Network(route.destination)
            # What led to an instance that is gone may have been ours; in our own table it was.
            gone = not route.active or table in draft.current.route_tables
            dead = gone and (not route.target or route.target.startswith(("i-", "eni-")))
            if net.prefixlen and net.overlaps(pods) and route.target not in ours and not dead:
                raise DescriptionError(
                    f"pod_cidr: {pods} overlaps {net}, to which {table.id} has a route by {route.target}; choose "
                    "another range for the pods, or take that route out"
                )


def _with_pod_routes(draft: plan.Draft) -> dict[str, RouteTable | None]:
    """The tables that carry pod routes, by reference: the nodes' and those that were named."""
    if draft.removing:
        return {}
    found = _of_nodes(draft)
    if draft.description.pod_network != "routed":
        return found
    there = {table.id: table for table in (*draft.current.route_tables, *draft.current.foreign_route_tables)}
    known = {table.id for table in found.values() if table}
    for id in draft.description.pod_route_tables:
        if id not in there:
            raise DescriptionError(
                f"pod_route_tables: there is no route table {id} in {draft.description.vpc_id}; check the id and vpc_id"
            )
        if id not in known:
            found[f"route-table/{id}"] = there[id]
            draft.know(f"route-table/{id}", id)
    return found


def with_routes_back(description: Description, current: Current) -> list[str]:
    """The ranges of the subnets that use the tables of `pod_route_tables`, and so have a way back to pods."""
    tables = [*current.route_tables, *current.foreign_route_tables]
    apart = {subnet for table in tables for subnet in table.associations}
    found = set()
    for table in tables:
        if table.id in description.pod_route_tables:
            for subnet in (*current.subnets, *current.foreign_subnets):
                if subnet.id in table.associations or (table.main and subnet.id not in apart):
                    found.add(subnet.cidr)
    return sorted(found)


def _of_nodes(draft: plan.Draft) -> dict[str, RouteTable | None]:
    """The tables of the nodes' subnets: our own, or those of the subnets that were brought."""
    if not draft.description.subnet_ids:
        there = _by_role(draft)
        return {f"route-table/{role}": there.get(role) for role in tables_wanted(draft)}
    found: dict[str, RouteTable | None] = {}
    tables = [*draft.current.route_tables, *draft.current.foreign_route_tables]
    held = [instance.subnet_id for instance in draft.held.values()]
    for id in dict.fromkeys([*draft.description.subnet_ids, *held]):
        explicit = [table for table in tables if id in table.associations]
        candidates = explicit or [table for table in tables if table.main]
        if not candidates:
            raise DescriptionError(f"subnet_ids: {id} has no route table, not even the VPC's main one; check the VPC")
        table = candidates[0]
        found[f"route-table/{table.id}"] = table
        draft.know(f"route-table/{table.id}", table.id)
    return found


def _surplus_pod_routes(draft: plan.Draft, wanted_tables: set[str], wanted_ranges: set[str]) -> list[str]:
    instances = {instance.id for instance in draft.current.instances}
    removals = []
    references = {id: reference for reference, id in draft.plan.ids.items() if reference.startswith("route-table/")}
    pods = ipaddress.IPv4Network(draft.description.pod_cidr)
    for table in (*draft.current.route_tables, *draft.current.foreign_route_tables):
        ours = table in draft.current.route_tables
        if ours and table.id not in references:
            continue  # is removed as a whole
        for route in table.routes.values():
            reference = references.get(table.id, f"route-table/{table.id}")
            if reference in wanted_tables and route.destination in wanted_ranges:
                continue
            # EC2 may have forgotten a dead route's instance; in our own table everything in the pods' range is ours.
            dead = ours and not route.active and ipaddress.IPv4Network(route.destination).subnet_of(pods)
            if route.target in instances or dead:
                draft.know(reference, table.id)
                resource = f"route/{reference.partition('/')[2]}/{route.destination}"
                removals.append(
                    draft.add(DeleteRoute(resource, "no node has these pods", reference, route.destination))
                )
    return removals


def moves(draft: plan.Draft) -> list[str]:
    """Changes of routes and associations, which come before what they lead away from is removed."""
    return draft.keys(PutRoute, Associate)


def surplus(draft: plan.Draft, users: list[str]) -> list[str]:
    """Returns the keys of the removals."""
    kept = draft.kept("route-table")
    return [
        draft.add(
            DeleteTable(f"route-table/{table.id}", plan.SURPLUS, table.id, sorted(table.associations.values())),
            [*users, *moves(draft)],
        )
        for table in draft.current.route_tables
        if table.id not in kept and not table.main
    ]


@dataclass
class CreateTable(plan.Asked):
    """`resource` is the reference of the table, too."""

    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        answer = context.when_known("the VPC", lambda: self.send(context))
        context.know(self.resource, answer["RouteTable"]["RouteTableId"])

    def needs(self, place: Place) -> Iterable[Found]:
        return place.creates("CreateRouteTable", "route-table", "vpc")

    def request(self, ids: plan.Ids) -> plan.Request:
        tagging = tags.at_creation("route-table", self.tags)
        return "create_route_table", {"VpcId": ids.id("vpc"), "TagSpecifications": tagging}


@dataclass
class DeleteTable(plan.Step):
    id: str
    associations: list[str]
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        for association in self.associations:
            context.gone(
                lambda association=association: context.ec2.disassociate_route_table(AssociationId=association),  # type: ignore[misc]
                ["InvalidAssociationID.NotFound"],
            )
        context.remove(
            f"{self.id} to be free for deletion", lambda: context.ec2.delete_route_table(RouteTableId=self.id)
        )

    def needs(self, place: Place) -> Iterable[Found]:
        if self.associations:
            yield from place.changes("DisassociateRouteTable", self.id)
        yield from place.changes("DeleteRouteTable", self.id)


@dataclass
class Associate(plan.Step):
    """`table` and `subnet` are references; `association` is the id of the subnet's association with another table."""

    table: str
    subnet: str
    association: str
    action = plan.ATTACH

    def apply(self, context: Context) -> None:
        def call() -> None:
            table = context.id(self.table)
            if self.association:
                context.ec2.replace_route_table_association(AssociationId=self.association, RouteTableId=table)
            else:
                context.ec2.associate_route_table(RouteTableId=table, SubnetId=context.id(self.subnet))

        context.when_known(f"{self.table} and {self.subnet}", call)

    def needs(self, place: Place) -> Iterable[Found]:
        action = "ReplaceRouteTableAssociation" if self.association else "AssociateRouteTable"
        return place.changes(action, self.table, self.subnet)


@dataclass
class PutRoute(plan.Step):
    """`table` and `target` are references."""

    table: str
    destination: str
    target: str

    def arguments(self, context: Context) -> dict[str, str]:
        id = context.id(self.target)
        kind = "InstanceId" if id.startswith("i-") else "NatGatewayId" if id.startswith("nat-") else "GatewayId"
        return {"RouteTableId": context.id(self.table), "DestinationCidrBlock": self.destination, kind: id}


@dataclass
class CreateRoute(PutRoute):
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        request = self.arguments(context)

        def call() -> None:
            try:
                context.ec2.create_route(**request)
            except Exception as error:
                # A call repeated after a lost answer, or somebody else's route: it has to lead to the target.
                if session.error_code(error) != "RouteAlreadyExists":
                    raise
                context.ec2.replace_route(**request)

        context.when_known(f"{self.table} and {self.target}", call, TARGET_NOT_FOUND)

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("CreateRoute", self.table)


@dataclass
class ReplaceRoute(PutRoute):
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        request = self.arguments(context)
        what = f"{self.table} and {self.target}"
        context.when_known(what, lambda: context.ec2.replace_route(**request), TARGET_NOT_FOUND)

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("ReplaceRoute", self.table)


@dataclass
class DeleteRoute(plan.Step):
    table: str
    destination: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        context.gone(
            lambda: context.ec2.delete_route(
                RouteTableId=context.id(self.table), DestinationCidrBlock=self.destination
            ),
            [*NOT_FOUND, "InvalidRoute.NotFound"],
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("DeleteRoute", self.table)


def _own(case: Case) -> bool:
    return case.own_subnets


def _tagged(case: Case) -> bool:
    """Tables that were brought have no tag of ours; whether they were, the description of a removal does not say."""
    return case.own_subnets and not case.whole and not case.description.pod_route_tables


ROUTES, ROUTE_REPAIRS = ("ec2:CreateRoute",), ("ec2:ReplaceRoute", "ec2:DeleteRoute")
PERMISSIONS = (
    Grant(READ, ("ec2:DescribeRouteTables",)),
    Grant(MAKE, ("ec2:CreateRouteTable",), _own, tags=True),
    Grant(CHANGE, ("ec2:AssociateRouteTable", "ec2:DisassociateRouteTable", "ec2:DeleteRouteTable"), _own),
    Grant(CHANGE, ("ec2:ReplaceRouteTableAssociation",), _own),
    Grant(CHANGE, ROUTES, _tagged),
    Grant(CHANGE, ROUTE_REPAIRS, _tagged),
    Grant(MAKE, ROUTES, lambda case: not _tagged(case)),
    Grant(MAKE, ROUTE_REPAIRS, lambda case: not _tagged(case)),
)
