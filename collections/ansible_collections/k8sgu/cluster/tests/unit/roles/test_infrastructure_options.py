# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every option of ec2_cluster can be set in the description of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.options import ARGUMENT_SPEC as DRAIN
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.options import ARGUMENT_SPECS, CONNECTION_OPTIONS

ROLE = Path(__file__).resolve().parents[3] / "roles" / "infrastructure"
MODULE = ARGUMENT_SPECS["ec2_cluster"]
# The credentials chain and the region are the environment's; the key is made by the role; 600 s are a constant.
LEFT_OUT = {*CONNECTION_OPTIONS, "public_key_file", "wait_timeout"} - {"region"}

# Options of node_drain, by their names in the description.
OF_THE_DRAIN = {"drain_batch": "batch"}


def task(entry: str) -> dict[str, Any]:
    tasks = yaml.safe_load((ROLE / "tasks" / f"{entry}.yml").read_text())
    found: dict[str, Any] = next(
        item["k8sgu.cluster.ec2_cluster"] for item in tasks if "k8sgu.cluster.ec2_cluster" in item
    )
    return found


def further() -> dict[str, dict[str, Any]]:
    return {name: option for name, option in every_further().items() if name not in OF_THE_DRAIN}


def every_further() -> dict[str, dict[str, Any]]:
    specs = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    found: dict[str, dict[str, Any]] = specs["main"]["options"]["k8sgu_ec2_options"]["options"]
    return found


def test_every_option_can_be_given() -> None:
    assert set(task("apply")) == set(MODULE) - LEFT_OUT


def test_further_options_are_those_of_the_module() -> None:
    for name, option in further().items():
        theirs = {key: MODULE[name].get(key) for key in ("type", "choices")}
        assert {key: option.get(key) for key in ("type", "choices")} == theirs, name
        assert option["description"]


@pytest.mark.parametrize("entry", ["apply", "absent"])
def test_a_further_option_that_is_not_given_is_left_to_the_module(entry: str) -> None:
    passed = {name: text for name, text in task(entry).items() if "k8sgu_ec2_options" in str(text)}
    assert passed == {name: f"{{{{ k8sgu_ec2_options.{name} | default(omit) }}}}" for name in passed}
    assert set(passed) == (set(further()) if entry == "apply" else {"instance_profiles", "check_permissions"})


def test_options_of_the_drain_are_given_to_it() -> None:
    leave = yaml.safe_load((ROLE / "tasks" / "leave.yml").read_text())
    (block,) = [item["block"] for item in leave if "block" in item]
    given = next(item["k8sgu.cluster.node_drain"] for item in block if "k8sgu.cluster.node_drain" in item)
    for name, theirs in OF_THE_DRAIN.items():
        assert every_further()[name]["type"] == DRAIN[theirs]["type"]
        assert given[theirs] == f"{{{{ k8sgu_ec2_options.{name} | default(omit) }}}}"
