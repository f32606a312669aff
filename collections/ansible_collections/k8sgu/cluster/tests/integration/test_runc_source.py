# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source of a node's runc, by the mirror's manifest for the node's release and architecture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program

COLLECTION = Path(__file__).resolve().parents[2]
PACKAGE = {"component": "runc", "version": "1.4.3", "arch": "amd64", "package": "runc", "source": "distribution"}


@pytest.mark.parametrize(
    ("packages", "path"),
    [
        ([PACKAGE], "/usr/sbin/runc"),
        ([], "/opt/k8sgu/runc/current/runc"),
        ([{**PACKAGE, "arch": "arm64"}], "/opt/k8sgu/runc/current/runc"),
        ([{**PACKAGE, "version": "1.5.2"}], "/opt/k8sgu/runc/current/runc"),
    ],
)
def test_runc(tmp_path: Path, packages: list[dict[str, str]], path: str) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "files": [], "images": [], "packages": packages}))
    version = {"version": "1.4.3"}
    variables: dict[str, Any] = {
        "k8sgu_mirror_dir": str(tmp_path),
        "k8sgu_architecture": "amd64",
        "k8sgu_release": {"components": dict.fromkeys(("runc", "containerd", "crictl"), version)},
    }
    shown = "{{ [container_runtime_runc_path, container_runtime_packages, container_runtime_binaries] | to_json }}"
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": variables,
        "vars_files": [str(COLLECTION / "roles" / "container_runtime" / "vars" / "main" / "containerd.yml")],
        "tasks": [{"ansible.builtin.copy": {"content": shown, "dest": str(tmp_path / "shown"), "mode": "0600"}}],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = ansible_program.run(
        "ansible-playbook",
        "--inventory=localhost,",
        "--connection=local",
        "play.yml",
        cwd=tmp_path,
        environment={
            **ansible_program.own_configuration(tmp_path),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found, installed, binaries = json.loads((tmp_path / "shown").read_text())
    assert found == path
    # One of the two, never both.
    assert (installed == ["runc"]) == (path == "/usr/sbin/runc")
    assert ("runc" in [binary["component"] for binary in binaries]) == (not installed)
