# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks how ansible-playbook was called, for options that would silently skip tasks or run them elsewhere.

The options are those of https://docs.ansible.com/projects/ansible/latest/cli/ansible-playbook.html
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

CONTROLLER = "localhost"
# The groups of every inventory. There may be no workers, since kubelets run on the control plane too.
GROUPS = ("control_plane", "etcd", "worker")
_POPULATED = ("control_plane", "etcd")
# Tags with a special meaning in Ansible, and those by which molecule skips tasks in every run.
_SPECIAL_TAGS = frozenset(
    {
        "all",
        "always",
        "never",
        "tagged",
        "untagged",
        "notest",
        "molecule-notest",
        "molecule-idempotence-notest",
    }
)
_UNORDERED_STRATEGIES = frozenset({"free", "host_pinned"})
# Extra variables that would apply to the controller too, or have no effect.
_EXTRA_VARIABLES = {
    "ansible_become": "would apply to the controller too; leave it out: the roles become root where they need it",
    "ansible_become_user": "would apply to the controller too; leave it out: the roles become root where they need it",
    "ansible_check_mode": "has no effect as a variable, and everything would be changed; give --check",
    "ansible_connection": "would apply to the controller too; set it for the nodes, in the inventory",
    "ansible_host": "would make all nodes the same machine; set it for each node, in the inventory",
    "serial": "has no effect; nodes that serve together restart one by one anyway, and --limit selects nodes",
}


@dataclass(frozen=True)
class Play:
    """A play, on the controller or on these nodes; `runs`: whether the tags leave it any task.

    `inventory` is what it needs in the inventory, as in Call; empty if it does not ask.
    """

    name: str
    nodes: frozenset[str] = frozenset()
    controller: bool = False
    tags: frozenset[str] = frozenset()
    runs: bool = True
    inventory: str = ""


@dataclass(frozen=True)
class Call:
    """The options of one call, empty if not given; the plays of a playbook from a pipe are not known.

    `limit` has the patterns of --limit, including the lines of a file; `chosen` the hosts of the inventory that it
    leaves. `limitable` is false for a playbook that cannot run for some of the nodes only; `step_unanswered` is --step
    without a terminal. `unknown_variables` has a problem for each extra variable that nothing reads.
    `inventory` is what this play needs in the inventory: "nodes", "groups" (which may be empty) or "any"; `groups` has
    the number of hosts of each group, and `sources` the files that they were read from.
    """

    plays: Sequence[Play] = ()
    chosen: frozenset[str] = frozenset()
    limit: tuple[str, ...] = ()
    limitable: bool = True
    tags: tuple[str, ...] = ()
    skip_tags: tuple[str, ...] = ()
    start_at_task: str = ""
    step_unanswered: bool = False
    connection: str = ""
    become_user: str = ""
    strategy: str = ""
    extra_variables: frozenset[str] = frozenset()
    unknown_variables: tuple[str, ...] = ()
    inventory: str = "any"
    groups: Mapping[str, int] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    check: bool = False


def depends_on_plays(call: Call) -> bool:
    """Whether checking the call needs the plays: reading a playbook again takes half a second."""
    tags = call.skip_tags or set(call.tags) - {"all"}
    return bool(call.limit or tags or _elsewhere(call) or call.unknown_variables)


def includes_controller(patterns: Iterable[str]) -> bool:
    """Whether a limit includes the implicit localhost, which is in no group and matches no wildcard.

    The rules are those of https://docs.ansible.com/projects/ansible/latest/inventory_guide/intro_patterns.html
    """
    given = list(patterns)
    return (
        CONTROLLER in given
        and f"!{CONTROLLER}" not in given
        and all(pattern == f"&{CONTROLLER}" for pattern in given if pattern.startswith("&"))
    )


def problems(call: Call) -> list[str]:
    """The call's problems, each with its option and what to do."""
    return [*_groups(call), *_limit(call), *_tags(call), *_others(call)]


def notes(call: Call) -> list[str]:
    """Warnings about what the call skips on purpose."""
    found = []
    left = frozenset[str]().union(*(play.nodes for play in _running(call, False))) - call.chosen
    if call.limit and left:
        found.append(f"{_limit_option(call)}: neither changes nor checks: {', '.join(sorted(left))}")
    skipped = [play for play in call.plays if play.tags & set(call.skip_tags) and not play.runs]
    if skipped:
        unjudged = "; neither the description nor the nodes are checked before they are changed"
        found.append(
            f"--skip-tags {','.join(call.skip_tags)}: leaves out {_names(skipped)}"
            f"{unjudged if 'preflight' in call.skip_tags else ''}"
        )
    if call.check and unpopulated(call):
        found.append(
            f"{_sources(call)}: no node is in {_and(unpopulated(call))} yet; what is done on nodes is left out"
        )
    return found


def unpopulated(call: Call) -> list[str]:
    """The groups without a host that must have one."""
    if call.inventory != "nodes" or not _asks(call):
        return []
    return [group for group in _POPULATED if call.groups.get(group) == 0]


def _asks(call: Call) -> bool:
    """Whether a play that wants this of the inventory has a task to do. Of a call without tags every play does."""
    return not call.plays or any(play.runs and play.inventory == call.inventory for play in call.plays)


def _and(names: Sequence[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])


def _sources(call: Call) -> str:
    return f"inventory {', '.join(call.sources)}"


