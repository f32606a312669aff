# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the listening sockets of a node, their programs, and whether they answer without TLS."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

# include/net/tcp_states.h: a TCP socket that listens, a UDP socket that is bound and not connected.
STATES = {"tcp": "0A", "udp": "07"}
TLS_ALERT = b"\x15\x03"
# The plain-text answer of Go's TLS servers to plain text; they serve nothing that way.
GO_REFUSAL = b"Client sent an HTTP request to an HTTPS server"
ANSWER_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Listener:
    address: str
    port: int
    program: str
    protocol: str = "tcp"

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.address).is_loopback

    def __str__(self) -> str:
        return f"{self.program} at {self.protocol} {self.address}:{self.port}"


def decode_address(text: str) -> tuple[str, int]:
    """(address, port) of an entry of /proc/net/tcp or tcp6: hexadecimal, 32-bit words in the host's byte order."""
    words, _colon, port = text.partition(":")
    packed = b"".join(bytes.fromhex(words[start : start + 8])[::-1] for start in range(0, len(words), 8))
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address), int(port, 16)


def listening(table: str, protocol: str = "tcp") -> list[tuple[str, int, str]]:
    """(address, port, inode) of every listening socket of a /proc/net/tcp* or udp* table."""
    rows = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == STATES[protocol]:
            rows.append((*decode_address(fields[1]), fields[9]))
    return rows


def socket_programs(proc: Path) -> dict[str, str]:
    """{socket inode: program name} of every process that can be read."""
    programs = {}
    for process in proc.glob("[0-9]*"):
        try:
            name = (process / "comm").read_text().strip()
            # comm has at most 15 characters; the file's name is complete.
            name = Path(os.readlink(process / "exe")).name or name
            descriptors = list((process / "fd").iterdir())
        except OSError:
            continue  # it ended meanwhile
        for descriptor in descriptors:
            # A busy program may close some while they are read; keep the others.
            with contextlib.suppress(OSError):
                found = re.match(r"socket:\[(\d+)\]", os.readlink(descriptor))
                if found:
                    programs[found.group(1)] = name
    return programs


def listeners(proc: Path = Path("/proc"), protocols: tuple[str, ...] = ("tcp",)) -> list[Listener]:
    """Every listening socket of this network namespace. One without a process is the kernel's own."""
    rows: list[tuple[str, str, int, str]] = []
    for protocol in protocols:
        for table in (proc / "net" / protocol, proc / "net" / f"{protocol}6"):
            if table.exists():
                rows += [(protocol, *row) for row in listening(table.read_text(), protocol)]
    programs = socket_programs(proc)
    found = {
        Listener(address, port, programs.get(inode, "kernel"), protocol) for protocol, address, port, inode in rows
    }
    return sorted(found, key=lambda listener: (listener.protocol, listener.port, listener.address))


def plaintext_answer(listener: Listener) -> str:
    """A listener's answer to an HTTP request without TLS; empty if it refuses or does not answer."""
    address = ipaddress.ip_address(listener.address)
    target = ("::1" if address.version == 6 else "127.0.0.1") if address.is_unspecified else listener.address
    try:
        with socket.create_connection((target, listener.port), timeout=ANSWER_TIMEOUT_S) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = connection.recv(512)
    except OSError:
        return ""
    if not answer or answer.startswith((TLS_ALERT, b"SSH-")) or GO_REFUSAL in answer:
        return ""
    return answer[:80].decode("utf-8", "replace")


def plaintext_listeners(found: Iterable[Listener]) -> list[tuple[Listener, str]]:
    """The listeners that answer without TLS, each with the start of its answer."""
    rows = list(found)
    with ThreadPoolExecutor(max_workers=16) as pool:
        answers = list(pool.map(plaintext_answer, rows))
    return [(listener, answer) for listener, answer in zip(rows, answers) if answer]
