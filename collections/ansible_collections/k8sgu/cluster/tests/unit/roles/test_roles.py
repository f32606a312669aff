# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every role has, and what the roles' files do to their units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted((Path(__file__).resolve().parents[3] / "roles").iterdir())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_is_explained(role: Path) -> None:
    text = (role / "README.md").read_text()
    assert text.startswith(f"# {role.name}\n")
    # How it is run, or how to look at what it shows.
    assert "playbooks/" in text or "\n    ansible" in text
    assert yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]


def test_only_modules_and_settings_restart_the_kernels_unit() -> None:
    """The names in /etc/hosts change on every node when one node comes."""
    role = next(role for role in ROLES if role.name == "node")
    components: list[dict[str, Any]] = yaml.safe_load((role / "vars" / "main.yml").read_text())["node_components"]
    restarting = [
        file["dest"] for each in components if "unit" in each for file in each["files"] if file.get("restart", True)
    ]
    assert restarting == ["/etc/modules-load.d/90-k8sgu.conf", "/etc/sysctl.d/90-k8sgu.conf"]
