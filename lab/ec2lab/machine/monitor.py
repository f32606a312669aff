"""QEMU's monitor (QMP) and the guest agent (QGA): one JSON object a line in each direction, over a Unix socket.

https://www.qemu.org/docs/master/interop/qmp-spec.html  https://www.qemu.org/docs/master/interop/qemu-ga-ref.html
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ec2lab.errors import LabError

_ids = itertools.count(1)


class MonitorError(LabError):
    """QEMU, or the agent in the guest, refused a command or does not answer."""


class Channel:
    """A connection; `timeout` is for each command."""

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._connection, self._timeout = connection, timeout
        self._buffer = b""

    def call(self, command: str, **arguments: Any) -> Any:
        """What the command returns; MonitorError when it is refused or not answered."""
        mark = next(_ids)
        request = {"execute": command, "arguments": arguments, "id": mark}
        deadline = time.monotonic() + self._timeout
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            while True:
                answer = self._receive(deadline)
                if answer.get("id") == mark:
                    break
        except OSError as error:
            raise MonitorError(f"{command} was not answered ({error})") from error
        if "error" in answer:
            raise MonitorError(f"{command}: {answer['error'].get('desc', answer['error'])}")
        return answer.get("return")

    def greet(self) -> None:
        """QMP's handshake."""
        with contextlib.suppress(OSError):
            self._receive(time.monotonic() + self._timeout)
        self.call("qmp_capabilities")

    def synchronise(self) -> None:
        """Throws away what an earlier, interrupted conversation with the agent left; it has no greeting."""
        mark = next(_ids) + int(time.time())
        deadline = time.monotonic() + self._timeout
        request = {"execute": "guest-sync", "arguments": {"id": mark}}
        try:
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            while self._receive(deadline).get("return") != mark:
                pass
        except OSError as error:
            raise MonitorError(f"the agent in the guest does not answer ({error})") from error

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            self._connection.settimeout(left)
            more = self._connection.recv(65536)
            if not more:
                raise ConnectionError("the connection is closed")
            self._buffer += more
        line, self._buffer = self._buffer.split(b"\n", 1)
        try:
            answer = json.loads(line.lstrip(b"\xff"))
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}


@contextmanager
def connected(directory: Path, name: str, timeout: float) -> Iterator[Channel]:
    """A connection to the socket `name` in `directory`, whose path may be longer than a socket's address can be."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            connection.connect(f"/proc/self/fd/{descriptor}/{name}")
        except OSError as error:
            raise MonitorError(f"{directory / name} takes no connection ({error})") from error
        finally:
            os.close(descriptor)
        yield Channel(connection, timeout)
