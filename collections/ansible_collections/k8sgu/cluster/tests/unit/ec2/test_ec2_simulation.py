# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""IAM's simulator: how it is asked, and what its answers are taken for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import permissions, simulation
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Account, Need

ROOT = Path(__file__).resolve().parents[7]
ROLE = "arn:aws:iam::123456789012:role/x"
CONTEXT = (("aws:RequestedRegion", "us-east-1"),)
Answer = Callable[[dict[str, Any], str, str], dict[str, Any]]


class Api:
    """A simulator that answers as `answer` says, for each action and resource; a paginator of one result a page."""

    def __init__(self, answer: Answer, arn: str = "arn:aws:iam::123456789012:user/me") -> None:
        self.answer = answer
        self.arn = arn
        self.asked: list[dict[str, Any]] = []
        self.roles = {"deployer": "arn:aws:iam::123456789012:role/ops/deployer"}

    def client(self, _service: str) -> Api:
        return self

    def get_caller_identity(self) -> dict[str, str]:
        return {"Arn": self.arn}

    def get_role(self, RoleName: str) -> dict[str, Any]:
        return {"Role": {"Arn": self.roles[RoleName]}}

    def get_paginator(self, operation: str) -> Api:
        assert operation == "simulate_principal_policy"
        return self

    def paginate(self, **question: Any) -> list[dict[str, Any]]:
        self.asked.append(question)
        return [
            {
                "EvaluationResults": [
                    {"EvalActionName": action, "EvalResourceName": arn, **self.answer(question, action, arn)}
                ]
            }
            for action in question["ActionNames"]
            for arn in question["ResourceArns"]
        ]


def failed(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "SimulatePrincipalPolicy")


def need(action: str, resource: str = ROLE) -> Need:
    return Need(action, resource, CONTEXT, "create something")


def denied(api: Any, *needs: Need, certain: tuple[str, ...] = ()) -> list[str]:
    who = simulation.caller(api)
    assert who
    return [found.action for found in simulation.denied(api, who, needs, certain)]


def deny(decision: str = "implicitDeny", **more: Any) -> Answer:
    return lambda _question, _action, _arn: {"EvalDecision": decision, **more}


@pytest.mark.parametrize(
    ("arn", "source"),
    [
        ("arn:aws:iam::1:user/ops/me", "arn:aws:iam::1:user/ops/me"),
        ("arn:aws:sts::1:assumed-role/deployer/session", "arn:aws:iam::1:role/deployer"),
        ("arn:aws-cn:sts::1:assumed-role/deployer/a@b", "arn:aws-cn:iam::1:role/deployer"),
        ("arn:aws:iam::1:root", None),
        ("arn:aws:sts::1:federated-user/me", None),
    ],
)
def test_who_is_asked_about(arn: str, source: str | None) -> None:
    who = simulation.caller(Api(deny(), arn))  # type: ignore[arg-type]
    assert (who.arn if who else None) == source
    assert who is None or who.account == Account(arn.split(":")[1], "1")


def test_actions_of_one_context_and_resource_are_one_question() -> None:
    api = Api(deny("allowed"))
    assert denied(api, need("iam:CreateRole"), need("iam:TagRole"), need("iam:PassRole", ROLE + "y")) == []
    assert [question["ActionNames"] for question in api.asked] == [["iam:CreateRole", "iam:TagRole"], ["iam:PassRole"]]
    entry = {"ContextKeyName": "aws:RequestedRegion", "ContextKeyType": "string", "ContextKeyValues": ["us-east-1"]}
    assert api.asked[0]["ContextEntries"] == [entry]


def test_questions_are_cut_to_batches() -> None:
    api = Api(deny("allowed"))
    denied(api, *(need(f"iam:Action{number}") for number in range(simulation.ACTIONS + 1)))
    denied(api, *(need("iam:CreateRole", f"{ROLE}{number}") for number in range(simulation.RESOURCES + 1)))
    assert [len(question["ActionNames"]) for question in api.asked] == [simulation.ACTIONS, 1, 1, 1]
    assert [len(question["ResourceArns"]) for question in api.asked] == [1, 1, simulation.RESOURCES, 1]


