# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds out what a TLS server accepts, with hand-made ClientHello messages (RFC 5246 and RFC 8446).

Hand-made, since the node's OpenSSL itself refuses old versions and weak suites, which says nothing about the server.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.listeners import Listener
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.ports import program_rows, serves

TLS11, TLS12, TLS13 = 0x0302, 0x0303, 0x0304
VERSIONS = {0x0301: "TLS 1.0", TLS11: "TLS 1.1", TLS12: "TLS 1.2", TLS13: "TLS 1.3"}
HANDSHAKE, ALERT, SERVER_HELLO = 22, 21, 2
# https://www.iana.org/assignments/tls-parameters/tls-parameters.xhtml#tls-parameters-4
TLS13_SUITES = (0x1301, 0x1302, 0x1303)
# ECDHE with AES-GCM or ChaCha20.
MODERN = (0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9)
# Static RSA with CBC or 3DES, and 3DES with ECDHE.
WEAK = (0x002F, 0x0035, 0x003C, 0x003D, 0x000A, 0xC008, 0xC012)
# ECDHE with CBC, which Go still accepts by default.
CBC = (0xC009, 0xC00A, 0xC013, 0xC014, 0xC023, 0xC027)
# containerd has no setting for its suites; it serves streams on loopback only.
WITHOUT_SETTING = ("container runtime",)
# https://www.iana.org/assignments/tls-parameters/tls-parameters.xhtml#tls-parameters-6
ALERTS = {40: "handshake failure", 70: "protocol version", 71: "insufficient security", 80: "internal error"}
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Answer:
    """`version` and `suite` if the server accepted, `alert` if it refused; otherwise only `error`."""

    version: int = 0
    suite: int = 0
    alert: int = -1
    error: str = ""

    def __str__(self) -> str:
        if self.version:
            return f"agrees to {VERSIONS.get(self.version, hex(self.version))} with suite 0x{self.suite:04X}"
        if self.alert >= 0:
            return f"refuses: {ALERTS.get(self.alert, f'alert {self.alert}')}"
        return self.error or "no answer"


def _extension(number: int, body: bytes) -> bytes:
    return struct.pack(">HH", number, len(body)) + body


def _listed(body: bytes, size: str = ">H") -> bytes:
    return struct.pack(size, len(body)) + body


def client_hello(version: int, suites: Iterable[int]) -> bytes:
    """A record with a ClientHello that offers `version`, and from 1.3 on also 1.2."""
    curves = struct.pack(">3H", 0x001D, 0x0017, 0x0018)
    # ECDSA and RSA (PSS and PKCS 1) with SHA-256 to 512, and with SHA-1, the only one of TLS 1.1.
    algorithms = (0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601, 0x0203, 0x0201)
    extensions = _extension(10, _listed(curves)) + _extension(11, b"\x01\x00")
    if version >= TLS12:
        extensions += _extension(13, _listed(struct.pack(f">{len(algorithms)}H", *algorithms)))
    if version >= TLS13:
        # A key share without a known secret is enough for the server's first message.
        share = struct.pack(">H", 0x001D) + _listed(os.urandom(32))
        extensions += _extension(43, _listed(struct.pack(">2H", TLS13, TLS12), ">B")) + _extension(51, _listed(share))
    numbers = b"".join(struct.pack(">H", suite) for suite in suites)
    body = struct.pack(">H", min(version, TLS12)) + os.urandom(32) + _listed(os.urandom(32), ">B")
    body += _listed(numbers) + b"\x01\x00" + _listed(extensions)
    message = b"\x01" + struct.pack(">I", len(body))[1:] + body
    return struct.pack(">BHH", HANDSHAKE, 0x0301, len(message)) + message


def parse_answer(record: bytes) -> Answer:
    """The first record that a server sends."""
    if len(record) >= 7 and record[0] == ALERT:
        return Answer(alert=record[6])
    if len(record) < 5 + 4 + 2 + 32 + 1 or record[0] != HANDSHAKE or record[5] != SERVER_HELLO:
        return Answer(error=f"is no TLS: {record[:16]!r}" if record else "closed without an answer")
    version = int.from_bytes(record[9:11], "big")
    start = 44 + record[43]
    suite = int.from_bytes(record[start : start + 2], "big")
    rest, place = record[start + 5 :], 0
    while place + 4 <= len(rest):
        number, size = struct.unpack_from(">HH", rest, place)
        if number == 43 and size == 2:
            version = int.from_bytes(rest[place + 4 : place + 6], "big")
        place += 4 + size
    return Answer(version, suite)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            break
        data += more
    return data


def ask(address: str, port: int, version: int, suites: Iterable[int]) -> Answer:
    """The answer of the server at address:port to a ClientHello."""
    try:
        with socket.create_connection((address, port), timeout=TIMEOUT_S) as connection:
            connection.sendall(client_hello(version, suites))
            head = _read(connection, 5)
            size = int.from_bytes(head[3:5], "big") if len(head) == 5 else 0
            # Read one record, and no more if it is not a record (a plain-text answer).
            return parse_answer(head + (_read(connection, size) if head[:1] in (b"\x15", b"\x16") else b""))
    except OSError as error:
        return Answer(error=str(error))


def faults(address: str, port: int, weak: Iterable[int]) -> list[str]:
    """What is wrong with a server's TLS, one phrase each."""
    found = []
    modern = ask(address, port, TLS13, (*TLS13_SUITES, *MODERN))
    if modern.version < TLS12 or modern.suite not in (*TLS13_SUITES, *MODERN):
        found.append(f"its answer to TLS 1.2 or later with modern suites: {modern}")
    for what, answer in (
        ("TLS 1.1", ask(address, port, TLS11, (*CBC[:4], *WEAK))),
        ("TLS 1.2 with weak suites", ask(address, port, TLS12, weak)),
    ):
        if answer.alert < 0:
            found.append(f"its answer to {what}: {answer}")
    return found


def check_tls(table: list[dict[str, Any]], role: str, found: list[Listener], where: str) -> Check:
    """Each listener of a row with encryption tls accepts TLS 1.2 or later with modern suites, and nothing else."""
    rows = [row for row in program_rows(table, role) if row["encryption"] == "tls"]
    asked = [
        (one, (*WEAK, *(() if row["listener"] in WITHOUT_SETTING else CBC)))
        for row in rows
        for one in found
        if serves(row, one)
    ]

    def look(pair: tuple[Listener, tuple[int, ...]]) -> str:
        one, weak = pair
        address = ipaddress.ip_address(one.address)
        target = ("::1" if address.version == 6 else "127.0.0.1") if address.is_unspecified else one.address
        return "; ".join(f"{one}: {fault}" for fault in faults(target, one.port, weak))

    with ThreadPoolExecutor(max_workers=8) as pool:
        wrong = [text for text in pool.map(look, asked) if text]
    return Check(
        "TLS 1.2 or later with modern suites, and nothing else",
        not wrong and bool(asked),
        "TLS 1.2 with ECDHE and GCM or ChaCha20 taken; TLS 1.1, static RSA, CBC and 3DES refused",
        "; ".join(wrong) or f"{len(asked)} listeners, all of them so",
        where,
        "openssl s_client -connect ADDRESS:PORT -tls1_2 -cipher ECDHE+AESGCM:ECDHE+CHACHA20",
    )
