# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the project has a release file for a Kubernetes version."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import nearest


def released(directory: Path) -> list[str]:
    """The Kubernetes version of every releases/<minor>.yml."""
    found = []
    for path in sorted(directory.glob("*.yml")):
        # Only one line is needed, and parsing these long files would be slow.
        match = re.search(r"^kubernetes:\s+(?:&\S+\s+)?[\"']?([0-9.]+)", path.read_text(), re.MULTILINE)
        if match:
            found.append(match.group(1))
    return found


def check_version(version: str, versions: list[str], directory: str) -> list[str]:
    if version in versions:
        return []
    if not versions:
        return [f"k8sgu_releases_dir: {directory} has no release file; give the directory with <minor>.yml"]
    return [
        f"k8sgu_kubernetes_version: {version!r} is not on the release list ({', '.join(versions)}); the nearest is "
        f"{nearest(version, versions)}"
    ]
