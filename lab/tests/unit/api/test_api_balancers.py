"""Network load balancers as ELB documents them; their data path is tried in the integration tests."""

from __future__ import annotations

import re
from typing import Any

import pytest
from api_support import Network, RunningApi
from botocore.exceptions import ClientError
from test_api_instances import launch
from test_api_network import desired

from ec2lab.api import translate
from ec2lab.api.patches import balancers
from ec2lab.balancer import TargetHealth


def refused(code: str) -> Any:
    return pytest.raises(ClientError, match=re.escape(f"({code})"))


def make(elbv2: Any, network: Network, **changes: Any) -> dict[str, Any]:
    wanted = {"Name": "demo-api", "Type": "network", "Scheme": "internal", "Subnets": [network.subnet], **changes}
    return dict(elbv2.create_load_balancer(**wanted)["LoadBalancers"][0])


def make_group(elbv2: Any, network: Network, **changes: Any) -> str:
    made = elbv2.create_target_group(
        Name="demo-api",
        Protocol="TCP",
        Port=6443,
        VpcId=network.vpc,
        TargetType="instance",
        HealthCheckProtocol="HTTPS",
        HealthCheckPath="/readyz",
        HealthCheckIntervalSeconds=5,
        HealthCheckTimeoutSeconds=5,
        HealthyThresholdCount=2,
        **changes,
    )
    return str(made["TargetGroups"][0]["TargetGroupArn"])


def test_a_balancer_has_a_unique_name_and_addresses(
    running_api: RunningApi, ec2: Any, elbv2: Any, network: Network
) -> None:
    made = make(elbv2, network)
    assert ":loadbalancer/net/demo-api/" in made["LoadBalancerArn"]
    assert re.fullmatch(r"demo-api-[0-9a-f]{16}\.elb\.us-east-1\.amazonaws\.com", made["DNSName"])
    assert made["State"]["Code"] == "provisioning"
    (balancer,) = desired(running_api).load_balancers
    assert balancer.addresses == ((network.subnet, "10.240.0.4", None),)
    (eni,) = ec2.describe_network_interfaces(Filters=[{"Name": "vpc-id", "Values": [network.vpc]}])["NetworkInterfaces"]
    assert eni["Description"].startswith("ELB net/demo-api/")
    assert make(elbv2, network)["LoadBalancerArn"] == made["LoadBalancerArn"]
    with refused("DuplicateLoadBalancerName"):
        make(elbv2, network, Scheme="internet-facing")
    with refused("DependencyViolation"):
        ec2.delete_subnet(SubnetId=network.subnet)
    elbv2.delete_load_balancer(LoadBalancerArn=made["LoadBalancerArn"])
    elbv2.delete_load_balancer(LoadBalancerArn=made["LoadBalancerArn"])  # as documented: no error
    ec2.delete_subnet(SubnetId=network.subnet)


def test_an_internet_facing_one_has_public_addresses(running_api: RunningApi, elbv2: Any, network: Network) -> None:
    make(elbv2, network, Scheme="internet-facing")
    (balancer,) = desired(running_api).load_balancers
    assert (balancer.addresses[0][2] or "").startswith("198.18.")
    # Its name leads there inside of the VPC too.
    [found] = [found for name, found in translate.dns_names(network.vpc).items() if name.startswith("demo-api-")]
    assert found == [balancer.addresses[0][2]]


def test_unknown_names_and_arns(elbv2: Any, network: Network) -> None:
    made = make(elbv2, network)
    with refused("LoadBalancerNotFound"):
        elbv2.describe_load_balancers(Names=["demo-api", "nobody"])
    with refused("LoadBalancerNotFound"):
        elbv2.describe_load_balancers(LoadBalancerArns=[made["LoadBalancerArn"] + "0"])


def test_targets_are_as_healthy_as_they_are(
    running_api: RunningApi, ec2: Any, elbv2: Any, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    group = make_group(elbv2, network)
    with refused("InvalidTarget"):
        elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": instance}])
    running_api.settle(instance, "running")
    elbv2.register_targets(TargetGroupArn=group, Targets=[{"Id": instance}])

    def health() -> dict[str, Any]:
        (only,) = elbv2.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        assert only["Target"] == {"Id": instance, "Port": 6443}
        return dict(only["TargetHealth"])

    assert (health()["State"], health()["Reason"]) == ("unused", "Target.NotInUse")
    balancer = make(elbv2, network)["LoadBalancerArn"]
    forward = [{"Type": "forward", "TargetGroupArn": group}]
    listener = elbv2.create_listener(LoadBalancerArn=balancer, Protocol="TCP", Port=6443, DefaultActions=forward)
    said: dict[tuple[str, str, int], TargetHealth] = {}
    monkeypatch.setattr(
        balancers.source, "health", lambda *key: said.get(key, TargetHealth("initial", "Elb.RegistrationInProgress"))
    )
    assert health()["State"] == "initial"
    said[group, instance, 6443] = TargetHealth("unhealthy", "Target.FailedHealthChecks", "Health checks failed")
    assert (health()["State"], health()["Reason"]) == ("unhealthy", "Target.FailedHealthChecks")
    said[group, instance, 6443] = TargetHealth("healthy")
    assert health() == {"State": "healthy"}
    with refused("DuplicateListener"):
        elbv2.create_listener(LoadBalancerArn=balancer, Protocol="TCP", Port=6443, DefaultActions=forward)
    with refused("ResourceInUse"):
        elbv2.delete_target_group(TargetGroupArn=group)
    (seen,) = desired(running_api).target_groups
    assert [target.instance_id for target in seen.targets] == [instance]
    assert seen.health_check.protocol == "HTTPS"
    assert (seen.health_check.path, seen.health_check.interval_s, seen.health_check.healthy_threshold) == (
        "/readyz", 5.0, 2,
    )  # fmt: skip
    ec2.stop_instances(InstanceIds=[instance])
    assert (health()["State"], health()["Reason"]) == ("unused", "Target.InvalidState")
    elbv2.delete_listener(ListenerArn=listener["Listeners"][0]["ListenerArn"])
    assert elbv2.describe_target_groups(TargetGroupArns=[group])["TargetGroups"][0]["LoadBalancerArns"] == []
    elbv2.delete_target_group(TargetGroupArn=group)


def test_client_addresses_are_kept_unless_told_otherwise(running_api: RunningApi, elbv2: Any, network: Network) -> None:
    group = make_group(elbv2, network)
    balancer = make(elbv2, network)["LoadBalancerArn"]
    forward = [{"Type": "forward", "TargetGroupArn": group}]
    elbv2.create_listener(LoadBalancerArn=balancer, Protocol="TCP", Port=6443, DefaultActions=forward)
    assert desired(running_api).target_groups[0].preserve_client_ip is True
    elbv2.modify_target_group_attributes(
        TargetGroupArn=group, Attributes=[{"Key": "preserve_client_ip.enabled", "Value": "false"}]
    )
    assert desired(running_api).target_groups[0].preserve_client_ip is False


def test_tags(elbv2: Any, network: Network) -> None:
    tags = [{"Key": "k8sgu.io/cluster/demo", "Value": "owned"}]
    arn = make(elbv2, network, Tags=tags)["LoadBalancerArn"]
    assert elbv2.describe_tags(ResourceArns=[arn])["TagDescriptions"][0]["Tags"] == tags
