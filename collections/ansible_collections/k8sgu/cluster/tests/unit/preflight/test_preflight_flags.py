# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flags of the user's own: those that a variable or the cluster says are refused, and the others win."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.flags import (
    GOVERNED,
    OWNED,
    VARIABLES,
    check_flags,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.variables import options

ROLES = Path(__file__).resolve().parents[3] / "roles"
API = "k8sgu_apiserver_extra_flags"
KUBELET = "k8sgu_kubelet_extra_config"
# What the roles make a flag of -> the variable that adds to it.
MADE = {
    ("control_plane", "control_plane_apiserver_flags"): API,
    ("control_plane", "control_plane_controller_manager_flags"): "k8sgu_controller_manager_extra_flags",
    ("control_plane", "control_plane_scheduler_flags"): "k8sgu_scheduler_extra_flags",
    ("worker", "worker_kubelet_config"): KUBELET,
    ("worker", "worker_kube_proxy_flags"): "k8sgu_kube_proxy_extra_flags",
}
# Made of a variable or a fact, and still free: only a default comes of it, which nothing else reads.
FREE = {"service-account-issuer", "proxy-mode", "cgroupDriver", "resolvConf", "maxOpenFiles"}


@pytest.mark.parametrize("given", [{}, {"v": 4}, {"audit-log-maxage": 90}, {"service-account-issuer": "https://x"}])
def test_other_flags_win(given: dict[str, Any]) -> None:
    assert check_flags([{API: given}]) == []


def test_a_flag_that_a_variable_says_is_refused_with_its_name() -> None:
    for name in ("service-cluster-ip-range", "service_cluster_ip_range"):
        [said] = check_flags([{API: {name: "10.1.0.0/16"}}])
        way = "leave it out and set k8sgu_service_cidr"
        assert said == f"{API}: {name} is what k8sgu_service_cidr says, also to other parts; {way}"
    [said] = check_flags([{KUBELET: {"maxPods": 90, "max-pods": 1}}])
    assert said.startswith(f"{KUBELET}: maxPods is what k8sgu_max_pods says")


def test_what_the_cluster_says_is_refused_with_the_reason() -> None:
    [said] = check_flags([{API: {"secure-port": 443}}])
    assert said.startswith(f"{API}: secure-port cannot be chosen: ") and "docs/ports.md" in said


def test_a_problem_of_many_hosts_is_told_once() -> None:
    proxy = {"k8sgu_kube_proxy_extra_flags": {"cluster-cidr": "x"}}
    assert len(check_flags([proxy, {API: {"secure-port": 1}}, proxy, {}])) == 2


def test_what_is_no_flag_is_refused() -> None:
    assert check_flags([{API: {"--v": 4}}]) == [f"{API}: --v: names are without dashes in front; give v"]
    [said] = check_flags([{API: "--v=4"}])
    assert said == f"{API}: '--v=4' is no dictionary; give names and values, such as {{v: 2}}"


def test_every_variable_for_flags_is_looked_at() -> None:
    there = options(ROLES)
    assert set(VARIABLES) == set(OWNED) == {name for name in there if name.endswith(("_extra_flags", "_extra_config"))}
    assert {variable for flags in GOVERNED.values() for variable in flags.values()} <= set(there)


@pytest.mark.parametrize(("role", "name"), MADE)
def test_every_flag_that_a_role_makes_of_a_variable_is_refused(role: str, name: str) -> None:
    flags = yaml.safe_load((ROLES / role / "vars" / "main.yml").read_text())[name]
    variable = MADE[role, name]
    made = {
        flag
        for flag, value in flags.items()
        if any(word in str(value) for word in ("k8sgu_", "hostvars", "ec2_private_ip"))
    }
    made -= {"nodeport-addresses", "providerID", *FREE}
    assert made - set(GOVERNED[variable]) - set(OWNED[variable]) == set()
