# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs etcdctl on a node, with the node's client certificate."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from pathlib import Path
from typing import Callable

PROGRAM = "/usr/local/bin/etcdctl"
# Works on files alone.
UTILITY = "/usr/local/bin/etcdutl"
ENVIRONMENT = "/etc/etcd/etcdctl.env"
COMMAND_TIMEOUT_S = 30
# Answered by a member that has a quorum, and has applied all that was acknowledged before. What `endpoint health` reads
# too, which calls a member unhealthy that takes no writes because its quota is used up.
SERVES = ("get", "health", "--command-timeout=5s", "-w", "json")
_PR_SET_PDEATHSIG = 1

Etcdctl = Callable[..., bytes]


class EtcdError(Exception):
    """etcdctl, or the module that uses it, cannot do what it was asked for."""


def settings(path: str) -> dict[str, str]:
    """The variables in etcdctl's environment file. Raises OSError."""
    lines = Path(path).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def run(
    *arguments: str,
    endpoints: str = "",
    program: str = PROGRAM,
    environment: str = ENVIRONMENT,
    timeout: float = COMMAND_TIMEOUT_S,
    before: Callable[[], None] | None = None,
    cwd: str | None = None,
) -> bytes:
    """Output of etcdctl, asked at `endpoints` instead of those in the environment file, within `timeout` seconds.

    `before` is done by its process before it becomes etcdctl, `cwd` is where it runs.
    Raises CalledProcessError, OSError, TimeoutExpired.
    """
    # A machine's own proxy (/etc/environment) would otherwise be used for the other members.
    own = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [program, *arguments],
        # Not the flag --endpoints, which etcdctl refuses beside the variable.
        env={**own, **settings(environment), **({"ETCDCTL_ENDPOINTS": endpoints} if endpoints else {})},
        capture_output=True,
        check=True,
        timeout=timeout,
        preexec_fn=before,
        cwd=cwd,
    ).stdout


def reason(error: Exception) -> str:
    """What went wrong: etcdctl's last line, without its log."""
    if not isinstance(error, subprocess.CalledProcessError):
        return str(error)
    said = [line for line in error.stderr.decode(errors="replace").splitlines() if line and not line.startswith("{")]
    return said[-1].replace("Error: ", "", 1) if said else f"etcdctl ended with {error.returncode}"


def end_with_parent() -> None:
    """Lets this process end when its parent does: https://man7.org/linux/man-pages/man2/pr_set_pdeathsig.2const.html"""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
