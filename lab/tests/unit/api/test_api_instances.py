"""RunInstances and its kin as EC2 documents them.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from api_support import Network, RunningApi
from botocore.exceptions import ClientError


def launch(api: RunningApi, network: Network | None, **changes: Any) -> dict[str, Any]:
    """Without a network it is EC2 that chooses one."""
    wanted: dict[str, Any] = {
        "ImageId": api.image_id,
        "InstanceType": "m5.large",
        "MinCount": 1,
        "MaxCount": 1,
    }
    if network:
        wanted |= {"SubnetId": network.subnet, "SecurityGroupIds": [network.group]}
    wanted.update(changes)
    return dict(api.client("ec2").run_instances(**{name: value for name, value in wanted.items() if value is not None}))


def tagged(key: str, value: str) -> dict[str, Any]:
    return {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value}]}


def refused(code: str) -> Any:
    return pytest.raises(ClientError, match=re.escape(f"({code})"))


def test_metadata_options_that_a_change_does_not_name_stay(running_api: RunningApi, ec2: Any, network: Network) -> None:
    wanted = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "InstanceMetadataTags": "enabled"}
    id = launch(running_api, network, MetadataOptions=wanted)["Instances"][0]["InstanceId"]
    answered = ec2.modify_instance_metadata_options(InstanceId=id, HttpPutResponseHopLimit=3)
    seen = ec2.describe_instances(InstanceIds=[id])["Reservations"][0]["Instances"][0]["MetadataOptions"]
    for options in (answered["InstanceMetadataOptions"], seen):
        assert {name: options[name] for name in wanted} == {**wanted, "HttpPutResponseHopLimit": 3}


def test_an_instance_is_what_was_asked_for(running_api: RunningApi, ec2: Any, network: Network) -> None:
    ec2.import_key_pair(KeyName="me", PublicKeyMaterial=PUBLIC_KEY)
    made = launch(
        running_api,
        network,
        KeyName="me",
        PrivateIpAddress="10.240.0.10",
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "worker-1"}]}],
    )["Instances"][0]
    assert made["State"]["Name"] == "pending"
    seen = ec2.describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert seen["State"] == {"Code": 0, "Name": "pending"}
    assert seen["PrivateIpAddress"] == "10.240.0.10"
    assert seen["PrivateDnsName"] == "ip-10-240-0-10.ec2.internal"
    assert seen["Tags"] == [{"Key": "Name", "Value": "worker-1"}]
    assert seen["MetadataOptions"]["HttpTokens"] == "required"
    assert seen["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert [group["GroupId"] for group in seen["SecurityGroups"]] == [network.group]
    assert [group["GroupId"] for group in seen["NetworkInterfaces"][0]["Groups"]] == [network.group]
    assert seen["Placement"]["AvailabilityZone"] == "us-east-1a"
    assert seen["Architecture"] == "x86_64"


def test_the_count_is_the_highest_possible(running_api: RunningApi, ec2: Any, network: Network) -> None:
    made = launch(running_api, network, MinCount=1, MaxCount=3)["Instances"]
    assert len(made) == 3
    assert len({instance["PrivateIpAddress"] for instance in made}) == 3


def test_the_same_client_token_launches_once(running_api: RunningApi, ec2: Any, network: Network) -> None:
    first = launch(running_api, network, ClientToken="one", PrivateIpAddress="10.240.0.20")
    again = launch(running_api, network, ClientToken="one", PrivateIpAddress="10.240.0.20")
    assert again["ReservationId"] == first["ReservationId"]
    assert again["Instances"][0]["InstanceId"] == first["Instances"][0]["InstanceId"]
    assert len(ec2.describe_instances()["Reservations"]) == 1


def test_a_client_token_belongs_to_one_request(running_api: RunningApi, network: Network) -> None:
    launch(running_api, network, ClientToken="one")
    with refused("IdempotentParameterMismatch"):
        launch(running_api, network, ClientToken="one", InstanceType="m5.xlarge")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"ImageId": "debian-12"}, "InvalidAMIID.Malformed"),
        ({"InstanceType": "m5.gigantic"}, "InvalidParameterValue"),
        ({"InstanceType": "m6g.large"}, "InvalidParameterValue"),
        ({"KeyName": "nobody"}, "InvalidKeyPair.NotFound"),
        ({"SubnetId": "subnet-0123456789abcdef0"}, "InvalidSubnetID.NotFound"),
        ({"SecurityGroupIds": ["sg-0123456789abcdef0"]}, "InvalidGroup.NotFound"),
        ({"PrivateIpAddress": "10.99.0.1"}, "InvalidParameterValue"),
        ({"PrivateIpAddress": "10.240.0.1"}, "InvalidParameterValue"),
        ({"PrivateIpAddress": "10.240.0.10", "MinCount": 2, "MaxCount": 2}, "InvalidParameterCombination"),
        ({"MinCount": 3, "MaxCount": 2}, "InvalidParameterValue"),
        ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue"),
        ({"UserData": "#!" + "x" * 16384}, "InvalidParameterValue"),
        ({"MetadataOptions": {"HttpPutResponseHopLimit": 65}}, "InvalidParameterValue"),
        ({"MetadataOptions": {"HttpTokens": "maybe"}}, "InvalidParameterValue"),
        ({"TagSpecifications": [tagged("ec2lab:first-boot", "soon")]}, "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_ec2_refuses_is_refused_and_leaves_nothing(
    running_api: RunningApi, ec2: Any, network: Network, changes: dict[str, Any], code: str
) -> None:
    before = ec2.describe_network_interfaces()["NetworkInterfaces"]
    with refused(code):
        launch(running_api, network, **changes)
    assert ec2.describe_instances()["Reservations"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == before


def test_a_dry_run_reports_the_error_that_the_call_would_meet(running_api: RunningApi, network: Network) -> None:
    with refused("InvalidAMIID.NotFound"):
        launch(running_api, network, ImageId="ami-0123456789abcdef0", DryRun=True)


def test_an_address_is_given_once(running_api: RunningApi, ec2: Any, network: Network) -> None:
    instance = launch(running_api, network, PrivateIpAddress="10.240.0.10")["Instances"][0]
    with refused("InvalidIPAddress.InUse"):
        launch(running_api, network, PrivateIpAddress="10.240.0.10")
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    with refused("InvalidIPAddress.InUse"):  # the machine still has it
        launch(running_api, network, PrivateIpAddress="10.240.0.10")
    running_api.settle(instance["InstanceId"], "terminated")
    assert launch(running_api, network, PrivateIpAddress="10.240.0.10")["Instances"]


def test_a_full_subnet_says_so(running_api: RunningApi, ec2: Any, network: Network) -> None:
    small = ec2.create_subnet(VpcId=network.vpc, CidrBlock="10.240.9.0/28")["Subnet"]["SubnetId"]
    assert len(launch(running_api, network, SubnetId=small, MaxCount=11)["Instances"]) == 11
    with refused("InsufficientFreeAddressesInSubnet"):
        launch(running_api, network, SubnetId=small)


def test_a_group_of_another_vpc_is_refused(running_api: RunningApi, ec2: Any, network: Network) -> None:
    other = ec2.create_vpc(CidrBlock="10.50.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="other", Description="x", VpcId=other)["GroupId"]
    with refused("InvalidParameter"):
        launch(running_api, network, SecurityGroupIds=[group])


def test_states_follow_the_machine(running_api: RunningApi, ec2: Any, network: Network) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]

    def state() -> str:
        return str(ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]["State"]["Name"])

    running_api.settle(instance, "running")
    assert state() == "running"
    change = ec2.stop_instances(InstanceIds=[instance])["StoppingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    with refused("IncorrectInstanceState"):
        ec2.start_instances(InstanceIds=[instance])
    running_api.settle(instance, "stopped")
    change = ec2.start_instances(InstanceIds=[instance])["StartingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "pending")
    change = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]
    assert change["CurrentState"]["Name"] == "shutting-down"
    running_api.settle(instance, "terminated")
    assert state() == "terminated"
    change = ec2.terminate_instances(InstanceIds=[instance])["TerminatingInstances"][0]
    assert change["CurrentState"]["Name"] == "terminated"
    for call in (ec2.start_instances, ec2.stop_instances, ec2.reboot_instances):
        with refused("IncorrectInstanceState"):
            call(InstanceIds=[instance])


def test_a_wrong_id_among_many_changes_none(running_api: RunningApi, ec2: Any, network: Network) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    with refused("InvalidInstanceID.NotFound"):
        ec2.terminate_instances(InstanceIds=[instance, "i-0123456789abcdef0"])
    seen = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    assert seen["State"]["Name"] == "pending"


def test_termination_protection(running_api: RunningApi, ec2: Any, network: Network) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    ec2.modify_instance_attribute(InstanceId=instance, DisableApiTermination={"Value": True})
    with refused("OperationNotPermitted"):
        ec2.terminate_instances(InstanceIds=[instance])


def test_a_terminated_instance_leaves_nothing_behind(running_api: RunningApi, ec2: Any, network: Network) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[instance])
    running_api.settle(instance, "terminated")
    assert (
        ec2.describe_network_interfaces(Filters=[{"Name": "vpc-id", "Values": [network.vpc]}])["NetworkInterfaces"]
        == []
    )
    assert ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance]}])["Volumes"] == []
    ec2.delete_subnet(SubnetId=network.subnet)
    ec2.delete_security_group(GroupId=network.group)
    ec2.delete_vpc(VpcId=network.vpc)


def test_the_source_destination_check_is_the_interface_s_too(
    running_api: RunningApi, ec2: Any, network: Network
) -> None:
    instance = launch(running_api, network)["Instances"][0]
    eni = instance["NetworkInterfaces"][0]["NetworkInterfaceId"]

    def seen() -> tuple[bool, bool]:
        one = ec2.describe_instances(InstanceIds=[instance["InstanceId"]])["Reservations"][0]["Instances"][0]
        interface = ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"][0]
        return one["SourceDestCheck"], interface["SourceDestCheck"]

    assert seen() == (True, True)
    ec2.modify_instance_attribute(InstanceId=instance["InstanceId"], SourceDestCheck={"Value": False})
    assert seen() == (False, False)
    ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, SourceDestCheck={"Value": True})
    assert seen() == (True, True)


def test_groups_are_changed_in_both_places(running_api: RunningApi, ec2: Any, network: Network) -> None:
    instance = launch(running_api, network)["Instances"][0]
    other = ec2.create_security_group(GroupName="other", Description="x", VpcId=network.vpc)["GroupId"]
    ec2.modify_instance_attribute(InstanceId=instance["InstanceId"], Groups=[other])
    seen = ec2.describe_instances(InstanceIds=[instance["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert [group["GroupId"] for group in seen["SecurityGroups"]] == [other]
    assert [group["GroupId"] for group in seen["NetworkInterfaces"][0]["Groups"]] == [other]


def test_without_a_group_it_is_the_vpc_s_default(running_api: RunningApi, ec2: Any, network: Network) -> None:
    instance = launch(running_api, network, SecurityGroupIds=None)["Instances"][0]
    assert [group["GroupName"] for group in instance["SecurityGroups"]] == ["default"]


def test_a_public_address_where_the_interface_asks_for_one(running_api: RunningApi, ec2: Any, network: Network) -> None:
    specification = {
        "DeviceIndex": 0,
        "SubnetId": network.subnet,
        "Groups": [network.group],
        "AssociatePublicIpAddress": True,
        "PrivateIpAddress": "10.240.0.11",
    }
    made = launch(running_api, network, SubnetId=None, SecurityGroupIds=None, NetworkInterfaces=[specification])[
        "Instances"
    ][0]
    seen = ec2.describe_instances(InstanceIds=[made["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert seen["PublicIpAddress"].startswith("198.18.")
    assert seen["PrivateIpAddress"] == "10.240.0.11"
    assert [group["GroupId"] for group in seen["SecurityGroups"]] == [network.group]
    assert seen["NetworkInterfaces"][0]["Attachment"]["DeleteOnTermination"] is True


def test_every_instance_of_a_launch_has_the_profile(running_api: RunningApi, ec2: Any, network: Network) -> None:
    iam = running_api.client("iam")
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=TRUST)
    iam.create_instance_profile(InstanceProfileName="node")
    iam.add_role_to_instance_profile(InstanceProfileName="node", RoleName="node")
    made = launch(running_api, network, MaxCount=2, IamInstanceProfile={"Name": "node"})["Instances"]
    seen = ec2.describe_instances(InstanceIds=[one["InstanceId"] for one in made])["Reservations"][0]["Instances"]
    assert [one["IamInstanceProfile"]["Arn"].rsplit("/")[-1] for one in seen] == ["node", "node"]


def test_attributes_that_need_a_stopped_instance(running_api: RunningApi, ec2: Any, network: Network) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    running_api.settle(instance, "running")
    with refused("IncorrectInstanceState"):
        ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "m5.xlarge"})
    running_api.settle(instance, "stopped")
    ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "m5.xlarge"})
    with refused("InvalidParameterValue"):
        ec2.modify_instance_attribute(InstanceId=instance, InstanceType={"Value": "m5.gigantic"})


def test_instances_are_paginated(running_api: RunningApi, ec2: Any, network: Network) -> None:
    wanted = {launch(running_api, network)["Instances"][0]["InstanceId"] for _ in range(7)}
    pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
    assert len(pages) == 2
    seen = [one["InstanceId"] for page in pages for each in page["Reservations"] for one in each["Instances"]]
    assert sorted(seen) == sorted(wanted)


def test_instances_are_found_by_tag_and_state(running_api: RunningApi, ec2: Any, network: Network) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "k8sgu.io/cluster/demo", "Value": "owned"}]}]
    mine = launch(running_api, network, TagSpecifications=tags)["Instances"][0]["InstanceId"]
    launch(running_api, network)
    found = ec2.describe_instances(
        Filters=[
            {"Name": "tag:k8sgu.io/cluster/demo", "Values": ["owned"]},
            {"Name": "instance-state-name", "Values": ["pending", "running"]},
        ]
    )["Reservations"]
    assert [one["InstanceId"] for each in found for one in each["Instances"]] == [mine]


TRUST = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, '
    '"Action": "sts:AssumeRole"}]}'
)
PUBLIC_KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0 me"


def test_a_deprecated_image_is_in_no_list_but_can_be_asked_for(ec2: Any, running_api: RunningApi) -> None:
    def listed(**more: Any) -> list[str]:
        return [image["ImageId"] for image in ec2.describe_images(**more)["Images"]]

    (image,) = ec2.describe_images()["Images"]
    by_name = {"Owners": [image["OwnerId"]], "Filters": [{"Name": "name", "Values": [image["Name"]]}]}
    by_id = {"Filters": [{"Name": "image-id", "Values": [image["ImageId"]]}]}
    ec2.enable_image_deprecation(ImageId=image["ImageId"], DeprecateAt="2090-01-01T00:00:00Z")
    assert listed() == listed(**by_name) == listed(**by_id) == [image["ImageId"]]
    ec2.enable_image_deprecation(ImageId=image["ImageId"], DeprecateAt="2026-01-01T00:00:00Z")
    assert listed() == listed(**by_name) == listed(**by_id) == []
    assert listed(IncludeDeprecated=True, **by_name) == listed(ImageIds=[image["ImageId"]]) == [image["ImageId"]]
    (shown,) = ec2.describe_images(IncludeDeprecated=True)["Images"]
    assert shown["DeprecationTime"].startswith("2026-01-01T00:00:00")
    ec2.run_instances(ImageId=image["ImageId"], InstanceType="m5.large", MinCount=1, MaxCount=1)
    ec2.disable_image_deprecation(ImageId=image["ImageId"])
    assert listed() == [image["ImageId"]]
