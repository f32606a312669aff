# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ec2_cluster cut off after each of its changes in turn: the next run ends in the same state, with nothing twice.

A kill after a call that only reads leaves the account as a kill after the last change before it does, so changes are
what counts. Steps run side by side, so that a change is told by its call and by its number among the calls of that
name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from ec2_account import Killed, KilledAws, account, picture, pool, run
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


def changes(aws: KilledAws) -> list[tuple[str, int]]:
    """The changes of the run just made, each by its call and number."""
    return [(operation, number) for operation, count in sorted(aws.made.items()) for number in range(1, count + 1)]


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_making(server: Server, layout: str) -> None:
    aws = KilledAws()
    reset(server)
    run(aws=aws, **LAYOUTS[layout])
    expected, every = picture(server), changes(aws)
    assert len(every) > 20
    for change in every:
        reset(server)
        aws.arm(*change)
        with pytest.raises(Killed):
            run(aws=aws, **LAYOUTS[layout])
        run(**LAYOUTS[layout])
        assert picture(server) == expected, f"after a kill after {change}"
        assert not run(**LAYOUTS[layout])["changed"], f"after a kill after {change}"


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_removing(server: Server, layout: str) -> None:
    aws = KilledAws()
    reset(server)
    empty = picture(server)
    run(**LAYOUTS[layout])
    run(aws=aws, state="absent")
    every = changes(aws)
    assert len(every) > 15 and picture(server) == empty
    for change in every:
        reset(server)
        run(**LAYOUTS[layout])
        aws.arm(*change)
        with pytest.raises(Killed):
            run(aws=aws, state="absent")
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
    aws = KilledAws()
    reset(server)
    run(**before)
    run(aws=aws, **after)
    expected, every = picture(server), changes(aws)
    assert {"TerminateInstances", "RunInstances", "ReplaceRoute", "DeleteSubnet", "DeleteRole"} <= {
        name for name, _change in every
    }
    for change in every:
        reset(server)
        run(**before)
        aws.arm(*change)
        with pytest.raises(Killed):
            run(aws=aws, **after)
        run(**after)
        assert picture(server) == expected, f"after a kill after {change}"
