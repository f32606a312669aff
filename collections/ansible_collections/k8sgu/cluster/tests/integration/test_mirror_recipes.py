# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every recipe of every release, on every architecture: its sources are all pinned and there. Nothing is compiled.

Beside the unit tests and after the mirror is filled, since then most modules are on this machine.
"""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import (
    Builder,
    Order,
    Sources,
    Toolchain,
    find_toolchain,
    orders,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import Recipe, Release, load_release

RELEASES = Path(__file__).resolve().parents[2] / "releases"
# Modules that are not here yet are fetched first.
TIMEOUT_S = 600


def recipes(release: Release) -> list[tuple[Recipe, str]]:
    found = [recipe for component in release.components for recipe in component.builds]
    found += [image.build.recipe for image in release.images if image.build is not None and image.build.recipe]
    return [(recipe, arch) for recipe in found for arch in release.architectures]


def all_orders() -> dict[str, Order]:
    """Of all releases, those that they share once; name -> order."""
    releases = [load_release(str(path)) for path in sorted(RELEASES.glob("*.*.yml")) if "lock" not in path.name]
    assert len(releases) >= 2
    # By the module's directory, and by how many programs where several orders are of one.
    found = dict.fromkeys(order for release in releases for order in orders(recipes(release)))
    return {f"{order.module} {order.arch} {order.packages[0][0]}": order for order in found}


ORDERS = all_orders()


@pytest.fixture(scope="module")
def toolchain() -> Toolchain:
    found = find_toolchain()
    if found is None:
        pytest.skip("no Go toolchain on this machine")
    return found


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("name", ORDERS)
def test_sources_are_all_pinned_and_there(toolchain: Toolchain, tmp_path: Path, name: str) -> None:
    order = ORDERS[name]
    sources = Sources(str(RELEASES / "build"))
    directory = sources.directory(order.module)
    environment = toolchain.environment(GOARCH=order.arch)
    if order.tree:
        builder = Builder(toolchain, sources, str(tmp_path), threading.Event())
        directory = builder._tree(order, directory, str(tmp_path / "tree"), environment)
    tags = ["-tags", ",".join(order.tags)] if order.tags else []
    packages = [package for _program, package in order.packages]
    argv = [toolchain.path, "list", "-mod=readonly", "-deps", *tags, "-f", "{{.ImportPath}}", *packages]
    done = subprocess.run(
        argv, cwd=directory, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # More than the programs themselves, which -deps lists too.
    assert len(done.stdout.splitlines()) > len(packages)
