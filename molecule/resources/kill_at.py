"""Runs a command and kills it, with everything it started, some seconds after a text appeared in its output.

    kill_at.py TEXT SECONDS COMMAND [ARGUMENT ...]

Fails if the command ended before that. What the command started on nodes may continue, as when a user's machine loses
power.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POLL_S = 0.1


def main(text: str, seconds: float, command: list[str]) -> int:
    with tempfile.NamedTemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        while process.poll() is None and text not in Path(output.name).read_text():
            time.sleep(POLL_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        print(Path(output.name).read_text())
    if status != -signal.SIGKILL:
        print(f"kill_at: ended with {status} before it could be killed at {text!r}", file=sys.stderr)
        return 1
    print(f"kill_at: killed {seconds} s after {text!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
