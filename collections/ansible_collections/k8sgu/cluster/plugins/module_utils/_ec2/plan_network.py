# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans the network: VPC, internet gateway, subnets, NAT gateways, route tables and their routes."""

from __future__ import annotations

import ipaddress
from typing import Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, ranges, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import DescriptionError

ANYWHERE = "0.0.0.0/0"
PUBLIC, PRIVATE = "public", "private"


def subnets_wanted(draft: plan.Draft) -> list[tuple[str, str]]:
    """The subnets to have, as kind and zone, those of the nodes first."""
    description = draft.description
    if draft.removing:
        return []
    zones = () if description.subnet_ids else draft.facts.zones
    wanted = [(PRIVATE if description.private_nodes else PUBLIC, zone) for zone in zones]
    if description.private_nodes and (description.nat_gateways != "none" or outside(draft)):
        wanted += [(PUBLIC, zone) for zone in zones]
    held = _subnets_held(draft)
    if description.private_nodes and description.nat_gateways == "per_zone":
        held += [(PUBLIC, zone) for kind, zone in held if kind == PRIVATE]
    return list(dict.fromkeys([*wanted, *held]))


def _subnets_held(draft: plan.Draft) -> list[tuple[str, str]]:
    """Subnets of ours, as kind and zone, in which there is a node that this run leaves as it is."""
    held = {instance.subnet_id for instance in draft.held.values()}
    found = [(subnet.tags.get(tags.ROLE, ""), subnet.zone) for subnet in draft.current.subnets if subnet.id in held]
    return [(kind, zone) for kind, zone in found if kind in (PUBLIC, PRIVATE)]


def outside(draft: plan.Draft) -> bool:
    """Whether a load balancer has public addresses."""
    return draft.description.balanced and draft.description.load_balancer_scheme == "internet-facing"


def node_subnets(draft: plan.Draft) -> list[tuple[str, str]]:
    """The subnets for nodes, as zone and reference, in the order in which nodes are dealt out to them."""
    if draft.description.subnet_ids:
        by_id = {subnet.id: subnet for subnet in (*draft.current.subnets, *draft.current.foreign_subnets)}
        return [(by_id[id].zone, f"subnet/{id}") for id in draft.description.subnet_ids]
    kind = PRIVATE if draft.description.private_nodes else PUBLIC
    return [(zone, f"subnet/{kind}/{zone}") for zone in draft.facts.zones]


def tables_wanted(draft: plan.Draft) -> dict[str, list[str]]:
    """The route tables to have, with the subnets (references) of each."""
    tables: dict[str, list[str]] = {}
    for kind, zone in subnets_wanted(draft):
        apart = kind == PRIVATE and draft.description.nat_gateways == "per_zone"
        tables.setdefault(f"{kind}-{zone}" if apart else kind, []).append(f"subnet/{kind}/{zone}")
    return tables


def nat_zones(draft: plan.Draft) -> list[str]:
    description = draft.description
    if draft.removing or not description.private_nodes or description.subnet_ids or description.nat_gateways == "none":
        return []
    if description.nat_gateways == "one":
        return [draft.facts.zones[0]]
    held = [zone for kind, zone in _subnets_held(draft) if kind == PRIVATE]
    return list(dict.fromkeys([*draft.facts.zones, *held]))


def plan_network(draft: plan.Draft) -> None:
    """The steps up to subnets that have their routes to the outside."""
    _vpc(draft)
    if draft.removing:
        return
    if any(kind == PUBLIC for kind, _zone in subnets_wanted(draft)):
        _gateway(draft)
    _subnets(draft)
    _nat(draft)
    _tables(draft)


