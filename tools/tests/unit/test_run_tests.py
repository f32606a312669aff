"""What tools/run_tests.py makes of pytest's results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from ec2lab.errors import LabError
from tools import newest_ansible, results, run_tests

SUITE = """
import pytest
def test_good(): pass
def test_bad(): assert False
def test_lab(): pytest.skip("a lab needs root")
def test_mirror(): pytest.skip("no mirror with etcd")
@pytest.mark.parametrize("number", range(2))
def test_go(number): pytest.skip("no Go toolchain")
"""


# The suites below need no plugin; loading all that are installed takes as long as the rest of pytest's start.
PLAIN = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], results.Tally]:
    folder = tmp_path_factory.mktemp("suite")
    (folder / "test_suite.py").write_text(SUITE)
    junit = folder / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={junit}", f"--rootdir={folder}", str(folder)]
    subprocess.run(command, cwd=folder, env={**os.environ, **PLAIN}, capture_output=True, check=False)
    return lambda lab_required: results.junit_tally(junit, lab_required)


def test_skips_are_counted_by_their_reasons(tally: Callable[[bool], results.Tally]) -> None:
    counted = tally(False)
    assert (counted.passed, counted.failed, counted.skipped.total()) == (1, 1, 4)
    assert [line.split(": ", 1) for line in results.skip_lines(counted)] == [
        ["   2 skipped", "no Go toolchain"],
        ["   1 skipped", "a lab needs root"],
        ["   1 skipped", "no mirror with etcd"],
    ]


def test_a_failed_test_says_why_in_its_line(tally: Callable[[bool], results.Tally]) -> None:
    assert tally(False).failures == ["test_suite::test_bad: assert False"]


def test_a_failed_test_of_a_playbook_shows_the_playbooks_error(tmp_path: Path) -> None:
    message = "AssertionError: &#10;PLAY [all] ***&#10;[ERROR]: Task failed: no such AMI&#10;assert 2 == 0"
    junit = tmp_path / "junit.xml"
    junit.write_text(f'<s><testcase classname="c" name="t"><failure message="{message}"/></testcase></s>')
    assert results.junit_tally(junit, False).failures == ["c::t: [ERROR]: Task failed: no such AMI"]


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


def test_two_of_those_that_begin_when_a_place_is_free_run_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two meet at a fifo, so that one after the other would end at the time limit."""
    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    monkeypatch.setattr(run_tests, "COMMAND_TIMEOUT_S", 20)
    fifo, running, counts = tmp_path / "fifo", tmp_path / "running", tmp_path / "counts"
    os.mkfifo(fifo)
    running.mkdir()
    steps = [f"echo met > {fifo}", f"test $(cat {fifo}) = met", "sleep 0.2", "sleep 0.2", "exit 3"]
    count = f"touch {running}/$0; ls {running} | wc -l >> {counts}"
    commands = [
        run_tests.Command(
            f"step {number}",
            ["sh", "-c", f"{count}; {step} && rm {running}/$0", str(number)],
            lane=run_tests.NEXT_FREE,
        )
        for number, step in enumerate(steps)
    ]
    total = run_tests.run_stage("stage", commands)
    assert (total.passed, total.failures) == (4, ["step 4"])
    numbers = [int(line) for line in counts.read_text().split()]
    assert len(numbers) == 5 and max(numbers) == 2


