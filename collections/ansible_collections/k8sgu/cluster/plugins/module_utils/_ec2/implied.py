# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The actions that AWS checks in the caller's name beside a call's own, with the page that says so.

Without the permission for one of them the call itself is denied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Iterator

_TAGS_OF_EC2 = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html"
_TAGS_OF_IAM = "https://docs.aws.amazon.com/IAM/latest/UserGuide/access_tags.html"
_TAGS_OF_ELB = (
    "https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/tagging-resources-during-creation.html"
)
_TAGS_OF_S3 = "https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html"
_ROLE_PASSED = "https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html"
_KMS = "https://docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption-requirements.html"
_ELB = "https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-permissions.html"
# What a caller without it is told: https://github.com/kubernetes-sigs/aws-load-balancer-controller/issues/3917
_ELB_GROUPS = "https://docs.aws.amazon.com/aws-managed-policy/latest/reference/ElasticLoadBalancingFullAccess.html"
_ELB_ROLE = "https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-service-linked-roles.html"


@dataclass(frozen=True)
class Implied:
    """What `calls` imply: always, or where a parameter of the request has `given` in its name."""

    calls: tuple[str, ...]
    actions: tuple[str, ...]
    page: str
    given: str = ""


TABLE = (
    Implied(
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
        ),
        ("ec2:CreateTags",),
        _TAGS_OF_EC2,
        "TagSpecification",
    ),
    Implied(("iam:CreateRole",), ("iam:TagRole",), _TAGS_OF_IAM, "Tags"),
    Implied(("iam:CreateInstanceProfile",), ("iam:TagInstanceProfile",), _TAGS_OF_IAM, "Tags"),
    Implied(("s3:CreateBucket",), ("s3:TagResource",), _TAGS_OF_S3, "Tags"),
    Implied(("iam:AddRoleToInstanceProfile",), ("iam:PassRole",), _ROLE_PASSED),
    Implied(
        ("ec2:RunInstances", "ec2:AssociateIamInstanceProfile", "ec2:ReplaceIamInstanceProfileAssociation"),
        ("iam:PassRole",),
        _ROLE_PASSED,
        "IamInstanceProfile",
    ),
    Implied(
        ("ec2:RunInstances",),
        (
            "kms:CreateGrant",
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:GenerateDataKeyWithoutPlaintext",
            "kms:ReEncryptFrom",
            "kms:ReEncryptTo",
        ),
        _KMS,
        "KmsKeyId",
    ),
    Implied(
        (
            "elasticloadbalancing:CreateListener",
            "elasticloadbalancing:CreateLoadBalancer",
            "elasticloadbalancing:CreateTargetGroup",
        ),
        ("elasticloadbalancing:AddTags",),
        _TAGS_OF_ELB,
        "Tags",
    ),
    Implied(
        ("elasticloadbalancing:CreateLoadBalancer",),
        (
            "ec2:DescribeAccountAttributes",
            "ec2:DescribeAddresses",
            "ec2:DescribeInternetGateways",
            "ec2:DescribeSecurityGroups",
            "ec2:DescribeSubnets",
            "ec2:DescribeVpcs",
        ),
        _ELB,
    ),
    # Of an account in which there was never a load balancer.
    Implied(("elasticloadbalancing:CreateLoadBalancer",), ("iam:CreateServiceLinkedRole",), _ELB_ROLE),
    Implied(
        ("elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:SetSecurityGroups"),
        ("ec2:GetSecurityGroupsForVpc",),
        _ELB_GROUPS,
        "SecurityGroups",
    ),
    Implied(("elasticloadbalancing:CreateTargetGroup",), ("ec2:DescribeInternetGateways", "ec2:DescribeVpcs"), _ELB),
    Implied(
        ("elasticloadbalancing:RegisterTargets",),
        ("ec2:DescribeInstances", "ec2:DescribeInternetGateways", "ec2:DescribeSubnets", "ec2:DescribeVpcs"),
        _ELB,
    ),
    Implied(("elasticloadbalancing:SetSubnets",), ("ec2:DescribeSubnets",), _ELB),
)


def of(call: str, parameters: Iterable[str]) -> Iterator[Implied]:
    """What a call ("ec2:RunInstances") with parameters of these names implies."""
    names = list(parameters)
    for row in TABLE:
        if call in row.calls and (not row.given or any(row.given in name for name in names)):
            yield row


def looks(call: str) -> list[str]:
    """The actions with which a load balancer's call looks at EC2: they take no resource and know no condition."""
    return sorted({action for row in TABLE if call in row.calls for action in row.actions if action.startswith(_LOOKS)})


_LOOKS = ("ec2:Describe", "ec2:Get")