def test_nothing_needed_asks_nothing() -> None:
    api = Api(deny())
    assert denied(api) == [] and api.asked == []


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        (deny(), True),
        (deny("explicitDeny"), True),
        (deny("allowed"), False),
        (deny(MissingContextValues=["aws:SourceIp"]), False),
        (deny("explicitDeny", MissingContextValues=["aws:MultiFactorAuthPresent"]), False),
        (deny(MissingContextValues=["ec2:createaction", "aws:ResourceTag/k8sgu.io/cluster/other"]), True),
        (deny(OrganizationsDecisionDetail={"AllowedByOrganizations": False}), False),
        (deny(OrganizationsDecisionDetail={"AllowedByOrganizations": True}), True),
        (deny(PermissionsBoundaryDecisionDetail={"AllowedByPermissionsBoundary": False}), True),
        (
            deny(ResourceSpecificResults=[{"EvalResourceName": ROLE, "EvalResourceDecision": "allowed"}]),
            False,
        ),
    ],
)
def test_what_an_answer_is_taken_for(answer: Answer, refused: bool) -> None:
    found = denied(Api(answer), need("iam:CreateRole"), certain=("ec2:CreateAction",))
    assert found == (["iam:CreateRole"] if refused else [])


def test_an_arn_that_the_simulator_does_not_take_is_no_denial() -> None:
    """It is allowed for every resource, so for this one too."""
    for_all: Answer = lambda _question, _action, arn: {"EvalDecision": "allowed" if arn == "*" else "implicitDeny"}  # noqa: E731
    assert denied(Api(for_all), need("iam:CreateRole")) == []
    explicit: Answer = lambda _question, _action, arn: {"EvalDecision": "allowed" if arn == "*" else "explicitDeny"}  # noqa: E731
    assert denied(Api(explicit), need("iam:CreateRole")) == ["iam:CreateRole"]


def test_actions_that_are_not_taken_together_are_asked_one_by_one() -> None:
    def answer(question: dict[str, Any], action: str, _arn: str) -> dict[str, Any]:
        if len(question["ActionNames"]) > 1 or action == "iam:Unknown":
            raise failed("InvalidInput")
        return {"EvalDecision": "implicitDeny" if action == "iam:TagRole" else "allowed"}

    assert denied(Api(answer), *map(need, ("iam:CreateRole", "iam:TagRole", "iam:Unknown"))) == ["iam:TagRole"]


def test_a_role_with_a_path_is_looked_up_once() -> None:
    def answer(question: dict[str, Any], _action: str, _arn: str) -> dict[str, Any]:
        if "/ops/" not in question["PolicySourceArn"]:
            raise failed("NoSuchEntity")
        return {"EvalDecision": "implicitDeny"}

    api = Api(answer, "arn:aws:sts::123456789012:assumed-role/deployer/session")
    assert denied(api, need("iam:CreateRole")) == ["iam:CreateRole"]
    assert [question["PolicySourceArn"].count("/ops/") for question in api.asked] == [0, 1, 1]


@pytest.mark.parametrize(
    "error",
    [failed("AccessDenied"), failed("NoSuchEntity"), failed("Throttling"), EndpointConnectionError(endpoint_url="x")],
)
def test_a_simulator_that_does_not_answer_is_none(error: Exception) -> None:
    def answer(_question: Any, _action: str, _arn: str) -> dict[str, Any]:
        raise error

    with pytest.raises(simulation.NotAvailable):
        denied(Api(answer), need("iam:CreateRole"))


def test_an_error_of_ours_is_not_taken_for_an_answer() -> None:
    def answer(_question: Any, _action: str, _arn: str) -> dict[str, Any]:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        denied(Api(answer), need("iam:CreateRole"))


def test_many_resources_of_an_action_are_counted() -> None:
    parts = permissions._by_iam([need("iam:PassRole", f"{ROLE}{number}") for number in range(4)])
    assert parts == [f"the permission iam:PassRole is missing on {ROLE}0 and {ROLE}1 and 2 more, for: create something"]


def test_the_docs_have_the_optional_statement() -> None:
    page = (ROOT / "docs" / "iam.md").read_text(encoding="utf-8")
    blocks = [json.loads(part.partition("```")[0]) for part in page.split("```json")[1:]]
    optional = next(block for block in blocks if block.get("Sid") == "AskBeforehand")
    assert optional["Action"] == ["iam:GetRole", "iam:SimulatePrincipalPolicy"] and "CALLER" in optional["Resource"]
