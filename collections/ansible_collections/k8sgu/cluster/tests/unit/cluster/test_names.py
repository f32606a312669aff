# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The longest names fit AWS's limits and a certificate, and an invalid name is reported once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import names as name_rules
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names
from ansible_collections.k8sgu.cluster.plugins.modules import ec2_cluster

COLLECTION = Path(__file__).resolve().parents[3]
LONGEST = "c" * name_rules.CLUSTER_LENGTH


@pytest.mark.parametrize("name", ["d", "demo", "a1-b", "internals", LONGEST])
def test_names_that_a_cluster_can_have(name: str) -> None:
    assert name_rules.cluster_fault(name) == ""


@pytest.mark.parametrize("name", ["internal", "internal-1"])
def test_a_load_balancers_name_must_not_begin_with_internal(name: str) -> None:
    assert names.load_balancer(name).startswith("internal-") and "AWS reserves names" in name_rules.cluster_fault(name)


def test_the_longest_cluster_name_fits_its_load_balancer_and_no_longer_one_would() -> None:
    assert len(names.load_balancer(LONGEST)) == 32
    assert name_rules.cluster_fault(LONGEST + "c")


def test_the_longest_cluster_name_fits_iams_names_in_every_region() -> None:
    session = boto3.session.Session()
    regions = [
        region
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("ec2", partition)
    ]
    assert max(len(names.role(LONGEST, region, "control_plane")) for region in regions) <= 64


def test_the_longest_node_name_fits_its_certificate() -> None:
    node = "n" * name_rules.NODE_LENGTH
    assert name_rules.node_fault(node) == "" and len(f"system:node:{node}") == 64
    assert "(53 characters)" in name_rules.node_fault(node + "n")
    assert name_rules.node_fault(name_rules.node_name(LONGEST, "control_plane", 6)) == ""


def test_the_documents_say_the_rule() -> None:
    rule = name_rules.CLUSTER_RULE.removeprefix("give ")
    specs = yaml.safe_load((COLLECTION / "roles/cluster_facts/meta/argument_specs.yml").read_text())["argument_specs"]
    assert rule in specs["description"]["options"]["k8sgu_cluster_name"]["description"]
    [text] = yaml.safe_load(ec2_cluster.DOCUMENTATION)["options"]["name"]["description"]
    assert rule in text


@pytest.mark.parametrize("name", ["a", "big", "big_ones", "big-ones", "g2"])
def test_names_that_a_pool_can_have(name: str) -> None:
    assert name_rules.pool_fault(name) == ""


@pytest.mark.parametrize("name", ["", "Big", "2g", "a__b", "a-", "_a", "a b", None, 3, True])
def test_names_that_no_pool_can_have(name: Any) -> None:
    assert name_rules.pool_fault(name) == f"{name_rules.shown(name)} cannot be a pool's name: {name_rules.POOL_RULE}"


FULL = {f"key-{number}": "value" for number in range(name_rules.MOST_TAGS)}


@pytest.mark.parametrize("tags", [{}, {"team": "blue"}, {"Größe": "XL 1.5"}, {"a:b/c=d+e-f@g": 7}, {"x": ""}, FULL])
def test_tags_that_can_be(tags: dict[str, Any]) -> None:
    assert name_rules.tags_faults(tags) == []


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"aws:x": "1"}, "'aws:x' is reserved; choose a key without k8sgu.io/, aws:, kubernetes.io/"),
        ({"AWS:x": "1"}, "'AWS:x' is reserved"),
        ({"k8sgu.io/role": "x"}, "'k8sgu.io/role' is reserved"),
        ({"kubernetes.io/cluster/x": "x"}, "is reserved"),
        ({"Name": "x"}, "'Name' is reserved"),
        ({"name": "x"}, "'name' is reserved"),
        ({"": "x"}, "a key has 1 to 128 characters and this one 0"),
        ({"k" * 129: "x"}, "and this one 129; shorten it"),
        ({"x": "v" * 257}, "a value has at most 256 characters and this one 257"),
        ({"x": "aws:y"}, "IAM allows no value with the prefix aws:"),
        ({"x": None}, "'x': the value null, which is not text in YAML, cannot be a tag's; put it in quotes"),
        ({"x": True}, "the value true"),
        ({"x": 1.10}, "the value 1.1"),
        ({"x": {"y": "z"}}, 'the value {"y": "z"}'),
        ({"x": "a,b"}, "'a,b' holds ',', and IAM allows only letters, digits, spaces and _ . : / = + - @"),
        ({"x\t": "a"}, "holds '\\t'"),
        ({"Team": "a", "team": "b"}, "'Team', 'team': IAM does not distinguish keys by upper and lower case"),
        ({**FULL, "one": "more"}, "46 tags, and AWS allows 45 besides the cluster's own"),
    ],
)
def test_invalid_tags_are_reported_once(tags: dict[str, Any], said: str) -> None:
    [fault] = name_rules.tags_faults(tags)
    assert said in fault


@pytest.mark.parametrize(
    ("zones", "region", "said"),
    [
        (["us-east-1a", "us-east-1b"], "us-east-1", ""),
        (["us-east-1a"], "", ""),
        (["us-east-1a"], "eu-west-1", "'us-east-1a' is not in region eu-west-1; give zones like eu-west-1a"),
        (["us-east-1a", "us-east-1a"], "", "'us-east-1a' is given twice"),
        ([1], "us-east-1", "1, which is not text in YAML, cannot be a zone; give zones like us-east-1a"),
    ],
)
def test_zones(zones: list[Any], region: str, said: str) -> None:
    fault = name_rules.zones_fault(zones, region)
    assert said in fault and bool(said) == bool(fault)
