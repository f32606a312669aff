"""Which machine an instance becomes: the lab's own tags."""

from __future__ import annotations

from typing import Any

import pytest
from api_support import Network, RunningApi
from botocore.exceptions import ClientError
from test_api_instances import launch

from ec2lab.api import translate
from ec2lab.api.backends import ec2 as ec2_backend
from ec2lab.api.patches import machines
from ec2lab.machine import memory, vm


@pytest.fixture(autouse=True)
def able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "lacking", lambda: None)


def launched(api: RunningApi, network: Network, instance_type: str = "m5.large", **tags: str) -> Any:
    given = [{"Key": f"ec2lab:{key.replace('_', '-')}", "Value": value} for key, value in tags.items()]
    specifications = [{"ResourceType": "instance", "Tags": given}] if given else None
    made = launch(api, network, InstanceType=instance_type, TagSpecifications=specifications)
    return ec2_backend().get_instance(made["Instances"][0]["InstanceId"])


def test_a_tag_chooses_and_the_network_follows(running_api: RunningApi, network: Network) -> None:
    light, virtual = launched(running_api, network), launched(running_api, network, machine="vm")
    specs = [translate.machine_spec(each) for each in (light, virtual)]
    assert [spec.kind for spec in specs] == ["container", "vm"]
    assert [spec.memory_mib for spec in specs] == [None, memory.DEFAULT_CAP_MIB]
    assert specs[1].cpus == 2
    assert specs[1].root_volume_id.startswith("vol-")
    desired = translate.desired("x", "198.18.0.0/22", frozenset())
    assert {node.id: node.tap for vpc in desired.vpcs for node in vpc.nodes} == {light.id: False, virtual.id: True}


def test_the_lab_s_choice_holds_for_the_rest_and_stays(
    running_api: RunningApi, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines.lab, "kind", "vm")
    instance = launched(running_api, network)
    tag = {"Key": "ec2lab:machine", "Value": "container"}
    running_api.client("ec2").create_tags(Resources=[instance.id], Tags=[tag])
    assert translate.machine_spec(instance).kind == "vm"
    assert translate.machine_spec(launched(running_api, network, machine="container")).kind == "container"
    monkeypatch.setattr(machines.lab, "kind", "container")
    assert translate.machine_spec(instance).kind == "vm"


def test_the_type_s_memory_has_a_cap_and_a_tag_says_otherwise(running_api: RunningApi, network: Network) -> None:
    def memory_of(*arguments: str, **tags: str) -> int | None:
        return translate.machine_spec(launched(running_api, network, *arguments, machine="vm", **tags)).memory_mib

    assert memory_of("t3.small") == 2048
    assert memory_of("m5.xlarge") == memory.DEFAULT_CAP_MIB
    assert memory_of("m5.xlarge", memory_mib="6144") == 6144


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"machine": "vmm"}, r"Value \(vmm\) for the tag ec2lab:machine is invalid: use container or vm"),
        ({"machine": "vm", "memory_mib": "3G"}, r"Value \(3G\) for the tag ec2lab:memory-mib is invalid: .*from 512"),
        ({"machine": "vm", "memory_mib": "511"}, r"Value \(511\) for the tag ec2lab:memory-mib is invalid"),
    ],
)
def test_a_tag_that_cannot_be_is_refused_before_anything_is_made(
    running_api: RunningApi, ec2: Any, network: Network, tags: dict[str, str], said: str
) -> None:
    with pytest.raises(ClientError, match=said):
        launched(running_api, network, **tags)
    assert ec2.describe_instances()["Reservations"] == []


def test_a_host_without_an_emulator_refuses_the_launch(
    running_api: RunningApi, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vm, "lacking", lambda: "qemu is missing")
    with pytest.raises(ClientError, match=r"\(Unsupported\).*cannot run virtual machines: qemu is missing"):
        launched(running_api, network, machine="vm")
