"""The time service, asked as a client of RFC 4330 asks."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from ec2lab.services import ntp


def seconds(stamp: bytes) -> float:
    whole, fraction = struct.unpack("!II", stamp)
    return float(whole - ntp.EPOCH_S + fraction / 2**32)


def test_a_client_gets_the_host_s_time() -> None:
    listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind(("127.0.0.1", 0))
    server = ntp.TimeServer(listening, "time under test")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(20)
            client.connect(listening.getsockname())
            client.send(b"noise")
            before = time.time()
            client.send(bytes([4 << 3 | ntp.CLIENT, 0, 6]) + bytes(37) + b"original")
            reply = client.recv(512)
    finally:
        server.close()
    assert len(reply) == 48
    assert (reply[0] >> 6, reply[0] >> 3 & 7, reply[0] & 7, reply[1]) == (0, 4, ntp.SERVER, 3)
    assert reply[24:32] == b"original"
    assert before - 0.001 <= seconds(reply[32:40]) <= seconds(reply[40:48]) <= time.time() + 0.001


@pytest.mark.parametrize("query", [b"", bytes(47), bytes([4 << 3 | ntp.SERVER]) + bytes(47)])
def test_what_is_no_request_is_not_answered(query: bytes) -> None:
    assert ntp.answer(query, 1.0, 1.0) is None
