# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs forked from a process that has loaded Ansible are to a test what the program itself is."""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import loaded_ansible

# What a run could have from the process that it was forked from, instead of from its own start.
SEEN = {
    "settings": "{{ query('ansible.builtin.config', 'DEFAULT_FORKS', 'ANSIBLE_PIPELINING', 'DEFAULT_STRATEGY', "
    "'DEFAULT_TIMEOUT', 'COLLECTIONS_PATHS', 'DEFAULT_MODULE_PATH') }}",
    "configuration": "{{ ansible_config_file | default('none') }}",
    "environment": "{{ lookup('ansible.builtin.pipe', 'env | grep -v ^_= | sort') }}",
    "home": "{{ '~' | expanduser }}",
    "process": "{{ lookup('ansible.builtin.pipe', 'pwd; umask; locale; ulimit -a') }}",
    "files": "{{ lookup('ansible.builtin.pipe', 'ls /proc/$PPID/fd | head -3; readlink /proc/$PPID/fd/0') }}",
    # While it starts a program, it has all signals blocked itself; what it hands on counts.
    "signals": "{{ lookup('ansible.builtin.pipe', 'grep ^Sig[IC] /proc/$PPID/status; grep ^SigB /proc/self/status') }}",
    "verbosity": "{{ ansible_verbosity }} {{ ansible_check_mode }} {{ ansible_playbook_python }}",
}


# The switch itself, and what has the time or the number of a process in it.
MOMENTARY = re.compile(r"K8SGU_TEST_LOADED_ANSIBLE=\d|\d\d:\d\d:\d\d|/ansible-local-\S+")


def play(directory: Path, tasks: list[dict[str, Any]]) -> list[object]:
    path = directory / "play.yml"
    path.write_text(ansible_program.yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    return ["--inventory=localhost,", "--connection=local", path]


def both(monkeypatch: pytest.MonkeyPatch, *arguments: object, **options: Any) -> list[tuple[int, str, str]]:
    """Status and outputs of the fork and of the program."""
    found = []
    for chosen in ("1", "0"):
        monkeypatch.setenv("K8SGU_TEST_LOADED_ANSIBLE", chosen)
        done = ansible_program.run("ansible-playbook", *arguments, **options)
        told = [MOMENTARY.sub("", text) for text in (done.stdout, done.stderr)]
        found.append((done.returncode, *told))
    return found


def differences(fork: tuple[int, str, str], program: tuple[int, str, str]) -> list[str]:
    """Lines that only one of the two has. What a play shows has lines within lines."""
    one, other = (re.split(r"\\n|\n", f"{status}\n{out}\n{err}") for status, out, err in (fork, program))
    return [line for line in difflib.ndiff(one, other) if line.startswith(("- ", "+ "))]


CONFIGURATIONS = {
    "none": "",
    "one that is used at once": "[defaults]\ntimeout = 77\nstrategy = free\n[connection]\npipelining = true\n",
    "one that is not": "[defaults]\nforks = 4\nany_unparsed_is_failed = true\n",
    "a bad one": "[defaults]\nforks = many\n",
}


@pytest.mark.parametrize("content", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_fork_sees_and_says_what_the_program_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    shown = {"ansible.builtin.debug": {"msg": SEEN}}
    environment = {**ansible_program.own_configuration(tmp_path, content), "HOME": str(tmp_path), "SHOWN": "to it"}
    fork, program = both(
        monkeypatch, *play(tmp_path, [shown]), "--check", "-v", cwd=tmp_path, environment=environment
    )  # fmt: skip
    assert differences(fork, program) == []
    if content != CONFIGURATIONS["a bad one"]:
        assert fork[0] == 0 and "SHOWN=to it" in fork[1] and f'"home": "{tmp_path}"' in fork[1], fork


def waiting(directory: Path) -> tuple[list[object], Path]:
    """A play that makes a file, and ends when it is removed."""
    marked = directory / "there"
    wait = f"touch {marked}; while [ -e {marked} ]; do sleep 0.1; done"
    shown = {"msg": f"{{{{ lookup('ansible.builtin.pipe', '{wait}') }}}}"}
    return play(directory, [{"ansible.builtin.debug": shown}]), marked


def until_it_waits(run: Any, marked: Path) -> None:
    while not marked.exists():
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("changed", "forked"),
    [
        ({}, True),
        ({"ANSIBLE_FORKS": "7", "HOME_OF_NOTHING": "x", "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}, True),
        # Taken when modules are loaded, so that what was loaded before is of no use.
        ({"ANSIBLE_TIMEOUT": "78"}, False),
        ({"ANSIBLE_LIBRARY": "/nowhere"}, False),
        ({"LC_ALL": "C.UTF-8", "LC_TIME": "C"}, False),
        ({"PYTHONWARNINGS": "ignore"}, False),
    ],
)
def test_what_was_loaded_is_used_only_where_it_would_be_loaded_alike(
    tmp_path: Path, changed: dict[str, str], forked: bool
) -> None:
    environment = {**ansible_program.own_configuration(tmp_path), **changed}
    # A server is there, with the configuration and without the changes.
    plain = {name: value for name, value in environment.items() if name not in changed}
    done = ansible_program.run("ansible-playbook", *play(tmp_path, []), cwd=tmp_path, environment=plain)
    assert done.returncode == 0, done
    arguments, marked = waiting(tmp_path)
    run = ansible_program.start("ansible-playbook", *arguments, cwd=tmp_path, environment=environment)
    until_it_waits(run, marked)
    name = Path(f"/proc/{run.pid}/cmdline").read_bytes()
    marked.unlink()
    output, _none = run.communicate(timeout=ansible_program.TIMEOUT_S)
    assert run.wait() == 0 and "ok=1" in output, output
    assert (Path(loaded_ansible.__file__).name.encode() in name) is forked, name


def test_an_error_is_its_status_and_its_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = ansible_program.own_configuration(tmp_path)
    fails = play(tmp_path, [{"ansible.builtin.fail": {"msg": "on purpose"}}])
    cases = ((fails, 2, "on purpose"), (["--no-such-option"], 2, "usage"), (["none.yml"], 1, "none.yml"))
    for arguments, status, said in cases:
        fork, program = both(monkeypatch, *arguments, cwd=tmp_path, environment=environment)
        assert fork == program
        assert fork[0] == status and said in fork[1] + fork[2], fork


def test_a_timeout_ends_the_run_and_leaves_the_server(tmp_path: Path) -> None:
    environment = ansible_program.own_configuration(tmp_path)
    arguments, marked = waiting(tmp_path)
    run = ansible_program.start("ansible-playbook", *arguments, cwd=tmp_path, environment=environment)
    assert isinstance(run, loaded_ansible.Run)
    until_it_waits(run, marked)
    with pytest.raises(subprocess.TimeoutExpired):
        run.communicate(timeout=0.1)
    run.kill()
    assert run.wait(ansible_program.TIMEOUT_S) == -9 and not Path(f"/proc/{run.pid}").exists()
    with pytest.raises(subprocess.TimeoutExpired):
        ansible_program.run("ansible-playbook", *arguments, cwd=tmp_path, environment=environment, timeout=0.1)
    marked.unlink()
    done = ansible_program.run("ansible-playbook", *play(tmp_path, []), cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done


def test_directories_for_temporary_files_are_removed(tmp_path: Path) -> None:
    environment = {**ansible_program.own_configuration(tmp_path), "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local")}
    for _number in range(2):
        done = ansible_program.run("ansible-playbook", *play(tmp_path, []), cwd=tmp_path, environment=environment)
        assert done.returncode == 0, done
        assert list((tmp_path / "local").iterdir()) == []
