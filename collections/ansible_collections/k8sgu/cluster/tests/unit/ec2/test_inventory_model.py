"""The small service model says nothing that EC2's own does not say."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.loaders import Loader

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.model import API_VERSION, MODEL

# Ours has one string and one number where EC2's has a name for each enumeration.
SIMPLE = {"String": "string", "Integer": "integer"}


@pytest.fixture(scope="module")
def full() -> Any:
    return Loader().load_service_model("ec2", "service-2", API_VERSION)


def test_the_service_is_the_same(full: Any) -> None:
    assert MODEL["metadata"] == full["metadata"]
    theirs = full["operations"]["DescribeInstances"]
    ours = MODEL["operations"]["DescribeInstances"]
    assert ours == {key: theirs[key] for key in ours}


@pytest.mark.parametrize("name", sorted(set(MODEL["shapes"]) - set(SIMPLE)))
def test_every_shape_is_a_part_of_theirs(full: Any, name: str) -> None:
    ours, theirs = MODEL["shapes"][name], full["shapes"][name]
    assert ours["type"] == theirs["type"]
    pairs = (
        [(member, theirs["members"][key]) for key, member in ours["members"].items()]
        if ours["type"] == "structure"
        else [(ours["member"], theirs["member"])]
    )
    for our, their in pairs:
        assert our.get("locationName") == their.get("locationName")
        if our["shape"] in SIMPLE:
            assert full["shapes"][their["shape"]]["type"] == SIMPLE[our["shape"]]
        else:
            assert our["shape"] == their["shape"]
