"""Runs the project's tests stage by stage and ends in the line `N passed, N failed`.

    python tools/run_tests.py             every stage
    python tools/run_tests.py lint unit   these stages

A stage is a list of commands, in lanes: those of one lane run one after another, the lanes side by side. A pytest
command counts its tests (read from its JUnit file); any other command counts as one test. Full output goes to
.test/<stage>-<n>.log; what failed is also printed, and why tests were skipped.

Tests that miss the lab, or the programs that a cluster is made of, are failures where the lab can be had: as root, or
with K8SGU_REQUIRE_LAB=1. K8SGU_REQUIRE_LAB=0 lets root do without.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = ROOT / "collections" / "ansible_collections" / "k8sgu" / "cluster"
BIN = ROOT / ".venv" / "bin"
LOGS = ROOT / ".test"
MIRROR = ROOT / ".cache" / "mirror"
# A stage that hangs must end the run with a reason instead of being cut off from outside.
COMMAND_TIMEOUT_S = 45 * 60
# Of a playbook's failures: how many are shown, and how many characters of each.
FAILURES_SHOWN = 6
FAILURE_LENGTH = 700
# How the reason of a skip begins where a suite found no lab, or no programs to run in it.
LAB_SKIPS = ("a lab needs", "no mirror")


@dataclass
class Command:
    """One program of a stage; `cwd` is where it runs, `lane` what it runs after: the lane's commands before it."""

    title: str
    argv: list[str]
    cwd: Path = ROOT
    pytest: bool = False
    lane: str = ""


@dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # how many, by reason
    failures: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.failures += other.failures


def pytest_command(title: str, *paths: Path, workers: int = 0) -> Command:
    existing = [str(path.relative_to(ROOT)) for path in paths if any(path.rglob("test_*.py"))]
    # A file stays with one worker: its tests share the server or the node that its fixture starts.
    parallel = ["-n", str(workers), "--dist", "loadfile"] if workers else []
    return Command(title, [str(BIN / "pytest"), "-q", *parallel, *existing], pytest=True)


def lint() -> list[Command]:
    return [
        Command("ruff", [str(BIN / "ruff"), "check", "."]),
        Command("ruff format", [str(BIN / "ruff"), "format", "--check", "."]),
        Command(
            "mypy", [str(BIN / "mypy"), "collections/ansible_collections/k8sgu/cluster/plugins", "lab/ec2lab", "tools"]
        ),
        Command("docs/variables.md is up to date", [str(BIN / "python"), "tools/docs_variables.py", "--check"]),
        Command("yamllint", [str(BIN / "yamllint"), "--strict", "."]),
        # Without the default inventory, which asks the lab and so fails where none runs.
        Command(
            "ansible-lint",
            [
                "env",
                "ANSIBLE_INVENTORY=/dev/null",
                "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=false",
                str(BIN / "ansible-lint"),
                "--offline",
                "--strict",
            ],
        ),
    ]


def unit() -> list[Command]:
    return [
        pytest_command(
            "unit tests",
            COLLECTION / "tests" / "unit",
            ROOT / "lab" / "tests" / "unit",
            ROOT / "tools" / "tests" / "unit",
            workers=2,
        ),
    ]


def sanity() -> list[Command]:
    return [Command("ansible-test sanity", [str(ROOT / "tools" / "sanity")])]


def lab() -> list[Command]:
    return [pytest_command("the lab", ROOT / "lab" / "tests" / "integration")]


def integration() -> list[Command]:
    """Playbooks under tests/integration/targets, each by ansible-test, and pytest suites beside them."""
    commands = [pytest_command("integration suites", COLLECTION / "tests" / "integration", workers=2)]
    for target in sorted((COLLECTION / "tests" / "integration" / "targets").glob("*/tasks/main.yml")):
        name = target.parent.parent.name
        commands.append(Command(f"integration target {name}", [str(ROOT / "tools" / "integration_target"), name]))
    return commands


def artifacts() -> list[Command]:
    """Fills the mirror that tests of whole components and clusters use; with a cold cache the longest stage."""
    playbook = [str(BIN / "ansible-playbook"), "-i", "localhost,", "playbooks/artifacts.yml"]
    return [Command("the mirror is filled", [*playbook, "-e", f"k8sgu_mirror_dir={MIRROR}"])]


def up() -> list[Command]:
    return [pytest_command("make up and make down", ROOT / "tools" / "tests" / "up")]


def molecule() -> list[Command]:
    """Each scenario has a lab of its own; the default one takes as long as the others together and waits a lot."""
    names = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
    return [
        Command(f"molecule {name}", [str(BIN / "molecule"), "test", "-s", name], lane=str(name == "default"))
        for name in names
    ]


STAGES = {
    "lint": lint,
    "sanity": sanity,
    "unit": unit,
    "lab": lab,
    "artifacts": artifacts,
    "integration": integration,
    "up": up,
    "molecule": molecule,
}