def _groups(call: Call) -> list[str]:
    """Plays whose hosts nobody is in would be passed over, and the run would end well."""
    if call.inventory == "any" or not _asks(call):
        return []
    missing = [group for group in GROUPS if group not in call.groups]
    if missing:
        there = sorted(set(call.groups) - {"all", "ungrouped", *GROUPS})
        near = {group: difflib.get_close_matches(group, there, n=1) for group in missing}
        meant = [f"{names[0]} for {group}" for group, names in near.items() if names]
        hint = f" (it has {_and(meant)})" if meant else ""
        lacking = f"lacks the group{'s' if missing[1:] else ''} {_and(missing)}{hint}"
        return [
            f"{_sources(call)}: {lacking}, so what is done on nodes would be left out. Name the cluster's inventory "
            "with -i: inventories/aws lists what playbooks/infrastructure.yml made in an account; one written by hand "
            f"needs the groups {_and(GROUPS)}, and for each node the variables in docs/interfaces.md"
        ]
    if call.check or not unpopulated(call):
        return []
    return [
        f"{_sources(call)}: no node is in {_and(unpopulated(call))}, so what is done on nodes would be left out. Run "
        "playbooks/infrastructure.yml first, which makes them. Where it has, k8sgu_cluster_name, the account or the "
        "region is another one; ansible-inventory --graph shows what is found"
    ]


def _limit_option(call: Call) -> str:
    return f"--limit '{','.join(call.limit)}'"


def _running(call: Call, controller: bool) -> list[Play]:
    return [play for play in call.plays if play.runs and play.controller == controller]


def _names(plays: Iterable[Play]) -> str:
    return ", ".join(dict.fromkeys(play.name for play in plays))


def _limit(call: Call) -> list[str]:
    if not call.limit:
        return []
    option = _limit_option(call)
    if not call.limitable:
        return [f"{option}: this playbook is about the whole cluster; leave --limit out"]
    on_controller, on_nodes = _running(call, True), _running(call, False)
    if on_nodes and not any(play.nodes & call.chosen for play in on_nodes):
        alone = sorted(
            {tag for play in on_controller for tag in play.tags} - {tag for play in on_nodes for tag in play.tags}
        )
        only = f" For the controller's part alone: --tags {','.join(alone)}." if alone else ""
        return [
            f"{option}: names no node of the inventory that this is for, so it would be left out: {_names(on_nodes)}. "
            f"Name such nodes, or leave --limit out; a node that is yet to be made needs a run without it.{only}"
        ]
    if on_controller and not includes_controller(call.limit) and CONTROLLER not in call.chosen:
        return [
            f"{option}: leaves out what is done on the controller: {_names(on_controller)}. "
            f"Give --limit '{_with_controller(call)}', or leave --limit out"
        ]
    return []


def _with_controller(call: Call) -> str:
    """The same limit with the controller."""
    plain = [pattern for pattern in call.limit if pattern[0] not in "!&"]
    if CONTROLLER in plain or any(pattern.startswith("&") for pattern in call.limit):
        # A pattern that excludes the controller must come before it.
        return ",".join([*sorted(call.chosen), CONTROLLER])
    return ",".join([*([] if plain else ["all"]), *call.limit, CONTROLLER])


def _known_tags(call: Call) -> frozenset[str]:
    return frozenset[str]().union(*(play.tags for play in call.plays)) - _SPECIAL_TAGS


def _tags(call: Call) -> list[str]:
    if not call.plays:
        return []
    known = sorted(_known_tags(call))
    there = f"there are {', '.join(known)}" if known else "this playbook has none and is done as a whole; leave it out"
    found = []
    for option, given in (("--tags", call.tags), ("--skip-tags", call.skip_tags)):
        for tag in given:
            if tag not in _SPECIAL_TAGS and tag not in known:
                near = difflib.get_close_matches(tag, known, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                found.append(f"{option} {tag}: there is no such tag; {hint}{there}")
    if not found and not any(play.runs for play in call.plays):
        options = [
            f"{option} {','.join(value)}"
            for option, value in (("--tags", call.tags), ("--skip-tags", call.skip_tags))
            if value
        ]
        found.append(f"{' '.join(options)}: leaves nothing to be done; {there}")
    return found


def _elsewhere(call: Call) -> list[str]:
    """Problems of options that would run nodes' tasks as another user or on another machine."""
    found = []
    if call.connection.rpartition(".")[2] == "local":
        found.append(
            "--connection local: every node would be this machine; leave it out (ANSIBLE_TRANSPORT too), or "
            "set ansible_connection for a node in the inventory"
        )
    if call.become_user not in ("", "root"):
        found.append(f"--become-user {call.become_user}: what is done on nodes needs root; leave it out")
    return found


def _others(call: Call) -> list[str]:
    found = []
    if call.start_at_task:
        found.append(
            f"--start-at-task '{call.start_at_task}': skips what later tasks need. Run the whole "
            f"playbook again, which does not repeat what is done, or single phases with --tags"
        )
    if call.step_unanswered:
        found.append("--step: asks before every task, but there is no terminal to answer; leave it out")
    if call.strategy.rpartition(".")[2] in _UNORDERED_STRATEGIES:
        found.append(
            f"ANSIBLE_STRATEGY: with {call.strategy} nodes do not wait for each other, which members of a "
            f"cluster must; leave it out"
        )
    if _running(call, False):
        found += _elsewhere(call)
    found += [f"--extra-vars {name}: {why}" for name, why in _EXTRA_VARIABLES.items() if name in call.extra_variables]
    # If the description is checked, that check reports them together with everything else.
    if "preflight" not in _known_tags(call):
        found += [f"--extra-vars {problem}" for problem in call.unknown_variables]
    return found
