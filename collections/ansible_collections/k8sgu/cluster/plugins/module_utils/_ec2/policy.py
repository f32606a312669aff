# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The IAM policy that a caller needs for a description: to make the cluster, to change it and to remove it.

Which actions can be narrowed to tagged resources: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description

READ = (
    "ec2:DescribeAvailabilityZones",
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeKeyPairs",
    "ec2:DescribeNatGateways",
    "ec2:DescribeAddresses",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSecurityGroups",
    "ec2:DescribeSubnets",
    "ec2:DescribeVolumes",
    "ec2:DescribeVpcAttribute",
    "ec2:DescribeVpcs",
    "elasticloadbalancing:DescribeLoadBalancers",
    "elasticloadbalancing:DescribeTargetGroups",
    "servicequotas:GetServiceQuota",
    "servicequotas:ListAWSDefaultServiceQuotas",
)
MAKE = ("ec2:CreateSecurityGroup", "ec2:RunInstances")
MAKE_VPC = ("ec2:CreateVpc",)
MAKE_SUBNETS = ("ec2:CreateSubnet", "ec2:CreateRouteTable")
MAKE_GATEWAY = ("ec2:CreateInternetGateway", "ec2:AttachInternetGateway")
MAKE_NAT = ("ec2:AllocateAddress", "ec2:CreateNatGateway")
MAKE_KEY = ("ec2:ImportKeyPair",)
TAG = ("ec2:CreateTags",)
# The calls that tag what they make:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
TAGGING = frozenset(
    (
        "ec2:AllocateAddress",
        "ec2:CreateInternetGateway",
        "ec2:CreateNatGateway",
        "ec2:CreateRouteTable",
        "ec2:CreateSecurityGroup",
        "ec2:CreateSubnet",
        "ec2:CreateVpc",
        "ec2:ImportKeyPair",
        "ec2:RunInstances",
    )
)
CHANGE = (
    *TAG,
    "ec2:AuthorizeSecurityGroupIngress",
    "ec2:RevokeSecurityGroupIngress",
    "ec2:DeleteSecurityGroup",
    "ec2:ModifyInstanceAttribute",
    "ec2:TerminateInstances",
)
# Needed when what is there has been changed by hand, or the description changes.
REPAIR = (
    "ec2:StartInstances",
    "ec2:ModifyInstanceMetadataOptions",
    "ec2:ModifyVolume",
    "ec2:DeleteVolume",
)
CHANGE_VPC = ("ec2:ModifyVpcAttribute", "ec2:DeleteVpc")
CHANGE_SUBNETS = (
    "ec2:AssociateRouteTable",
    "ec2:DisassociateRouteTable",
    "ec2:DeleteRouteTable",
    "ec2:DeleteSubnet",
)
REPAIR_SUBNETS = ("ec2:ReplaceRouteTableAssociation",)
CHANGE_GATEWAY = ("ec2:DeleteInternetGateway",)
DETACH_GATEWAY = ("ec2:DetachInternetGateway",)
CHANGE_NAT = ("ec2:DeleteNatGateway", "ec2:ReleaseAddress")
CHANGE_KEY = ("ec2:DeleteKeyPair",)
ROUTES = ("ec2:CreateRoute",)
REPAIR_ROUTES = ("ec2:ReplaceRoute", "ec2:DeleteRoute")
IAM_LIST = ("iam:ListInstanceProfiles", "iam:ListRoles")
IAM = (
    "iam:AddRoleToInstanceProfile",
    "iam:CreateInstanceProfile",
    "iam:CreateRole",
    "iam:DeleteInstanceProfile",
    "iam:DeleteRole",
    "iam:GetRolePolicy",
    "iam:RemoveRoleFromInstanceProfile",
    "iam:TagInstanceProfile",
    "iam:TagRole",
)
IAM_POLICY = ("iam:DeleteRolePolicy", "iam:PutRolePolicy")
IAM_REPAIR = (
    "ec2:AssociateIamInstanceProfile",
    "ec2:DescribeIamInstanceProfileAssociations",
    "ec2:DisassociateIamInstanceProfile",
    "ec2:ReplaceIamInstanceProfileAssociation",
)
BALANCER = (
    "elasticloadbalancing:AddTags",
    "elasticloadbalancing:CreateListener",
    "elasticloadbalancing:CreateLoadBalancer",
    "elasticloadbalancing:CreateTargetGroup",
    "elasticloadbalancing:DeleteLoadBalancer",
    "elasticloadbalancing:DeleteTargetGroup",
    "elasticloadbalancing:DescribeListeners",
    "elasticloadbalancing:DescribeTags",
    "elasticloadbalancing:DescribeTargetGroupAttributes",
    "elasticloadbalancing:DescribeTargetHealth",
    "elasticloadbalancing:ModifyTargetGroupAttributes",
    "elasticloadbalancing:RegisterTargets",
)
BALANCER_REPAIR = (
    "elasticloadbalancing:DeleteListener",
    "elasticloadbalancing:DeregisterTargets",
    "elasticloadbalancing:ModifyTargetGroup",
    "elasticloadbalancing:SetSecurityGroups",
    "elasticloadbalancing:SetSubnets",
)
# The account's first load balancer makes the role with which the service works there:
# https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-service-linked-roles.html
BALANCER_SERVICE = "elasticloadbalancing.amazonaws.com"
BALANCER_ROLE = ("iam:CreateServiceLinkedRole",)
BALANCER_READ = ("ec2:DescribeAccountAttributes",)
# What EC2 does in the caller's name with a key of the account's own:
# https://docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption-requirements.html
KMS = ("kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncrypt*")
KMS_GRANT = ("kms:CreateGrant",)
# Only what is changed by hand, or a description that changes, needs these; making and removing a cluster does not.
REPAIRS = frozenset((*REPAIR, *REPAIR_SUBNETS, *REPAIR_ROUTES, *IAM_REPAIR, *BALANCER_REPAIR))
# Checked by AWS as part of other calls: tags at creation, the role given to an instance, what a load balancer looks
# at and makes, and the key of encrypted volumes.
IMPLIED = frozenset(
    (
        "ec2:CreateTags",
        "iam:TagRole",
        "iam:TagInstanceProfile",
        "elasticloadbalancing:AddTags",
        "iam:PassRole",
        *BALANCER_ROLE,
        *BALANCER_READ,
        *KMS,
        *KMS_GRANT,
    )
)


