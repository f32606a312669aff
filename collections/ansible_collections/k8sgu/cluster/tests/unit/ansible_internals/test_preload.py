# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible's own process loads, so that the processes of tasks need not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

COLLECTION = Path(__file__).resolve().parents[3]
PLUGINS = "ansible_collections.k8sgu.cluster.plugins"
# In a process of its own: the finder of collections cannot be installed twice.
PROGRAM = f"""
import sys
from ansible.plugins.loader import init_plugin_loader
init_plugin_loader([{str(COLLECTION.parents[2])!r}])
from {PLUGINS}.module_utils._mirror import release
from {PLUGINS}.plugin_utils._ansible_internals.preload import preload
preload()
print(*sorted(sys.modules), sep="\\n")
read = release._parsed.cache_info().currsize
print(f"releases {{read}}")
preload()
assert release._parsed.cache_info().hits == 0
"""


def test_plugins_and_releases_are_loaded_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines())
    assert f"releases {len(list((COLLECTION / 'releases').glob('*.yml')))}" in loaded
    filters = {f"{PLUGINS}.filter.{path.stem}" for path in (COLLECTION / "plugins" / "filter").glob("*.py")}
    per_node = {f"{PLUGINS}.action.{name}" for name in ("component", "manifest", "node_facts", "verify_node")}
    assert (filters | per_node) - loaded == set()
