# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of a module, and its `main`.

Every package has its argument specification in `options.py` (`ARGUMENT_SPEC`, or `ARGUMENT_SPECS` by module if it has
several) and the work in `run.py` (or in a file named after each module). A module that an action plugin may run in
Ansible's own process has a `MODULE` there, which the module file and the action plugin share.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping


def _silent(_text: str) -> None:
    pass


@dataclass
class Call:
    """One call of a module. `hidden` has values to mask in the result; `say` shows the user its progress."""

    options: dict[str, Any]
    check_mode: bool = False
    diff: bool = False
    hidden: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    say: Callable[[str], None] = _silent


@dataclass(frozen=True)
class Module:
    """A module's options and work.

    `run` returns the module's result; it is None if the action plugin does the work itself. An error in `errors` fails
    the task, with the error's attribute `result` if it has one. `rules` are further keywords of AnsibleModule about
    combinations of options, such as `mutually_exclusive`.
    """

    argument_spec: Mapping[str, Mapping[str, Any]]
    run: Callable[[Call], dict[str, Any]] | None = None
    errors: tuple[type[Exception], ...] = ()
    rules: Mapping[str, Any] = field(default_factory=dict)
    check_mode: bool = True


def carry_out(module: Module, call: Call, run: Callable[[Call], dict[str, Any]] | None = None) -> dict[str, Any]:
    """The module's result, or its failure; `run` replaces `module.run`."""
    work = run or module.run
    if work is None:
        raise AssertionError("neither the module nor its action plugin does the work")
    try:
        return work(call)
    except module.errors as error:
        return {**getattr(error, "result", {}), "failed": True, "msg": str(error)}


def run_module(module: Module) -> None:
    """`main` of every module of this collection."""
    # Not above: programs on nodes, where Ansible is not installed, call a module's work too.
    from ansible.module_utils.basic import AnsibleModule

    ansible = AnsibleModule(
        argument_spec=dict(module.argument_spec), supports_check_mode=module.check_mode, **module.rules
    )
    call = Call(ansible.params, ansible.check_mode, ansible._diff, ansible.no_log_values)
    result = carry_out(module, call)
    for warning in call.warnings:
        ansible.warn(warning)
    if result.pop("failed", False):
        ansible.fail_json(**result)
    ansible.exit_json(**result)