def _vpc(draft: plan.Draft) -> None:
    vpc = draft.current.vpc
    if vpc:
        draft.know("vpc", vpc.id)
    if draft.removing or draft.description.vpc_id:
        return
    wanted = draft.tags(draft.cluster)
    cidr = draft.description.vpc_cidr
    if not vpc:
        draft.add(plan.CREATE, "vpc", f"{plan.MISSING}: {cidr}", "create_vpc", cidr=cidr, tags=wanted)
        draft.add(plan.UPDATE, "vpc", "public DNS names of instances are off by default", "enable_dns", ["create vpc"])
        return
    if vpc.cidr != cidr:
        raise DescriptionError(
            f"vpc_cidr: the cluster's VPC {vpc.id} has {vpc.cidr}, and a VPC's range cannot be changed to {cidr}; "
            "keep it, or remove the cluster (state: absent) and make it anew"
        )
    if not vpc.dns_hostnames:
        draft.add(plan.UPDATE, "vpc", "public DNS names of instances are off", "enable_dns")
    draft.keep_tags("vpc", vpc.id, vpc.tags, wanted)


def _gateway(draft: plan.Draft) -> None:
    vpc = draft.current.vpc
    if any(
        route.active and route.target.startswith("igw-")
        for table in draft.current.route_tables
        for route in table.routes.values()
    ):
        # Read only where no route proves that the gateway is there and attached.
        target = next(
            route.target
            for table in draft.current.route_tables
            for route in table.routes.values()
            if route.active and route.target.startswith("igw-")
        )
        draft.know("gateway", target)
        return
    for gateway in draft.current.foreign_gateways:
        if vpc and gateway.vpc_id == vpc.id:
            # A VPC has one at most, so the one that is there serves.
            draft.know("gateway", gateway.id)
            return
    mine = sorted(draft.current.gateways, key=lambda gateway: (gateway.vpc_id == "", gateway.id))
    if mine:
        draft.know("gateway", mine[0].id)
        draft.keep_tags("internet-gateway", mine[0].id, mine[0].tags, draft.tags(draft.cluster))
        if vpc and mine[0].vpc_id == vpc.id:
            return
    else:
        draft.add(plan.CREATE, "internet-gateway", plan.MISSING, "create_gateway", tags=draft.tags(draft.cluster))
    draft.add(
        plan.ATTACH,
        "internet-gateway",
        "it is not attached to the VPC",
        "attach_gateway",
        ["create vpc", "create internet-gateway"],
    )


def ours_by_place(draft: plan.Draft) -> dict[tuple[str, str], state.Subnet]:
    """Our subnets in the VPC by kind and zone."""
    vpc = draft.current.vpc
    found: dict[tuple[str, str], state.Subnet] = {}
    for subnet in sorted(draft.current.subnets, key=lambda subnet: subnet.id):
        if vpc and subnet.vpc_id == vpc.id:
            found.setdefault((subnet.tags.get(tags.ROLE, ""), subnet.zone), subnet)
    return found


def _subnets(draft: plan.Draft) -> None:
    description, current = draft.description, draft.current
    there = ours_by_place(draft)
    within = ranges.network(current.vpc.cidr if current.vpc else description.vpc_cidr)
    taken = [subnet.cidr for subnet in (*current.subnets, *current.foreign_subnets)]
    free = ranges.free(within, description.subnet_prefix, taken)
    for kind, zone in subnets_wanted(draft):
        reference = f"subnet/{kind}/{zone}"
        maps = kind == PUBLIC and not description.private_nodes
        wanted = draft.tags(f"{draft.cluster}-{kind}-{zone}", role=kind)
        subnet = there.get((kind, zone))
        if subnet:
            draft.know(reference, subnet.id)
            draft.keep_tags(reference, subnet.id, subnet.tags, wanted)
        else:
            cidr = next(free, "")
            if not cidr:
                raise DescriptionError(
                    f"subnet_prefix: no free /{description.subnet_prefix} is left in {within} for a subnet in {zone}; "
                    "give a longer prefix or a wider VPC"
                )
            reason = f"{plan.MISSING}: {cidr} in {zone}"
            draft.add(
                plan.CREATE,
                reference,
                reason,
                "create_subnet",
                ["create vpc"],
                reference=reference,
                cidr=cidr,
                zone=zone,
                tags=wanted,
            )
        if (subnet.maps_public_ip if subnet else False) != maps:
            reason = (
                "its instances should have public addresses"
                if maps
                else "its instances should have no public addresses"
            )
            draft.add(
                plan.UPDATE,
                reference,
                reason,
                "map_public_ip",
                [f"create {reference}"],
                reference=reference,
                enabled=maps,
            )
    for id in description.subnet_ids:
        draft.know(f"subnet/{id}", id)


