"""Runs linters of `make lint` by their titles, for the hooks of .pre-commit-config.yaml.

    python tools/lint.py ruff "ruff format"

What a linter is, and how it is called, is in tools/run_tests.py alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.run_tests import BIN, COMMAND_TIMEOUT_S, lint


def main(titles: list[str]) -> int:
    linters = {command.title: command for command in lint()}
    unknown = [title for title in titles if title not in linters]
    if unknown or not titles:
        missing = f"there is no linter {', '.join(unknown)}" if unknown else "which linter?"
        print(f"lint: {missing}; there are {', '.join(linters)}", file=sys.stderr)
        return 2
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    failed = [
        title
        for title in titles
        if subprocess.run(
            linters[title].argv, cwd=linters[title].cwd, env=environment, timeout=COMMAND_TIMEOUT_S, check=False
        ).returncode
    ]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
