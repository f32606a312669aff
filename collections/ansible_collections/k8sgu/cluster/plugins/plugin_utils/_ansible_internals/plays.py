# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plays of the playbooks that were called, read by Ansible's own classes."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.plugin_utils._calls import CONTROLLER, Play

# Finds the pattern in a play's own use of the lookup plugin hosts, which is a template until the play starts.
_ASKED = re.compile(r"k8sgu\.cluster\.hosts', '([^']+)'(?:.*inventory='(\w+)')?")
# Ansible puts one before each role; no tag skips it.
_ARGUMENTS = "ansible.builtin.validate_argument_spec"


# Shared by all playbooks that another one imports.
@lru_cache(maxsize=1)
def plays_of(
    loader: Any, paths: tuple[str, ...], tags: tuple[str, ...], skip_tags: tuple[str, ...]
) -> list[tuple[Play, str]] | None:
    """The plays of the called playbooks, including imported ones, each with the pattern of its hosts.

    None if this ansible-core has no such classes.
    """
    try:
        return _read(loader, paths, tags, skip_tags)
    except (AttributeError, ImportError, TypeError):
        return None


def _read(
    loader: Any, paths: tuple[str, ...], tags: tuple[str, ...], skip_tags: tuple[str, ...]
) -> list[tuple[Play, str]]:
    # At their use: a name that is gone must leave the rest of the collection as it is.
    from ansible.inventory.manager import InventoryManager, split_host_pattern
    from ansible.playbook import Playbook
    from ansible.utils.collection_loader._collection_finder import _get_collection_playbook_path
    from ansible.vars.manager import VariableManager

    variables = VariableManager(
        loader=loader, inventory=InventoryManager(loader=loader, sources=["/dev/null"], parse=False)
    )
    there = loader.get_basedir()
    found = []
    try:
        for path in paths:
            resource = _get_collection_playbook_path(path)
            file = resource[1] if resource else path
            # A pipe can be read only once.
            if not Path(file).is_file():
                return []
            for play in Playbook.load(file, variable_manager=variables, loader=loader).get_plays():
                if play._included_path is not None:
                    loader.set_basedir(play._included_path)
                tasks = [task for block in play.compile() for task in _tasks(block)]
                given = play.hosts if isinstance(play.hosts, str) else ",".join(map(str, play.hosts))
                asked = _ASKED.search(given)
                pattern = asked[1] if asked else given
                one = Play(
                    name=play.get_name().strip(),
                    controller=CONTROLLER in split_host_pattern(pattern),
                    tags=frozenset(play.tags).union(*(task.tags for task in tasks)),
                    runs=any(task.evaluate_tags(tags, skip_tags, {}) for task in tasks),
                    inventory=(asked[2] or "nodes") if asked else "",
                )
                found.append((one, pattern))
    finally:
        loader.set_basedir(there)
    return found


def _tasks(block: Any) -> list[Any]:
    """The tasks that a user wrote, without those that Ansible adds."""
    from ansible.playbook.block import Block

    found = []
    for task in block.block + block.rescue + block.always:
        if isinstance(task, Block):
            found += _tasks(task)
        elif not task.implicit and task.action != _ARGUMENTS:
            found.append(task)
    return found
