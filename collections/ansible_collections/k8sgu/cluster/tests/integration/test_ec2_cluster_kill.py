# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ec2_cluster cut off after each of its changes in turn: the next run ends in the same state, with nothing twice.

A kill after a call that only reads leaves the account as a kill after the last change before it does, so changes are
what counts. What a killed run leaves is the account as it was right after the change, so one run that is watched has
the start of all that follow a kill.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ec2_account import WatchedAws, account, picture, pool, run
from moto_server import Server, reset

POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"}],
}
# Together they have every kind of thing that the module makes.
LAYOUTS: dict[str, dict[str, Any]] = {
    "public": {"admin_cidrs": ["203.0.113.0/24"], "pools": [pool("control_plane", 1), pool("workers", 1)]},
    "private": {
        "private_nodes": True,
        "admin_cidrs": ["203.0.113.0/24"],
        "worker_policy": POLICY,
        "pools": [pool("control_plane", 3, etcd_volume_size=4)],
    },
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with account() as running:
        yield running


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_making(server: Server, layout: str) -> None:
    aws = WatchedAws(server)
    reset(server)
    run(aws=aws, **LAYOUTS[layout])
    expected = picture(server)
    # So does every run on the same account below, whose plan it is.
    assert not run(**LAYOUTS[layout])["changed"]
    assert len(aws.left) > 20
    for *change, left in aws.left:
        server.restore(left)
        run(**LAYOUTS[layout])
        assert picture(server) == expected, f"after a kill after {change}"


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_removing(server: Server, layout: str) -> None:
    aws = WatchedAws(server)
    reset(server)
    empty = picture(server)
    run(**LAYOUTS[layout])
    run(aws=aws, state="absent")
    assert len(aws.left) > 15 and picture(server) == empty
    for *change, left in aws.left:
        server.restore(left)
        run(state="absent")
        assert picture(server) == empty, f"after a kill after {change}"


@pytest.mark.timeout(1500)
def test_changing(server: Server) -> None:
    """From one layout to quite another, with nodes launched again."""
    before = {"pools": [pool("control_plane", 1), pool("workers", 1)]}
    after = {
        "pools": [pool("control_plane", 1, instance_type="m5.xlarge"), pool("workers", 1, root_volume_size=30)],
        "zones": ["us-east-1b"],
        "instance_profiles": False,
        "allow_replace": True,
    }
    aws = WatchedAws(server)
    reset(server)
    run(**before)
    run(aws=aws, **after)
    expected = picture(server)
    assert {"TerminateInstances", "RunInstances", "ReplaceRoute", "DeleteSubnet", "DeleteRole"} <= {
        name for name, _number, _left in aws.left
    }
    for *change, left in aws.left:
        server.restore(left)
        run(**after)
        assert picture(server) == expected, f"after a kill after {change}"
