# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of modules: where their options and their work are, and that the documentation has the same options."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._options import module as entry
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module, run_module
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_process import InProcessAction

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
PACKAGE = "ansible_collections.k8sgu.cluster.plugins"
MODULES = sorted(path.stem for path in (PLUGINS / "modules").glob("*.py"))
ACTIONS = sorted(path.stem for path in (PLUGINS / "action").glob("*.py"))
# Their work is done on nodes; those with an action plugin have a part of it on the controller.
ON_NODES = {
    "audit_events",
    "certificate_scan",
    "component",
    "data_volume",
    "drift_facts",
    "encryption_scan",
    "etcd_drill",
    "etcd_member",
    "etcd_restore",
    "etcd_snapshot",
    "etcd_snapshot_info",
    "etcd_space",
    "etcd_version",
    "node_facts",
    "node_reset",
    "pod_credentials",
    "preflight_node",
    "security_facts",
    "upgrade_facts",
    "verify_node",
}
# Nothing but documentation stands behind their action plugin.
CONTROLLER_ALONE = {
    "drift_report",
    "encryption_rewrite",
    "manifest",
    "mirror",
    "node_drain",
    "preflight_description",
    "security_report",
    "upgrade_gates",
    "verify_cluster",
    "verify_policies",
    "verify_report",
    "workload_restart",
}