def test_what_goes_on_is_not_waited_for_and_counted_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends only when the next stage has written to the fifo that it reads."""
    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    monkeypatch.setattr(run_tests, "IDLE_TIMEOUT_S", 20)
    fifo, order = tmp_path / "fifo", tmp_path / "order"
    os.mkfifo(fifo)

    def shell(title: str, line: str, **more: Any) -> run_tests.Command:
        return run_tests.Command(title, ["sh", "-c", f"{line}; echo {title} >> {order}"], **more)

    going_on = run_tests.GoingOn()
    first = [shell("filled", "true"), shell("more", f"cat {fifo}", goes_on=True)]
    assert run_tests.run_stage("artifacts", first, going_on).passed == 1
    later = [
        shell("feeds", f"echo go > {fifo}", lane="a"),
        shell("needs", "true", lane="b", after="more"),
        shell("needs-none", "true", lane="b", after="was never started"),
    ]
    assert run_tests.run_stage("later", later, going_on).passed == 3
    ended = order.read_text().split()
    assert ended[0] == "filled" and ended.index("needs") > ended.index("more")
    assert going_on.end().passed == 1


def test_what_cannot_begin_in_time_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    commands = [
        run_tests.Command("late", ["touch", str(tmp_path / "late")], begins_within=60),
        run_tests.Command("needed", ["true"]),
    ]
    assert run_tests.run_stage("molecule", commands[:1]).passed == 1
    (tmp_path / "late").unlink()
    commands[0].begins_within = 0
    tally = run_tests.run_stage("molecule", commands)
    assert (tally.passed, tally.failed, list(tally.skipped.values())) == (1, 0, [1])
    assert next(iter(tally.skipped)).startswith("late could not begin within 0 min: ")
    assert "late: skipped, too late to begin" in capsys.readouterr().out and not (tmp_path / "late").exists()


def test_what_goes_on_and_fails_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    failing = [run_tests.Command("more", ["sh", "-c", "exit 3"], goes_on=True)]
    going_on = run_tests.GoingOn()
    assert run_tests.run_stage("artifacts", failing, going_on).failed == 0
    assert going_on.end().failures == ["more"]
    # A stage by itself has nobody who would wait afterwards.
    assert run_tests.run_stage("artifacts", failing).failures == ["more"]


def test_the_next_release_is_filled_when_the_default_one_is_there() -> None:
    first, more = run_tests.artifacts()
    default, following = (yaml.safe_load(path.read_text())["kubernetes"] for path in releases())
    assert run_tests.next_release() == following != default
    assert f"k8sgu_kubernetes_version={following}" in more.argv and more.goes_on
    assert not any("k8sgu_kubernetes_version" in argument for argument in first.argv) and not first.goes_on
    assert list(run_tests.STAGES).index("artifacts") < list(run_tests.STAGES).index("lab")


def releases() -> list[Path]:
    """The default release's file and the next one's."""
    defaults = run_tests.COLLECTION / "roles" / "cluster_facts" / "defaults" / "main.yml"
    default = yaml.safe_load(defaults.read_text())["k8sgu_kubernetes_version"]
    minor = int(default.split(".")[1])
    return [run_tests.COLLECTION / "releases" / f"1.{number}.yml" for number in (minor, minor + 1)]


def test_without_a_next_release_there_is_one_fill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = tmp_path / "roles" / "cluster_facts" / "defaults"
    defaults.mkdir(parents=True)
    (defaults / "main.yml").write_text("k8sgu_kubernetes_version: 1.99.1\n")
    assert run_tests.next_release(tmp_path) == ""
    monkeypatch.setattr(run_tests, "next_release", lambda: "")
    assert [command.title for command in run_tests.artifacts()] == ["the mirror is filled"]


def test_suites_of_two_releases_run_once_and_when_both_are_there() -> None:
    [suites] = [command for command in run_tests.integration() if command.pytest]
    last = run_tests.molecule()[-1]
    assert (last.title, last.after, last.lane) == (
        "suites of two releases",
        run_tests.NEXT_RELEASE,
        run_tests.NEXT_FREE,
    )
    for path in run_tests.suites(run_tests.TWO_RELEASES_SUITES):
        assert path.exists()
        assert f"--ignore={path.relative_to(run_tests.ROOT)}" in suites.argv
        assert str(path.relative_to(run_tests.ROOT)) in last.argv


def test_every_scenario_is_run_the_longest_first() -> None:
    named = [command.argv[-1] for command in run_tests.molecule() if not command.pytest]
    there = sorted(path.parent.name for path in (run_tests.ROOT / "molecule").glob("*/molecule.yml"))
    assert sorted(named) == there
    assert tuple(named[: len(run_tests.SCENARIOS)]) == tuple(run_tests.SCENARIOS)


FLAKY = """
import pathlib
import pytest
def test_good(): assert not pathlib.Path("again").exists(), "is not run again"
def test_flaky():
    again = pathlib.Path("again")
    before = again.exists()
    again.touch()
    assert before, "the first time"
