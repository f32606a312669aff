# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Under an organization's policy that denies launches without IMDSv2, encryption, a tag or a role: ours pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from ec2_account import AMI, account, picture, pool, run
from moto_server import Server, reset
from organization import POLICY
from test_ec2_cluster import instances

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.run import Refused

TAGGED = {"tags": {"cost-center": "7"}}
# What such a policy is content with.
LAUNCH: dict[str, Any] = {
    "ImageId": AMI,
    "InstanceType": "m5.large",
    "MinCount": 1,
    "MaxCount": 1,
    "MetadataOptions": {"HttpTokens": "required"},
    "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20, "Encrypted": True}}],
    "TagSpecifications": [
        {"ResourceType": kind, "Tags": [{"Key": "cost-center", "Value": "7"}]} for kind in ("instance", "volume")
    ],
    "IamInstanceProfile": {"Name": "mine"},
}


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with account() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    reset(running)
    running.organization = POLICY
    yield running
    running.organization = None


def test_what_it_denies(server: Server) -> None:
    """On DryRun as on the launch itself."""
    ec2 = server.client("ec2")
    server.client("iam").create_instance_profile(InstanceProfileName="mine")
    less: list[dict[str, Any]] = [
        {"MetadataOptions": {"HttpTokens": "optional"}},
        {"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20}}]},
        {"TagSpecifications": LAUNCH["TagSpecifications"][:1]},
    ]
    for change in less:
        for dry_run in (True, False):
            with pytest.raises(ClientError, match=r"UnauthorizedOperation.*explicit deny in a service control policy"):
                ec2.run_instances(**{**LAUNCH, **change}, DryRun=dry_run)
    for option in ("MetadataOptions", "BlockDeviceMappings", "TagSpecifications", "IamInstanceProfile"):
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            ec2.run_instances(**{key: value for key, value in LAUNCH.items() if key != option}, DryRun=True)
    with pytest.raises(ClientError, match="DryRunOperation"):
        ec2.run_instances(**LAUNCH, DryRun=True)
    assert not instances(server)


def test_ours_is_let_through_in_every_step(server: Server) -> None:
    assert run(check_mode=True, **TAGGED)["changed"] and not instances(server)
    assert run(**TAGGED)["changed"] and len(instances(server)) == 3
    assert not run(**TAGGED)["changed"]
    run(pools=[pool("control_plane", 1), pool("workers", 3)], **TAGGED)
    assert len(instances(server)) == 4
    bigger = [pool("control_plane", 1), pool("workers", 3, instance_type="m5.xlarge")]
    assert run(pools=bigger, allow_replace=True, **TAGGED)["changed"]
    assert not run(pools=bigger, **TAGGED)["changed"]


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("less", [{}, {"instance_profiles": False, **TAGGED}])
def test_what_is_not_enough_is_refused_before_the_first_change(
    server: Server, less: dict[str, Any], check_mode: bool
) -> None:
    before = picture(server)
    with pytest.raises(
        Refused, match=r"the permission ec2:RunInstances is missing .*service control policy"
    ) as failure:
        run(check_mode, **less)
    assert "nothing was changed" in str(failure.value) and picture(server) == before


def test_a_later_pool_is_asked_for_too(server: Server) -> None:
    """Each pool has a launch of its own, and the first that is allowed says nothing of the others."""
    large = {"Effect": "Deny", "Action": "ec2:RunInstances", "Resource": "*"}
    server.organization = {"Statement": [{**large, "Condition": {"StringEquals": {"ec2:InstanceType": "m5.4xlarge"}}}]}
    run()
    before = picture(server)
    with pytest.raises(Refused, match="the permission ec2:RunInstances is missing"):
        run(pools=[pool("control_plane", 1), pool("workers", 3), pool("large", 1, instance_type="m5.4xlarge")])
    assert picture(server) == before
