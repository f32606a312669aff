# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2 is asked beforehand (DryRun) with the very request that a step makes: no step has one of its own for that."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from test_ec2_apply import shown
from test_ec2_needs import CASES, FACTS, ZONES, kinds_of_steps, there
from test_ec2_plan import OURS, description

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import cluster, groups, permissions, plan, session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.nat import Address
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Launch

OTHER_KEY = "ssh-ed25519 BBBB"
with_address = dataclasses.replace(there(), addresses=[Address("eipalloc-1", "", OURS)])
MORE = {
    **CASES,
    "another key": (description(public_key=OTHER_KEY, allow_replace=True), there(), False),
    "a bastion": (description(private_nodes=True, admin_cidrs=("203.0.113.7/32",)), cluster.Current(), False),
    "removal of an address": (Description("demo", "us-east-1"), with_address, True),
}


def planned(case: str) -> plan.Plan:
    wanted, current, removing = MORE[case]
    facts = plan.Facts(()) if removing else dataclasses.replace(FACTS, zones=ZONES[: max(1, len(wanted.zones))])
    return cluster.make(wanted, current, facts, removing)


class Recorder:
    """A client that remembers what it was asked and answers with something that serves."""

    def __init__(self) -> None:
        self.asked: list[plan.Request] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**request: Any) -> Any:
            self.asked.append((operation, {key: value for key, value in request.items() if key != "ClientToken"}))
            if operation == "run_instances":
                return shown(("i-1", "running"))["Reservations"][0]
            if operation == "describe_nat_gateways":
                return {"NatGateways": [{"State": "available"}]}
            if operation == "describe_volumes_modifications":
                return {"VolumesModifications": [{"ModificationState": "optimizing"}]}
            return MagicMock()

        return call

    def get_paginator(self, _operation: str) -> Any:
        return SimpleNamespace(paginate=lambda **_request: [])


class Whole(Context):
    """A run in which everything that is not known has the id of its stand-in."""

    def __init__(self, client: Recorder, known: plan.StandIns) -> None:
        aws: Any = SimpleNamespace(client=lambda service: client)
        super().__init__(aws, known.cluster, {}, 5)
        self.known = known

    def id(self, reference: str) -> str:
        return self.known.id(reference) if reference.partition("/")[0] in plan.PREFIXES else "x-1"

    def public_ip(self, node: str) -> str:
        return self.known.public_ip(node)


def asked_kinds() -> set[type[plan.Step]]:
    return {kind for kind in kinds_of_steps() if issubclass(kind, plan.Asked)}


def test_every_step_that_can_be_asked_for_sends_what_it_asks() -> None:
    seen: set[type[plan.Step]] = set()
    for case in MORE:
        made = planned(case)
        known = plan.StandIns(made.ids, "demo")
        for step in made.steps:
            if not isinstance(step, plan.Asked):
                assert not list(step.questions(known)), step
                continue
            questions = list(step.questions(known))
            client = Recorder()
            step.apply(Whole(client, known))
            operations = {operation for operation, _request in step.requests(known)}
            sent = [(operation, request) for operation, request in client.asked if operation in operations]
            assert questions == [] or questions == sent, step
            if questions:
                seen.add(type(step))
    assert seen == asked_kinds() and len(seen) > 20


def test_no_kind_of_step_has_a_question_of_its_own() -> None:
    """But for rules, which are asked about only where their group is there."""
    for kind in kinds_of_steps():
        makers = [base for base in kind.__mro__ if "questions" in vars(base)]
        assert makers[0] in (plan.Step, plan.Asked, groups._OfRules), kind
        assert "send" not in vars(kind), kind


def test_a_launch_is_asked_for_with_all_that_policies_go_by() -> None:
    made = planned("from nothing")
    known = plan.StandIns(made.ids, "demo")
    for step in made.of(Launch):
        ((operation, request),) = step.questions(known)
        assert operation == "run_instances" and request["MetadataOptions"]["HttpTokens"] == "required"
        assert all(entry["Ebs"]["Encrypted"] for entry in request["BlockDeviceMappings"])
        assert request["IamInstanceProfile"]["Name"].startswith("k8sgu-demo-")
        assert {entry["ResourceType"] for entry in request["TagSpecifications"]} >= {"instance", "volume"}
        assert request["NetworkInterfaces"][0]["SubnetId"] == "subnet-00000000"


@pytest.mark.parametrize(
    ("code", "message", "found"),
    [
        ("DryRunOperation", "would have succeeded", {"ec2:RunInstances": False}),
        ("UnauthorizedOperation", "no", {"ec2:RunInstances": True}),
        ("InvalidSubnetID.NotFound", "no subnet-00000000", {"ec2:RunInstances": False}),
        # Nothing was said about permissions: that is for the simulator.
        ("InvalidParameterValue", "Invalid IAM Instance Profile name", {}),
    ],
)
def test_what_an_answer_says(code: str, message: str, found: dict[str, bool]) -> None:
    class Error(Exception):
        response = {"Error": {"Code": code, "Message": message}}  # noqa: RUF012

        def __str__(self) -> str:
            return message

    def run_instances(**request: Any) -> None:
        assert request["DryRun"]
        raise Error

    ec2 = SimpleNamespace(
        run_instances=run_instances, meta=SimpleNamespace(method_to_api_mapping={"run_instances": "RunInstances"})
    )
    aws: Any = SimpleNamespace(client=lambda service: ec2)
    made = planned("from nothing")
    launches = plan.Plan([step for step in made.steps if isinstance(step, Launch)], made.ids)
    answers = permissions.ask(aws, launches, "demo")
    assert {action: error is not None for action, error in answers.items()} == found
    assert all(error is None or session.error_code(error) == code for error in answers.values())