def test_bad(): assert FIXED
"""


@pytest.mark.parametrize("fixed", [True, False])
def test_failed_tests_on_machines_get_a_second_attempt_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fixed: bool
) -> None:
    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    for name, value in PLAIN.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "test_flaky.py").write_text(FLAKY.replace("FIXED", str(fixed)))
    argv = [sys.executable, "-m", "pytest", "-q", f"--rootdir={tmp_path}", str(tmp_path)]
    command = run_tests.Command("suite", argv, cwd=tmp_path, pytest=True, machines=True)
    total = run_tests.run_stage("stage", [command])
    capsys.readouterr()
    lines = results.closing_lines(total)
    if fixed:
        assert lines[-1] == "3 passed, 0 failed"
        assert [line for line in lines if line.startswith("RETRIED")] == [
            "RETRIED, and passed then: test_flaky::test_flaky: AssertionError: the first time"
        ]
    else:
        assert lines[-1] == "2 passed, 1 failed"
        # What failed at last decides; the first attempt stands in the output above.
        assert total.retried == []
        assert [line for line in lines if line.startswith("FAILED")] == ["FAILED test_flaky::test_bad: assert False"]
    (tmp_path / "again").unlink()
    command.machines = False
    assert run_tests.run_stage("stage", [command]).failed == (1 if fixed else 2)
    monkeypatch.setattr(run_tests, "RETRY_TESTS_UNTIL_S", 0)
    (tmp_path / "again").unlink()
    command.machines = True
    assert run_tests.run_stage("stage", [command]).failed == (1 if fixed else 2)


def test_a_scenario_that_passes_at_the_second_attempt_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    marker = tmp_path / "marker"
    line = f'test -e {marker} || {{ touch {marker}; echo "fatal: [node]: FAILED! no answer"; exit 2; }}'
    total = run_tests.run_stage("stage", [run_tests.Command("scenario", ["sh", "-c", line], machines=True)])
    capsys.readouterr()
    assert (total.passed, total.failed) == (1, 0)
    assert total.retried == ["scenario", "scenario: fatal: [node]: FAILED! no answer"]


def test_the_newest_ansible_comes_first_for_its_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newest_ansible, "programs", lambda: tmp_path)
    made, *suites = run_tests.newest()
    assert made.argv[1:] == ["tools/newest_ansible.py"] and made.programs == run_tests.BIN
    assert [(suite.argv[0], suite.programs) for suite in suites] == [(str(tmp_path / "pytest"), tmp_path)] * 2
    # One that is not there would be left out.
    named = [argument for suite in suites for argument in suite.argv if argument.startswith("collections/")]
    assert len(named) == 1 + len(run_tests.NEWEST_SUITES)
    program = tmp_path / "ansible-playbook"
    program.write_text("#!/bin/sh\necho the newest\n")
    program.chmod(0o755)
    command = run_tests.Command("whose", ["sh", "-c", "ansible-playbook; command -v ec2lab"], programs=tmp_path)
    assert run_tests.attempt(command, tmp_path / "log").passed == 1
    assert (tmp_path / "log.log").read_text() == f"the newest\n{run_tests.BIN / 'ec2lab'}\n"


def test_the_lab_that_a_shell_is_pointed_at_is_not_the_tests_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a shell in which a user pasted what `make up` prints."""
    for name in ("K8SGU_LAB", "K8SGU_CLUSTER"):
        monkeypatch.setenv(name, "demo")
    command = run_tests.Command("nothing of it", ["sh", "-c", "! env | grep -E '^K8SGU_(LAB|CLUSTER)='"])
    assert run_tests.attempt(command, tmp_path / "log").passed == 1


