"""Progress of slow commands: a line when a stage begins and one every few seconds, no more."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools import progress

ROOT = Path(__file__).resolve().parents[3]
PIP = [("fetching", re.compile("^Collecting ")), ("installing", re.compile("^Installing collected"))]


def test_a_line_where_a_stage_begins_and_then_every_few_seconds() -> None:
    one = progress.Progress(PIP, total=180)
    said = []
    for second in range(60):
        said += [one.line(f"Collecting package-{second}\n", second), one.line("  Downloading it (3 kB)\n", second)]
        said.append(one.tick(second))
    said += [one.line("Installing collected packages: a, b\n", 60), one.tick(75), one.line("Collecting late\n", 76)]
    said += [one.tick(89), one.tick(90), one.tick(190)]
    assert [line for line in said if line] == [
        "   fetching (0:00)",
        "   fetching, 11 of about 180 (0:10)",
        "   fetching, 21 of about 180 (0:20)",
        "   fetching, 31 of about 180 (0:30)",
        "   fetching, 41 of about 180 (0:40)",
        "   fetching, 51 of about 180 (0:50)",
        "   installing (1:00)",
        "   installing (1:30)",
        "   installing (3:10)",
    ]


def test_a_command_that_says_nothing_yet() -> None:
    one = progress.Progress(PIP)
    said = [one.tick(second) for second in (29, 30, 59, 60)]
    assert said == [None, "   begun (0:30)", None, "   begun (1:00)"]


def run(log: Path, program: str) -> subprocess.CompletedProcess[str]:
    options = ["--log", str(log), "--stage", "counting=^[0-9]"]
    return subprocess.run(
        [sys.executable, "tools/progress.py", *options, "--", sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_successful_command_leaves_no_log(tmp_path: Path) -> None:
    done = run(tmp_path / "log", "print(*range(1000), sep='\\n')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "   counting (0:00)\n", "")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_shows_its_end_and_where_the_rest_is(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = run(log, "import sys; print(*range(100), sep='\\n'); sys.exit('no such package')")
    assert done.returncode == 1
    shown = done.stderr.splitlines()
    assert shown[-2:] == ["no such package", f"The whole output is in {log}"]
    assert shown[0] == "81"
    assert len(log.read_text().splitlines()) == 101
