"""A neighbour of the host that plays the internet."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "203.0.113.2"
PATIENCE_S = 60.0


@contextmanager
def internet(directory: Path) -> Iterator[str]:
    """A namespace with one web server that serves `directory`. Yields its address."""
    directory.mkdir(exist_ok=True)
    namespace, link = f"outside-{os.getpid()}", f"out{os.getpid()}"
    commands = f"""netns add {namespace}
link add {link} type veth peer name eth0 netns {namespace}
address add 203.0.113.1/30 dev {link}
link set {link} up
-n {namespace} address add {ADDRESS}/30 dev eth0
-n {namespace} link set eth0 up"""
    for command in commands.splitlines():
        subprocess.run(["ip", *command.split()], check=True)
    web = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{namespace}", "python3", "-m", "http.server", "-d", str(directory), "80"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _answers():
            assert time.monotonic() < deadline, "the web server outside does not answer"
            time.sleep(0.1)
        yield ADDRESS
    finally:
        web.kill()
        web.wait()
        subprocess.run(["ip", "link", "delete", link], check=True)
        subprocess.run(["ip", "netns", "delete", namespace], check=True)


def _answers() -> bool:
    try:
        with socket.create_connection((ADDRESS, 80), timeout=2):
            return True
    except OSError:
        return False
