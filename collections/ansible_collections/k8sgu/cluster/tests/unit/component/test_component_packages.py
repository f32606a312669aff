# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installing packages beside others that do: locks of APT and dpkg are waited for, and who holds them is told."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import packages
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A lock that another process holds, as APT does, until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin and holder.stdout
        holder.stdout.readline()
        try:
            yield holder
        finally:
            holder.stdin.close()


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lock-frontend"
    path.touch()
    monkeypatch.setattr(packages, "_LOCK_PAUSE_S", 0.02)
    return path


def test_the_holder_of_a_lock_is_known(lock: Path) -> None:
    with held(lock) as holder:
        command = Path(f"/proc/{holder.pid}/comm").read_text().strip()
        assert packages.lock_holder(str(lock)) == f"{command} (process {holder.pid})"
    assert packages.lock_holder(str(lock)) == ""
    assert packages.lock_holder(str(lock.with_name("none"))) == ""


def test_a_lock_that_is_not_released_is_an_error_with_its_holder(lock: Path) -> None:
    with held(lock) as holder, pytest.raises(ComponentError) as raised:
        packages.await_locks(time.monotonic() + 0.1, [str(lock.with_name("none")), str(lock)])
    said = str(raised.value)
    assert said.startswith("packages: waited ")
    assert f"(process {holder.pid}), which holds {lock}" in said
    assert "run again when it has ended" in said


def test_a_lock_that_is_given_up_is_waited_for(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []
    with held(lock) as holder:

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                assert holder.stdin
                holder.stdin.close()
                holder.wait()

        monkeypatch.setattr(packages.time, "sleep", sleep)
        packages.await_locks(time.monotonic() + 60, [str(lock)])
    assert len(slept) == 3


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Commands that were run on a machine without locks and with all packages there; the first words alone."""
    monkeypatch.setattr(packages, "LOCKS", ())
    monkeypatch.setattr(packages, "_LOCK_PAUSE_S", 0)
    monkeypatch.setattr(packages.glob, "glob", lambda _pattern: ["lists"])
    status = tmp_path / "status"
    status.write_text("Package: socat\nStatus: install ok installed\n")
    monkeypatch.setattr(packages, "_DPKG_STATUS", str(status))
    return []


def answering(ran: list[str], *answers: str) -> object:
    """Stands for systemd.run: fails with each of the texts in turn, empty ones succeed."""
    left = list(answers)

    def run(command: list[str], timeout: int) -> str:
        assert timeout > 0
        ran.append(next(word for word in command if word in ("dpkg", "update", "install")))
        if left and (text := left.pop(0)):
            raise ComponentError(text)
        return ""

    return run


@pytest.mark.parametrize(
    "said",
    [
        "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)",
        "E: Unable to lock directory /var/lib/apt/lists/",
        "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
        "dpkg: error: dpkg frontend lock was locked by another process with pid 812",
    ],
)
def test_the_second_writer_retries(monkeypatch: pytest.MonkeyPatch, machine: list[str], said: str) -> None:
    monkeypatch.setattr(packages.systemd, "run", answering(machine, said, "", said))
    packages.install(["socat"])
    assert machine == ["dpkg", "dpkg", "install", "install"]


def test_lists_that_are_too_old_are_fetched_once(monkeypatch: pytest.MonkeyPatch, machine: list[str]) -> None:
    monkeypatch.setattr(packages.systemd, "run", answering(machine, "", "E: Unable to locate package socat"))
    packages.install(["socat"])
    assert machine == ["dpkg", "install", "update", "install"]


def test_another_failure_is_not_tried_again(monkeypatch: pytest.MonkeyPatch, machine: list[str]) -> None:
    monkeypatch.setattr(packages.systemd, "run", answering(machine, "dpkg: error: disk is full"))
    with pytest.raises(ComponentError, match="disk is full"):
        packages.install(["socat"])
    assert machine == ["dpkg"]


def test_what_is_still_missing_is_named(monkeypatch: pytest.MonkeyPatch, machine: list[str]) -> None:
    monkeypatch.setattr(packages.systemd, "run", answering(machine))
    with pytest.raises(ComponentError, match="ipset are still not installed"):
        packages.install(["socat", "ipset"])
