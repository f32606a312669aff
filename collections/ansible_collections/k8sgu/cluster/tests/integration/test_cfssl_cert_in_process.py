# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""cfssl_cert in Ansible's own process and as a module: what a user gets, and what is hidden, is the same."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program

PASSPHRASE = "tr0ubador-and-3"
# What makes the way to the module necessary; an environment is one such thing.
WAYS: dict[str, dict[str, Any]] = {"here": {}, "module": {"environment": {"K8SGU_TEST": "1"}}}
AUTHORITY = {"name": "ca", "initca": True, "csr": {"CN": "demo"}, "passphrase": "{{ passphrase }}"}
LEAF = {"name": "web", "csr": {"CN": "{{ common_name }}", "hosts": ["web.example.com"]}}
STEPS: dict[str, dict[str, Any]] = {
    "check": {"options": {"certificates": [AUTHORITY, LEAF]}, "check_mode": True, "diff": True},
    "run": {"options": {"certificates": [AUTHORITY, LEAF]}, "diff": True},
    "again": {"options": {"certificates": [AUTHORITY, LEAF]}, "diff": True},
    "secret in an answer": {"options": {"certificates": [{**LEAF, "csr": {"CN": PASSPHRASE}}]}, "check_mode": True},
    "refused": {"options": {"certificates": [{**LEAF, "csr": {"CN": PASSPHRASE, "hosts": ["1.2.3.4/5"]}}]}},
    "wrong option": {"options": {"name": "web", "certificates": [], "passphrase": "{{ passphrase }}"}},
    "unknown option": {"options": {"nane": "web", "ca_passphrase": "{{ passphrase }}"}},
    "removed": {"options": {"certificates": [{"name": "web", "state": "absent"}]}, "diff": True},
}


def play(directory: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Every step, either way, each way in a directory of its own: way -> step -> result, and all that was printed."""
    tasks: list[dict[str, Any]] = []
    for way, keywords in WAYS.items():
        for number, (step, one) in enumerate(STEPS.items()):
            settings = {key: value for key, value in one.items() if key != "options"}
            # A relative path, which begins at the playbook.
            options = {
                "path": f"{way}/pki",
                "ca": f"{way}/pki/ca.pem",
                "ca_passphrase": "{{ passphrase }}",
                **one["options"],
            }
            variable = f"{way}_{number}"
            call = {"name": f"{way} {step}", "k8sgu.cluster.cfssl_cert": options, "register": variable}
            tasks.append({**call, **settings, **keywords, "ignore_errors": True})
    variables = {"passphrase": PASSPHRASE, "common_name": "web"}
    # Up to ansible-core 2.20 the options are always shown.
    shown = {"ANSIBLE_INJECT_INVOCATION": "true"}
    found, printed = ansible_program.run_tasks(directory, tasks, *arguments, variables=variables, environment=shown)
    by_way: dict[str, dict[str, Any]] = {way: {} for way in WAYS}
    for name in found:
        way, number = name.split("_")
        by_way[way][list(STEPS)[int(number)]] = found[name]
    return {**by_way, "printed": {"all": printed}}


def comparable(result: dict[str, Any], way: str) -> Any:
    """Without what differs between any two runs: serial numbers, fingerprints, the minute, the directory of the way."""
    text = json.dumps(result, sort_keys=True).replace(f"{way}/pki", "pki")
    text = re.sub(r"(serial\\?\"?: ?\\?\"?)\d+", r"\1", text)
    text = re.sub(r"(fingerprint_sha256\\?\"?: ?\\?\"?)[0-9a-f]{64}", r"\1", text)
    return json.loads(re.sub(r"\d{4}-\d\d-\d\dT[0-9:]+Z", "", text))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return play(tmp_path_factory.mktemp("ways"), "-vvvv", "--diff")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("step", STEPS)
def test_both_ways_say_the_same(played: dict[str, dict[str, Any]], step: str) -> None:
    here, module = played["here"][step], played["module"][step]
    # Ansible adds it to what a module printed.
    module.pop("_ansible_parsed", None)
    assert comparable(here, "here") == comparable(module, "module")


def test_the_steps_do_what_they_say(played: dict[str, dict[str, Any]]) -> None:
    assert {step: result["changed"] for step, result in played["here"].items() if not result["failed"]} == {
        "check": True,
        "run": True,
        "again": False,
        "secret in an answer": True,
        "removed": True,
    }
    assert "hosts[0]" in played["here"]["refused"]["msg"]


def test_the_secret_is_nowhere(played: dict[str, dict[str, Any]]) -> None:
    # A subject that is the secret is the user's own choice of a name, and is hidden in answers all the same.
    assert PASSPHRASE not in json.dumps([played[way] for way in WAYS])
    assert PASSPHRASE not in played["printed"]["all"]


def test_options_are_shown_with_the_secret_hidden(played: dict[str, dict[str, Any]]) -> None:
    shown = {name: text.count("VALUE_SPECIFIED_IN_NO_LOG_PARAMETER") for name, text in sections(played).items()}
    for step in STEPS:
        assert shown[f"here {step}"] == shown[f"module {step}"] > 0, step


def test_one_way_needs_no_module_and_the_other_does(played: dict[str, dict[str, Any]]) -> None:
    # Options that are wrong are the module's to refuse.
    sent = {name for name, text in sections(played).items() if "Using module file" in text}
    assert {name for name in sent if name.startswith("here")} == {"here wrong option", "here unknown option"}
    assert {name for name in sent if name.startswith("module")} == {f"module {step}" for step in STEPS}


def sections(played: dict[str, dict[str, Any]]) -> dict[str, str]:
    """What was printed for each task."""
    parts = re.split(r"^TASK \[", played["printed"]["all"], flags=re.MULTILINE)[1:]
    return {part.partition("]")[0]: part for part in parts}
