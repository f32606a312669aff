# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter life_faults: finds lives that fit together only on the first day."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.filter.life_faults import life_faults

NAMES = ("k8sgu_pki_ca_expiry", "k8sgu_pki_ca_renew_before", "k8sgu_pki_expiry", "k8sgu_pki_renew_before")
DEFAULTS = yaml.safe_load((Path(__file__).resolve().parents[3] / "roles" / "pki" / "defaults" / "main.yml").read_text())


@pytest.mark.parametrize(
    ("changed", "faults"),
    [
        ({}, []),
        ({"k8sgu_pki_renew_before": "60d"}, []),
        (
            {"k8sgu_pki_ca_expiry": "43800h", "k8sgu_pki_expiry": "43800h"},
            ["k8sgu_pki_ca_renew_before (10200h) must be longer than k8sgu_pki_expiry (43800h)"],
        ),
        (
            {"k8sgu_pki_ca_renew_before": "8760h"},
            ["k8sgu_pki_ca_renew_before (8760h) must be longer than k8sgu_pki_expiry (8760h)"],
        ),
        (
            {"k8sgu_pki_ca_expiry": "10200h"},
            ["k8sgu_pki_ca_expiry (10200h) must be longer than k8sgu_pki_ca_renew_before (10200h)"],
        ),
        (
            {"k8sgu_pki_renew_before": "366d"},
            ["k8sgu_pki_expiry (8760h) must be longer than k8sgu_pki_renew_before (366d)"],
        ),
        (
            {"k8sgu_pki_expiry": 8760},
            ["k8sgu_pki_expiry: 8760 is not a duration; write a number with its unit, such as 8760h"],
        ),
    ],
)
def test_lives_that_do_not_go_together(changed: dict[str, object], faults: list[str]) -> None:
    assert life_faults({name: {**DEFAULTS, **changed}[name] for name in NAMES}) == faults


def test_other_input_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="a dictionary of durations"):
        life_faults(["8760h"])
