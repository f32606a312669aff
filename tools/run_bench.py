"""Runs the project's benchmarks and prints their numbers with the project's promises.

    python tools/run_bench.py               all of them, the cluster's last
    python tools/run_bench.py mirror lab    those whose name contains one of these words
    python tools/run_bench.py mirror --from-nothing    with an option of that benchmark

A benchmark is a program named bench_*.py that prints its numbers and exits with status 1 if it misses a promise.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    ROOT / "lab" / "benchmarks",
    ROOT / "collections" / "ansible_collections" / "k8sgu" / "cluster" / "tests" / "benchmarks",
    ROOT / "tools" / "benchmarks",
)


def main(arguments: list[str]) -> int:
    words = [word for word in arguments if not word.startswith("-")]
    options = [word for word in arguments if word.startswith("-")]
    found = [path for folder in FOLDERS for path in sorted(folder.glob("bench_*.py"))]
    chosen = [path for path in found if not words or any(word in path.name for word in words)]
    if not chosen:
        names = ", ".join(path.stem for path in found)
        print(f"run_bench: no benchmark is named after {' '.join(words)}; there are {names}", file=sys.stderr)
        return 2
    missed = []
    for path in chosen:
        print(f"== {path.stem}", flush=True)
        began = time.monotonic()
        status = subprocess.run([sys.executable, str(path), *options], cwd=ROOT, check=False).returncode
        print(f"   {time.monotonic() - began:.0f} s", flush=True)
        if status:
            missed.append(path.stem)
    print(f"missed a promise or failed: {', '.join(missed)}" if missed else "every promise kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