def action_of(name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.action.{name}").ActionModule


def definition(name: str, file: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Module:
    """What the module's `main` runs; of one that is documentation alone, what its action plugin runs."""
    if name in CONTROLLER_ALONE:
        found: Module = action_of(name).MODULE
        return found
    seen: list[Module] = []
    monkeypatch.setattr(file, "run_module", seen.append)
    file.main()
    return seen[0]


def parts_of(documentation: dict[str, Any]) -> list[dict[str, Any]]:
    """The documentation and the fragments that it extends."""
    found = [documentation]
    for name in documentation.get("extends_documentation_fragment", []):
        path = f"{PACKAGE}.doc_fragments.{name.removeprefix('k8sgu.cluster.')}"
        found.append(yaml.safe_load(importlib.import_module(path).ModuleDocFragment.DOCUMENTATION))
    return found


def compare(documented: dict[str, Any], spec: dict[str, Any], where: str) -> None:
    assert set(documented) == set(spec), where
    for name, option in spec.items():
        text = documented[name]
        for key, default in (("type", "str"), ("elements", None), ("default", None), ("choices", None)):
            assert text.get(key, default) == option.get(key, default), f"{where}{name}: {key}"
        assert text.get("required", False) == option.get("required", False), f"{where}{name}: required"
        if "options" in option:
            compare(text["suboptions"], option["options"], f"{where}{name}.")


@pytest.mark.parametrize("name", MODULES)
def test_the_documentation_has_the_options_of_the_specification(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ansible-test compares those of modules that can be sent; here are the others too."""
    file = importlib.import_module(f"{PACKAGE}.modules.{name}")
    module = definition(name, file, monkeypatch)
    parts = parts_of(yaml.safe_load(file.DOCUMENTATION))
    options = {key: value for part in parts for key, value in (part.get("options") or {}).items()}
    # Through JSON, which makes lists of tuples.
    compare(options, json.loads(json.dumps(dict(module.argument_spec))), "")
    attributes = {key: value for part in parts for key, value in (part.get("attributes") or {}).items()}
    assert (attributes["check_mode"]["support"] != "none") == module.check_mode
    for text in (file.EXAMPLES, file.RETURN):
        assert yaml.safe_load(text)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_file_is_documentation_and_at_most_one_call(name: str) -> None:
    tree = ast.parse((PLUGINS / "modules" / f"{name}.py").read_text())
    functions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    if name in CONTROLLER_ALONE:
        assert not functions and name in ACTIONS
        return
    [main] = functions
    assert isinstance(main, ast.FunctionDef) and len(main.body) == 1
    assert ast.unparse(main.body[0]).startswith("run_module(")


@pytest.mark.parametrize("name", ACTIONS)
def test_action_plugins_of_modules_of_the_controller_have_one_base(name: str) -> None:
    action = action_of(name)
    if name in ON_NODES:
        assert not issubclass(action, InProcessAction)
        return
    assert issubclass(action, InProcessAction)
    assert (name not in CONTROLLER_ALONE) == action.SENDABLE
    assert action._supports_async == action._requires_connection == action.SENDABLE
    assert action._supports_check_mode == action.MODULE.check_mode
    if action.SENDABLE:
        assert importlib.import_module(f"{PACKAGE}.modules.{name}").MODULE is action.MODULE


@pytest.mark.parametrize("name", sorted(CONTROLLER_ALONE))
def test_no_option_of_a_module_that_is_never_sent_is_secret(name: str) -> None:
    """Such a module cannot be sent where ansible-core lacks what masks secrets here."""

    def secret(spec: Any) -> list[str]:
        return [option for option, entry in spec.items() if entry.get("no_log") or secret(entry.get("options") or {})]

    assert secret(action_of(name).MODULE.argument_spec) == []


def test_every_module_of_the_controller_has_an_action_plugin() -> None:
    assert set(MODULES) - ON_NODES <= set(ACTIONS)


def assigned(tree: ast.Module) -> set[str]:
    """Names that a module assigns at its top."""
    targets: list[ast.expr] = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_specifications_are_in_options_files_under_one_name() -> None:
    """And `AnsibleModule` is made in one place."""
    makers = []
    for path in sorted(PLUGINS.rglob("*.py")):
        tree = ast.parse(path.read_text())
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        if any(isinstance(function, ast.Name) and function.id == "AnsibleModule" for function in calls):
            makers.append(path.relative_to(PLUGINS).as_posix())
        specs = {name for name in assigned(tree) if re.search(r"SPEC(S|IFICATIONS?)?$", name)}
        assert specs <= {"ARGUMENT_SPEC", "ARGUMENT_SPECS"}, path
        assert not specs or path.name == "options.py", path
    assert makers == ["module_utils/_options/module.py"]


class Refused(Exception):
    result = {"done": 1}  # noqa: RUF012


class Ended(BaseException):
    """As AnsibleModule ends the process."""


def ended(monkeypatch: pytest.MonkeyPatch, module: Module) -> tuple[dict[str, Any], list[Any]]:
    """The result of a module in check mode with the option text=a, and what AnsibleModule was given and told."""
    told: list[Any] = []

    class Fake:
        def __init__(self, argument_spec: Any, supports_check_mode: bool, **rules: Any) -> None:
            told.append((argument_spec, supports_check_mode, rules))
            self.params, self.check_mode, self._diff = {"text": "a"}, True, False
            self.no_log_values: set[str] = set()

        def warn(self, text: str) -> None:
            told.append(text)

        def exit_json(self, **result: Any) -> None:
            told.append(self.no_log_values)
            raise Ended(result)

        def fail_json(self, **result: Any) -> None:
            told.append(self.no_log_values)
            raise Ended({"failed": True, **result})

    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule", Fake)
    with pytest.raises(Ended) as end:
        run_module(module)
    return end.value.args[0], told


Run = Callable[[Call], dict[str, Any]]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (lambda call: {"changed": call.check_mode, "text": call.options["text"]}, {"changed": True, "text": "a"}),
        (lambda call: {"changed": False, "failed": True, "msg": "no"}, {"failed": True, "changed": False, "msg": "no"}),
    ],
)
def test_the_end_of_a_module(monkeypatch: pytest.MonkeyPatch, run: Run, expected: dict[str, Any]) -> None:
    assert ended(monkeypatch, Module({"text": {}}, run, (Refused,)))[0] == expected


def test_an_error_of_a_module_is_its_failure_with_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(call: Call) -> dict[str, Any]:
        call.warnings.append("careful")
        call.hidden.add("secret")
        raise Refused("text: is wrong")

    rules = {"required_one_of": [("text",)]}
    result, told = ended(monkeypatch, Module({"text": {}}, run, (Refused,), rules, check_mode=False))
    assert result == {"failed": True, "msg": "text: is wrong", "done": 1}
    assert told == [({"text": {}}, False, rules), "careful", {"secret"}]


def test_any_other_error_is_a_fault_of_ours_and_shown_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule", ended)
    with pytest.raises(KeyError):
        entry.carry_out(Module({}, lambda call: call.options["nothing"], (Refused,)), Call({}))
