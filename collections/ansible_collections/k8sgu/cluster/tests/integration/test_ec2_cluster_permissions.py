# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A permission that is missing is refused before the first change, whatever the service; a right-sized policy never."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from ec2_account import account, picture, pool, run
from iam_simulator import ENFORCED, Simulator, simulator
from moto_server import REGION, Server
from test_ec2_cluster_policy import LAYOUTS, Caller, actions, enforce

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import policy, session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.run import Refused, RunFailed

ASKING = ["iam:GetRole", "iam:SimulatePrincipalPolicy"]
HA = {"pools": [pool("control_plane", 3), pool("workers", 1)], "zones": ["us-east-1a", "us-east-1b"]}
ABSENT = {"state": "absent"}


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with account() as server:
        yield server
        enforce(server, False)


@pytest.fixture
def simulated() -> Iterator[Simulator]:
    with simulator() as made:
        yield made


def documented(**options: Any) -> dict[str, Any]:
    """The policy of a run's result."""
    document: dict[str, Any] = run(check_mode=True, **options)["iam_policy"]
    return document


def without(document: dict[str, Any], *less: str) -> dict[str, Any]:
    statements = [
        {**statement, "Action": [action for action in statement["Action"] if action not in less]}
        for statement in document["Statement"]
    ]
    return {**document, "Statement": [statement for statement in statements if statement["Action"]]}


class Policed(Caller):
    """A user with a policy in full, and its actions for moto to enforce; `asking` is what it may ask beside."""

    def has(self, document: dict[str, Any], asking: Sequence[str] = tuple(ASKING)) -> None:
        enforce(self.server, False)
        put = self.iam.put_user_policy
        put(UserName="caller", PolicyName="meant", PolicyDocument=json.dumps(document))
        allow = {"Effect": "Allow", "Action": [*actions(document), *asking], "Resource": "*"}
        text = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        put(UserName="caller", PolicyName=ENFORCED, PolicyDocument=text)
        enforce(self.server, True)


def refused(caller: Policed, before: dict[str, Any], **options: Any) -> Refused:
    """The error of a run that made nothing."""
    for check_mode in (True, False):
        with pytest.raises(Refused) as failure:
            run(check_mode=check_mode, aws=caller.aws, **options)
        enforce(caller.server, False)
        assert picture(caller.server) == before
        enforce(caller.server, True)
    error = failure.value
    assert error.result["reached"] == [] and error.result["changed"] is False and error.result["plan"]
    assert "nothing was changed" in str(error) and "iam_policy" in str(error) and "\n" not in str(error)
    return error


# Each missing action, with the resource that its error names.
ROLE = "role/k8sgu/us-east-1/demo/k8sgu-demo-us-east-1-control-plane"
MAKING = [
    (
        {},
        [
            ("iam:CreateRole", ROLE),
            ("iam:TagRole", ROLE),
            ("iam:GetRolePolicy", ROLE),
            ("iam:PassRole", ROLE),
            ("iam:AddRoleToInstanceProfile", "instance-profile/k8sgu/us-east-1/demo/k8sgu-demo-"),
            ("ec2:RunInstances", ""),
            ("ec2:ModifyVpcAttribute", "vpc/*"),
            ("ec2:AssociateRouteTable", "route-table/*"),
            ("ec2:CreateRoute", "route-table/*"),
            ("ec2:ModifyInstanceAttribute", "instance/*"),
        ],
    ),
    (
        HA,
        [
            ("elasticloadbalancing:CreateLoadBalancer", "loadbalancer/net/demo-api/*"),
            ("elasticloadbalancing:AddTags", "targetgroup/demo-api/*"),
            ("elasticloadbalancing:CreateListener", "loadbalancer/net/demo-api/*"),
            ("elasticloadbalancing:RegisterTargets", "targetgroup/demo-api/*"),
            ("elasticloadbalancing:DescribeTargetHealth", "*"),
        ],
    ),
]


