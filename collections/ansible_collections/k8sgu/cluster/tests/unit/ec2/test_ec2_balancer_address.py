"""Where clients outside find a load balancer: AWS's by name, another EC2's by address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ProxyConnectionError

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer import address
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

ARN = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/net/demo-api/0a1b"
NAME = "demo-api-0a1b.elb.us-east-1.amazonaws.com"


class Ec2:
    """Knows one interface of the load balancer, with a public address or without, or answers with an error."""

    def __init__(self, endpoint: str, public: str = "", error: Exception | None = None) -> None:
        self.meta = SimpleNamespace(endpoint_url=endpoint)
        self.public, self.error = public, error
        self.asked: list[Any] = []

    def can_paginate(self, operation: str) -> bool:
        return False

    def describe_network_interfaces(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request["Filters"][0]["Values"])
        if self.error:
            raise self.error
        return {"NetworkInterfaces": [{"Association": {"PublicIp": self.public}} if self.public else {}]}


def host(ec2: Ec2) -> str:
    aws: Any = SimpleNamespace(client=lambda service: ec2)
    balancer: Any = SimpleNamespace(arn=ARN, dns_name=NAME)
    return address.host(Reader(aws, "demo"), balancer)


@pytest.mark.parametrize(
    ("endpoint", "public", "expected"),
    [
        ("https://ec2.us-east-1.amazonaws.com", "198.51.100.7", NAME),
        ("https://ec2.us-east-1.api.aws", "198.51.100.7", NAME),
        ("http://127.0.0.1:5123", "198.51.100.7", "198.51.100.7"),
        ("http://127.0.0.1:5123", "", NAME),
    ],
)
def test_host(endpoint: str, public: str, expected: str) -> None:
    ec2 = Ec2(endpoint, public)
    assert host(ec2) == expected
    assert ec2.asked == ([] if "127.0.0.1" not in endpoint else [["ELB net/demo-api/0a1b"]])


def answered(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeNetworkInterfaces")


@pytest.mark.parametrize("code", sorted(session.DENIED_CODES))
def test_who_may_not_look_gets_the_name(code: str) -> None:
    assert host(Ec2("http://127.0.0.1:5123", error=answered(code))) == NAME


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (answered("RequestLimitExceeded"), "DescribeNetworkInterfaces answered RequestLimitExceeded"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:5123"), "check the network"),
        (ProxyConnectionError(proxy_url="http://***@127.0.0.1:1"), "check HTTP_PROXY and HTTPS_PROXY, or .* NO_PROXY"),
    ],
)
def test_other_errors_are_told_to_the_user(error: Exception, said: str) -> None:
    with pytest.raises(session.AwsError, match=said):
        host(Ec2("http://127.0.0.1:5123", error=error))
