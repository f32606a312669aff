"""Runs the project's tests stage by stage and ends in the line `N passed, N failed`.

    python tools/run_tests.py             every stage
    python tools/run_tests.py lint unit   these stages

A stage is a list of commands, in lanes: those of one lane run one after another, the lanes side by side. Those of the
lane `next free` are started in their order, two at a time. A pytest
command counts its tests (read from its JUnit file); any other command counts as one test. Full output goes to
.test/<stage>-<n>.log; what failed is also printed, why tests were skipped, and which tests took longest.

The programs of the release after the default one, to which a scenario upgrades its cluster, are built beside the stages
after `artifacts`, in the time that these leave the cores idle.

What runs on real machines is run a second time when it failed: a pytest command its failed tests, a molecule scenario
as a whole. What passes then is counted as passed, and the closing lines name it as retried.

.test/result.json has the counts, the seconds of each stage and the commit. Of all stages on a clean tree it is kept
as k8sgu/test-results/<commit>.json in the user's cache directory.

Tests that miss the lab, or the programs that a cluster is made of, are failures where the lab can be had: as root, or
with K8SGU_REQUIRE_LAB=1. K8SGU_REQUIRE_LAB=0 lets root do without.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ec2lab import host
from ec2lab.errors import LabError
from tools import newest_ansible
from tools.results import (
    Tally,
    ansible_failures,
    cache_directory,
    closing_lines,
    junit_tally,
    result_document,
    skip_lines,
    tree_state,
    write_result,
)

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = ROOT / "collections" / "ansible_collections" / "k8sgu" / "cluster"
BIN = ROOT / ".venv" / "bin"
LOGS = ROOT / ".test"
MIRROR = ROOT / ".cache" / "mirror"
# Integration suites that depend on ansible-core most: each way to a module, and what playbooks and the inventory are to
# Ansible.
NEWEST_SUITES = (
    "cfssl_cert_in_process",
    "compiled",
    "ec2_inventory",
    "in_process",
    "installation",
)
# Unit tests of what calls nothing of Ansible, which the newest one cannot change.
NEWEST_WITHOUT = ("cis", "component", "etcd", "mirror", "reset", "verify", "volume")
# Those that need the programs of two releases.
TWO_RELEASES_SUITES = ("etcd_version",)
SANITY = "ansible-test sanity"
NEXT_RELEASE = "the mirror has the next release too"
# Only in time that nobody else wants, whatever the others' priority is.
IDLE = ("chrt", "--idle", "0", "ionice", "--class", "idle")
# The lane of commands that begin when one of two places is free.
NEXT_FREE, PLACES = "next free", 2
# The longest first, so that both places are taken until the end; with the minutes from the start of the run in which
# each may begin. On a slow machine the run still ends in time, and says what it left out.
SCENARIOS = {"ha": 60, "default": 60, "aws": 76, "docker": 68}
# A stage that hangs must end the run with a reason instead of being cut off from outside.
COMMAND_TIMEOUT_S = 45 * 60
# What goes on beside other stages takes as long as they leave it.
IDLE_TIMEOUT_S = 75 * 60
# No second attempt begins later than this after the start of the run: it must end within the time that a run may take.
# Tests that failed take a few minutes, a scenario half an hour.
RETRY_SCENARIO_UNTIL_S, RETRY_TESTS_UNTIL_S = 60 * 60, 78 * 60
STARTED = time.monotonic()
# The lab and the cluster that a user's shell is pointed at, which tests have nothing to do with.
CHOSEN = ("K8SGU_LAB", "K8SGU_CLUSTER")


@dataclass
class Command:
    """One program of a stage; `cwd` is where it runs, `lane` what it runs after: the lane's commands before it.

    `machines`: it runs on booted machines, so that a failure may be the moment's. `programs` come first on its PATH.
    `goes_on`: the stages after its own do not wait for it; `after` is the title of such a command that has to be over.
    `begins_within`: minutes after the start of the run; it is left out, and named, if it could not begin by then.
    """

    title: str
    argv: list[str]
    cwd: Path = ROOT
    pytest: bool = False
    lane: str = ""
    machines: bool = False
    programs: Path = BIN
    goes_on: bool = False
    after: str = ""
    begins_within: float = float("inf")


class GoingOn:
    """The commands that go on while later stages run."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor()
        self._tallies: dict[str, Future[Tally]] = {}

    def start(self, stage: str, number: int, command: Command) -> None:
        self._tallies[command.title] = self._pool.submit(run, stage, number, command, beside=True)

    def wait(self, title: str) -> None:
        """Until this command is over, if it was started at all."""
        going = self._tallies.get(title)
        if going and not going.done():
            print(f"   waits for: {title}", flush=True)
            going.result()

    def end(self) -> Tally:
        """What all of them came to, when they are over."""
        total = Tally()
        for title, going in self._tallies.items():
            self.wait(title)
            total.add(going.result())
        self._pool.shutdown()
        return total


