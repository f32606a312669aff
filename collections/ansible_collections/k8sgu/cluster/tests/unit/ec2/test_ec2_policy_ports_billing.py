# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The port table, the policy, the costs, and what errors of the API mean to a user."""

from __future__ import annotations

import fnmatch
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ProfileNotFound

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import ports as port_table
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import cluster, groups, implied, policy, session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, Image, Pool

ROOT = Path(__file__).resolve().parents[7]
IMAGE = Image(id="ami-1")


def described(control_plane: int = 1, workers: int = 2, kind: str = "m5.large", **more: Any) -> Description:
    pools = (
        Pool("control_plane", "control_plane", control_plane, kind, IMAGE, 20, 0),
        Pool("workers", "worker", workers, kind, IMAGE, 20, 0),
    )
    return Description(**{"name": "demo", "region": "us-east-1", "pools": pools, "public_key": "x", **more})


def tables() -> dict[Path, str]:
    """What tools/port_table.py would write, by page."""
    spec = importlib.util.spec_from_file_location("port_table", ROOT / "tools" / "port_table.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return dict(tool.tables())


@pytest.mark.parametrize("page", ["ports.md", "iam.md"])
def test_the_table_in_the_docs_is_the_table(page: str) -> None:
    docs = ROOT / "docs" / page
    assert tables()[docs] in docs.read_text(encoding="utf-8"), "run: tools/port_table.py"


def test_the_docs_have_every_statement_and_action() -> None:
    page = (ROOT / "docs" / "iam.md").read_text(encoding="utf-8")
    whole = policy.document(described(3, private_nodes=True, kms_key_id="x", backup_bucket="backups"))
    assert {statement["Sid"] for statement in whole["Statement"]} == {statement.sid for statement in policy.STATEMENTS}
    for word in (*(statement.sid for statement in policy.STATEMENTS), *actions(whole)):
        assert f"`{word}`" in page, word


def test_names_are_unique_and_rows_make_sense() -> None:
    names = [row.name for row in port_table.PORTS]
    assert len(set(names)) == len(names)
    for row in port_table.PORTS:
        assert 0 <= row.first <= row.last <= 65535 and row.why and row.nodes
        assert (row.bind == "loopback") == (not row.sources), row
        assert set(row.sources) <= {
            port_table.ADMIN,
            port_table.NODE_PORT_CLIENTS,
            port_table.PODS,
            port_table.LOAD_BALANCER,
            port_table.BASTION,
            *port_table.NODES,
        }


@pytest.mark.parametrize("network", ["routed", "vxlan"])
def test_etcd_is_open_to_the_control_plane_alone(network: str) -> None:
    for port in (2379, 2380):
        rules = groups.rules_wanted(described(3, pod_network=network), "control_plane", [], False)
        peers = {rule.peer for rule in rules if rule.protocol in ("tcp", "-1") and rule.first <= port <= rule.last}
        assert peers == {"security-group/control_plane"}


@pytest.mark.parametrize("network", ["routed", "vxlan"])
@pytest.mark.parametrize("port", [22, 10257, 10259])
def test_what_no_node_or_pod_reaches_on_the_control_plane(port: int, network: str) -> None:
    rules = groups.rules_wanted(described(3, pod_network=network), "control_plane", [], False)
    assert [rule for rule in rules if rule.protocol in ("tcp", "-1") and rule.first <= port <= rule.last] == []


def test_pods_have_a_rule_by_range_only_where_they_are_routed() -> None:
    def ranges(network: str) -> set[str]:
        rules = groups.rules_wanted(described(pod_network=network), "worker", [], False)
        return {rule.peer for rule in rules if not rule.peer.startswith("security-group/")}

    assert ranges("routed") == {"10.200.0.0/16"} and ranges("vxlan") == set()


def test_descriptions_of_rules_are_what_ec2_takes() -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-:/()#,@[]+=&;{}!$*'\"")
    for row in port_table.PORTS:
        assert set(row.why) <= allowed and len(row.why) <= 255, row.name


def billed(*arguments: Any, zones: int = 1, **options: Any) -> dict[str, int]:
    return {entry["what"]: entry["count"] for entry in cluster.billed(described(*arguments, **options), zones)}


def test_what_the_default_cluster_is_billed_for() -> None:
    assert billed() == {
        "m5.large (control_plane)": 1,
        "m5.large (workers)": 2,
        "GiB of gp3": 60,
        "public IPv4 address": 3,
    }


def test_a_balanced_private_cluster_is_billed_for_its_balancer_and_gateway() -> None:
    found = billed(3, private_nodes=True, zones=2)
    assert {what: found[what] for what in ("network load balancer", "NAT gateway", "public IPv4 address")} == {
        "network load balancer": 1,
        "NAT gateway": 1,
        "public IPv4 address": 1,
    }
    assert billed(3, private_nodes=True, nat_gateways="per_zone", zones=2)["NAT gateway"] == 2
    assert billed(3, zones=2)["public IPv4 address"] == 5
    # A balancer that faces the internet has an address in each zone.
    assert billed(3, load_balancer_scheme="internet-facing", zones=2)["public IPv4 address"] == 5 + 2


def actions(document: dict[str, Any]) -> set[str]:
    return {action for statement in document["Statement"] for action in statement["Action"]}


@pytest.mark.parametrize(
    ("wanted", "has", "lacks"),
    [
        (
            described(),
            {"ec2:CreateVpc", "iam:CreateRole", "iam:PassRole"},
            {"ec2:CreateNatGateway", "elasticloadbalancing:CreateListener"},
        ),
        (described(3), {"elasticloadbalancing:CreateListener"}, {"ec2:CreateNatGateway"}),
        (described(private_nodes=True), {"ec2:CreateNatGateway"}, {"elasticloadbalancing:CreateListener"}),
        (described(instance_profiles=False), set(), {"iam:CreateRole", "iam:PassRole"}),
        (
            described(vpc_id="vpc-1", subnet_ids=("subnet-1",)),
            {"ec2:CreateRoute"},
            {"ec2:CreateVpc", "ec2:DeleteSubnet"},
        ),
    ],
)
def test_the_policy_has_what_the_description_needs_and_no_more(
    wanted: Description, has: set[str], lacks: set[str]
) -> None:
    found = actions(policy.document(wanted))
    assert has <= found and not lacks & found


def test_what_removes_is_narrowed_to_what_is_ours() -> None:
    statements = {entry["Sid"]: entry for entry in policy.document(described(3))["Statement"]}
    ours = statements["ChangeOurs"]
    assert {"ec2:TerminateInstances", "ec2:DeleteVpc", "ec2:DeleteSecurityGroup"} <= set(ours["Action"])
    assert ours["Condition"] == {"StringEquals": {"aws:ResourceTag/k8sgu.io/cluster/demo": "owned"}}
    assert all("/k8sgu/us-east-1/demo/" in arn for arn in statements["NodeRoles"]["Resource"])
    assert statements["GiveRolesToNodes"]["Condition"] == {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


def statements(wanted: Description) -> dict[str, dict[str, Any]]:
    return {entry["Sid"]: entry for entry in policy.document(wanted)["Statement"]}


def test_the_accounts_first_load_balancer_may_make_its_role_and_no_other() -> None:
    first = statements(described(3))["FirstLoadBalancer"]
    assert first["Action"] == ["iam:CreateServiceLinkedRole"]
    assert first["Condition"] == {"StringEquals": {"iam:AWSServiceName": "elasticloadbalancing.amazonaws.com"}}
    assert "ec2:DescribeAccountAttributes" in statements(described(3))["LoadBalancer"]["Action"]
    assert not {"iam:CreateServiceLinkedRole", "ec2:DescribeAccountAttributes"} & actions(policy.document(described()))
    # moto never asks for them, and so no test can miss them there.


KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/1234abcd"


@pytest.mark.parametrize(
    ("given", "resource", "condition"),
    [
        (KEY_ARN, KEY_ARN, {}),
        ("1234abcd", "arn:*:kms:us-east-1:*:key/1234abcd", {}),
        *(
            (
                given,
                "arn:*:kms:us-east-1:*:key/*",
                {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/volumes"}},
            )
            for given in ("alias/volumes", "arn:aws:kms:us-east-1:123456789012:alias/volumes")
        ),
    ],
)
def test_a_key_for_volumes_may_be_used_by_ec2(given: str, resource: str, condition: dict[str, Any]) -> None:
    found = statements(described(kms_key_id=given))
    use, grant = found["Kms"], found["KmsGrants"]
    assert {*use["Action"], *grant["Action"]} == {
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:GenerateDataKeyWithoutPlaintext",
        "kms:ReEncrypt*",
    }
    assert use["Resource"] == grant["Resource"] == resource
    assert use.get("Condition", {}) == condition
    assert grant["Condition"] == {**condition, "Bool": {"kms:GrantIsForAWSResource": "true"}}
    assert not {"Kms", "KmsGrants"} & set(statements(described()))


@pytest.mark.parametrize(
    ("wanted", "free", "narrowed"),
    [
        (described(), set(), {"ec2:DetachInternetGateway", "ec2:CreateRoute", "ec2:DeleteRoute"}),
        (described(vpc_id="vpc-1"), {"ec2:DetachInternetGateway"}, {"ec2:DeleteInternetGateway", "ec2:DeleteRoute"}),
        (described(vpc_id="vpc-1", subnet_ids=("subnet-1",)), {"ec2:DeleteRoute"}, set()),
        # A removal may be that of any of them.
        (
            Description("demo", "us-east-1"),
            {"ec2:DetachInternetGateway", "ec2:DeleteRoute"},
            {"ec2:DeleteInternetGateway", "ec2:DeleteVpc"},
        ),
    ],
)
def test_what_was_brought_has_no_tag_of_ours(wanted: Description, free: set[str], narrowed: set[str]) -> None:
    make, ours = (set(statements(wanted)[sid]["Action"]) for sid in ("Make", "ChangeOurs"))
    assert free <= make - ours and narrowed <= ours - make


def failed(code: str, operation: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (failed("RequestExpired", "DescribeVpcs"), "the credentials have expired"),
        (failed("ExpiredToken", "ListRoles"), "the credentials have expired"),
        (failed("AuthFailure", "DescribeVpcs"), "does not accept the credentials"),
        (failed("UnauthorizedOperation", "RunInstances"), "the permission ec2:RunInstances is missing"),
        (
            failed("AccessDenied", "CreateRole", "x on resource: y"),
            r"the permission iam:CreateRole is missing \(x on resource: y",
        ),
        (
            failed("AccessDenied", "CreateTargetGroup"),
            "the permission elasticloadbalancing:CreateTargetGroup is missing",
        ),
        (
            failed("UnauthorizedOperation", "RunInstances", "not authorized to perform: iam:PassRole on x"),
            "iam:PassRole is missing",
        ),
        (failed("AccessDenied", "AssociateIamInstanceProfile"), "the permission ec2:AssociateIamInstanceProfile"),
        (failed("AccessDeniedException", "GetServiceQuota"), "the permission servicequotas:GetServiceQuota"),
        (
            failed("VcpuLimitExceeded", "RunInstances", "ask for more"),
            "RunInstances answered VcpuLimitExceeded: ask for more",
        ),
        (NoCredentialsError(), "no credentials"),
        (ProfileNotFound(profile="x"), "^profile: "),
        (session.AwsError("said already"), "^said already$"),
    ],
)
def test_what_an_error_says(error: Exception, said: str) -> None:
    assert re.search(said, session.explain(error, "do it"))


def test_halves_of_a_key_and_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(session.AwsError, match=r"^secret_key: access_key and secret_key go together"):
        session.Aws(session.Connection(region="us-east-1", access_key="AKIA"))
    with pytest.raises(session.AwsError, match=r"^profile: .*nobody"):
        session.Aws(session.Connection(region="us-east-1", profile="nobody"))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(session.AwsError, match=r"^region: not given"):
        session.Aws(session.Connection())


@pytest.mark.parametrize("row", implied.TABLE, ids=lambda row: f"{row.calls[0]}: {row.actions[0]}")
def test_the_policy_has_what_its_calls_imply(row: implied.Implied) -> None:
    """And loses the call with it: what is granted by a call alone is of no use."""
    whole = policy.document(described(3, private_nodes=True, kms_key_id="x", backup_bucket="backups"))
    granted = actions(whole)
    assert set(row.calls) <= granted and row.page.startswith("https://docs.aws.amazon.com/")
    for action in row.actions:
        assert any(fnmatch.fnmatchcase(action, pattern) for pattern in granted), action


@pytest.mark.parametrize(
    ("call", "parameters", "found"),
    [
        ("ec2:RunInstances", [], set()),
        ("ec2:RunInstances", ["TagSpecification.1.ResourceType"], {"ec2:CreateTags"}),
        ("ec2:RunInstances", ["IamInstanceProfile.Name"], {"iam:PassRole"}),
        ("ec2:TerminateInstances", ["TagSpecification.1.ResourceType"], set()),
        ("elasticloadbalancing:SetSecurityGroups", ["SecurityGroups.member.1"], {"ec2:GetSecurityGroupsForVpc"}),
        ("elasticloadbalancing:SetSubnets", ["Subnets.member.1"], {"ec2:DescribeSubnets"}),
    ],
)
def test_what_a_call_implies(call: str, parameters: list[str], found: set[str]) -> None:
    assert {action for row in implied.of(call, parameters) for action in row.actions} == found
