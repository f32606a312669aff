# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWS may answer and an emulator does not: repeated calls, forgotten instances, things that show late."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from test_ec2_plan import FACTS, description, finished

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import cluster, names, run, session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access.profiles import Role
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.groups import Authorize, WantedRule
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.route_tables import CreateRoute
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Launch

NAME = "demo-worker-0"
IDS = {
    "vpc": "vpc-1",
    "subnet/public/us-east-1a": "subnet-1",
    "security-group/worker": "sg-1",
    "route-table/x": "rtb-1",
}


def failed(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "RunInstances")


class Stub:
    """A client that gives its answers in turn, the last one for ever, and remembers what it was asked."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**request: Any) -> Any:
            self.asked.append((operation, request))
            answers = self.answers.get(operation, [{}])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def requests(self, operation: str) -> list[dict[str, Any]]:
        return [request for name, request in self.asked if name == operation]


def context(ec2: Stub, **ids: str) -> Context:
    aws: Any = SimpleNamespace(client=lambda service: ec2)
    return Context(aws, "demo", {**IDS, **ids}, 20)


def node(**more: Any) -> Launch:
    """The launch of a worker as it is planned."""
    steps = cluster.make(description(), Current(), FACTS).steps
    step = next(step for step in steps if isinstance(step, Launch) and step.name == NAME)
    return dataclasses.replace(step, **more)


def shown(*found: tuple[str, str]) -> dict[str, Any]:
    return {
        "Reservations": [
            {
                "Instances": [
                    {
                        "InstanceId": id,
                        "State": {"Name": word},
                        "InstanceType": "m5.large",
                        "ImageId": "ami-1",
                        "SourceDestCheck": False,
                    }
                    for id, word in found
                ]
            }
        ]
    }


def launched(id: str) -> dict[str, Any]:
    return dict(shown((id, "pending"))["Reservations"][0])


class TestLaunch:
    def launch(self, ec2: Stub, **more: Any) -> tuple[str, list[str]]:
        """The instance that is the node then, and the tokens that were used."""
        made = context(ec2)
        node(**more).apply(made)
        return made.id(f"instance/{NAME}"), [request["ClientToken"] for request in ec2.requests("run_instances")]

    def token(self, *ended: str) -> str:
        return names.launch_token("demo", "vpc-1", NAME, ended)

    def test_what_was_launched_from_another_description_is_the_node(self) -> None:
        """It is waited for, since EC2 may not show yet what it launched a moment ago."""
        ec2 = Stub(
            run_instances=[failed("IdempotentParameterMismatch")],
            describe_instances=[shown(), shown(("i-1", "pending"))],
        )
        assert self.launch(ec2) == ("i-1", [self.token()])

    def test_what_has_ended_and_is_shown_begins_a_generation(self) -> None:
        ec2 = Stub(
            run_instances=[failed("IdempotentInstanceTerminated"), launched("i-2")],
            # Right after its end it may still be shown as it was.
            describe_instances=[shown(("i-1", "running"))],
        )
        assert self.launch(ec2) == ("i-2", [self.token(), self.token("i-1")])

    def test_what_has_ended_and_is_forgotten_begins_a_generation_at_once(self) -> None:
        tokens = []
        for _run in range(2):
            ec2 = Stub(
                run_instances=[
                    failed("IdempotentInstanceTerminated"),
                    failed("IdempotentInstanceTerminated"),
                    launched("i-2"),
                ],
                describe_instances=[shown()],
            )
            id, used = self.launch(ec2)
            assert id == "i-2" and len(set(used)) == 3 and used[0] == self.token()
            # An attempt that waits for EC2 to show something would ask until CONSISTENCY_S are over.
            assert len(ec2.requests("describe_instances")) == 2
            tokens.append(used)
        assert tokens[0] == tokens[1]

    def test_it_ends_when_every_generation_has_ended(self) -> None:
        ec2 = Stub(run_instances=[failed("IdempotentInstanceTerminated")], describe_instances=[shown()])
        with pytest.raises(session.AwsError, match=f"cannot launch {NAME}"):
            self.launch(ec2)

    @pytest.mark.parametrize("code", ["InvalidKeyPair.NotFound", "InvalidSubnetID.NotFound", "InvalidGroup.NotFound"])
    def test_what_was_just_made_may_not_be_known_yet(self, code: str) -> None:
        ec2 = Stub(run_instances=[failed(code), launched("i-1")])
        assert self.launch(ec2) == ("i-1", [self.token()] * 2)


class TestRepeatedCalls:
    """botocore calls again when an answer was lost, and the first call may have done it all."""

    def authorize(self, ec2: Stub) -> None:
        rules = [WantedRule("tcp", port, port, "192.0.2.0/24", "why") for port in (22, 6443)]
        Authorize("rules/worker", "why", "security-group/worker", rules).apply(context(ec2))

    def test_a_rule_that_is_there_keeps_no_other_from_being_made(self) -> None:
        ec2 = Stub(
            authorize_security_group_ingress=[
                failed("InvalidPermission.Duplicate"),
                failed("InvalidPermission.Duplicate"),
                {},
            ]
        )
        self.authorize(ec2)
        asked = [
            [rule["FromPort"] for rule in request["IpPermissions"]]
            for request in ec2.requests("authorize_security_group_ingress")
        ]
        assert asked == [[22, 6443], [22], [6443]]

    def test_other_errors_of_rules_are_errors(self) -> None:
        ec2 = Stub(authorize_security_group_ingress=[failed("RulesPerSecurityGroupLimitExceeded")])
        with pytest.raises(ClientError):
            self.authorize(ec2)

    def test_a_route_that_is_there_leads_where_it_shall(self) -> None:
        ec2 = Stub(create_route=[failed("RouteAlreadyExists")])
        made = context(ec2, **{f"instance/{NAME}": "i-1"})
        CreateRoute("route/x", "why", "route-table/x", "10.200.0.0/24", f"instance/{NAME}").apply(made)
        wanted = {"RouteTableId": "rtb-1", "DestinationCidrBlock": "10.200.0.0/24", "InstanceId": "i-1"}
        assert ec2.asked == [("create_route", wanted), ("replace_route", wanted)]

    def test_other_errors_of_routes_are_errors(self) -> None:
        ec2 = Stub(create_route=[failed("RouteLimitExceeded")])
        with pytest.raises(ClientError):
            CreateRoute("route/x", "why", "route-table/x", "0.0.0.0/0", "gateway").apply(context(ec2, gateway="igw-1"))
        assert ec2.requests("replace_route") == []


class TestRemoval:
    """What an account shows after everything was removed."""

    def remove(self, monkeypatch: pytest.MonkeyPatch, *then: Current, timeout_s: int = 20) -> run.Outcome:
        answers = [finished(), *then]
        monkeypatch.setattr(
            cluster, "read", lambda *_given, **_more: answers.pop(0) if len(answers) > 1 else answers[0]
        )
        monkeypatch.setattr(run, "carry_out", lambda *_given: None)
        aws: Any = SimpleNamespace(region="us-east-1", calls=[])
        options = {
            "name": "demo",
            "state": "absent",
            "instance_profiles": True,
            "check_permissions": False,
            "backup_bucket": "",
        }
        return run.converge({**options, "wait_timeout": timeout_s}, False, aws)

    def late(self) -> Current:
        name = names.role("demo", "us-east-1", "worker")
        return Current(roles={name: Role(name, "arn")})

    def test_a_role_that_is_still_shown_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        done = self.remove(monkeypatch, self.late(), Current())
        assert done.result["changed"]

    def test_what_stays_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(run.RunFailed, match="there is still iam-role/k8sgu-demo-us-east-1-worker") as error:
            self.remove(monkeypatch, self.late(), timeout_s=1)
        assert error.value.result["reached"] == error.value.result["plan"] != []
