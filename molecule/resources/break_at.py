"""Runs a command and breaks something when a text appears in its output: the command must fail, and soon.

    break_at.py TEXT LIMIT_S BREAKER -- COMMAND [ARGUMENT ...]

BREAKER is one shell command line. Prints the command's output and how long it went on after the break.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

POLL_S = 0.1


def main(text: str, limit: float, breaker: str, command: list[str]) -> int:
    with tempfile.NamedTemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        while process.poll() is None and text not in Path(output.name).read_text():
            time.sleep(POLL_S)
        began = time.monotonic()
        subprocess.run(["/bin/sh", "-c", breaker], check=True)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        took = time.monotonic() - began
        print(Path(output.name).read_text())
    print(f"break_at: the command ended with {status} {took:.0f} s after the break")
    if status <= 0:
        print(f"break_at: it should have failed by itself within {limit:.0f} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    head, command = sys.argv[1:4], sys.argv[5:]
    sys.exit(main(head[0], float(head[1]), head[2], command))