def suites(names: tuple[str, ...]) -> list[Path]:
    return [COLLECTION / "tests" / "integration" / f"test_{name}.py" for name in names]


def pytest_command(title: str, *paths: Path, workers: int = 0, machines: bool = False, programs: Path = BIN) -> Command:
    existing = [str(path.relative_to(ROOT)) for path in paths if path.is_file() or any(path.rglob("test_*.py"))]
    # A file stays with one worker: its tests share the server or the node that its fixture starts.
    # In the order of their names: by the number of their tests, those with a few that take minutes would be left to one
    # worker at the end.
    parallel = ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder"] if workers else []
    argv = [str(programs / "pytest"), "-q", *parallel, *existing]
    return Command(title, argv, pytest=True, machines=machines, programs=programs)


def lint() -> list[Command]:
    return [
        Command("ruff", [str(BIN / "ruff"), "check", "."]),
        Command("ruff format", [str(BIN / "ruff"), "format", "--check", "."]),
        Command(
            "mypy", [str(BIN / "mypy"), "collections/ansible_collections/k8sgu/cluster/plugins", "lab/ec2lab", "tools"]
        ),
        Command("docs/variables.md is up to date", [str(BIN / "python"), "tools/docs_variables.py", "--check"]),
        Command("CHANGELOG.rst is up to date", [str(BIN / "python"), "tools/docs_changelog.py", "--check"]),
        Command("what pages name is there", [str(BIN / "python"), "tools/docs_links.py"]),
        Command("yamllint", [str(BIN / "yamllint"), "--strict", "."]),
        # Without the default inventory, which asks the lab and so fails where none runs.
        Command(
            "ansible-lint",
            [
                "env",
                "ANSIBLE_INVENTORY=/dev/null",
                "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=false",
                str(BIN / "python"),
                "tools/ansible_lint.py",
                "--offline",
                "--strict",
            ],
            # It takes as long as all others together.
            lane="ansible-lint",
        ),
        # Without rstcheck: Sphinx reads the same pages with warnings as errors.
        Command(
            "antsibull-docs",
            [str(BIN / "antsibull-docs"), "lint-collection-docs", "--plugin-docs", "--skip-rstcheck", str(COLLECTION)],
        ),
        Command("the documentation site", [str(BIN / "python"), "tools/docs_site.py"]),
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
    """It uses one core, and so runs beside the stages that follow.

    Without pylint, half of its time: what that reports of a collection, ruff and mypy do.
    """
    return [Command(SANITY, [str(ROOT / "tools" / "sanity"), "--skip-test", "pylint"], goes_on=True)]


def lab() -> list[Command]:
    """It waits for machines half of the time, and so runs beside the stages that follow."""
    command = pytest_command("the lab", ROOT / "lab" / "tests" / "integration", machines=True)
    command.goes_on = True
    return [command]


def integration() -> list[Command]:
    """Playbooks under tests/integration/targets, each by ansible-test, and pytest suites beside them."""
    tests = pytest_command("integration suites", COLLECTION / "tests" / "integration", workers=2, machines=True)
    tests.argv += [f"--ignore={path.relative_to(ROOT)}" for path in suites(TWO_RELEASES_SUITES)]
    commands = [tests]
    for target in sorted((COLLECTION / "tests" / "integration" / "targets").glob("*/tasks/main.yml")):
        name = target.parent.parent.name
        # One after another, since ansible-test keeps its output in one place; beside the suites, which wait a lot.
        argv = [str(ROOT / "tools" / "integration_target"), name]
        commands.append(Command(f"integration target {name}", argv, lane="targets", after=SANITY))
    return commands


def newest() -> list[Command]:
    """What touches Ansible, under the newest ansible-core and its Python; test_up runs site.yml under it."""
    made = Command("the newest ansible-core is there", [str(BIN / "python"), "tools/newest_ansible.py"])
    try:
        programs = newest_ansible.programs()
    except LabError:
        # Which that command says as well.
        return [made]
    unit_tests = pytest_command("unit tests", COLLECTION / "tests" / "unit", workers=2, programs=programs)
    unit_tests.argv += [f"--ignore={COLLECTION / 'tests' / 'unit' / name}" for name in NEWEST_WITHOUT]
    return [
        made,
        unit_tests,
        pytest_command("integration suites", *suites(NEWEST_SUITES), workers=2, machines=True, programs=programs),
    ]


def next_release(collection: Path = COLLECTION) -> str:
    """The Kubernetes version of the release after the one that clusters have by default; empty if there is none."""
    defaults = yaml.safe_load((collection / "roles" / "cluster_facts" / "defaults" / "main.yml").read_text())
    major, minor = (int(part) for part in defaults["k8sgu_kubernetes_version"].split(".")[:2])
    following = collection / "releases" / f"{major}.{minor + 1}.yml"
    return str(yaml.safe_load(following.read_text())["kubernetes"]) if following.exists() else ""


def artifacts() -> list[Command]:
    """Fills the mirror that tests of whole components and clusters use; with a cold cache the longest stage.

    The next release is only for an upgrade near the end, and what it shares with the first is there by then.
    """
    playbook = [str(BIN / "ansible-playbook"), "-i", "localhost,", "playbooks/artifacts.yml"]
    # With what a bucket for backups needs; which one is told to clusters alone.
    fill = [*playbook, "-e", f"k8sgu_mirror_dir={MIRROR}", "-e", "k8sgu_backup_bucket=tests"]
    following = next_release()
    more = [*IDLE, *fill, "-e", f"k8sgu_kubernetes_version={following}"]
    return [
        Command("the mirror is filled", fill),
        *([Command(NEXT_RELEASE, more, goes_on=True)] if following else []),
    ]


def up() -> list[Command]:
    return [pytest_command("make up and make down", ROOT / "tools" / "tests" / "up", machines=True)]


def molecule() -> list[Command]:
    """Each scenario has a lab of its own. Suites that need two releases are the last, when both are there."""
    names = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")}
    ordered = [name for name in SCENARIOS if name in names] + sorted(names - set(SCENARIOS))
    last = pytest_command("suites of two releases", *suites(TWO_RELEASES_SUITES), machines=True)
    last.lane, last.after = NEXT_FREE, NEXT_RELEASE
    return [
        *(
            Command(
                f"molecule {name}",
                [str(BIN / "molecule"), "test", "-s", name],
                lane=NEXT_FREE,
                machines=True,
                begins_within=SCENARIOS.get(name, 60),
            )
            for name in ordered
        ),
        last,
    ]


STAGES = {
    "sanity": sanity,
    "lint": lint,
    "unit": unit,
    # Before those that wait for machines, so that the next release has their time.
    "artifacts": artifacts,
    "lab": lab,
    "integration": integration,
    "newest-ansible": newest,
    "up": up,
    "molecule": molecule,
}


def lab_required() -> bool:
    return os.environ.get("K8SGU_REQUIRE_LAB", "1" if os.geteuid() == 0 else "0") == "1"


def run(stage: str, number: int, command: Command, beside: bool) -> Tally:
    """Runs a command, and what failed of it once more where that may help; says how it went.

    `beside`: others run at the same time, so that what is said has to name it.
    """
    print(f"-- {stage}: {command.title} ...", flush=True)
    started = time.monotonic()
    tally = attempt(command, LOGS / f"{stage}-{number}")
    latest = RETRY_TESTS_UNTIL_S if command.pytest else RETRY_SCENARIO_UNTIL_S
    if tally.failed and command.machines and time.monotonic() - STARTED < latest:
        print(f"   {command.title}: {tally.failed} failed, once more: {'; '.join(tally.failures)}", flush=True)
        tally = tally.retried_as(
            attempt(command, LOGS / f"{stage}-{number}-again", again=True), whole=not command.pytest
        )
    verdict = "ok" if not tally.failed else "FAILED"
    skipped = f", {tally.skipped.total()} skipped" if tally.skipped else ""
    took = time.monotonic() - started
    told = [f"   {verdict}: {tally.passed} passed, {tally.failed} failed{skipped} in {took:.0f} s"]
    if beside:
        told.insert(0, f"   {command.title}:")
    told += skip_lines(tally)
    if tally.failed:
        told += [f"   | {line}" for line in tally.said.splitlines()[-80:]]
    # At once, so that the lines of two lanes do not mix.
    print("\n".join(told), flush=True)
    return tally


def attempt(command: Command, files: Path, again: bool = False) -> Tally:
    """One run of a command, whose log and JUnit file are `files` with their suffixes; `again`: only what failed."""
    log, junit = Path(f"{files}.log"), Path(f"{files}.xml")
    junit.unlink(missing_ok=True)
    argv = command.argv
    if command.pytest:
        # Each command remembers its own failures, since several run at a time.
        kept = files.with_name(files.name.removesuffix("-again") + ".cache")
        argv = [*argv, f"--junitxml={junit}", "-o", f"cache_dir={kept}", *(["--last-failed"] if again else [])]
    environment = {
        **{name: value for name, value in os.environ.items() if name not in CHOSEN},
        "PATH": ":".join(dict.fromkeys([str(command.programs), str(BIN), os.environ["PATH"]])),
        "K8SGU_MIRROR_DIR": str(MIRROR),
        # Whatever this host would choose: tests that want virtual machines ask for them.
        "EC2LAB_MACHINE": os.environ.get("EC2LAB_MACHINE", "container"),
        "ANSIBLE_FORCE_COLOR": "0",
        "NO_COLOR": "1",
    }
    started = time.monotonic()
    timeout = IDLE_TIMEOUT_S if command.goes_on else COMMAND_TIMEOUT_S
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
                timeout=timeout,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status, reason = 124, f" (cut off after {timeout} s)"
        except OSError as error:
            status, reason = 127, f" ({error})"
    text = log.read_text(errors="replace")
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
        tally.seconds = {command.title: time.monotonic() - started}
        if status and not command.pytest:
            tally.failures += [f"{command.title}: {failure}" for failure in ansible_failures(text)]
    tally.said = text if tally.failed else ""
    return tally


def run_stage(stage: str, commands: list[Command], going_on: GoingOn | None = None) -> Tally:
    """What the stage's commands came to; without those that go on, if `going_on` answers for them."""
    others = going_on or GoingOn()
    lanes: dict[str, list[tuple[int, Command]]] = {}
    for number, command in enumerate(commands, 1):
        lanes.setdefault(command.lane, []).append((number, command))

    waiting = [iter(lane) for lane in lanes.values()]
    if NEXT_FREE in lanes:
        # Several take from one iterator, each the next when it has none.
        waiting += [waiting[list(lanes).index(NEXT_FREE)]] * (PLACES - 1)
    taking = threading.Lock()

    def run_lane(lane: Iterator[tuple[int, Command]]) -> Tally:
        tally = Tally()
        while True:
            with taking:
                number, command = next(lane, (0, None))
            if command is None:
                return tally
            if command.goes_on:
                others.start(stage, number, command)
                continue
            others.wait(command.after)
            late = time.monotonic() - STARTED
            if late > command.begins_within * 60:
                reason = (
                    f"{command.title} could not begin within {command.begins_within} min: {late / 60:.0f} had passed"
                )
                print(f"   {command.title}: skipped, too late to begin", flush=True)
                tally.skipped[reason] += 1
                continue
            tally.add(run(stage, number, command, beside=len(waiting) > 1))

    total = Tally()
    with ThreadPoolExecutor(max(len(waiting), 1)) as pool:
        for tally in pool.map(run_lane, waiting):
            total.add(tally)
    if going_on is None:
        total.add(others.end())
    return total


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in STAGES]
    if unknown:
        print(f"run_tests: unknown stage {', '.join(unknown)}; the stages are {', '.join(STAGES)}", file=sys.stderr)
        return 2
    # Two fifths of the time of two clusters side by side were the kernel's, much of it for switches between processes.
    host.compute_in_turns()
    LOGS.mkdir(exist_ok=True)
    commit, clean = tree_state(ROOT)
    total = Tally()
    stages: dict[str, float] = {}
    going_on = GoingOn()
    for stage in names or list(STAGES):
        began = time.monotonic()
        total.add(run_stage(stage, STAGES[stage](), going_on))
        stages[stage] = time.monotonic() - began
    total.add(going_on.end())
    result = result_document(total, stages, commit, clean)
    write_result(LOGS / "result.json", result)
    # A whole run alone says that a commit is good.
    if clean and commit and set(stages) == set(STAGES):
        write_result(cache_directory() / f"{commit}.json", result)
    print("\n".join(closing_lines(total)))
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