@pytest.mark.parametrize(("options", "missing"), MAKING, ids=["one server", "a balancer"])
def test_what_making_lacks(
    running: Server, simulated: Simulator, options: dict[str, Any], missing: list[tuple[str, str]]
) -> None:
    caller = Policed(running)
    before = picture(running)
    caller.has(without(documented(**options), *(action for action, _resource in missing)))
    error = refused(caller, before, **options)
    for action, resource in missing:
        assert re.search(rf"the permission {action} is missing [^;]*{re.escape(resource)}", str(error)), error
    assert str(error).count("the permission") == len(missing)
    assert error.result["permissions_checked_by"] == "simulation"


def test_what_removing_lacks(running: Server, simulated: Simulator) -> None:
    missing = (
        "ec2:DeleteSubnet",
        "ec2:DeleteVpc",
        "iam:DeleteInstanceProfile",
        "iam:DeleteRole",
        "elasticloadbalancing:DeleteLoadBalancer",
        "elasticloadbalancing:DeleteTargetGroup",
    )
    caller = Policed(running)
    run(**HA)
    before = picture(running)
    caller.has(without(policy.document(Description("demo", REGION)), *missing))
    error = str(refused(caller, before, **ABSENT))
    assert [action for action in missing if f"the permission {action} is missing on arn:aws:" in error] == list(missing)
    assert error.count("the permission") == len(missing)


@pytest.mark.parametrize("action", ["iam:CreateRole", "ec2:CreateVpc"])
def test_one_that_is_missing_is_named_alone(running: Server, simulated: Simulator, action: str) -> None:
    caller = Policed(running)
    before = picture(running)
    caller.has(without(documented(), action))
    error = str(refused(caller, before))
    assert f"the permission {action} is missing" in error and error.count("the permission") == 1


@pytest.mark.parametrize("layout", [{}, HA, *LAYOUTS.values()])
def test_the_documented_policy_is_not_refused(running: Server, simulated: Simulator, layout: dict[str, Any]) -> None:
    caller = Policed(running)
    before = picture(running)
    caller.has(documented(**layout))
    assert run(aws=caller.aws, **layout)["permissions_checked_by"] == "simulation"
    assert simulated.asked and all(question["source"].endswith(":user/caller") for question in simulated.asked)
    del simulated.asked[:], caller.aws.calls[:]
    again = run(aws=caller.aws, **layout)
    assert not again["changed"] and "permissions_checked_by" not in again and not simulated.asked
    assert "sts:GetCallerIdentity" not in caller.aws.calls
    caller.has(policy.document(Description("demo", REGION)))
    assert run(aws=caller.aws, **ABSENT)["permissions_checked_by"] == "simulation"
    enforce(running, False)
    assert picture(running) == before


def test_a_policy_for_another_cluster_or_without_our_tag_is_refused(running: Server, simulated: Simulator) -> None:
    caller = Policed(running)
    before = picture(running)
    text = json.dumps(documented())
    caller.has(json.loads(text.replace("/us-east-1/demo/", "/us-east-1/other/")))
    assert "the permission iam:CreateRole is missing on" in str(refused(caller, before))
    caller.has(json.loads(text.replace("k8sgu.io/cluster/demo", "k8sgu.io/cluster/other")))
    assert "the permission ec2:ModifyVpcAttribute is missing on" in str(refused(caller, before))


@pytest.mark.parametrize("asking", [[], ["iam:GetRole"]])
def test_who_may_not_ask_the_simulator_is_asked_of_ec2_alone(
    running: Server, simulated: Simulator, asking: list[str]
) -> None:
    caller = Policed(running)
    before, document = picture(running), documented()
    caller.has(document, asking)
    assert run(aws=caller.aws)["permissions_checked_by"] == "dry_run" and not simulated.asked
    caller.has(policy.document(Description("demo", REGION)), asking)
    run(aws=caller.aws, **ABSENT)
    caller.has(without(document, "ec2:RunInstances"), asking)
    assert refused(caller, before).result["permissions_checked_by"] == "dry_run"
    # What EC2 does not answer is named when it is met.
    caller.has(without(document, "iam:CreateRole"), asking)
    with pytest.raises(RunFailed, match="the permission iam:CreateRole is missing") as failure:
        run(aws=caller.aws)
    assert not isinstance(failure.value, Refused)


