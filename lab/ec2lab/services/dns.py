"""The VPC's name server: answers the names that EC2 gives, and forwards everything else to the host's resolvers.

RFC 1035. Private names are answered here; an unknown name in a private domain does not exist (NXDOMAIN).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

log = logging.getLogger(__name__)

A, PTR, AAAA, ANY = 1, 12, 28, 255
INTERNET = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED = 0, 1, 2, 3, 4
TTL_S = 5  # addresses come and go with instances
FORWARD_TIMEOUT_S = 3.0
PRIVATE_ZONES = ("ec2.internal", "compute.internal", "compute-1.amazonaws.com", "compute.amazonaws.com")
HOST_RESOLVERS = Path("/etc/resolv.conf")

# Name (lower case, without the last dot) -> addresses.
Names = Callable[[], dict[str, list[str]]]


@dataclass(frozen=True)
class Question:
    name: str
    kind: int
    category: int
    end: int  # offset of the first byte after the question


class Malformed(Exception):
    """The message is not a query that can be answered."""


def read_question(message: bytes) -> Question:
    if len(message) < 12 or struct.unpack_from("!H", message, 4)[0] != 1:
        raise Malformed
    labels, position = [], 12
    try:
        while length := message[position]:
            if length > 63:
                raise Malformed
            labels.append(message[position + 1 : position + 1 + length].decode("ascii"))
            position += 1 + length
        kind, category = struct.unpack_from("!HH", message, position + 1)
    except (IndexError, UnicodeDecodeError, struct.error):
        raise Malformed from None
    return Question(".".join(labels).lower(), kind, category, position + 5)


def encode_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"


def reply(query: bytes, question: Question | None, code: int, records: list[tuple[int, bytes]]) -> bytes:
    """An answer; `records` are (type, data) of the name that was asked for."""
    identity, flags = struct.unpack_from("!HH", query)
    flags = 0x8480 | (flags & 0x7900) | code  # response, authoritative, recursion available; opcode and RD as asked
    header = struct.pack("!HHHHHH", identity, flags, 1 if question else 0, len(records), 0, 0)
    body = query[12 : question.end] if question else b""
    for kind, data in records:
        body += struct.pack("!HHHIH", 0xC00C, kind, INTERNET, TTL_S, len(data)) + data
    return header + body


def answer_locally(query: bytes, question: Question, names: dict[str, list[str]]) -> bytes | None:
    """The answer if the name is the lab's own; None: forward the query."""
    if question.category != INTERNET:
        return None
    if addresses := names.get(question.name):
        records = [(A, IPv4Address(address).packed) for address in addresses] if question.kind in (A, ANY) else []
        return reply(query, question, NO_ERROR, records)
    if question.name.endswith(".in-addr.arpa"):
        address = ".".join(reversed(question.name.removesuffix(".in-addr.arpa").split(".")))
        for name, addresses in names.items():
            if address in addresses and name.endswith(".internal"):
                records = [(PTR, encode_name(name))] if question.kind in (PTR, ANY) else []
                return reply(query, question, NO_ERROR, records)
        try:
            private = IPv4Address(address).is_private
        except ValueError:
            private = False
        return reply(query, question, NO_SUCH_NAME, []) if private else None
    ours = question.name in PRIVATE_ZONES or question.name.endswith(tuple(f".{zone}" for zone in PRIVATE_ZONES))
    if ours or (".elb." in question.name and question.name.endswith(".amazonaws.com")):
        return reply(query, question, NO_SUCH_NAME, [])
    return None


def host_resolvers(path: Path = HOST_RESOLVERS) -> list[str]:
    """IPv4 name servers of the host."""
    found = []
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and ":" not in words[1]:
            found.append(words[1])
    return found


def forward(query: bytes) -> bytes | None:
    """The answer of the host's name servers; None when none answers."""
    for server in host_resolvers():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            asked.settimeout(FORWARD_TIMEOUT_S)
            try:
                # A new query id, so that only the answer to this query is accepted.
                identity = secrets.token_bytes(2)
                asked.connect((server, 53))
                asked.send(identity + query[2:])
                while True:
                    said = asked.recv(65535)
                    if said[:2] == identity:
                        return query[:2] + said[2:]
            except OSError:
                continue
    return None


def resolve(query: bytes, names: Names) -> bytes | None:
    """The answer to a query; None when there should be no answer."""
    try:
        question = read_question(query)
    except Malformed:
        return reply(query, None, FORMAT_ERROR, []) if len(query) >= 12 else None
    if query[2] & 0x80:
        return None  # a response: answering it could start a loop
    if query[2] & 0x78:
        return reply(query, question, NOT_IMPLEMENTED, [])
    local = answer_locally(query, question, names())
    if local is not None:
        return local
    return forward(query) or reply(query, question, SERVER_FAILURE, [])


class NameServer:
    """Serves one VPC on a UDP and a TCP socket."""

    def __init__(self, udp: socket.socket, tcp: socket.socket, names: Names, name: str) -> None:
        self._udp, self._tcp, self._names = udp, tcp, names
        self._pool = ThreadPoolExecutor(max_workers=16, thread_name_prefix=name)
        self._open = True
        tcp.listen(32)
        for body in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=body, name=name, daemon=True).start()

    def _serve_udp(self) -> None:
        while self._open:
            try:
                query, sender = self._udp.recvfrom(4096)
                self._pool.submit(self._answer_udp, query, sender)
            except (OSError, RuntimeError):
                if not self._open:
                    return

    def _answer_udp(self, query: bytes, sender: tuple[str, int]) -> None:
        try:
            answer = resolve(query, self._names)
            if answer is not None:
                self._udp.sendto(answer, sender)
        except OSError:
            log.debug("an answer to %s was lost", sender, exc_info=True)
        except Exception:
            log.exception("a query of %s failed", sender)

    def _serve_tcp(self) -> None:
        while self._open:
            try:
                connection, _sender = self._tcp.accept()
                self._pool.submit(self._answer_tcp, connection)
            except (OSError, RuntimeError):
                if not self._open:
                    return

    def _answer_tcp(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            try:
                with connection.makefile("rb") as stream:
                    while len(prefix := stream.read(2)) == 2:
                        query = stream.read(struct.unpack("!H", prefix)[0])
                        answer = resolve(query, self._names)
                        if answer is None:
                            return
                        connection.sendall(struct.pack("!H", len(answer)) + answer)
            except OSError:
                return

    def close(self) -> None:
        self._open = False
        for each in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
