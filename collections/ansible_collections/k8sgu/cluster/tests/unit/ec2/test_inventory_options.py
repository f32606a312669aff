from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import names as name_rules
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.fetch import Query
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.hosts import InventoryError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.options import (
    check_clusters,
    check_hostnames,
    check_names,
    filters_from,
)

KNOWN = ["plugin", "clusters", "regions", "profile", "filters", "hostnames"]


def test_known_options_pass() -> None:
    check_names(["plugin", "clusters"], KNOWN)
    check_hostnames(["tag:Name", "instance_id", "private_ip"])
    check_clusters(["demo", "a1-b"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cluster", "it is clusters here"),
        ("hostname", "did you mean hostnames?"),
        ("aws_secret_access_key", "keys do not belong in a file"),
        ("xyz", "the options are clusters, filters"),
    ],
)
def test_an_unknown_option_names_what_was_meant(name: str, hint: str) -> None:
    with pytest.raises(InventoryError) as raised:
        check_names(["plugin", name], KNOWN)
    assert f"unknown option {name}" in str(raised.value) and hint in str(raised.value)


@pytest.mark.parametrize("wanted", ["name", "tag:", "ip", ""])
def test_an_unknown_source_of_names(wanted: str) -> None:
    with pytest.raises(InventoryError, match=r"hostnames: .*tag:Name"):
        check_hostnames([wanted])


@pytest.mark.parametrize("name", ["", "Demo", "a_b", "*", "1a", "x" * 29, 1234, 1.5, True, None, ["demo"]])
def test_a_name_no_cluster_can_have(name: Any) -> None:
    with pytest.raises(InventoryError) as raised:
        check_clusters([name])
    assert str(raised.value) == f"clusters: {name_rules.cluster_fault(name)}"


@pytest.mark.parametrize("written", [["{{ k8sgu_cluster_name }}"], "{{ k8sgu_cluster_name }}"])
def test_a_wrong_name_says_which_variable_it_is_from(written: Any) -> None:
    with pytest.raises(InventoryError) as raised:
        check_clusters(["1234"], written)
    assert str(raised.value) == f"clusters ({{{{ k8sgu_cluster_name }}}}): {name_rules.cluster_fault('1234')}"


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ({"vpc-id": "vpc-1"}, (("vpc-id", ("vpc-1",)),)),
        ({"b": [1, 2], "a": True}, (("a", ("true",)), ("b", ("1", "2")))),
    ],
)
def test_filters(given: dict[str, Any], result: tuple[Any, ...]) -> None:
    assert filters_from(given) == result


@pytest.mark.parametrize(
    "given", [{"vpc-id": []}, {"vpc-id": None}, {"vpc-id": [{}]}, {"instance-state-name": "stopped"}]
)
def test_filters_that_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(InventoryError, match="filters: "):
        filters_from(given)


def test_what_the_api_is_asked() -> None:
    query = Query(("us-east-1",), ("a", "b"), ("running",), (("vpc-id", ("vpc-1",)),))
    assert query.api_filters() == [
        {"Name": "tag-key", "Values": ["k8sgu.io/cluster/a", "k8sgu.io/cluster/b"]},
        {"Name": "instance-state-name", "Values": ["running"]},
        {"Name": "vpc-id", "Values": ["vpc-1"]},
    ]
    assert Query(("us-east-1",), (), ("running",)).api_filters()[0]["Values"] == ["k8sgu.io/cluster/*"]