def _nat(draft: plan.Draft) -> None:
    for zone in nat_zones(draft):
        reference, address = f"nat-gateway/{zone}", f"elastic-ip/{zone}"
        name = f"{draft.cluster}-nat-{zone}"
        subnet = f"subnet/{PUBLIC}/{zone}"
        wanted = draft.tags(name, role=zone)
        there = [
            nat
            for nat in draft.current.nat_gateways
            if nat.tags.get(tags.ROLE) == zone and nat.state in ("pending", "available")
        ]
        if there:
            draft.know(reference, there[0].id)
            if there[0].allocation_id:
                draft.know(address, there[0].allocation_id)
            draft.keep_tags(reference, there[0].id, there[0].tags, wanted)
            if there[0].state == "pending":
                draft.add(
                    plan.UPDATE, f"wait/{reference}", "it is still pending", "wait_nat", quiet=True, reference=reference
                )
            continue
        kept = [
            item for item in draft.current.addresses if item.tags.get(tags.ROLE) == zone and not item.association_id
        ]
        if kept:
            draft.know(address, kept[0].id)
        else:
            draft.add(
                plan.CREATE, address, "the NAT gateway needs it", "allocate_address", reference=address, tags=wanted
            )
        ended = sorted(nat.id for nat in draft.current.nat_gateways if nat.tags.get(tags.ROLE) == zone)
        draft.add(
            plan.CREATE,
            reference,
            f"private nodes{'' if draft.description.nat_gateways == 'one' else f' in {zone}'} reach the internet "
            "through it",
            "create_nat",
            [f"create {address}", f"create {subnet}", "attach internet-gateway", "create vpc"],
            reference=reference,
            address=address,
            subnet=subnet,
            ended=ended,
            tags=wanted,
        )


def tables_by_role(draft: plan.Draft) -> dict[str, state.RouteTable]:
    """Our route tables by role; of two of one role the one in use counts and the other is surplus."""
    found: dict[str, state.RouteTable] = {}
    for table in sorted(draft.current.route_tables, key=lambda table: (-len(table.associations), table.id)):
        if draft.current.vpc and table.vpc_id == draft.current.vpc.id:
            found.setdefault(table.tags.get(tags.ROLE, ""), table)
    return found


def _tables(draft: plan.Draft) -> None:
    there = tables_by_role(draft)
    zones_with_nat = nat_zones(draft)
    for role, subnets in tables_wanted(draft).items():
        reference = f"route-table/{role}"
        table = there.get(role)
        wanted = draft.tags(f"{draft.cluster}-{role}", role=role)
        if table:
            draft.know(reference, table.id)
            draft.keep_tags(reference, table.id, table.tags, wanted)
        else:
            draft.add(
                plan.CREATE, reference, plan.MISSING, "create_table", ["create vpc"], reference=reference, tags=wanted
            )
        gate = ""
        if role == PUBLIC:
            gate = "internet-gateway"
        elif zones_with_nat:
            gate = f"nat-gateway/{role[len(PRIVATE) + 1 :] or zones_with_nat[0]}"
        _default_route(draft, reference, table, gate)
        for subnet in subnets:
            _association(draft, reference, table, subnet)


def _default_route(draft: plan.Draft, reference: str, table: state.RouteTable | None, gate: str) -> None:
    there = table.routes.get(ANYWHERE) if table else None
    resource = f"route/{reference.partition('/')[2]}/{ANYWHERE}"
    if not gate:
        if there:
            draft.add(
                plan.DELETE, resource, plan.SURPLUS, "delete_route", table=there and reference, destination=ANYWHERE
            )
        return
    target = "gateway" if gate == "internet-gateway" else gate
    if there and there.active and there.target == draft.known(target):
        return
    reason = "the way to the internet" if not there else f"it leads to {there.target if there.active else 'nothing'}"
    draft.add(
        plan.UPDATE if there else plan.CREATE,
        resource,
        reason,
        "put_route",
        [
            f"create {reference}",
            "create internet-gateway",
            "attach internet-gateway",
            f"create {gate}",
            f"update wait/{gate}",
        ],
        table=reference,
        destination=ANYWHERE,
        target=target,
        replace=there is not None,
    )


