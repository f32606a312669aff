# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IAM's SimulatePrincipalPolicy for moto, which has none: the principal's own policies, evaluated with conditions.

moto itself checks only actions and treats any condition or resource in a policy as a denial. So a caller has two
policies: `ENFORCED`, for moto, and the intended one, which the simulator evaluates.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from moto.core.responses import ActionResult
from moto.iam.exceptions import NotFoundException
from moto.iam.responses import IamResponse

from ec2lab.api import remembered
from ec2lab.api.policies import ALLOWED, IMPLICIT, decide, missing_keys

ENFORCED = "enforced"
# Few enough that every answer has several pages.
PAGE = 3


class Simulator:
    """What was asked, and how it answers beside what the policies say."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        # As AWS answers of actions that service control policies deny.
        self.organization_denies: set[str] = set()
        self.boundary: dict[str, Any] | None = None

    def answer(self, response: Any) -> ActionResult:
        source = response._get_param("PolicySourceArn")
        entries = response._get_param("ContextEntries", [])
        question = {
            "source": source,
            "actions": response._get_param("ActionNames", []),
            "resources": response._get_param("ResourceArns", ["*"]),
            "context": {entry["ContextKeyName"]: entry["ContextKeyValues"] for entry in entries},
        }
        start = int(response._get_param("Marker") or 0)
        documents = _documents(response.backend, source)
        if not start:
            self.asked.append(question)
        results = [self._result(documents, action, question) for action in question["actions"]]
        results = [one for several in results for one in several]
        page = {"EvaluationResults": results[start : start + PAGE], "IsTruncated": start + PAGE < len(results)}
        return ActionResult({**page, "Marker": str(start + PAGE)} if page["IsTruncated"] else page)

    def _result(self, documents: list[Any], action: str, question: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for resource in question["resources"]:
            result = {
                "EvalActionName": action,
                "EvalResourceName": resource,
                "EvalDecision": decide(documents, action, resource, question["context"]),
                "MissingContextValues": missing_keys(documents, question["context"]),
            }
            if action in self.organization_denies:
                result["EvalDecision"] = IMPLICIT
                result["OrganizationsDecisionDetail"] = {"AllowedByOrganizations": False}
            if self.boundary and decide([self.boundary], action, resource, question["context"]) != ALLOWED:
                result["EvalDecision"] = IMPLICIT
                result["PermissionsBoundaryDecisionDetail"] = {"AllowedByPermissionsBoundary": False}
            yield result


def _documents(backend: Any, arn: str) -> list[Any]:
    kind, _slash, rest = arn.split(":", 5)[5].partition("/")
    name = rest.rpartition("/")[2]
    holders = backend.users if kind == "user" else backend.roles
    found = [holder for holder in holders.values() if holder.name == name and holder.arn == arn]
    if not found:
        raise NotFoundException(f"{arn} not found")
    return [json.loads(text) for policy, text in found[0].policies.items() if policy != ENFORCED]


@contextlib.contextmanager
def simulator() -> Iterator[Simulator]:
    """moto with the action for as long as the context lasts."""
    made = Simulator()

    def answer(response: Any) -> Any:
        return made.answer(response)

    IamResponse.simulate_principal_policy = answer
    remembered.forget()
    try:
        yield made
    finally:
        del IamResponse.simulate_principal_policy
        remembered.forget()
