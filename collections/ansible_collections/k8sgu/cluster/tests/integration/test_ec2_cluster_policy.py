# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy that ec2_cluster returns suffices, and one action less does not: under moto's enforced IAM.

moto looks at actions alone: neither at resources nor at conditions, which are therefore taken out here (that they are
in the policy is for the unit tests). What other calls imply (tags at creation, passing a role, what a load balancer
looks at) the server of the tests asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from ec2_account import OTHER_KEY, account, picture, pool, run
from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto_server import REGION, Server, reset

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import policy, session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.run import RunFailed

POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"}],
}
# Only what is changed by hand, or a description that changes, needs these; making and removing a cluster does not.
REPAIRS = {
    "ec2:AssociateIamInstanceProfile",
    "ec2:DeleteRoute",
    "ec2:DeleteVolume",
    "ec2:DescribeIamInstanceProfileAssociations",
    "ec2:DescribeVolumesModifications",
    "ec2:DisassociateIamInstanceProfile",
    "ec2:ModifyInstanceMetadataOptions",
    "ec2:ModifyVolume",
    "ec2:ReplaceIamInstanceProfileAssociation",
    "ec2:ReplaceRoute",
    "ec2:ReplaceRouteTableAssociation",
    "ec2:StartInstances",
    "elasticloadbalancing:DeleteListener",
    "elasticloadbalancing:DeregisterTargets",
    "elasticloadbalancing:ModifyTargetGroup",
    "elasticloadbalancing:SetSecurityGroups",
    "elasticloadbalancing:SetSubnets",
}
# What each of them needs, together: every action but those that repair.
LAYOUTS: dict[str, dict[str, Any]] = {
    "public": {"pools": [pool("control_plane", 1), pool("workers", 0)], "worker_policy": POLICY},
    "private": {
        "pools": [pool("control_plane", 3)],
        "private_nodes": True,
        "admin_cidrs": ["203.0.113.0/24"],
        "instance_profiles": False,
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with account() as running:
        yield running
        enforce(running, False)


def enforce(server: Server, on: bool) -> None:
    """moto's switch counts down calls that are let through without a look."""
    if not on:
        server.allowed = None
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0 if on else float("inf")
    ActionAuthenticatorMixin.request_count = 0


def actions(document: dict[str, Any]) -> list[str]:
    return sorted({action for statement in document["Statement"] for action in statement["Action"]})


class Caller:
    """A user whose policy is a list of actions, and clients with that user's key."""

    def __init__(self, server: Server) -> None:
        self.server = server
        enforce(server, False)
        reset(server)
        self.iam = server.client("iam")
        self.iam.create_user(UserName="caller")
        key = self.iam.create_access_key(UserName="caller")["AccessKey"]
        self.aws = session.Aws(
            session.Connection(region=REGION, access_key=key["AccessKeyId"], secret_key=key["SecretAccessKey"])
        )

    def may(self, allowed: list[str]) -> None:
        enforce(self.server, False)
        self.server.allowed = allowed
        statement = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.iam.put_user_policy(UserName="caller", PolicyName="caller", PolicyDocument=document)
        enforce(self.server, True)


def needed(layout: str) -> list[str]:
    document = run(check_mode=True, **LAYOUTS[layout])["iam_policy"]
    return actions(document)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_suffices(server: Server, layout: str) -> None:
    caller = Caller(server)
    before = picture(server)
    wanted = needed(layout)
    roles = [action for action in wanted if action.startswith("iam:") and action != "iam:CreateServiceLinkedRole"]
    assert bool(roles) == LAYOUTS[layout].get("instance_profiles", True)
    caller.may(wanted)
    run(aws=caller.aws, **LAYOUTS[layout])
    assert not run(aws=caller.aws, **LAYOUTS[layout])["changed"]
    # What a removal without a description needs is the policy of everything there can be.
    caller.may(actions(policy.document(Description("demo", REGION))))
    run(aws=caller.aws, state="absent")
    enforce(server, False)
    assert picture(server) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_action_is_there_without_need(server: Server, layout: str) -> None:
    """Making, comparing or removing is checked for each action of the policy; the tests below take some of them out."""
    caller = Caller(server)
    wanted = needed(layout)
    caller.may(actions(policy.document(Description("demo", REGION))))
    server.checked.clear()
    run(aws=caller.aws, **LAYOUTS[layout])
    run(aws=caller.aws, state="compared", **LAYOUTS[layout])
    run(aws=caller.aws, state="absent")
    enforce(server, False)
    assert [action for action in wanted if action not in server.checked | REPAIRS] == []


# Every eighth, from another one for each layout: reads, changes and removals of each service.
@pytest.mark.parametrize(("first", "layout"), list(enumerate(LAYOUTS)))
def test_one_action_less_fails(server: Server, layout: str, first: int) -> None:
    """Each action in turn is taken out of the policy; making, removing or comparing then fails, and names it."""
    caller = Caller(server)
    enforce(server, False)
    wanted = [action for action in needed(layout) if action not in REPAIRS][first * 4 :: 8]
    assert len({action.partition(":")[0] for action in wanted}) > 1
    # The reads of a removal, whose description is empty, are those of everything there can be.
    everything = actions(policy.document(Description("demo", REGION)))
    assert set(everything) > REPAIRS
    empty = server.saved()
    caller.may(everything)
    run(aws=caller.aws, **LAYOUTS[layout])
    made = server.saved()
    making, removing = (empty, LAYOUTS[layout]), (made, {"state": "absent"})
    comparing = (made, {**LAYOUTS[layout], "state": "compared"})
    superfluous = []
    for action in wanted:
        # First what is likely to need it.
        removes = re.match(r"\w+:(Delete|Detach|Disassociate|Release|Remove|Revoke|Terminate)", action)
        for start, asked in (removing, making, comparing) if removes else (making, removing, comparing):
            server.restore(start)
            caller.may([other for other in everything if other != action])
            try:
                run(aws=caller.aws, **asked)
            except (session.AwsError, RunFailed) as error:
                assert re.search(rf"the permission \S*{action.partition(':')[2]} is missing", str(error)), (
                    action,
                    str(error),
                )
                break
        else:
            superfluous.append(action)
        # What is half made can be removed.
        caller.may(everything)
        run(aws=caller.aws, state="absent")
    enforce(server, False)
    assert superfluous == []


def test_what_ec2_can_be_asked_is_refused_before_the_first_change(server: Server) -> None:
    caller = Caller(server)
    before = picture(server)
    wanted = needed("public")
    for action in ("ec2:CreateVpc", "ec2:RunInstances", "ec2:ImportKeyPair", "ec2:CreateSecurityGroup"):
        caller.may([other for other in wanted if other != action])
        with pytest.raises(session.AwsError, match=f"the permission {action} is missing.*nothing was changed"):
            run(aws=caller.aws, **LAYOUTS["public"])
        enforce(server, False)
        assert picture(server) == before


@pytest.mark.parametrize(
    ("action", "change"),
    [
        ("ec2:AuthorizeSecurityGroupIngress", {"admin_cidrs": ["203.0.113.0/24"]}),
        ("ec2:RevokeSecurityGroupIngress", {"pod_network": "vxlan"}),
        ("ec2:CreateTags", {"tags": {"team": "blue"}}),
        ("ec2:ModifyVolume", {"pools": [pool("control_plane", 1, root_volume_size=40), pool("workers", 0)]}),
        ("ec2:StartInstances", {}),
        ("ec2:DeleteKeyPair", {"public_key": OTHER_KEY, "allow_replace": True}),
        ("ec2:DeleteKeyPair", {"state": "absent"}),
        ("ec2:TerminateInstances", {"state": "absent"}),
    ],
)
def test_changes_that_ec2_can_be_asked_about_are_refused_before_the_first(
    server: Server, action: str, change: dict[str, Any]
) -> None:
    """Of things that are there, which a policy may tell by their tags."""
    caller = Caller(server)
    node = run(**LAYOUTS["public"])["nodes"][0]
    if action == "ec2:StartInstances":
        server.client("ec2").stop_instances(InstanceIds=[node["instance_id"]])
    before = picture(server)
    everything = actions(policy.document(Description("demo", REGION)))
    caller.may([other for other in everything if other != action])
    with pytest.raises(session.AwsError, match=f"the permission {action} is missing.*nothing was changed"):
        run(aws=caller.aws, **{**LAYOUTS["public"], **change})
    enforce(server, False)
    assert picture(server) == before


def test_a_key_that_is_not_known(server: Server) -> None:
    Caller(server)
    enforce(server, True)
    try:
        unknown = session.Aws(session.Connection(region=REGION, access_key="AKIANOBODY", secret_key="nothing"))
        with pytest.raises(session.AwsError, match=r"AWS does not accept the credentials .*check the access key"):
            run(aws=unknown)
    finally:
        enforce(server, False)
