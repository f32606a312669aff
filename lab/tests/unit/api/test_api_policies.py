"""What policies decide, by the rules of IAM's reference."""

from __future__ import annotations

from typing import Any

import pytest
from api_support import statement

from ec2lab.api.policies import ALLOWED, EXPLICIT, IMPLICIT, decide, known_operator

ARN = "arn:aws:s3:::backups/etcd/one"
CONTEXT = {
    "aws:SourceIp": ["198.51.100.7"],
    "aws:SecureTransport": ["true"],
    "aws:username": ["ada"],
    "aws:CurrentTime": ["2026-03-01T12:00:00Z"],
    "aws:PrincipalArn": ["arn:aws:iam::123456789012:role/cp/node"],
    "s3:max-keys": ["10"],
    "aws:TagKeys": ["a", "b"],
}


def decided(*statements: dict[str, Any], action: str = "s3:PutObject", **more: Any) -> str:
    return decide([{"Statement": list(statements)}], action, ARN, CONTEXT, **more)


@pytest.mark.parametrize(
    ("statements", "outcome"),
    [
        ([], IMPLICIT),
        ([statement("Allow", "s3:PutObject", "arn:aws:s3:::backups/etcd/*")], ALLOWED),
        ([statement("Allow", "S3:put*", "arn:aws:s3:::backups/???d/one")], ALLOWED),
        ([statement("Allow", ["s3:Get*", "s3:List*"], "*")], IMPLICIT),
        ([statement("Allow", "s3:PutObject", "arn:aws:s3:::backups/Etcd/*")], IMPLICIT),
        ([statement("Allow", "s3:PutObject", "arn:aws:s3:::backups")], IMPLICIT),
        ([statement("Allow", "*", "*"), statement("Deny", "s3:PutObject", "arn:aws:s3:::backups/*")], EXPLICIT),
        ([{"Effect": "Allow", "NotAction": "s3:Delete*", "NotResource": "arn:aws:s3:::others/*"}], ALLOWED),
        ([statement("Allow", "*", "arn:aws:s3:::backups/${aws:username}/*")], IMPLICIT),
        ([statement("Allow", "*", "arn:aws:s3:::backups/${aws:nothing, 'etcd'}/one")], ALLOWED),
        ([statement("Allow", "*", "arn:aws:s3:::backups/${*}/one")], IMPLICIT),
    ],
)
def test_actions_and_resources(statements: list[dict[str, Any]], outcome: str) -> None:
    assert decided(*statements) == outcome


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"Bool": {"aws:SecureTransport": "true"}}, True),
        ({"Bool": {"aws:securetransport": "false"}}, False),
        ({"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "198.51.100.0/24"]}}, True),
        ({"NotIpAddress": {"aws:SourceIp": "198.51.100.0/24"}}, False),
        ({"StringEquals": {"aws:username": "ada"}}, True),
        ({"StringEquals": {"aws:username": "a*"}}, False),
        ({"StringEqualsIgnoreCase": {"aws:username": "ADA"}}, True),
        ({"StringLike": {"aws:username": ["b*", "a*"]}}, True),
        ({"StringNotLike": {"aws:username": "a*"}}, False),
        ({"StringNotEquals": {"aws:absent": "a"}}, True),
        ({"StringEquals": {"aws:absent": "a"}}, False),
        ({"StringEqualsIfExists": {"aws:absent": "a"}}, True),
        ({"Null": {"aws:absent": "true", "aws:username": "false"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/cp/*"}}, True),
        ({"ArnNotEquals": {"aws:PrincipalArn": "arn:aws:iam::*:role/cp/*"}}, False),
        ({"NumericLessThanEquals": {"s3:max-keys": "10"}}, True),
        ({"NumericGreaterThan": {"s3:max-keys": "10"}}, False),
        ({"DateGreaterThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2026-01-01"}}, False),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": "b"}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["a"]}}, False),
        ({"Bool": {"aws:SecureTransport": "true"}, "StringLike": {"aws:username": "x"}}, False),
    ],
)
def test_conditions(condition: dict[str, Any], holds: bool) -> None:
    assert decided(statement("Allow", "*", "*", Condition=condition)) == (ALLOWED if holds else IMPLICIT)


@pytest.mark.parametrize(
    ("principal", "outcome"),
    [
        ({"Principal": "*"}, ALLOWED),
        ({"Principal": {"AWS": "*"}}, ALLOWED),
        ({"Principal": {"AWS": ["arn:aws:iam::123456789012:role/other", "me"]}}, ALLOWED),
        ({"Principal": {"Service": "me"}}, IMPLICIT),
        ({"NotPrincipal": {"AWS": "me"}}, IMPLICIT),
        ({"NotPrincipal": {"AWS": "you"}}, ALLOWED),
    ],
)
def test_principals_of_a_resource_s_policy(principal: dict[str, Any], outcome: str) -> None:
    assert decided(statement("Allow", "*", "*", **principal), principals={"me"}) == outcome


def test_an_operator_that_does_not_exist_is_no_permission() -> None:
    assert known_operator("ForAnyValue:StringLikeIfExists")
    assert not known_operator("StringSortsBefore")
    with pytest.raises(ValueError, match="StringSortsBefore"):
        decided(statement("Allow", "*", "*", Condition={"StringSortsBefore": {"aws:username": "b"}}))
