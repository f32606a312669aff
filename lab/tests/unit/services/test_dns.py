"""The name server's answers, message by message (RFC 1035)."""

from __future__ import annotations

import socket
import struct

import pytest

from ec2lab.services import dns

NAMES = {
    "ip-10-240-0-10.ec2.internal": ["10.240.0.10"],
    "demo-api-0123456789abcdef.elb.us-east-1.amazonaws.com": ["10.240.0.5", "10.240.1.5"],
}


def query(name: str, kind: int = dns.A, flags: int = 0x0100) -> bytes:
    return struct.pack("!HHHHHH", 0xBEEF, flags, 1, 0, 0, 0) + dns.encode_name(name) + struct.pack("!HH", kind, 1)


def code_and_count(answer: bytes | None) -> tuple[int, int]:
    assert answer is not None
    identity, flags, _questions, count = struct.unpack_from("!HHHH", answer)
    assert identity == 0xBEEF
    assert flags & 0x8000
    return flags & 0xF, count


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "forward", lambda _query: None)


def test_an_instance_s_name() -> None:
    answer = dns.resolve(query("IP-10-240-0-10.ec2.internal"), lambda: NAMES)
    assert code_and_count(answer) == (dns.NO_ERROR, 1)
    assert answer is not None
    assert answer.endswith(socket.inet_aton("10.240.0.10"))


def test_a_balancer_has_an_address_per_subnet() -> None:
    assert code_and_count(dns.resolve(query(list(NAMES)[1]), lambda: NAMES)) == (dns.NO_ERROR, 2)


def test_a_name_without_ipv6_exists_all_the_same() -> None:
    answer = dns.resolve(query("ip-10-240-0-10.ec2.internal", dns.AAAA), lambda: NAMES)
    assert code_and_count(answer) == (dns.NO_ERROR, 0)


def test_the_reverse_name() -> None:
    answer = dns.resolve(query("10.0.240.10.in-addr.arpa", dns.PTR), lambda: NAMES)
    assert code_and_count(answer) == (dns.NO_ERROR, 1)
    assert answer is not None
    assert dns.encode_name("ip-10-240-0-10.ec2.internal") in answer


def test_private_names_that_are_not_there() -> None:
    for name in ("ip-10-9-9-9.ec2.internal", "gone.elb.us-east-1.amazonaws.com", "9.9.0.10.in-addr.arpa"):
        assert code_and_count(dns.resolve(query(name), lambda: NAMES)) == (dns.NO_SUCH_NAME, 0), name


def test_the_rest_is_asked_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert code_and_count(dns.resolve(query("www.example.com"), lambda: NAMES)) == (dns.SERVER_FAILURE, 0)
    monkeypatch.setattr(dns, "forward", lambda asked: asked[:2] + b"\x81\x80" + asked[4:])
    assert code_and_count(dns.resolve(query("www.example.com"), lambda: NAMES)) == (dns.NO_ERROR, 0)


@pytest.mark.parametrize("message", [b"", b"short", query("a.b")[:-3], b"\xbe\xef\x01\x00" + b"\0" * 8])
def test_nonsense_is_refused(message: bytes) -> None:
    answer = dns.resolve(message, lambda: NAMES)
    if len(message) < 12:
        assert answer is None
    else:
        assert code_and_count(answer)[0] == dns.FORMAT_ERROR


def test_an_answer_is_not_answered() -> None:
    assert dns.resolve(query("ip-10-240-0-10.ec2.internal", flags=0x8180), lambda: NAMES) is None


def test_the_host_s_resolvers(tmp_path: object) -> None:
    from pathlib import Path

    path = Path(str(tmp_path)) / "resolv.conf"
    path.write_text("search example.org\nnameserver 192.0.2.53\nnameserver fe80::1\noptions edns0\n")
    assert dns.host_resolvers(path) == ["192.0.2.53"]
    assert dns.host_resolvers(path.with_name("none")) == []