def test_a_host_without_such_a_python_fails_with_the_tools_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise LabError("not Fedora's")

    monkeypatch.setattr(newest_ansible, "host_archive", unknown)
    assert [command.title for command in run_tests.newest()] == ["the newest ansible-core is there"]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_whole_run_of_a_clean_tree_is_kept_by_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree, cache = tmp_path / "tree", tmp_path / "cache"
    tree.mkdir()
    git(tree, "init", "-q")
    (tree / ".gitignore").write_text(".test/\n")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "one")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(run_tests, "ROOT", tree)
    monkeypatch.setattr(run_tests, "LOGS", tree / ".test")
    stages = {
        "a": lambda: [run_tests.Command("good", ["true"])],
        "b": lambda: [run_tests.Command("bad", ["sh", "-c", "sleep 1.1; exit 1"])],
    }
    monkeypatch.setattr(run_tests, "STAGES", stages)
    kept = cache / "k8sgu" / "test-results" / f"{git(tree, 'rev-parse', 'HEAD')}.json"

    assert run_tests.main(["a"]) == 0
    assert not kept.exists(), "a stage alone says nothing of the commit"
    (tree / "new").touch()
    assert run_tests.main([]) == 1
    assert not kept.exists(), "nor does a tree with changes"
    assert json.loads((tree / ".test" / "result.json").read_text())["clean"] is False
    (tree / "new").unlink()
    assert run_tests.main([]) == 1
    result = json.loads(kept.read_text())
    assert (result["passed"], result["failed"], result["clean"]) == (1, 1, True)
    assert (result["failures"], result["retried"]) == (["bad"], [])
    assert list(result["stages_s"]) == ["a", "b"]
    assert list(result["tests_s"]) == ["bad"]
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 1 failed"


def test_a_suite_that_misses_the_lab_fails_where_the_lab_is_required(tally: Callable[[bool], results.Tally]) -> None:
    counted = tally(True)
    assert (counted.passed, counted.failed) == (1, 3)
    assert dict(counted.skipped) == {"no Go toolchain": 2}
    assert any(failure.endswith("though the lab is required: a lab needs root") for failure in counted.failures)
    total = results.Tally()
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
    outer, within = results.ansible_failures(output)
    assert outer.startswith('TASK [Run it]: fatal: [localhost]: FAILED! => {"msg": "status 2"')
    assert len(outer) < 1000
    assert within == r"TASK [Wait for it]: fatal: [node-1]: FAILED! => {\"msg\": \"no answer in 10 s\"}"
    assert results.ansible_failures("TASK [Good] ***\nok: [localhost]\n") == []


def test_a_failed_test_that_a_playbook_ran_is_named() -> None:
    failed = "FAILED test_access.py::test_it - AssertionError: assert 'TIMEOUT' == ''"
    said = "x" * 5000 + rf"short test summary info ===\n{failed}\n1 failed"
    output = f'TASK [Run pytest] ***\nfatal: [localhost]: FAILED! => {{"stdout": "{said}"}}\n'
    assert results.ansible_failures(output)[1:] == [f"TASK [Run pytest]: {failed}"]


def test_the_checks_that_verify_missed_are_named_once() -> None:
    checks = r"etcd has its quorum [cp-0]\n    expected: 3 healthy members\n    seen:     2 of 3\n    look at:  etcdctl"
    printed = checks.replace(r"\n", "\n")
    output = (
        f"TASK [Report] ***\n[ERROR]: Task failed: 1 of 61 checks failed\n{printed}\n\n"
        f'fatal: [cp-0]: FAILED! => {{"msg": "1 of 61 checks failed\\n{checks}", "passed": 60}}\n'
    )
    assert results.ansible_failures(output) == [
        "TASK [Report]: [ERROR]: Task failed: 1 of 61 checks failed",
        "etcd has its quorum [cp-0]: seen:     2 of 3",
        'TASK [Report]: fatal: [cp-0]: FAILED! => {"msg": "1 of 61 checks failed',
    ]
