# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks IAM's policy simulator what the caller's policies do not allow, for every service and without any change.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Collection, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import ANY, Account, Need

# IAM throttles sooner than EC2.
PARALLEL = 4
# The answer has a result for each pair of action and resource.
ACTIONS, RESOURCES = 50, 20
ALLOWED, EXPLICIT = "allowed", "explicitDeny"


class NotAvailable(Exception):
    """There is no simulator, or the caller may not ask it."""


@dataclass(frozen=True)
class Caller:
    """Who asks. `arn` is that of the user or the role; the path of a role may be missing in it."""

    arn: str
    account: Account
    role: str = ""


def caller(aws: session.Aws) -> Caller | None:
    """The user or role whose policies count. None for others, such as the root user, and where STS does not answer."""
    try:
        arn = str(aws.client("sts").get_caller_identity()["Arn"])
    except Exception as error:
        if session.error_code(error) or type(error).__module__.startswith("botocore"):
            return None
        raise
    _arn, partition, service, _region, account, resource = arn.split(":", 5)
    kind, _slash, rest = resource.partition("/")
    place = Account(partition, account)
    if kind == "user":
        return Caller(arn if service == "iam" else f"arn:{partition}:iam::{account}:{resource}", place)
    if kind == "assumed-role":
        # The session's ARN has the role's name and not its path.
        name = rest.partition("/")[0]
        return Caller(f"arn:{partition}:iam::{account}:role/{name}", place, name)
    return None


def denied(aws: session.Aws, who: Caller, needs: Collection[Need], certain: Collection[str]) -> list[Need]:
    """The needs that the caller's policies certainly do not meet. Raises NotAvailable.

    `certain` are the context keys whose values are known: a need has them, or the request for it does not have them
    either. Tags of other clusters are among these. Where a policy asks for another key, such as the caller's address,
    nothing is certain.
    """
    if not needs:
        return []
    simulator = _Simulator(aws.client("iam"), who, frozenset(key.lower() for key in certain))
    refused = simulator.refused(needs)
    # What is allowed for every resource is allowed for each. Where the simulator denies one nevertheless, it does not
    # know that the action takes resources of that type.
    doubtful = [need for need in refused if refused[need] != EXPLICIT and need.resource != ANY]
    for_all = {Need(need.action, ANY, need.context, need.step) for need in doubtful}
    still = simulator.refused(for_all) if for_all else {}
    return [
        need for need in refused if need not in doubtful or Need(need.action, ANY, need.context, need.step) in still
    ]


class _Simulator:
    def __init__(self, iam: Any, who: Caller, certain: frozenset[str]) -> None:
        self._iam = iam
        self._source = who.arn
        self._role = who.role
        self._certain = certain

    def refused(self, needs: Iterable[Need]) -> dict[Need, str]:
        """The needs that are denied for certain, each with the decision."""
        resources: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        by_pair: dict[tuple[Any, str, str], Need] = {}
        for need in needs:
            resources[need.context, need.action].append(need.resource)
            by_pair[need.context, need.action, need.resource] = need
        # One question for all actions of one context on the same resources.
        actions: dict[tuple[Any, tuple[str, ...]], list[str]] = defaultdict(list)
        for (context, action), found in resources.items():
            for start in range(0, len(found), RESOURCES):
                actions[context, tuple(found[start : start + RESOURCES])].append(action)
        questions = [
            (context, arns, names[start : start + ACTIONS])
            for (context, arns), names in actions.items()
            for start in range(0, len(names), ACTIONS)
        ]
        # The first by itself: where it is not answered, the others are not asked.
        answers = [self._asked(*questions[0])]
        with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
            answers += pool.map(lambda question: self._asked(*question), questions[1:])
        return {
            by_pair[context, action, arn]: decision
            for (context, _arns, _names), answer in zip(questions, answers)
            for (action, arn), decision in answer.items()
            if (context, action, arn) in by_pair
        }

    def _asked(self, context: Any, resources: tuple[str, ...], actions: list[str]) -> dict[tuple[str, str], str]:
        """What is denied, by action and resource."""
        entries = [
            {"ContextKeyName": key, "ContextKeyType": "string", "ContextKeyValues": [value]} for key, value in context
        ]

        def ask() -> list[Any]:
            pages = self._iam.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=self._source,
                ActionNames=actions,
                ResourceArns=list(resources),
                ContextEntries=entries,
            )
            return [result for page in pages for result in page["EvaluationResults"]]

        try:
            results = self._with_path(ask)
        except Exception as error:
            if session.error_code(error) == "InvalidInput":
                # Actions that it refuses together it may take one by one. One that it does not know is not denied.
                single = [{}] if len(actions) == 1 else [self._asked(context, resources, [name]) for name in actions]
                return {pair: decision for found in single for pair, decision in found.items()}
            if session.error_code(error) or type(error).__module__.startswith("botocore"):
                raise NotAvailable(str(error)) from error
            raise
        found: dict[tuple[str, str], str] = {}
        for result in results:
            action = result["EvalActionName"]
            parts = result.get("ResourceSpecificResults")
            for part in parts or [{**result, "EvalResourceDecision": result["EvalDecision"]}]:
                missing = [*part.get("MissingContextValues", ()), *result.get("MissingContextValues", ())]
                decision = part["EvalResourceDecision"]
                if decision != ALLOWED and all(map(self._is_certain, missing)) and not _by_organization(result):
                    found[action, part["EvalResourceName"]] = decision
        return found

    def _is_certain(self, key: str) -> bool:
        return key.lower() in self._certain or tags.CLUSTER_PREFIX in key.lower()

    def _with_path(self, ask: Callable[[], list[Any]]) -> list[Any]:
        """Asks again with the role's full ARN where IAM does not know the one without a path."""
        try:
            return ask()
        except Exception as error:
            if session.error_code(error) != "NoSuchEntity" or not self._role:
                raise
            self._source, self._role = self._iam.get_role(RoleName=self._role)["Role"]["Arn"], ""
            return ask()


def _by_organization(result: Any) -> bool:
    """Whether service control policies are the reason: the simulator ignores their conditions."""
    return result.get("OrganizationsDecisionDetail", {}).get("AllowedByOrganizations") is False
