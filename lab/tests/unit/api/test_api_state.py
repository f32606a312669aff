"""The state outlives the process, and a call that fails leaves none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from api_support import Network, RunningApi, forget_everything
from botocore.exceptions import ClientError
from test_api_instances import TRUST, launch

from ec2lab import guest
from ec2lab.api import server
from ec2lab.api.backends import ec2 as ec2_backend
from ec2lab.api.store import StateError
from ec2lab.errors import LabError


def test_everything_is_there_again(running_api: RunningApi, ec2: Any, elbv2: Any, network: Network) -> None:
    instance = launch(running_api, network, ClientToken="once", PrivateIpAddress="10.240.0.10")["Instances"][0]
    iam, s3, ssm = (running_api.client(name) for name in ("iam", "s3", "ssm"))
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=TRUST)
    s3.create_bucket(Bucket="a-bucket")
    ssm.put_parameter(Name="/a", Value="b", Type="String")
    running_api.client("autoscaling").describe_auto_scaling_groups()
    before = ec2.describe_instances()["Reservations"]
    forget_everything()
    assert running_api.api.load()
    assert ec2.describe_instances()["Reservations"] == before
    assert iam.get_role(RoleName="node")["Role"]["RoleName"] == "node"
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["a-bucket"]
    assert ssm.get_parameter(Name="/a")["Parameter"]["Value"] == "b"
    again = launch(running_api, network, ClientToken="once", PrivateIpAddress="10.240.0.10")["Instances"][0]
    assert again["InstanceId"] == instance["InstanceId"]
    with pytest.raises(ClientError, match=r"InvalidIPAddress\.InUse"):
        launch(running_api, network, PrivateIpAddress="10.240.0.10")


def test_another_process_reads_it(running_api: RunningApi, network: Network) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    program = (
        "import sys; from pathlib import Path; from ec2lab.api import server, backends;"
        "api = server.Api(Path(sys.argv[1]), lambda: None); assert api.load();"
        "print(*[i.id for i in backends.ec2().all_instances()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(running_api.state_file)], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [instance], done.stderr


def test_a_call_is_answered_when_it_is_on_disk(running_api: RunningApi, ec2: Any) -> None:
    """Whatever was answered is in the file at that moment: a copy taken then has it."""
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    saved = running_api.state_file.read_bytes()
    ec2.delete_vpc(VpcId=vpc)
    running_api.state_file.write_bytes(saved)
    assert running_api.api.load()
    assert vpc in ec2_backend().vpcs


def test_where_the_state_cannot_be_written_nothing_happens(
    running_api: RunningApi, ec2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(ec2.describe_vpcs()["Vpcs"])

    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(running_api.api._store, "save", full)
        with pytest.raises(ClientError, match="No space left on device"):
            ec2.create_vpc(CidrBlock="10.1.0.0/16")
    assert len(ec2.describe_vpcs()["Vpcs"]) == before
    ec2.create_vpc(CidrBlock="10.1.0.0/16")


def test_an_error_within_a_call_undoes_what_it_had_done(
    running_api: RunningApi, ec2: Any, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.ec2.models.instances import Instance

    def fails(_self: Any) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(Instance, "setup_defaults", fails)
    with pytest.raises(ClientError, match="InternalError"):
        launch(running_api, network)
    assert ec2.describe_instances()["Reservations"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_the_state_is_readable_by_its_owner_only(running_api: RunningApi) -> None:
    assert running_api.state_file.stat().st_mode & 0o777 == 0o600


def test_a_damaged_state_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"not a state")
    with pytest.raises(StateError, match="ec2lab down") as raised:
        server.Api(tmp_path / "state", lambda: None).load()
    assert isinstance(raised.value, LabError)  # which the daemon says in a line, and not with a traceback


def test_a_nodes_credentials_outlive_the_daemon(running_api: RunningApi, network: Network) -> None:
    iam = running_api.client("iam")
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=TRUST)
    iam.create_instance_profile(InstanceProfileName="node")
    iam.add_role_to_instance_profile(InstanceProfileName="node", RoleName="node")
    launched = launch(running_api, network, IamInstanceProfile={"Name": "node"})["Instances"][0]
    nothing: Any = None
    services = guest.GuestServices(running_api.api, nothing, nothing)

    def told() -> dict[str, Any]:
        described = services._metadata(network.vpc, launched["PrivateIpAddress"])
        assert described is not None
        return dict(json.loads(described.values["iam/security-credentials/node"]))

    first = told()
    forget_everything()
    assert running_api.api.load()
    assert told() == first
    who = running_api.client("sts", first["AccessKeyId"], first["SecretAccessKey"], first["Token"])
    assert f":assumed-role/node/{launched['InstanceId']}" in who.get_caller_identity()["Arn"]


def test_changes_are_announced_and_reads_are_not(running_api: RunningApi, ec2: Any) -> None:
    running_api.changes.clear()
    ec2.describe_vpcs()
    assert not running_api.changes
    ec2.create_vpc(CidrBlock="10.1.0.0/16")
    assert len(running_api.changes) == 1


def test_the_account_s_user(running_api: RunningApi) -> None:
    who = running_api.client("sts").get_caller_identity()
    assert who["Arn"].endswith(":user/unit/lab-admin")
