# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads the collection's plugins in Ansible's own process, before it starts one for each task and host.

What that process has loaded, the others inherit. Otherwise each of them compiles these files anew, since Ansible keeps
no bytecode of a collection, and the first filter that it meets makes it load all of them.
"""

from __future__ import annotations

import contextlib
import gc
from functools import lru_cache
from pathlib import Path

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import read_release

COLLECTION = "k8sgu.cluster"
# Those that run on every node; the others run once.
ACTIONS = ("component", "manifest", "node_facts", "preflight_node", "verify_node")
LOOKUPS = ("port_table", "release")
# One stands for all: Ansible loads every file of filters to find it.
FILTERS = ("architecture",)


@lru_cache(maxsize=1)
def preload() -> None:
    for release in (Path(__file__).parents[3] / "releases").glob("*.yml"):
        # Who needs it says what is wrong with it.
        with contextlib.suppress(MirrorError):
            read_release(str(release))
    # Without it everything works, only slower.
    with contextlib.suppress(AttributeError, ImportError, TypeError):
        from ansible.plugins.loader import action_loader, filter_loader, lookup_loader

        for loader, names in ((action_loader, ACTIONS), (filter_loader, FILTERS), (lookup_loader, LOOKUPS)):
            for name in names:
                loader.get(f"{COLLECTION}.{name}", class_only=True)
    # What is loaded stays until the end. To look through it for garbage again and again took a tenth of a run, and made
    # each task's process copy the memory that it shares with this one: https://docs.python.org/3/library/gc.html#gc.freeze
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
