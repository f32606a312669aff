# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs Ansible's programs as a user does, without or with a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import loaded_ansible
import yaml

ROOT = Path(__file__).resolve().parents[6]
TIMEOUT_S = 240
_OPTIONS: dict[str, Any] = {"text": True, "stdin": subprocess.DEVNULL}


def command(program: str, *arguments: object) -> list[str]:
    """A program of the virtual environment that the tests run in."""
    return [str(Path(sys.executable).with_name(program)), *map(str, arguments)]


def environment_of(added: Mapping[str, str] | None, caller: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of `caller`, by default the tests' own, with `added`."""
    return {**(os.environ if caller is None else caller), "ANSIBLE_NOCOLOR": "1", **(added or {})}


def own_configuration(directory: Path, content: str = "") -> dict[str, str]:
    """For a playbook outside the project: a configuration in its directory, whatever the caller's environment names."""
    (directory / "ansible.cfg").write_text(content)
    return {
        "ANSIBLE_CONFIG": str(directory / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
    }


def one_task(
    directory: Path, host: Mapping[str, Any], task: Mapping[str, Any], configuration: str
) -> tuple[list[str], dict[str, str], Path]:
    """Arguments and environment of ansible-playbook for a task on one host, and where the task's result will be.

    The files are written to `directory`, where the playbook is to be started.
    """
    play = {"hosts": "all", "gather_facts": False, "tasks": [dict(task)]}
    (directory / "play.yml").write_text(json.dumps([play]))
    (directory / "inventory.yml").write_text(json.dumps({"all": {"hosts": {"node": dict(host)}}}))
    result = directory / "results" / "node"
    result.unlink(missing_ok=True)
    environment = {
        **own_configuration(directory, configuration),
        # Writes the task's result to a file named after the host, which costs less than a second task.
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.tree",
        "ANSIBLE_CALLBACK_TREE_DIR": str(result.parent),
        "ANSIBLE_HOST_KEY_CHECKING": "false",
    }
    return ["--inventory=inventory.yml", "play.yml"], environment, result


def start(
    program: str, *arguments: object, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str] | loaded_ansible.Run:
    """Started, with both of its outputs in stdout."""
    argv, env = command(program, *arguments), environment_of(environment)
    if (server := loaded_ansible.server(argv, cwd, env)) is not None:
        return loaded_ansible.Run(server, argv, cwd, env, merged=True)
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **_OPTIONS,
    )


def run(
    program: str,
    *arguments: object,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    caller: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT_S,
    forked: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run to its end, whatever its exit status; not `forked`: for who looks at the process's command line."""
    argv, env = command(program, *arguments), environment_of(environment, caller)
    if forked and (server := loaded_ansible.server(argv, cwd, env)) is not None:
        return loaded_ansible.run(server, argv, cwd, env, timeout)
    return subprocess.run(
        argv,
        cwd=cwd,
        env=env,
        capture_output=True,
        timeout=timeout,
        check=False,
        **_OPTIONS,
    )


def playbook_arguments(playbook: str, inventory: object, variables: Mapping[str, Any]) -> list[str]:
    """Of one of the project's own playbooks."""
    return [f"--inventory={inventory}", f"playbooks/{playbook}.yml", f"--extra-vars={json.dumps(variables)}"]


def run_playbook(
    playbook: str, inventory: object, *arguments: object, variables: Mapping[str, Any], **options: Any
) -> tuple[int, str]:
    """Exit status and output of one of the project's own playbooks; `options` are those of run()."""
    done = run("ansible-playbook", *playbook_arguments(playbook, inventory, variables), *arguments, **options)
    return done.returncode, done.stdout + done.stderr


def run_tasks(
    directory: Path,
    tasks: Sequence[dict[str, Any]],
    *arguments: object,
    variables: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], str]:
    """Results, by the variable that each task registers, and output of tasks on this machine alone."""
    names = [task["register"] for task in tasks]
    content = "{{ dict(names | zip(query('ansible.builtin.vars', *names))) | to_json }}"
    save = {
        "ansible.builtin.copy": {"content": content, "dest": "results.json", "mode": "0600"},
        "vars": {"names": names},
    }
    play = {"hosts": "localhost", "gather_facts": False, "vars": dict(variables), "tasks": [*tasks, save]}
    (directory / "play.yml").write_text(yaml.safe_dump([play]))
    local = [
        "--inventory=localhost,",
        "--connection=local",
        f"--extra-vars=ansible_python_interpreter={sys.executable}",
    ]
    done = run(
        "ansible-playbook",
        *local,
        *arguments,
        directory / "play.yml",
        cwd=Path("/"),
        environment={"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), **(environment or {})},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    results: dict[str, Any] = json.loads((directory / "results.json").read_text())
    return results, done.stdout + done.stderr


def run_at_terminal(
    program: str,
    *arguments: object,
    answers: Sequence[tuple[str, str]],
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT_S,
) -> tuple[int, str]:
    """(exit status, output); `answers` are (pattern of the prompt, what to type) in order."""
    controller, terminal = pty.openpty()
    # Wide, so that messages are not broken.
    termios.tcsetwinsize(terminal, (50, 500))
    process = subprocess.Popen(
        # Only the program that the terminal controls is asked.
        ["setsid", "--ctty", *command(program, *arguments)],
        cwd=cwd,
        env=environment_of(environment),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown, answered, left = b"", 0, list(answers)
    end = time.monotonic() + timeout
    try:
        while select.select([controller], [], [], max(0.0, end - time.monotonic()))[0]:
            try:
                shown += os.read(controller, 65536)
            except OSError:  # EIO: no process has the terminal open any more
                break
            if left and re.search(left[0][0].encode(), shown[answered:]):
                _type(controller, left.pop(0)[1], end)
                answered = len(shown)
        else:
            raise AssertionError(f"not at its end after {timeout} s:\n{shown[-4000:].decode(errors='replace')}")
        return process.wait(timeout=60), shown.decode(errors="replace")
    finally:
        os.close(controller)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def _type(controller: int, answer: str, end: float) -> None:
    while termios.tcgetattr(controller)[3] & termios.ECHO:
        assert time.monotonic() < end, "what is typed would be seen"
        time.sleep(0.05)
    # Ansible throws away what was typed before it began to read, which is right after it turned the echo off.
    time.sleep(1)
    os.write(controller, answer.encode() + b"\r")