def document(description: Description, current: state.Current | None = None) -> dict[str, Any]:
    """The policy document. For `state: absent`, whose description is empty, that of everything there can be.

    What of `current` the description does not have any more has to be removed, and so counts too.
    """
    whole = not description.pools
    there = current or state.Current()
    own_vpc, own_subnets = not description.vpc_id, not description.subnet_ids
    nat = whole or (description.private_nodes and description.nat_gateways != "none")
    nat = nat or bool(there.nat_gateways or there.addresses)
    gateway = own_subnets and (whole or not description.private_nodes or nat)
    gateway = gateway or bool(there.gateways)
    key = whole or bool(description.public_key or there.key_pairs)
    profiles = description.instance_profiles or bool(there.profiles or there.roles)
    balanced = whole or description.balanced or bool(there.load_balancers or there.target_groups)
    make = [
        *MAKE,
        *(MAKE_VPC if own_vpc else ()),
        *(MAKE_SUBNETS if own_subnets else ()),
        *(MAKE_GATEWAY if gateway else ()),
        *(MAKE_NAT if nat else ()),
        *(MAKE_KEY if key else ()),
    ]
    change = [
        *CHANGE,
        *REPAIR,
        *(CHANGE_VPC if own_vpc else ()),
        *((*CHANGE_SUBNETS, *REPAIR_SUBNETS) if own_subnets else ()),
        *(("ec2:ModifySubnetAttribute",) if own_subnets and (whole or not description.private_nodes) else ()),
        *(CHANGE_GATEWAY if gateway else ()),
        *(CHANGE_NAT if nat else ()),
        *(CHANGE_KEY if key else ()),
    ]
    # Route tables and a VPC that were brought have no tag of ours. A removal's description does not tell of them.
    (change if own_subnets and not whole else make).extend((*ROUTES, *REPAIR_ROUTES))
    if gateway:
        (change if own_vpc and not whole else make).extend(DETACH_GATEWAY)
    mark = tags.cluster_tag(description.name)
    ours = {"StringEquals": {f"aws:ResourceTag/{mark}": tags.OWNED}}
    # With CreateTags alone anything could be given the tag that allows its removal.
    at_creation = {
        "StringEquals": {
            f"aws:RequestTag/{mark}": tags.OWNED,
            "ec2:CreateAction": sorted(action.partition(":")[2] for action in TAGGING.intersection(make)),
        }
    }
    statements = [
        _statement("Read", READ, "*"),
        _statement("Make", make, "*"),
        _statement("TagAtCreation", TAG, "*", at_creation),
        _statement("ChangeOurs", change, "*", ours),
    ]
    if profiles:
        path = names.iam_path(description.name, description.region)
        arns = [f"arn:*:iam::*:role{path}*", f"arn:*:iam::*:instance-profile{path}*"]
        passed = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
        statements += [
            _statement("FindRoles", IAM_LIST, "*"),
            _statement("NodeRoles", [*IAM, *IAM_POLICY], arns),
            _statement("GiveRolesToNodes", ["iam:PassRole"], arns[:1], passed),
            _statement("ProfilesOfNodes", IAM_REPAIR, "*"),
        ]
    if balanced:
        role = f"arn:*:iam::*:role/aws-service-role/{BALANCER_SERVICE}/*"
        service = {"StringEquals": {"iam:AWSServiceName": BALANCER_SERVICE}}
        statements += [
            _statement("LoadBalancer", [*BALANCER, *BALANCER_REPAIR, *BALANCER_READ], "*"),
            _statement("FirstLoadBalancer", BALANCER_ROLE, role, service),
        ]
    if description.kms_key_id:
        key_arn, alias = _kms_key(description)
        for_volumes = {"Bool": {"kms:GrantIsForAWSResource": "true"}}
        statements += [
            _statement("Kms", KMS, key_arn, alias),
            _statement("KmsGrants", KMS_GRANT, key_arn, {**alias, **for_volumes}),
        ]
    return {"Version": "2012-10-17", "Statement": statements}


