"""Runs code inside a network namespace without moving the caller into it."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ec2lab.errors import LabError

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
Result = TypeVar("Result")


def inside(path: Path, work: Callable[[], Result]) -> Result:
    """Runs `work` in the network namespace at `path` and returns its result; LabError when the namespace is gone.

    It runs in a thread of its own: namespaces are per thread, and a thread that failed to return to its own namespace
    must not be used again.
    """
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(descriptor, CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}", str(path))
            finally:
                os.close(descriptor)
            outcome.append(work())
        except BaseException as error:  # raised in the caller
            failure.append(error)

    thread = threading.Thread(target=body, name=f"netns {path.name}", daemon=True)
    thread.start()
    thread.join()
    if failure:
        if isinstance(failure[0], FileNotFoundError):
            raise LabError(f"the network namespace {path} is gone") from failure[0]
        raise failure[0]
    return outcome[0]


def open_socket(
    path: Path, family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int
) -> socket.socket:
    """A socket bound to an address of the namespace; it stays in it whichever thread uses it."""

    def work() -> socket.socket:
        opened = socket.socket(family, kind)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((address, port))
        except BaseException:
            opened.close()
            raise
        return opened

    return inside(path, work)
