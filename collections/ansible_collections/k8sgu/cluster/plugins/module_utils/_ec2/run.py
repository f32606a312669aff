# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run of ec2_cluster: read, check, plan and, unless only asked to look, carry out."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Collection, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import (
    cluster,
    compare,
    groups,
    names,
    permissions,
    policy,
    session,
    tags,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access import bastion
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.backups import bucket
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer import address
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import CONSISTENCY_S, Context, TimedOut
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import (
    Description,
    DescriptionError,
    check_bucket,
    check_name,
    parse,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import route_tables
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes import departures, members, offers, volumes
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.options import ARGUMENT_SPECS, RULES
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Facts, Plan, Step
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import BOTO3, LibraryMissing, require
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

# RunInstances allows two calls a second for long, with bursts; retries take up what is above.
PARALLEL = 8


@dataclass
class Outcome:
    """What the module returns, and what it warns of."""

    result: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


class RunFailed(Exception):
    """The run failed after it had a plan; `result` has the plan and what was reached."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


class StepFailed(session.AwsError):
    """A step failed; `done` are those that were carried out, in the plan's order."""

    def __init__(self, message: str, done: list[Step]) -> None:
        super().__init__(message)
        self.done = done


class Refused(RunFailed, session.AwsError):
    """The run was refused before its first change. The result has the policy that would be enough."""


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises AwsError, DescriptionError, RunFailed and LibraryMissing."""
    require(BOTO3)
    outcome = converge(call.options, call.check_mode)
    call.warnings += outcome.warnings
    return outcome.result


def converge(options: Mapping[str, Any], check_mode: bool, aws: session.Aws | None = None) -> Outcome:
    """Changes the account to what the options describe. Raises AwsError, DescriptionError and RunFailed."""
    check_name(options["name"])
    if aws is None:
        aws = session.Aws(session.Connection.from_options(options))
    if options["state"] == "absent":
        return _absent(aws, options, check_mode)
    if options["state"] == "compared":
        return Outcome(*compare.compared(aws, parse(options, aws.region, aws.partition)))
    return _present(aws, parse(options, aws.region, aws.partition), options, check_mode)


def _present(aws: session.Aws, description: Description, options: Mapping[str, Any], check_mode: bool) -> Outcome:
    groups.check_quota(description)
    current = cluster.read(aws, description, removing=False)
    reader = Reader(aws, description.name)
    cluster.check(description, current)
    zones = offers.zones_of(reader, description, current)
    drained = options["drained"] if options["nodes_leave"] == "drained" else None
    plan = cluster.make(description, current, Facts(zones), drained=drained)
    if cluster.launches(plan):
        facts = cluster.facts_for_launch(reader, description, current, zones, plan)
        plan = cluster.make(description, current, facts, drained=drained)
    cluster.check_names(reader, plan)
    result = _result(aws, description, current, plan)
    result["billed"] = cluster.billed(description, max(1, len(zones)))
    ending = members.ending(current, plan)
    volumes_kept = volumes.living_problems(description, current) if description.lives else []
    if volumes_kept:
        sizes = sorted({pool.etcd_volume_size for pool in description.pools if pool.role == tags.CONTROL_PLANE})
        raise RunFailed(
            f"etcd_volume_size: {sizes[0]} GiB, and the cluster lives: {'; '.join(volumes_kept)} "
            "(k8sgu_etcd_volume_size), or make a new cluster with it beside this one",
            {**result, "reached": [], "changed": False},
        )
    if ending and description.lives and options["nodes_leave"] == "at_once":
        listed = "; ".join(f"{step.resource}: {step.reason}" for step in ending)
        raise RunFailed(
            f"lives: {listed}. Each is a member of the living cluster's etcd and would end with its data; "
            "ask which nodes leave (nodes_leave: ask), remove them from etcd, and say so (drained)",
            {**result, "reached": [], "changed": False},
        )
    replacements = plan.replacements()
    if replacements and not description.allow_replace:
        listed = "; ".join(f"{step.resource}: {step.reason}" for step in replacements)
        raise RunFailed(
            f"allow_replace: {listed}. Set allow_replace: true to have it done, or take the change back",
            {**result, "reached": [], "changed": False},
        )
    leaving = departures.departures(description, plan, current)
    result["leaving"] = [departure.shown() for departure in leaving]
    if plan.changes and options["check_permissions"]:
        _check_permissions(aws, description, current, plan, result)
    if leaving and options["nodes_leave"] == "ask":
        return _asked(aws, description, current, plan, result)
    _check_drained(leaving, drained, result)
    if plan.steps and not check_mode:
        _carry_out(aws, description, plan, options, result)
        result["leaving"] = []
        current = cluster.read(aws, description, removing=False)
    result.update(_found(aws, description, current, plan))
    result["api_calls"] = len(aws.calls)
    return Outcome(result, plan.warnings)


def _asked(aws: session.Aws, description: Description, current: Current, plan: Plan, result: dict[str, Any]) -> Outcome:
    """Nothing is done; the plan is left to the run that knows which nodes are drained."""
    result.update(_found(aws, description, current, plan))
    result.update(changed=False, plan=[], members=[node.name for node in plan.nodes], api_calls=len(aws.calls))
    del result["diff"]
    return Outcome(result)


def _check_drained(
    leaving: Sequence[departures.Departure], drained: Collection[str] | None, result: Mapping[str, Any]
) -> None:
    """Refuses a plan that ends a node which was not among those that leave when it was asked for them."""
    if drained is None:
        return
    names = [departure.instance.name for departure in leaving if departure.instance.name not in drained]
    if names:
        raise RunFailed(
            f"drained: {', '.join(names)} would end and is not among them; the account or the description has "
            "changed since the nodes were drained. Run it again",
            {**result, "reached": [], "changed": False},
        )


def _absent(aws: session.Aws, options: Mapping[str, Any], check_mode: bool) -> Outcome:
    check_bucket(options["backup_bucket"])
    description = Description(
        name=options["name"],
        region=aws.region,
        instance_profiles=options["instance_profiles"],
        backup_bucket=options["backup_bucket"] or "",
    )
    current = cluster.read(aws, description, removing=True)
    kept = bucket.left(Reader(aws, description.name), description, current)
    plan = cluster.make(description, current, Facts(()), removing=True)
    result = {**_result(aws, description, current, plan), "kept_buckets": kept}
    if plan.changes and options["check_permissions"]:
        _check_permissions(aws, description, current, plan, result)
    if plan.steps and not check_mode:
        context = _carry_out(aws, description, plan, options, result)
        left: list[str] = []

        def probe() -> bool | None:
            there = cluster.read(aws, description, removing=True)
            left[:] = [step.resource for step in cluster.make(description, there, Facts(()), removing=True).changes]
            return None if left else True

        try:
            # IAM shows for a while what is gone.
            context.until("nothing to be left", probe, CONSISTENCY_S)
        except TimedOut as error:
            raise RunFailed(
                f"after everything of {description.name} was removed there is still {', '.join(left)}; something else "
                "creates such things, or the API still shows what is gone: run it again",
                {**result, "reached": result["plan"]},
            ) from error
    result["api_calls"] = len(aws.calls)
    return Outcome(result)


def _check_permissions(
    aws: session.Aws, description: Description, current: Current, plan: Plan, result: dict[str, Any]
) -> None:
    try:
        result["permissions_checked_by"] = permissions.check(aws, plan, description, current)
    except permissions.Missing as error:
        more = {"permissions_checked_by": error.checked_by, "api_calls": len(aws.calls)}
        raise Refused(str(error), {**result, **more, "reached": [], "changed": False}) from error


def _carry_out(
    aws: session.Aws, description: Description, plan: Plan, options: Mapping[str, Any], result: dict[str, Any]
) -> Context:
    context = Context(aws, description.name, plan.ids, options["wait_timeout"])
    try:
        carry_out(plan, context)
    except StepFailed as error:
        reached = [step.shown() for step in error.done]
        more = {"reached": reached, "changed": bool(reached), "api_calls": len(aws.calls)}
        if "leaving" in result:
            more["leaving"] = [item for item in result["leaving"] if item["instance_id"] not in context.ended]
        raise RunFailed(str(error), {**result, **more}) from error
    return context


def carry_out(plan: Plan, context: Context) -> None:
    """Carries out all steps, those that do not need each other side by side.

    When one fails, those under way end, no other begins, and StepFailed says which were carried out.
    """
    steps = {step.key: step for step in plan.steps}
    needs = {key: set(step.after) for key, step in steps.items()}
    needed_by: dict[str, list[str]] = {}
    for key, step in steps.items():
        for need in step.after:
            needed_by.setdefault(need, []).append(key)
    ready = [key for key, open_needs in needs.items() if not open_needs]
    done: set[str] = set()
    running: dict[Future[None], Step] = {}
    failure: tuple[Step, BaseException] | None = None
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        try:
            while running or (ready and failure is None):
                for key in ready if failure is None else ():
                    step = steps[key]
                    running[pool.submit(step.apply, context)] = step
                ready = []
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step = running.pop(future)
                    error = future.exception()
                    if error is not None:
                        if failure is None or isinstance(failure[1], TimedOut):
                            failure = (step, error)
                        context.stopped.set()
                        continue
                    done.add(step.key)
                    for key in needed_by.get(step.key, ()):
                        needs[key].discard(step.key)
                        if not needs[key]:
                            ready.append(key)
        except BaseException:
            # On an interrupt the steps under way stop waiting.
            context.stopped.set()
            raise
    if failure is None:
        return
    step, error = failure
    if not isinstance(error, Exception):
        raise error
    message = session.explain(error, f"{step.action} {step.resource}")
    if isinstance(error, session.AwsError):
        message = f"{step.action} {step.resource}: {error}"
    raise StepFailed(message, [other for other in plan.changes if other.key in done]) from error


def _result(aws: session.Aws, description: Description, current: Current, plan: Plan) -> dict[str, Any]:
    lines = [f"{step.action} {step.resource}  # {step.reason}\n" for step in plan.changes]
    return {
        "changed": bool(plan.changes),
        "plan": [step.shown() for step in plan.changes],
        "diff": {
            "before_header": f"cluster {description.name} in {aws.region}",
            "after_header": "plan",
            "before": "",
            "after": "".join(lines),
        },
        "iam_policy": policy.document(description, current),
        "api_calls": len(aws.calls),
    }


def _found(aws: session.Aws, description: Description, current: Current, plan: Plan) -> dict[str, Any]:
    """What there is after the run, for the roles that come next."""
    alive = current.nodes()
    nodes = [_node(alive[node.name]) for node in plan.nodes if node.name in alive]
    first = next((node for node in nodes if node["role"] == tags.CONTROL_PLANE), None)
    balancer = next((item for item in current.load_balancers if tags.cluster_tag(description.name) in item.tags), None)
    found: dict[str, Any] = {
        "nodes": nodes,
        "addresses": {node["name"]: _reached_by(description, node) for node in nodes},
        "subnet_ids": sorted({node["subnet_id"] for node in nodes}),
        "security_groups": {group.tags.get(tags.ROLE, ""): group.id for group in current.groups},
        "load_balancer": {},
        "api_endpoint": {},
        "network": {},
        "bastion": {},
        "backup_bucket": bucket.shown(description, current),
    }
    door = bastion.there(description, current) if description.has_bastion else None
    if door:
        found["bastion"] = {"name": door.name, "instance_id": door.id, "public_ip": door.public_ip}
    if current.vpc:
        found["vpc_id"] = current.vpc.id
        found["network"] = {
            "vpc_cidrs": [current.vpc.cidr, *sorted(current.vpc.further_cidrs)],
            "routed_cidrs": route_tables.with_routes_back(description, current),
        }
    if balancer and plan.balanced:
        found["load_balancer"] = {
            "name": balancer.name,
            "dns_name": balancer.dns_name,
            "arn": balancer.arn,
            "scheme": balancer.scheme,
        }
        host, inside = address.host(Reader(aws, description.name), balancer), balancer.dns_name
        if first and description.private_nodes and description.control_plane_count == 1 and description.faces_internet:
            # Nodes need no way around by the internet.
            inside = first["private_ip"]
    elif first and not plan.balanced:
        host, inside = _reached_by(description, first), first["private_ip"]
    else:
        return found
    found["api_endpoint"] = {"host": host, "private_host": inside, "port": names.API_PORT}
    return found


def _reached_by(description: Description, node: Mapping[str, Any]) -> str:
    """Where administrators reach a node. A group admits a private address only on the way to a private one."""
    address: str = node["private_ip"] if description.inside else node["public_ip"] or node["private_ip"]
    return address


def _node(instance: Instance) -> dict[str, Any]:
    return {
        "name": instance.name,
        "role": instance.tags.get(tags.ROLE, ""),
        "pool": instance.tags.get(tags.POOL, ""),
        "instance_id": instance.id,
        "instance_type": instance.instance_type,
        "image_id": instance.image_id,
        "zone": instance.zone,
        "subnet_id": instance.subnet_id,
        "state": instance.state,
        "private_ip": instance.private_ip,
        "public_ip": instance.public_ip,
        "private_dns": instance.private_dns,
        "pod_cidr": instance.tags.get(tags.POD_CIDR, ""),
    }


ERRORS = (session.AwsError, DescriptionError, RunFailed, LibraryMissing)
MODULE = Module(ARGUMENT_SPECS["ec2_cluster"], run, ERRORS, RULES)
