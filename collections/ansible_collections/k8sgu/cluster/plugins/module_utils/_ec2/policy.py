# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The IAM policy that a caller needs for a description: to make the cluster, to change it and to remove it.

Which actions can be narrowed to tagged resources: https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, tags
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
)
MAKE = ("ec2:CreateSecurityGroup", "ec2:CreateTags", "ec2:RunInstances")
MAKE_VPC = ("ec2:CreateVpc",)
MAKE_SUBNETS = ("ec2:CreateSubnet", "ec2:CreateRouteTable")
MAKE_GATEWAY = ("ec2:CreateInternetGateway", "ec2:AttachInternetGateway")
MAKE_NAT = ("ec2:AllocateAddress", "ec2:CreateNatGateway")
MAKE_KEY = ("ec2:ImportKeyPair",)
CHANGE = (
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
CHANGE_GATEWAY = ("ec2:DetachInternetGateway", "ec2:DeleteInternetGateway")
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
    "elasticloadbalancing:SetSecurityGroups",
    "elasticloadbalancing:SetSubnets",
)
# Only what is changed by hand, or a description that changes, needs these; making and removing a cluster does not.
REPAIRS = frozenset((*REPAIR, *REPAIR_SUBNETS, *REPAIR_ROUTES, *IAM_REPAIR, *BALANCER_REPAIR))
# Checked by AWS as part of other calls: tags at creation, and the role given to an instance.
IMPLIED = frozenset(
    ("ec2:CreateTags", "iam:TagRole", "iam:TagInstanceProfile", "elasticloadbalancing:AddTags", "iam:PassRole")
)


def document(description: Description) -> dict[str, Any]:
    """The policy document. For `state: absent`, whose description is empty, that of everything there can be."""
    whole = not description.pools
    own_vpc, own_subnets = not description.vpc_id, not description.subnet_ids
    nat = whole or (description.private_nodes and description.nat_gateways != "none")
    gateway = own_subnets and (whole or not description.private_nodes or nat)
    key = whole or bool(description.public_key)
    profiles = description.instance_profiles
    balanced = whole or description.balanced
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
    # Route tables that were brought have no tag of ours.
    (change if own_subnets else make).extend((*ROUTES, *REPAIR_ROUTES))
    ours = {"StringEquals": {f"aws:ResourceTag/{tags.cluster_tag(description.name)}": tags.OWNED}}
    statements = [
        _statement("Read", READ, "*"),
        _statement("Make", make, "*"),
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
        statements.append(_statement("LoadBalancer", [*BALANCER, *BALANCER_REPAIR], "*"))
    return {"Version": "2012-10-17", "Statement": statements}


def _statement(sid: str, actions: Any, resource: Any, condition: Any = None) -> dict[str, Any]:
    statement = {"Sid": sid, "Effect": "Allow", "Action": sorted(set(actions)), "Resource": resource}
    return {**statement, "Condition": condition} if condition else statement
