# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules for files on the controller give the same results in Ansible's own process and as modules.

test_cfssl_cert_in_process.py tests what they share: what is hidden, and when a module is sent after all.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program

TOKEN = "t0ken-of-a-user"
CHECK = {"name": "a", "passed": True, "expected": "b", "seen": "c"}
# What makes the way to the module necessary; an environment is one such thing.
WAYS: dict[str, dict[str, Any]] = {"here": {}, "module": {"environment": {"K8SGU_TEST": "1"}}}
# Each is run in check mode, run, and run again; `@` is the directory of the way.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "key": ("signing_key", {"path": "@/sa.key", "public_path": "@/sa.pub"}),
    "key of another size": ("signing_key", {"path": "@/sa.key", "public_path": "@/sa.pub", "size": 4096}),
    "ssh": ("ssh_key", {"path": "@/ssh/id", "comment": "demo"}),
    "kubeconfig": (
        "kubeconfig",
        {
            "path": "@/config",
            "clusters": [{"name": "demo", "server": "https://demo:6443"}],
            "users": [{"name": "admin", "token": "{{ token }}"}],
            "contexts": [{"name": "admin", "cluster": "demo", "user": "admin"}],
            "current_context": "admin",
        },
    ),
    "no such context": ("kubeconfig", {"path": "@/config", "current_context": "nobody"}),
    "keys": ("encryption_keys", {"path": "@/secrets/keys.json"}),
    "a key lost": ("encryption_keys", {"path": "@/other/keys.json", "in_use": ["server"]}),
    "what the key is": ("cfssl_cert_info", {"paths": ["@/sa.key"]}),
}
# Of modules that have nothing to send: the options, and a part of what is said.
ALONE: dict[str, tuple[str, dict[str, Any], str]] = {
    "no cluster": ("verify_cluster", {"kubeconfig": "nowhere", "nodes": ["a"]}, "nowhere does not exist"),
    "no cluster for policies": ("verify_policies", {"kubeconfig": "nowhere"}, "nowhere does not exist"),
    "no cluster to judge": (
        "security_report",
        {"kubeconfig": "nowhere", "nodes": {}, "control_plane": ["a"], "path": "r"},
        "nowhere does not exist",
    ),
    "nobody to judge": (
        "security_report",
        {"kubeconfig": "nowhere", "nodes": {}, "control_plane": [], "path": "r"},
        "control_plane: names no node",
    ),
    "nothing to rewrite": (
        "encryption_rewrite",
        {
            "kubeconfig": "nowhere",
            "choice": {"provider": "kms", "resources": ["secrets"], "keys_file": "keys", "record": "record"},
        },
        "nowhere does not exist",
    ),
    "no cluster to apply to": (
        "manifest",
        {"kubeconfig": "nowhere", "name": "set", "state": "absent"},
        "nowhere does not exist",
    ),
    "nothing to restart": ("workload_restart", {"kubeconfig": "nowhere", "mark": "a"}, "nowhere does not exist"),
    "nothing to drain": ("node_drain", {"kubeconfig": "nowhere", "record": "record", "nodes": ["a"]}, ""),
    "nobody to ask": (
        "node_drain",
        {"kubeconfig": "nowhere", "record": "record", "nodes": ["a"], "state": "serving"},
        "nowhere does not exist",
    ),
    "report": ("verify_report", {"junit": "verify.xml", "checks": [CHECK]}, "1 checks passed"),
    "report of a failure": (
        "verify_report",
        {"junit": "verify.xml", "checks": [{**CHECK, "passed": False}]},
        "1 of 1 checks failed",
    ),
    "report of nothing": ("verify_report", {"junit": "verify.xml", "checks": []}, "none was made"),
    "an option too many": ("verify_report", {"junit": "a", "checks": [], "suit": "b"}, "suit. Supported parameters"),
}
# A host that cannot be reached, and a user that cannot be had: where the task is for makes no difference.
ELSEWHERE = {"delegate_to": "elsewhere", "become": True, "become_user": "nobody-here"}
PASSES = ("check", "run", "again")


def tasks() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for way, keywords in WAYS.items():
        for number, (module, options) in enumerate(CALLS.values()):
            for one in PASSES:
                given = json.loads(json.dumps(options).replace("@", way))
                call = {f"k8sgu.cluster.{module}": given, "check_mode": one == "check", "diff": True}
                found.append({"register": f"{way}_{number}_{one}", "ignore_errors": True, **call, **keywords})
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("ways")
    found, printed = ansible_program.run_tasks(directory, tasks(), variables={"token": TOKEN})
    assert TOKEN not in printed
    return found


def comparable(result: dict[str, Any], way: str) -> Any:
    """Without what differs between any two runs: random keys, and the directory of the way."""
    # Added to what a module says: that it could be read, and for a `path` whose it is.
    added = {"_ansible_parsed", "gid", "group", "mode", "owner", "size", "state", "uid"}
    kept = {key: value for key, value in result.items() if key not in added}
    text = json.dumps(kept, sort_keys=True).replace(f"{way}/", "@/")
    text = re.sub(r"ssh-ed25519 [A-Za-z0-9+/=]+", "ssh-ed25519", text)
    return json.loads(re.sub(r"SHA256:[A-Za-z0-9+/=]+", "SHA256", text))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("one", PASSES)
@pytest.mark.parametrize("call", CALLS)
def test_both_ways_say_the_same(results: dict[str, dict[str, Any]], call: str, one: str) -> None:
    number = list(CALLS).index(call)
    here, module = results[f"here_{number}_{one}"], results[f"module_{number}_{one}"]
    assert comparable(here, "here") == comparable(module, "module")


def test_the_calls_do_what_they_say(results: dict[str, dict[str, Any]]) -> None:
    said = {
        call: [results[f"here_{number}_{one}"]["changed"] for one in PASSES]
        for number, call in enumerate(CALLS)
        if not results[f"here_{number}_run"]["failed"]
    }
    changes = [True, True, False]
    assert said == {
        "key": changes,
        "ssh": changes,
        "kubeconfig": changes,
        "keys": changes,
    }


@pytest.mark.timeout(300)
def test_modules_of_the_controller_alone_work_there_whatever_host_the_task_is_for(tmp_path: Path) -> None:
    tasks = [
        {"ansible.builtin.add_host": {"name": "elsewhere", "ansible_connection": "ssh", "ansible_host": "192.0.2.1"}}
        | {"register": "added"},
        *(
            {"register": f"alone_{number}", f"k8sgu.cluster.{module}": options, "ignore_errors": True, **ELSEWHERE}
            for number, (module, options, _said) in enumerate(ALONE.values())
        ),
    ]
    found, _printed = ansible_program.run_tasks(tmp_path, tasks, variables={})
    for number, (call, (_module, _options, said)) in enumerate(ALONE.items()):
        result = found[f"alone_{number}"]
        assert said in result.get("msg", ""), (call, result)
        assert "invocation" not in result and "unreachable" not in result, call
    # Relative paths begin at the playbook, as a module's on this machine do.
    assert (tmp_path / "verify.xml").is_file()