def lab_required() -> bool:
    return os.environ.get("K8SGU_REQUIRE_LAB", "1" if os.geteuid() == 0 else "0") == "1"


def junit_tally(path: Path, lab_required: bool) -> Tally:
    """Counts of a JUnit file as pytest writes it."""
    tally = Tally()
    for case in ElementTree.parse(path).getroot().iter("testcase"):  # noqa: S314 - our own file
        kinds = {child.tag for child in case}
        name = f"{case.get('classname')}::{case.get('name')}"
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
    """What pytest says of a failed test, in one line, for who sees the end of the output alone: its first, or an error
    that Ansible names in what the test shows of its output."""
    told = next((child.get("message") or "" for child in case if child.tag in ("failure", "error")), "")
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    chosen = [line for line in lines if line.startswith("[ERROR]")] or lines
    return f": {chosen[0][:FAILURE_LENGTH]}" if chosen else ""


def ansible_failures(text: str) -> list[str]:
    """The failed tasks that a playbook's output names, each with its task: they stand far above the output's end.

    What a playbook ran, another playbook or pytest, is one long line in its output; failures in there count too.
    """
    found = []
    task = ""
    for part in re.split(r"\n|\\n", text):
        if part.startswith("TASK ["):
            task = part.rstrip("* ")
        elif re.match(r"\[ERROR\]|ERROR! |(fatal|failed): \[|FAILED \S+::", part):
            found.append(f"{task}: {part[:FAILURE_LENGTH]}" if task else part[:FAILURE_LENGTH])
    return found[-FAILURES_SHOWN:]


def skip_lines(tally: Tally) -> list[str]:
    return [f"   {count} skipped: {reason}" for reason, count in tally.skipped.most_common()]


def run(stage: str, number: int, command: Command) -> Tally:
    log = LOGS / f"{stage}-{number}.log"
    junit = LOGS / f"{stage}-{number}.xml"
    junit.unlink(missing_ok=True)
    argv = [*command.argv, f"--junitxml={junit}"] if command.pytest else command.argv
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "K8SGU_MIRROR_DIR": str(MIRROR),
        "ANSIBLE_FORCE_COLOR": "0",
        "NO_COLOR": "1",
    }
    print(f"-- {stage}: {command.title} ...", flush=True)
    started = time.monotonic()
    reason = ""
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                argv,
                cwd=command.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status, reason = 124, f" (cut off after {COMMAND_TIMEOUT_S} s)"
        except OSError as error:
            status, reason = 127, f" ({error})"
    took = time.monotonic() - started
    if command.pytest and junit.exists():
        tally = junit_tally(junit, lab_required())
        if status not in (0, 1) or (status == 1 and not tally.failed):
            tally.failed += 1
            tally.failures.append(f"{command.title}: pytest ended with status {status}{reason}")
        if not tally.passed and not tally.failed:
            tally.failed += 1
            tally.failures.append(f"{command.title}: no test ran")
    else:
        tally = Tally(passed=1) if status == 0 else Tally(failed=1, failures=[f"{command.title}{reason}"])
    verdict = "ok" if not tally.failed else "FAILED"
    skipped = f", {tally.skipped.total()} skipped" if tally.skipped else ""
    told = [f"   {verdict}: {tally.passed} passed, {tally.failed} failed{skipped} in {took:.0f} s"]
    if command.lane:
        told.insert(0, f"   {command.title}:")
    told += skip_lines(tally)
    if tally.failed:
        text = log.read_text(errors="replace")
        told += [f"   | {line}" for line in text.splitlines()[-80:]]
        tally.failures += [f"{command.title}: {failure}" for failure in ansible_failures(text) if not command.pytest]
    # At once, so that the lines of two lanes do not mix.
    print("\n".join(told), flush=True)
    return tally


def run_stage(stage: str, commands: list[Command]) -> Tally:
    lanes: dict[str, list[tuple[int, Command]]] = {}
    for number, command in enumerate(commands, 1):
        lanes.setdefault(command.lane, []).append((number, command))

    def run_lane(lane: list[tuple[int, Command]]) -> Tally:
        tally = Tally()
        for number, command in lane:
            tally.add(run(stage, number, command))
        return tally

    total = Tally()
    with ThreadPoolExecutor(max(len(lanes), 1)) as pool:
        for tally in pool.map(run_lane, lanes.values()):
            total.add(tally)
    return total


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        print(f"run_tests: unknown stage {', '.join(unknown)}; the stages are {', '.join(STAGES)}", file=sys.stderr)
        return 2
    LOGS.mkdir(exist_ok=True)
    total = Tally()
    for stage in names or list(STAGES):
        total.add(run_stage(stage, STAGES[stage]()))
    for line in skip_lines(total):
        print(line)
    for failure in total.failures:
        print(f"FAILED {failure}")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