def test_an_api_without_a_simulator_is_asked_by_dry_run(running: Server) -> None:
    caller = Policed(running)
    caller.has(documented())
    assert run(check_mode=True, aws=caller.aws)["permissions_checked_by"] == "dry_run"


def test_check_permissions_off_asks_nobody(running: Server, simulated: Simulator) -> None:
    caller = Policed(running)
    caller.has(without(documented(), "iam:CreateRole"))
    done = run(check_mode=True, aws=caller.aws, check_permissions=False)
    assert "permissions_checked_by" not in done and not simulated.asked


@pytest.mark.parametrize("path", ["/", "/ops/deep/"])
def test_a_role_is_asked_by_its_own_arn(running: Server, simulated: Simulator, path: str) -> None:
    caller = Policed(running)
    before = picture(running)
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}
    caller.iam.create_role(RoleName="deployer", Path=path, AssumeRolePolicyDocument=json.dumps(trust))
    meant = without(documented(), "iam:CreateRole")
    caller.iam.put_role_policy(RoleName="deployer", PolicyName="meant", PolicyDocument=json.dumps(meant))
    arn = f"arn:aws:iam::123456789012:role{path}deployer"
    aws = session.Aws(session.Connection(region=REGION, assume_role_arn=arn))
    with pytest.raises(Refused, match="the permission iam:CreateRole is missing on"):
        run(aws=aws)
    assert simulated.asked and {question["source"] for question in simulated.asked} == {arn}
    assert ("iam:GetRole" in aws.calls) == (path != "/")
    caller.iam.delete_role_policy(RoleName="deployer", PolicyName="meant")
    caller.iam.delete_role(RoleName="deployer")
    assert picture(running) == before


def test_what_depends_on_something_unknown_is_not_refused(running: Server, simulated: Simulator) -> None:
    """The caller's address is in no question, so that its condition can't be told."""
    caller = Policed(running)
    document = documented()
    for statement in document["Statement"]:
        statement.setdefault("Condition", {})["IpAddress"] = {"aws:SourceIp": "203.0.113.0/24"}
    caller.has(document)
    assert run(check_mode=True, aws=caller.aws)["permissions_checked_by"] == "simulation"


def test_denials_of_the_organization_are_left_to_the_call_itself(running: Server, simulated: Simulator) -> None:
    """The simulator takes the conditions of service control policies for met."""
    caller = Policed(running)
    caller.has(documented())
    simulated.organization_denies = {"iam:CreateRole"}
    assert run(check_mode=True, aws=caller.aws)["permissions_checked_by"] == "simulation"


def test_a_boundary_counts(running: Server, simulated: Simulator) -> None:
    caller = Policed(running)
    before = picture(running)
    caller.has(documented())
    simulated.boundary = {"Statement": {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}}
    assert "the permission iam:PassRole is missing on" in str(refused(caller, before))


def test_a_denial_of_one_resource_counts_beside_a_permission_for_all(running: Server, simulated: Simulator) -> None:
    caller = Policed(running)
    before = picture(running)
    document = documented()
    everything = {"Effect": "Allow", "Action": actions(document), "Resource": "*"}
    deny = {"Effect": "Deny", "Action": ["iam:PassRole"], "Resource": "arn:aws:iam::*:role/k8sgu/*"}
    caller.has({"Version": "2012-10-17", "Statement": [everything]})
    run(check_mode=True, aws=caller.aws)
    text = json.dumps({"Version": "2012-10-17", "Statement": [everything, deny]})
    enforce(running, False)
    caller.iam.put_user_policy(UserName="caller", PolicyName="meant", PolicyDocument=text)
    enforce(running, True)
    assert "the permission iam:PassRole is missing on" in str(refused(caller, before))