def _association(draft: plan.Draft, reference: str, table: state.RouteTable | None, subnet: str) -> None:
    subnet_id = draft.known(subnet)
    if table and subnet_id and subnet_id in table.associations:
        return
    elsewhere = [
        other.associations[subnet_id]
        for other in (*draft.current.route_tables, *draft.current.foreign_route_tables)
        if subnet_id and subnet_id in other.associations
    ]
    draft.add(
        plan.ATTACH,
        f"route-table/{reference.partition('/')[2]}/{subnet.partition('/')[2]}",
        "the subnet has another route table" if elsewhere else "the subnet does not use its route table yet",
        "associate",
        [f"create {reference}", f"create {subnet}"],
        table=reference,
        subnet=subnet,
        association=elsewhere[0] if elsewhere else "",
    )


def routed_tables(draft: plan.Draft) -> dict[str, state.RouteTable | None]:
    """The tables that carry pod routes, by reference: our own, or those of the subnets that were brought."""
    if draft.removing:
        return {}
    if not draft.description.subnet_ids:
        there = tables_by_role(draft)
        return {f"route-table/{role}": there.get(role) for role in tables_wanted(draft)}
    found: dict[str, state.RouteTable | None] = {}
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


def plan_pod_routes(draft: plan.Draft, nodes: Iterable[plan.Node]) -> list[str]:
    """A route for each node's pods in each table, and no other to an instance of ours. Gives the keys of removals."""
    tables = routed_tables(draft)
    wanted = {node.pod_cidr: node.name for node in nodes} if draft.description.pod_network == "routed" else {}
    for reference, table in tables.items():
        routes = table.routes if table else {}
        for cidr, name in wanted.items():
            there = routes.get(cidr)
            instance_id = draft.known(f"instance/{name}")
            if there and there.active and there.target == instance_id and name not in draft.replaced:
                continue
            reason = (
                f"the pods of {name} are there"
                if not there
                else f"it leads to {there.target if there.active else 'nothing'} and not to {name}"
            )
            draft.add(
                plan.UPDATE if there else plan.CREATE,
                f"route/{reference.partition('/')[2]}/{cidr}",
                reason,
                "put_route",
                [f"create {reference}", f"create instance/{name}", f"replace instance/{name}", "update wait/instances"],
                table=reference,
                destination=cidr,
                target=f"instance/{name}",
                replace=there is not None,
            )
    return _surplus_routes(draft, set(tables), set(wanted))


def _surplus_routes(draft: plan.Draft, wanted_tables: set[str], wanted: set[str]) -> list[str]:
    instances = {instance.id for instance in draft.current.instances}
    removals = []
    tables = [*draft.current.route_tables, *draft.current.foreign_route_tables]
    references = {id: reference for reference, id in draft.plan.ids.items() if reference.startswith("route-table/")}
    surplus_tables = {table.id for table in draft.current.route_tables if table.id not in references}
    pods = ipaddress.IPv4Network(draft.description.pod_cidr)
    for table in tables:
        if table.id in surplus_tables:
            continue  # goes as a whole
        ours = table in draft.current.route_tables
        for route in table.routes.values():
            reference = references.get(table.id, f"route-table/{table.id}")
            if reference in wanted_tables and route.destination in wanted:
                continue
            # A dead route's instance may be forgotten; in our own table whatever lies in the pods' range is ours.
            dead = ours and not route.active and ipaddress.IPv4Network(route.destination).subnet_of(pods)
            if route.target in instances or dead:
                draft.know(reference, table.id)
                removals.append(
                    draft.add(
                        plan.DELETE,
                        f"route/{reference.partition('/')[2]}/{route.destination}",
                        "no node has these pods",
                        "delete_route",
                        table=reference,
                        destination=route.destination,
                    )
                )
    return removals
