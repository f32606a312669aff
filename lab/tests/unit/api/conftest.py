"""The API without machines: instances stay pending until a test changes that."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_support import IMAGE_KEY, PUBLIC_RANGE, Network, RunningApi, forget_everything

from ec2lab.api import patches, seed, server
from ec2lab.image import Image

_installed = threading.Event()


@pytest.fixture
def running_api(tmp_path: Path) -> Iterator[RunningApi]:
    forget_everything()
    if not _installed.is_set():
        patches.install(PUBLIC_RANGE)
        _installed.set()
    image = Image(IMAGE_KEY, "debian", "bookworm", "x86_64", tmp_path)
    changes: list[int] = []
    api = server.Api(tmp_path / "state", lambda: changes.append(1))
    with api.lock:
        image_id = seed.add_image(image).id
        credentials = seed.add_user("unit")
        api.save()
    http = server.listen(api, "127.0.0.1", 0)
    server.start(http, "api under test")
    yield RunningApi(api, f"http://127.0.0.1:{http.server_port}", image_id, tmp_path / "state", credentials, changes)
    http.shutdown()
    http.server_close()


@pytest.fixture
def ec2(running_api: RunningApi) -> Any:
    return running_api.client("ec2")


@pytest.fixture
def elbv2(running_api: RunningApi) -> Any:
    return running_api.client("elbv2")


@pytest.fixture
def network(ec2: Any) -> Network:
    vpc = ec2.create_vpc(CidrBlock="10.240.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.240.0.0/24", AvailabilityZone="us-east-1a")["Subnet"]
    group = ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=vpc)["GroupId"]
    return Network(vpc, subnet["SubnetId"], group)
