"""Runs the host's programs; an error includes what the program printed."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from ec2lab.errors import LabError, Timeout


def run(argv: Sequence[str], *, stdin: str | None = None, timeout: float = 30.0, check: bool = True) -> str:
    """Standard output of a program. LabError with its standard error when it fails and `check` is set."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise LabError(f"the program {argv[0]} is missing: `ec2lab doctor` says how to get it") from None
    except subprocess.TimeoutExpired:
        raise Timeout(f"`{shlex.join(argv)}` did not end within {timeout:.0f} s") from None
    if check and done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or "it printed nothing"
        raise LabError(f"`{shlex.join(argv)}` ended with status {done.returncode}: {said}")
    return done.stdout
