# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many members of etcd may be changed at once: the variable of cluster_facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

FACTS = Path(__file__).resolve().parents[3] / "roles" / "cluster_facts" / "vars" / "main.yml"
NAMES = ("k8sgu_etcd_throttle", "k8sgu_active_units", "cluster_facts_refused_members")
RUNS, REFUSED, DOWN, UNREAD = (True, False), (True, True), (False, False), None


@pytest.mark.parametrize(
    ("members", "at_once"),
    [
        ([RUNS], "1"),
        ([DOWN], "0"),
        ([RUNS, RUNS, RUNS], "1"),
        ([RUNS, RUNS, DOWN], "1"),
        ([RUNS, RUNS, UNREAD], "1"),
        ([RUNS, DOWN, DOWN], "0"),
        # After a year without a renewal, and after a run that was cut off when the first member had its new one.
        ([REFUSED], "0"),
        ([REFUSED, REFUSED, REFUSED], "0"),
        ([RUNS, REFUSED, REFUSED], "0"),
        ([RUNS, RUNS, REFUSED], "1"),
        # It does not run: it is no loss.
        ([RUNS, RUNS, (False, True)], "1"),
    ],
)
def test_one_after_another_while_a_majority_serves(members: list[tuple[bool, bool] | None], at_once: str) -> None:
    variables: dict[str, Any] = {name: trust_as_template(yaml.safe_load(FACTS.read_text())[name]) for name in NAMES}
    names = [f"cp-{number}" for number in range(len(members))]
    hosts: dict[str, Any] = {name: {"ansible_facts": {}} for name in names}
    for name, member in zip(names, members):
        if member is not None:
            active, refused = member
            node = {"active_units": ["etcd.service"] if active else [], "membership": {"etcd": {"refused": refused}}}
            hosts[name]["ansible_facts"]["k8sgu_node"] = node
    variables.update(groups={"control_plane": names, "etcd": names}, hostvars=hosts)
    templar = Templar(loader=DataLoader(), variables=variables)
    assert str(templar.template(variables["k8sgu_etcd_throttle"])).strip() == at_once
