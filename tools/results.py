"""Results of a test run: read from pytest's JUnit files and playbooks' output, printed, and saved as JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

# How many of a playbook's failures to show, and how many characters of each.
FAILURES_SHOWN = 6
FAILURE_LENGTH = 700
# How the reason of a skip begins if a suite found no lab, or no programs to run in it.
LAB_SKIPS = ("a lab needs", "no mirror")
# How many of the slowest tests to print.
SLOWEST_SHOWN = 10


@dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # how many, by reason
    failures: list[str] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)  # passed at the second attempt, with the first one's failure
    seconds: dict[str, float] = field(default_factory=dict)  # by test, for those that ran
    said: str = ""  # the output of a command that failed

    def add(self, other: Tally) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures
        self.retried += other.retried
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def retried_as(self, second: Tally, whole: bool) -> Tally:
        """The counts after a second attempt at everything (`whole`) or at the tests that failed."""
        total = Tally(seconds=dict(self.seconds), said=second.said)
        if not whole:
            total.passed, total.skipped = self.passed, Counter(self.skipped)
        total.add(second)
        if not second.failed:
            total.retried += self.failures
        return total


def junit_tally(path: Path, lab_required: bool) -> Tally:
    """Counts of a JUnit file as pytest writes it."""
    tally = Tally()
    for case in ElementTree.parse(path).getroot().iter("testcase"):  # noqa: S314 - our own file
        kinds = {child.tag for child in case}
        name = f"{case.get('classname')}::{case.get('name')}"
        tally.seconds[name] = tally.seconds.get(name, 0.0) + float(case.get("time") or 0)
        skip = case.find("skipped")
        reason = (skip.get("message") or "no reason given") if skip is not None else ""
        if kinds & {"failure", "error"}:
            tally.failed += 1
            tally.failures.append(name + _why(case))
        elif lab_required and reason.startswith(LAB_SKIPS):
            tally.failed += 1
            tally.failures.append(f"{name}: skipped, though the lab is required: {reason}")
        elif reason:
            tally.skipped[reason] += 1
        else:
            tally.passed += 1
    return tally


def _why(case: ElementTree.Element) -> str:
    """Why a test failed, in one line, for readers of the end of the output: the first line of pytest's message, or an
    error of Ansible's in the output that the test shows."""
    told = next((child.get("message") or "" for child in case if child.tag in ("failure", "error")), "")
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    chosen = [line for line in lines if line.startswith("[ERROR]")] or lines
    return f": {chosen[0][:FAILURE_LENGTH]}" if chosen else ""


def ansible_failures(text: str) -> list[str]:
    """The failures in a playbook's output, each with its task, since they are far above the output's end.

    If the playbook ran another playbook or pytest, their output is one long line; failures in it count too.
    """
    found = []
    task = check = ""
    for part in re.split(r"\n|\\n", text):
        if part.startswith("TASK ["):
            task = part.rstrip("* ")
        elif re.match(r"\[ERROR\]|ERROR! |(fatal|failed): \[|FAILED \S+::", part):
            found.append(f"{task}: {part[:FAILURE_LENGTH]}" if task else part[:FAILURE_LENGTH])
        elif not part.startswith(" "):
            check = part
        elif part.startswith("    seen: "):
            # A check of verify, two lines below its name.
            found.append(f"{check}: {part.strip()[:FAILURE_LENGTH]}")
    return list(dict.fromkeys(found))[-FAILURES_SHOWN:]


def skip_lines(tally: Tally) -> list[str]:
    return [f"   {count} skipped: {reason}" for reason, count in tally.skipped.most_common()]


def closing_lines(tally: Tally) -> list[str]:
    """The end of the output: skips, the slowest tests, retries, failures, and the counts alone on the last line."""
    slowest = sorted(tally.seconds.items(), key=lambda one: -one[1])[:SLOWEST_SHOWN]
    return [
        *skip_lines(tally),
        *(f"   {seconds:6.0f} s {name}" for name, seconds in slowest),
        *(f"RETRIED, and passed then: {failure}" for failure in tally.retried),
        *(f"FAILED {failure}" for failure in tally.failures),
        f"{tally.passed} passed, {tally.failed} failed",
    ]


def tree_state(root: Path) -> tuple[str, bool]:
    """The commit that is checked out, empty if there is none, and whether the tree is unchanged."""

    def git(*arguments: str) -> str | None:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return commit or "", changes == ""


def result_document(tally: Tally, stages: dict[str, float], commit: str, clean: bool) -> dict[str, object]:
    return {
        "commit": commit,
        "clean": clean,
        "passed": tally.passed,
        "failed": tally.failed,
        "skipped": tally.skipped.total(),
        "retried": tally.retried,
        "failures": tally.failures,
        "stages_s": {stage: round(seconds, 1) for stage, seconds in stages.items()},
        "tests_s": {name: round(seconds, 1) for name, seconds in sorted(tally.seconds.items()) if seconds >= 1},
    }


def cache_directory() -> Path:
    """The directory of results by commit (https://specifications.freedesktop.org/basedir-spec/latest/)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k8sgu" / "test-results"


def write_result(path: Path, result: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(result, indent=1) + "\n")
    new.replace(path)
