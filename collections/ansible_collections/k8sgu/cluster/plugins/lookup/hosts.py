# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Returns the hosts of a play, after checking that the call silently skips nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts
short_description: Returns the hosts of a play, unless the call would silently skip part of the playbook
version_added: 0.1.0
author:
  - The k8sgu authors (@k8sgu)
description:
  - Returns the given pattern, for C(hosts) of the first play of a playbook.
  - First it checks how C(ansible-playbook) was called. It fails, and says what to give instead, if C(--limit),
    C(--tags), C(--skip-tags), C(--start-at-task), C(--step), C(--connection), C(--become-user), a strategy or an extra
    variable would skip tasks, or run them elsewhere or in another order.
  - A task could not do this, since these options may skip the task itself.
  - C(--skip-tags) with an existing tag gives a warning that names it.
  - It also fails if the inventory lacks the groups C(control_plane), C(etcd) or C(worker), or if, outside of check
    mode, the first two are empty, since Ansible skips a play without hosts.
  - It warns if ansible-core is outside the range that the collection is tested with, unless
    C(collections_on_ansible_version_mismatch) is V(ignore), and if the collections path has a second copy of the
    collection.
  - Workers that did not answer over SSH in this run are left out of the pattern, as C(--limit) would leave them out.
  - With C(--list-hosts), C(--list-tags), C(--list-tasks) and C(--syntax-check) nothing is checked.
options:
  _terms:
    description: The pattern for C(hosts).
    type: list
    elements: str
    required: true
  limit:
    description: Whether the playbook can run for some of the nodes only.
    type: bool
    default: true
  inventory:
    description:
      - What the playbook needs in the inventory.
      - V(nodes) requires the three groups, with nodes in C(control_plane) and C(etcd); V(groups) requires the groups,
        which may be empty; V(any) requires nothing, for what runs only on the controller.
    type: str
    choices: [nodes, groups, any]
    default: nodes
"""

EXAMPLES = r"""
- name: Database
  hosts: "{{ query('k8sgu.cluster.hosts', 'etcd') }}"
  roles: [k8sgu.cluster.etcd]

- name: Read every control-plane node
  hosts: "{{ query('k8sgu.cluster.hosts', 'control_plane', limit=false) }}"
  roles: [k8sgu.cluster.cluster_facts]

- name: Artifacts
  hosts: "{{ query('k8sgu.cluster.hosts', 'localhost', inventory='any') }}"
  roles: [k8sgu.cluster.artifacts]
"""

RETURN = r"""
_raw:
  description: The pattern.
  type: list
  elements: str
"""

import sys
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ansible import constants, context
from ansible.errors import AnsibleError
from ansible.inventory.manager import split_host_pattern
from ansible.plugins.lookup import LookupBase
from ansible.release import __version__ as ansible_core_version
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.variables import (
    PREFIX,
    check_names,
    derived,
    options,
)
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._ansible_internals import collections_path
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._ansible_internals.plays import plays_of
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._ansible_internals.preload import preload
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._calls import (
    Call,
    Play,
    depends_on_plays,
    notes,
    problems,
    unpopulated,
)
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._installation import (
    installed_twice,
    untested_version,
    versions_tested,
)

_COLLECTION = Path(__file__).parents[2]
_LISTING = ("listhosts", "listtags", "listtasks", "syntax")


class LookupModule(LookupBase):  # type: ignore[misc]  # ansible-core is not typed
    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        arguments = context.CLIARGS
        # Calls of other programs of Ansible are not checked.
        if "start_at_task" in arguments and not any(arguments.get(option) for option in _LISTING):
            for note in _of_installation():
                Display().warning(note)
            call = self._call(arguments, variables or {})
            found = problems(call)
            if found:
                # Nodes are asked for by each playbook of site.yml: by then the infrastructure may have been made.
                raise AnsibleError(
                    "\n".join(found) + ("\nNo node" if unpopulated(call) else "\nNothing") + " was changed."
                )
            for note in notes(call):
                Display().warning(note)
            preload()
        return [":!".join([str(term), *_left_out(variables or {})]) for term in terms]

    def _call(self, arguments: Any, variables: dict[str, Any]) -> Call:
        tags, skip_tags = tuple(sorted(arguments["tags"])), tuple(sorted(arguments["skip_tags"]))
        given = frozenset(load_extra_vars(self._loader))
        call = Call(
            # The play's own hosts are still a template, so use every host that the limit leaves.
            chosen=frozenset(variables.get("ansible_play_hosts_all", [])),
            limit=tuple(_limit_patterns(arguments["subset"])),
            limitable=self.get_option("limit"),
            tags=tags,
            skip_tags=skip_tags,
            start_at_task=arguments["start_at_task"] or "",
            step_unanswered=arguments["step"] and not sys.stdin.isatty(),
            connection=arguments["connection"] or "",
            become_user=arguments["become_user"] or "",
            strategy=constants.DEFAULT_STRATEGY,
            extra_variables=given,
            unknown_variables=_unknown(given),
            inventory=self.get_option("inventory"),
            groups={group: len(hosts) for group, hosts in variables.get("groups", {}).items()},
            sources=tuple(variables.get("ansible_inventory_sources", ())),
            check=arguments["check"],
        )
        if not depends_on_plays(call):
            return call
        plays = plays_of(self._loader, tuple(arguments["args"]), tags, skip_tags)
        if plays is None:
            Display().warning(
                f"--limit, --tags and --skip-tags: k8sgu.cluster cannot read the plays of a playbook with ansible-core "
                f"{ansible_core_version}, so nobody looks whether they leave out what later plays rely on"
            )
            return call
        groups = variables.get("groups", {})
        return replace(call, plays=tuple(_with_nodes(play, pattern, groups) for play, pattern in plays))


def _left_out(variables: dict[str, Any]) -> list[str]:
    """The workers that did not answer, which the role infrastructure names: as if --limit left them out."""
    hostvars = variables.get("hostvars")
    controller = hostvars["localhost"] if hostvars is not None else {}
    return sorted(controller.get("infrastructure_left_out", []))


# Nothing of it changes from one playbook to the next that it imports.
@lru_cache(maxsize=1)
def _of_installation() -> list[str]:
    found = [installed_twice(_COLLECTION, collections_path())]
    if constants.COLLECTIONS_ON_ANSIBLE_VERSION_MISMATCH != "ignore":
        found.append(untested_version(ansible_core_version, versions_tested(_COLLECTION)))
    return [warning for warning in found if warning]


@lru_cache(maxsize=1)
def _unknown(given: frozenset[str]) -> tuple[str, ...]:
    """What is wrong with extra variables that have our prefix."""
    if not any(name.startswith(PREFIX) for name in given):
        return ()
    roles = _COLLECTION / "roles"
    return tuple(check_names(given, [*options(roles), *derived(roles)]))


def _limit_patterns(subset: str | None) -> list[str]:
    """The patterns of --limit; Ansible has replaced `@file` by the lines of the file already."""
    patterns: list[str] = []
    for pattern in split_host_pattern(subset) if subset else []:
        patterns += Path(pattern[1:]).read_text().split() if pattern.startswith("@") else [pattern]
    return patterns


def _with_nodes(play: Play, pattern: str, groups: dict[str, list[str]]) -> Play:
    """The play with the hosts of the groups in its pattern."""
    names = [name.partition("[")[0] for name in split_host_pattern(pattern)]
    return replace(play, nodes=frozenset(host for name in names for host in groups.get(name, [])))
