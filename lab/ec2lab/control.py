"""The daemon's control socket: one JSON object per connection in each direction; root only."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ec2lab.errors import LabError

log = logging.getLogger(__name__)
ANSWER_TIMEOUT_S = 90.0

Handle = Callable[[dict[str, Any]], dict[str, Any]]


def serve(path: Path, handle: Handle) -> socket.socket:
    """Listens until the returned socket is closed. A LabError from `handle` is sent to the user as an error."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    listening.listen(16)

    def one(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(ANSWER_TIMEOUT_S)
            try:
                with connection.makefile("rb") as stream:
                    request = json.loads(stream.readline())
                try:
                    answer = handle(request)
                except LabError as error:
                    answer = {"error": str(error)}
                except Exception as error:
                    log.exception("%s failed", request.get("command"))
                    answer = {"error": f"{type(error).__name__}: {error}"}
                connection.sendall(json.dumps(answer).encode() + b"\n")
            except (OSError, ValueError):
                log.debug("a control connection failed", exc_info=True)

    def body() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), name="control", daemon=True).start()

    threading.Thread(target=body, name="control", daemon=True).start()
    return listening


def ask(path: Path, request: dict[str, Any], timeout: float = ANSWER_TIMEOUT_S) -> dict[str, Any]:
    """The daemon's answer; LabError with its message when it refuses or does not answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer: dict[str, Any] = json.loads(stream.readline())
        except (OSError, ValueError) as error:
            raise LabError(f"the lab's daemon does not answer on {path} ({error})") from error
    if "error" in answer:
        raise LabError(str(answer["error"]))
    return answer
