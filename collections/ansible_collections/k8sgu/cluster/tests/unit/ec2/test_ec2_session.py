# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages, throttling and quotas: boto3's own clients, whose requests are answered before they are sent."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from test_ec2_plan import FACTS, description

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import cluster, session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import vpc
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

THROTTLED = (503, "RequestLimitExceeded")


class Raw:
    """What botocore reads an answer's body from."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, *_given: Any, **_more: Any) -> list[bytes]:
        return [self.body]


class Answers(session.Aws):
    """Clients that are given the bodies in turn; a pair of status and code is an error."""

    def __init__(self, *bodies: Any, **connection: Any) -> None:
        self.bodies = list(bodies)
        self.sent: list[str] = []
        super().__init__(
            session.Connection(region="us-east-1", access_key="AKIATEST", secret_key="secret", **connection)
        )

    def client(self, service: str, region: str | None = None) -> Any:
        client = super().client(service, region)
        client.meta.events.register("before-send", self._answer, unique_id="answers")
        return client

    def _answer(self, request: Any, **_event: Any) -> AWSResponse:
        body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
        self.sent.append(body)
        answer = self.bodies.pop(0)
        if isinstance(answer, tuple):
            status, code = answer
            if request.headers.get("X-Amz-Target"):
                return AWSResponse(request.url, status, {}, Raw(json.dumps({"__type": code}).encode()))
            text = f"<Response><Errors><Error><Code>{code}</Code><Message>no</Message></Error></Errors></Response>"
            return AWSResponse(request.url, status, {}, Raw(text.encode()))
        return AWSResponse(request.url, 200, {}, Raw(answer.encode()))


def vpcs(number: int, token: str = "") -> str:
    more = f"<nextToken>{token}</nextToken>" if token else ""
    items = f"<item><vpcId>vpc-{number}</vpcId><cidrBlock>10.{number}.0.0/16</cidrBlock></item>"
    return f"<DescribeVpcsResponse><vpcSet>{items}</vpcSet>{more}</DescribeVpcsResponse>"


def read(aws: session.Aws) -> list[str]:
    return [item["VpcId"] for item in Reader(aws, "demo").pages("ec2", "describe_vpcs", "Vpcs")]


def test_every_page_is_read() -> None:
    aws = Answers(vpcs(1, "two"), vpcs(2, "three"), vpcs(3))
    assert read(aws) == ["vpc-1", "vpc-2", "vpc-3"]
    tokens = [urllib.parse.parse_qs(body).get("NextToken", [""])[0] for body in aws.sent]
    assert tokens == ["", "two", "three"]


def test_a_page_that_fails_is_no_short_answer() -> None:
    with pytest.raises(session.AwsError, match=r"read the account \(describe_vpcs\).*InternalFailure"):
        read(Answers(vpcs(1, "two"), (400, "InternalFailure")))


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_what_is_throttled_twice_is_asked_again(mode: str) -> None:
    aws = Answers(THROTTLED, THROTTLED, vpcs(1), retry_mode=mode)
    assert read(aws) == ["vpc-1"]
    assert len(aws.sent) == 3 and aws.calls == ["ec2:DescribeVpcs"]


def test_throttling_beyond_max_attempts_is_an_error_and_not_an_empty_account() -> None:
    aws = Answers(THROTTLED, THROTTLED, vpcs(1), max_attempts=2)
    with pytest.raises(session.AwsError, match="RequestLimitExceeded"):
        read(aws)
    assert len(aws.sent) == 2


NONE = (400, "NoSuchResourceException")


def quota(value: float, code: str = vpc.QUOTA[1]) -> str:
    return json.dumps({"Quota": {"QuotaCode": code, "Value": value}})


def defaults(value: float, code: str = vpc.QUOTA[1], token: str = "") -> str:
    return json.dumps({"Quotas": [{"QuotaCode": code, "Value": value}], **({"NextToken": token} if token else {})})


class TestQuotas:
    """One VPC is to be made and one is there."""

    def check(self, *bodies: Any) -> Answers:
        aws = Answers(*bodies)
        made = cluster.make(description(pod_network="vxlan"), Current(), FACTS)
        vpc.check_quota(Reader(aws, "demo"), description(pod_network="vxlan"), made)
        return aws

    def test_the_accounts_own_value_counts(self) -> None:
        assert self.check(quota(2), vpcs(1)).bodies == []
        with pytest.raises(DescriptionError, match="has 1 VPCs in us-east-1 and its quota is 1"):
            self.check(quota(1), vpcs(1))

    def test_without_one_that_of_aws_counts(self) -> None:
        others = defaults(99, "L-00000000", "two")
        assert self.check(NONE, others, defaults(2), vpcs(1)).bodies == []
        with pytest.raises(DescriptionError, match="has 1 VPCs in us-east-1 and its quota is 1"):
            self.check(NONE, others, defaults(1), vpcs(1))

    @pytest.mark.parametrize("answer", [NONE, defaults(1, "L-00000000"), (400, "UnknownOperationException")])
    def test_what_nobody_knows_is_enough(self, answer: Any) -> None:
        assert self.check(NONE, answer).bodies == []

    @pytest.mark.parametrize("bodies", [((400, "AccessDeniedException"),), (NONE, (400, "AccessDeniedException"))])
    def test_a_missing_permission_is_an_error(self, bodies: tuple[Any, ...]) -> None:
        with pytest.raises(session.AwsError, match=r"the permission servicequotas:(Get|ListAWSDefault)ServiceQuota"):
            self.check(*bodies)
