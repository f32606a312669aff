"""Runs a command that takes minutes, and reports its progress in plain lines.

    tools/progress.py --log FILE [--total N] --stage LABEL=REGEX ... -- COMMAND ...

A stage begins with the first line of the command's output that matches its REGEX; its lines are counted. A line is
printed when a stage begins and every few seconds; nothing is overwritten, so that it reads the same in a file. The
whole output goes to FILE, which is removed at the end; if the command fails, its end is shown. Needs only Python, since
it also runs before the virtual environment exists.
"""

from __future__ import annotations

import argparse
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

EVERY_S, SAME_S = 10.0, 30.0  # between lines; between lines with an unchanged count
SHOWN_LINES = 20


@dataclass
class Progress:
    """The progress lines of a command, as a function of its output and the time since it began."""

    stages: list[tuple[str, re.Pattern[str]]]
    total: int = 0
    stage: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    said_at: float = 0.0
    said_count: int = 0

    def line(self, text: str, seconds: float) -> str | None:
        """The progress line after this line of output, if there is one to print."""
        found = next((label for label, pattern in self.stages if pattern.search(text)), None)
        if found is None:
            return None
        self.counts[found] = self.counts.get(found, 0) + 1
        if found == self.stage:
            return None
        # Programs mix their stages; never go back to an earlier one.
        labels = [label for label, _pattern in self.stages]
        if self.stage and labels.index(found) < labels.index(self.stage):
            return None
        self.stage = found
        return self._say(seconds)

    def tick(self, seconds: float) -> str | None:
        """The progress line after this time, if there is one to print."""
        wait = EVERY_S if self.counts.get(self.stage, 0) != self.said_count else SAME_S
        return self._say(seconds) if seconds - self.said_at >= wait else None

    def _say(self, seconds: float) -> str:
        count = self.counts.get(self.stage, 0)
        self.said_at, self.said_count = seconds, count
        of = f" of about {self.total}" if self.total and count > 1 else ""
        counted = f", {count}{of}" if count > 1 else ""
        return f"   {self.stage or 'begun'}{counted} ({int(seconds) // 60}:{int(seconds) % 60:02d})"


def run(command: list[str], progress: Progress, log: Path, say: Callable[[str], None]) -> int:
    """Runs the command and returns its exit status. If it failed, both streams of its output are in `log`."""
    began = time.monotonic()
    lines: queue.Queue[str | None] = queue.Queue()
    with log.open("w") as kept, subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:

        def read() -> None:
            for text in process.stdout or ():
                lines.put(text)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        while True:
            try:
                text = lines.get(timeout=1.0)
            except queue.Empty:
                text = ""
            if text is None:
                break
            kept.write(text)
            seconds = time.monotonic() - began
            said = progress.line(text, seconds) or progress.tick(seconds)
            if said:
                say(said)
    if process.returncode == 0:
        log.unlink()
    return process.returncode


def stage(text: str) -> tuple[str, re.Pattern[str]]:
    label, _, pattern = text.partition("=")
    return label, re.compile(pattern)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--total", type=int, default=0)
    parser.add_argument("--stage", type=stage, action="append", default=[], metavar="LABEL=REGEX")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    status = run(given.command, Progress(given.stage, given.total), given.log, lambda text: print(text, flush=True))
    if status:
        lines = given.log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
        print("\n".join([*lines, f"The whole output is in {given.log}"]), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
