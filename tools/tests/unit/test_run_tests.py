"""What tools/run_tests.py makes of pytest's results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools import run_tests

SUITE = """
import pytest
def test_good(): pass
def test_bad(): assert False
def test_lab(): pytest.skip("a lab needs root")
def test_mirror(): pytest.skip("no mirror with etcd")
@pytest.mark.parametrize("number", range(2))
def test_go(number): pytest.skip("no Go toolchain")
"""


@pytest.fixture
def tally(tmp_path: Path) -> Callable[[bool], run_tests.Tally]:
    (tmp_path / "test_suite.py").write_text(SUITE)
    junit = tmp_path / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", f"--rootdir={tmp_path}", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    return lambda lab_required: run_tests.junit_tally(junit, lab_required)


def test_skips_are_counted_by_their_reasons(tally: Callable[[bool], run_tests.Tally]) -> None:
    counted = tally(False)
    assert (counted.passed, counted.failed, counted.skipped.total()) == (1, 1, 4)
    assert [line.split(": ", 1) for line in run_tests.skip_lines(counted)] == [
        ["   2 skipped", "no Go toolchain"],
        ["   1 skipped", "a lab needs root"],
        ["   1 skipped", "no mirror with etcd"],
    ]


def test_a_failed_test_says_why_in_its_line(tally: Callable[[bool], run_tests.Tally]) -> None:
    assert tally(False).failures == ["test_suite::test_bad: assert False"]


def test_a_failed_test_of_a_playbook_says_what_the_playbook_said(tmp_path: Path) -> None:
    message = "AssertionError: &#10;PLAY [all] ***&#10;[ERROR]: Task failed: no such AMI&#10;assert 2 == 0"
    junit = tmp_path / "junit.xml"
    junit.write_text(f'<s><testcase classname="c" name="t"><failure message="{message}"/></testcase></s>')
    assert run_tests.junit_tally(junit, False).failures == ["c::t: [ERROR]: Task failed: no such AMI"]


def test_lanes_run_side_by_side_and_a_lane_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each side of a fifo waits for the other, so that lanes one after another end at their time limit."""
    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    monkeypatch.setattr(run_tests, "COMMAND_TIMEOUT_S", 20)
    fifo, order = tmp_path / "fifo", tmp_path / "order"
    os.mkfifo(fifo)

    def shell(title: str, line: str, lane: str) -> run_tests.Command:
        return run_tests.Command(title, ["sh", "-c", line], lane=lane)

    commands = [
        shell("writes", f"echo met > {fifo}; echo 1 >> {order}", "a"),
        shell("reads", f"test $(cat {fifo}) = met", "b"),
        shell("fails after it", f"echo 2 >> {order}; exit 3", "a"),
    ]
    total = run_tests.run_stage("stage", commands)
    assert (total.passed, total.failures) == (2, ["fails after it"])
    assert order.read_text() == "1\n2\n"
    assert "fails after it:\n   FAILED: 0 passed, 1 failed" in capsys.readouterr().out


def test_a_suite_that_misses_the_lab_fails_where_the_lab_is_required(tally: Callable[[bool], run_tests.Tally]) -> None:
    counted = tally(True)
    assert (counted.passed, counted.failed) == (1, 3)
    assert dict(counted.skipped) == {"no Go toolchain": 2}
    assert any(failure.endswith("though the lab is required: a lab needs root") for failure in counted.failures)
    total = run_tests.Tally()
    total.add(counted)
    total.add(counted)
    assert (total.failed, total.skipped.total()) == (6, 4)


@pytest.mark.parametrize(
    ("user", "setting", "required"), [(0, None, True), (1000, None, False), (1000, "1", True), (0, "0", False)]
)
def test_root_has_a_lab(monkeypatch: pytest.MonkeyPatch, user: int, setting: str | None, required: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.delenv("K8SGU_REQUIRE_LAB", raising=False)
    if setting is not None:
        monkeypatch.setenv("K8SGU_REQUIRE_LAB", setting)
    assert run_tests.lab_required() is required


def test_a_playbooks_failed_tasks_are_named_also_those_of_a_playbook_within_it() -> None:
    inner = r"\nTASK [Wait for it] ***\nfatal: [node-1]: FAILED! => {\"msg\": \"no answer in 10 s\"}\nPLAY RECAP"
    output = (
        "TASK [Good] *****\nok: [localhost]\n\nTASK [Run it] *****\n"
        + 'fatal: [localhost]: FAILED! => {"msg": "status 2", "stdout": "'
        + "x" * 5000
        + inner
        + '"}\n\nPLAY RECAP ****\nlocalhost : failed=1\n'
    )
    outer, within = run_tests.ansible_failures(output)
    assert outer.startswith('TASK [Run it]: fatal: [localhost]: FAILED! => {"msg": "status 2"')
    assert len(outer) < 1000
    assert within == r"TASK [Wait for it]: fatal: [node-1]: FAILED! => {\"msg\": \"no answer in 10 s\"}"
    assert run_tests.ansible_failures("TASK [Good] ***\nok: [localhost]\n") == []


def test_a_failed_test_that_a_playbook_ran_is_named() -> None:
    failed = "FAILED test_access.py::test_it - AssertionError: assert 'TIMEOUT' == ''"
    said = "x" * 5000 + rf"short test summary info ===\n{failed}\n1 failed"
    output = f'TASK [Run pytest] ***\nfatal: [localhost]: FAILED! => {{"stdout": "{said}"}}\n'
    assert run_tests.ansible_failures(output)[1:] == [f"TASK [Run pytest]: {failed}"]