def condition_keys(document: dict[str, Any]) -> set[str]:
    """The context keys that the statements ask for."""
    conditions = [pairs for statement in document["Statement"] for pairs in statement.get("Condition", {}).values()]
    return {key for pairs in conditions for key in pairs}


def _kms_key(description: Description) -> tuple[str, dict[str, Any]]:
    """The key as a policy names it, and the condition that stands for an alias, which no policy takes as a resource."""
    given = description.kms_key_id
    anything = f"arn:*:kms:{description.region}:*:key/"
    alias = given[given.find("alias/") :] if "alias/" in given else ""
    if alias:
        return f"{anything}*", {"ForAnyValue:StringEquals": {"kms:ResourceAliases": alias}}
    return given if given.startswith("arn:") else f"{anything}{given}", {}


def _statement(sid: str, actions: Any, resource: Any, condition: Any = None) -> dict[str, Any]:
    statement = {"Sid": sid, "Effect": "Allow", "Action": sorted(set(actions)), "Resource": resource}
    return {**statement, "Condition": condition} if condition else statement


# When each statement is part of the policy, and what it is for.
WHEN = {
    "Read": ("always", "looking at what there is, and whether a plan can be carried out"),
    "Make": ("always", "making what does not exist yet, and what was brought and has no tag of ours"),
    "TagAtCreation": ("always", "the cluster's tag on what is being made, and on nothing that is there already"),
    "ChangeOurs": ("always", "changing and removing what carries the cluster's tag"),
    "FindRoles": ("`instance_profiles`", "finding the nodes' roles"),
    "NodeRoles": ("`instance_profiles`", "the nodes' roles and instance profiles, below a path of the cluster's own"),
    "GiveRolesToNodes": ("`instance_profiles`", "launching nodes with their role"),
    "ProfilesOfNodes": ("`instance_profiles`", "a node whose profile was changed by hand"),
    "LoadBalancer": ("more than one control-plane node", "the load balancer in front of the API servers"),
    "FirstLoadBalancer": (
        "more than one control-plane node",
        "the role with which AWS's load balancers work in the account, made with the first of them",
    ),
    "Kms": ("`kms_key_id`", "volumes encrypted with that key"),
    "KmsGrants": ("`kms_key_id`", "the grants by which EC2 uses that key for a volume"),
}


def as_markdown(whole: Description, usual: Description) -> str:
    """The statements of `whole`, which has everything, as a table, and the document of `usual`."""
    lines = ["| statement | when | what for | resources | condition | actions |", "|---|---|---|---|---|---|"]
    for statement in document(whole)["Statement"]:
        when, why = WHEN[statement["Sid"]]
        resources = statement["Resource"]
        listed = resources if isinstance(resources, list) else [resources]
        conditions = [
            f"{operator} `{key}` = "
            + " or ".join(f"`{value}`" for value in ([given] if isinstance(given, str) else given))
            for operator, pairs in statement.get("Condition", {}).items()
            for key, given in pairs.items()
        ]
        cells = [
            f"`{statement['Sid']}`",
            when,
            why,
            ", ".join(f"`{resource}`" for resource in listed),
            "; ".join(conditions) or "none",
            ", ".join(f"`{action}`" for action in statement["Action"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    text = json.dumps(document(usual), indent=2)
    return "\n".join(lines) + f"\n\nOf `{usual.name}` in `{usual.region}` with the defaults:\n\n```json\n{text}\n```\n"
