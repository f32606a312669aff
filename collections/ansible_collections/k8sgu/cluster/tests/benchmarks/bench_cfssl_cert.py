"""cfssl_cert against the real cfssl and cfssljson on the same twenty certificates.

    .venv/bin/python collections/ansible_collections/k8sgu/cluster/tests/benchmarks/bench_cfssl_cert.py [--rounds N]

Promised, and the exit status says whether it holds:

- one task of ours takes at most a fifth of the time of a playbook that calls cfssl and cfssljson twenty times;
- its own work, without Ansible's start-up, at most that of a shell loop over the two;
- with nothing to do at most 0.2 s.

Every number is the best of the rounds, since other load only adds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

COLLECTIONS = Path(__file__).resolve().parents[5]
COUNT = 20
KEYS: dict[str, dict[str, Any]] = {"ecdsa": {"algo": "ecdsa", "size": 256}, "rsa": {"algo": "rsa", "size": 2048}}
CONFIG = {
    "signing": {
        "default": {"expiry": "8760h"},
        "profiles": {
            "kubernetes": {"expiry": "8760h", "usages": ["signing", "key encipherment", "server auth", "client auth"]}
        },
    }
}
# What Ansible's start-up leaves: the module's own imports, the library's among them, and its work.
OWN_WORK = """
import json, sys, time
import ansible.module_utils.basic
started = time.perf_counter()
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.cfssl_cert import ensure
changed = ensure(json.load(open(sys.argv[1])))["changed"]
print(json.dumps({"seconds": time.perf_counter() - started, "changed": changed}))
"""


def requests(key: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"node-{number}": {
            "CN": f"system:node:node-{number}",
            "names": [{"O": "system:nodes"}],
            "hosts": [f"node-{number}.example.com", f"10.240.0.{number + 10}", "127.0.0.1"],
            "key": key,
        }
        for number in range(COUNT)
    }


def options(directory: Path, key: dict[str, Any]) -> dict[str, Any]:
    listed = [{"name": name, "csr": csr} for name, csr in requests(key).items()]
    return {
        "path": str(directory),
        "ca": str(directory / "ca.pem"),
        "config": CONFIG,
        "profile": "kubernetes",
        "certificates": listed,
    }


def prepare(directory: Path, key: dict[str, Any]) -> None:
    """A CA, the documents, a playbook of ours and one that calls cfssl, and a shell loop."""
    directory.mkdir(parents=True)
    made = subprocess.run(
        ["cfssl", "gencert", "-initca", "-"],
        input=json.dumps({"CN": "ca", "key": key}).encode(),
        capture_output=True,
        check=True,
    )
    subprocess.run(["cfssljson", "-bare", "ca"], input=made.stdout, cwd=directory, check=True)
    (directory / "config.json").write_text(json.dumps(CONFIG))
    for name, csr in requests(key).items():
        (directory / f"{name}.json").write_text(json.dumps(csr))
    command = (
        "cfssl gencert -ca ca.pem -ca-key ca-key.pem -config config.json -profile kubernetes {0}.json 2>/dev/null"
        " | cfssljson -bare {0}"
    )
    names = " ".join(requests(key))
    (directory / "loop.sh").write_text(f"set -e\nfor name in {names}; do\n{command.format('$name')}\ndone\n")
    play: dict[str, Any] = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    chdir = {"chdir": str(directory)}
    theirs = [{"name": name, "ansible.builtin.shell": {"cmd": command.format(name), **chdir}} for name in requests(key)]
    ours = [{"name": "certificates", "k8sgu.cluster.cfssl_cert": options(directory, key)}]
    (directory / "theirs.yml").write_text(yaml.safe_dump([{**play, "tasks": theirs}]))
    (directory / "ours.yml").write_text(yaml.safe_dump([{**play, "tasks": ours}]))
    (directory / "options.json").write_text(json.dumps(options(directory, key)))


def clear(directory: Path, key: dict[str, Any]) -> None:
    for name in requests(key):
        for suffix in (".pem", "-key.pem", ".csr"):
            (directory / f"{name}{suffix}").unlink(missing_ok=True)


def timed(command: list[str], directory: Path) -> float:
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "PYTHONPATH": str(COLLECTIONS),
    }
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    took = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{command}: {done.stdout}{done.stderr}")
    if command[1] == "-c":
        result = json.loads(done.stdout)
        return float(result["seconds"])
    return took


def measure(directory: Path, key: dict[str, Any], rounds: int) -> dict[str, float]:
    """Best times in seconds."""
    playbook = str(Path(sys.executable).parent / "ansible-playbook")
    own = [sys.executable, "-c", OWN_WORK, "options.json"]
    commands = {
        "playbook calling cfssl": [playbook, "-i", "localhost,", "theirs.yml"],
        "playbook with cfssl_cert": [playbook, "-i", "localhost,", "ours.yml"],
        "shell loop over cfssl": ["bash", "loop.sh"],
        "own work": own,
    }
    best: dict[str, float] = {}
    for _round in range(rounds):
        for what, command in commands.items():
            clear(directory, key)
            best[what] = min(best.get(what, 1e9), timed(command, directory))
        best["own work, nothing to do"] = min(best.get("own work, nothing to do", 1e9), timed(own, directory))
    return best


def verdicts(best: dict[str, float]) -> list[tuple[str, float, float]]:
    """What is promised, what was reached and the limit."""
    return [
        ("one task / playbook calling cfssl", best["playbook with cfssl_cert"] / best["playbook calling cfssl"], 0.2),
        ("own work / shell loop", best["own work"] / best["shell loop over cfssl"], 1.0),
        ("nothing to do, s", best["own work, nothing to do"], 0.2),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="how often everything is measured; the best counts")
    arguments = parser.parse_args()
    missing = [program for program in ("cfssl", "cfssljson") if not shutil.which(program)]
    if missing:
        print(f"bench_cfssl_cert: {', '.join(missing)} not installed (Debian's golang-cfssl)", file=sys.stderr)
        return 2
    held = True
    for name, key in KEYS.items():
        with tempfile.TemporaryDirectory() as parent:
            directory = Path(parent) / "pki"
            prepare(directory, key)
            best = measure(directory, key, arguments.rounds)
        print(f"{name}: {COUNT} certificates")
        for what, seconds in best.items():
            print(f"  {what:<36} {seconds:7.3f} s")
        for what, reached, limit in verdicts(best):
            held = held and reached <= limit
            print(f"  {what:<36} {reached:7.3f}   at most {limit}: {'holds' if reached <= limit else 'MISSED'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
