# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A booted node keeps a module's compiled code between executions, and what happens if it cannot."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import lab_node

KEPT = "/var/lib/k8sgu/python"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab_node.Node]:
    reason = lab_node.missing()
    if reason:
        pytest.skip(reason)
    with lab_node.running(f"kept-{os.getpid()}", tmp_path_factory.mktemp("lab")) as node:
        yield node


class Host:
    """Runs a component of one file there. `variables` are the host's, `configuration` is Ansible's."""

    def __init__(self, node: lab_node.Node, directory: Path) -> None:
        self.node, self.directory = node, directory
        self.configuration = "[connection]\npipelining = true\n"
        self.variables = node.ansible_variables

    def run(self, *arguments: str) -> dict[str, Any]:
        """The task's result."""
        component = {"name": "kept", "files": [{"dest": "/etc/kept", "content": "kept\n"}]}
        given, environment, result = ansible_program.one_task(
            self.directory, self.variables, {"k8sgu.cluster.component": {"components": [component]}}, self.configuration
        )
        done = ansible_program.run("ansible-playbook", *given, *arguments, cwd=self.directory, environment=environment)
        assert result.exists(), done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(result.read_text())
        return answer

    def kept(self) -> list[str]:
        return self.node.run(f"ls -A {KEPT} 2>/dev/null || true").split()


@pytest.fixture
def host(node: lab_node.Node, tmp_path: Path) -> Host:
    node.run(f"rm -rf {KEPT} /etc/kept")
    return Host(node, tmp_path)


def test_sent_code_is_kept_compiled_and_readable_by_root_only(host: Host) -> None:
    assert host.run()["changed"]
    [digest] = host.kept()
    assert host.node.run(f"stat -c '%U %a' {KEPT} {KEPT}/{digest}") == "root 700\nroot 700\n"
    compiled = host.node.run(f"find {KEPT} -name 'run.*.pyc' -exec stat -c '%i %Y %n' {{}} +")
    assert "_component/__pycache__/run." in compiled
    assert not host.run()["changed"]
    assert host.kept() == [digest]
    # Neither unpacked nor compiled again.
    assert host.node.run(f"find {KEPT} -name 'run.*.pyc' -exec stat -c '%i %Y %n' {{}} +") == compiled


def test_check_mode_leaves_nothing_on_a_node_that_keeps_nothing(host: Host) -> None:
    before = host.node.run("ls -A /tmp /var/tmp")
    assert host.run("--check")["changed"]
    assert host.kept() == []
    assert host.node.run("ls -A /tmp /var/tmp; ls /etc/kept 2>&1 || true").startswith(before)
    host.run()
    assert not host.run("--check")["changed"]


def test_files_that_are_long_unused_are_removed(host: Host) -> None:
    names = ["a" * 64, "b" * 64, "c" * 64, "d" * 64, ".cut-off"]
    for age, name in enumerate(names):
        host.node.run(f"mkdir -p {KEPT}/{name} && touch -d '{age + 1} days ago' {KEPT}/{name}")
    host.run()
    assert set(names[:3]) < set(host.kept()) and len(host.kept()) == 4


def test_a_module_is_sent_where_nothing_goes_by_the_connections_input(host: Host) -> None:
    host.configuration = ""
    made = host.run()
    assert made["changed"] and host.kept() == []
    host.configuration = "[connection]\npipelining = true\n"
    again = host.run()
    assert not again["changed"] and len(host.kept()) == 1
    assert made.keys() == again.keys()


def test_a_module_finds_the_interpreter_where_none_is_named(host: Host) -> None:
    del host.variables["ansible_python_interpreter"]
    assert host.run()["changed"]
    # The next task of such a play has the path from the first; a play of one task sends the module.
    assert host.kept() == []


def test_a_missing_interpreter_is_named(host: Host) -> None:
    host.variables["ansible_python_interpreter"] = "/opt/none/python3"
    said = host.run()["msg"]
    assert said.startswith("component: /opt/none/python3 ended with status 127 and no answer: ")
    assert "not found" in said


def test_root_is_asked_for(host: Host) -> None:
    host.variables["ansible_become"] = False
    assert host.run()["msg"] == "component: needs root on the node; set become: true"
    assert host.kept() == []


def test_a_directory_that_cannot_be_made_is_named(host: Host) -> None:
    host.node.run(f"touch {KEPT}")
    answer = host.run()
    assert answer["msg"] == f"component: FileExistsError: [Errno 17] File exists: '{KEPT}'"
    host.node.run(f"rm {KEPT}; test ! -e /etc/kept")
    assert host.run()["changed"]
