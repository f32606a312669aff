"""Where clients outside find a load balancer: AWS's by name, another EC2's by address."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import balancer_address

ARN = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/net/demo-api/0a1b"
NAME = "demo-api-0a1b.elb.us-east-1.amazonaws.com"


class Ec2:
    """Knows one interface of the load balancer, with a public address or without."""

    def __init__(self, endpoint: str, public: str) -> None:
        self.meta = SimpleNamespace(endpoint_url=endpoint)
        self.public = public
        self.asked: list[Any] = []

    def describe_network_interfaces(self, **request: Any) -> dict[str, Any]:
        self.asked.append(request["Filters"][0]["Values"])
        return {"NetworkInterfaces": [{"Association": {"PublicIp": self.public}} if self.public else {}]}


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
    aws: Any = SimpleNamespace(client=lambda service: ec2)
    balancer: Any = SimpleNamespace(arn=ARN, dns_name=NAME)
    assert balancer_address.host(aws, balancer) == expected
    assert ec2.asked == ([] if "127.0.0.1" not in endpoint else [["ELB net/demo-api/0a1b"]])
