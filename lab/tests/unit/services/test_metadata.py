"""IMDSv2 as documented; the hop limit is tried across a real hop in the integration tests.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ec2lab.services import metadata
from ec2lab.services.metadata import Metadata, Tokens

TTL = "X-aws-ec2-metadata-token-ttl-seconds"
TOKEN = "X-aws-ec2-metadata-token"


class Service:
    def __init__(self) -> None:
        self.instance: Metadata | None = Metadata(
            instance_id="i-1",
            enabled=True,
            tokens_required=True,
            hop_limit=1,
            values={
                "instance-id": "i-1",
                "placement/region": "us-east-1",
                "iam/info": "{}",
                "public-keys": "0=mine",
                "public-keys/0/openssh-key": "ssh-ed25519 A",
            },
            document={"instanceId": "i-1"},
            user_data=b"#!/bin/sh\n",
        )
        self.tokens = Tokens()
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.server = metadata.serve(listening, lambda _address: self.instance, self.tokens, "imds under test")

    def ask(self, method: str, path: str, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def token(self, seconds: str = "60") -> str:
        status, body = self.ask("PUT", "/latest/api/token", **{TTL: seconds})
        assert status == 200
        return body.decode()


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.server.close()


def test_without_a_token_nothing(service: Service) -> None:
    assert service.ask("GET", "/latest/meta-data/instance-id")[0] == 401
    assert service.ask("GET", "/latest/meta-data/instance-id", **{TOKEN: "guessed"})[0] == 401


def test_with_a_token(service: Service) -> None:
    token = service.token()
    assert service.ask("GET", "/latest/meta-data/instance-id", **{TOKEN: token}) == (200, b"i-1")
    assert service.ask("GET", "/latest/user-data", **{TOKEN: token}) == (200, b"#!/bin/sh\n")
    assert (
        b'"instanceId": "i-1"' in service.ask("GET", "/latest/dynamic/instance-identity/document", **{TOKEN: token})[1]
    )


def test_directories_list_what_is_below(service: Service) -> None:
    token = service.token()
    assert service.ask("GET", "/latest/meta-data/", **{TOKEN: token})[1].splitlines() == [
        b"instance-id",
        b"placement/",
        b"iam/",
        b"public-keys/",
    ]
    # What cloud-init takes the keys' numbers from.
    assert service.ask("GET", "/latest/meta-data/public-keys/", **{TOKEN: token}) == (200, b"0=mine")
    assert service.ask("GET", "/latest/meta-data/public-keys/0/", **{TOKEN: token}) == (200, b"openssh-key")
    assert service.ask("GET", "/latest/meta-data/placement/", **{TOKEN: token}) == (200, b"region")
    assert service.ask("GET", "/latest/meta-data/nothing", **{TOKEN: token})[0] == 404


@pytest.mark.parametrize("seconds", ["", "0", "21601", "many"])
def test_a_token_needs_a_sensible_life(service: Service, seconds: str) -> None:
    assert service.ask("PUT", "/latest/api/token", **{TTL: seconds})[0] == 400


def test_a_forwarded_request_gets_no_token(service: Service) -> None:
    assert service.ask("PUT", "/latest/api/token", **{TTL: "60", "X-Forwarded-For": "10.0.0.1"})[0] == 403


def test_a_token_is_its_instance_s_alone(service: Service) -> None:
    token = service.token()
    assert service.instance is not None
    service.instance = replace(service.instance, instance_id="i-2")
    assert service.ask("GET", "/latest/meta-data/instance-id", **{TOKEN: token})[0] == 401


def test_a_token_ends(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    token = service.token("1")
    now = metadata.time.monotonic()
    monkeypatch.setattr(metadata.time, "monotonic", lambda: now + 2)
    assert not service.tokens.valid(token, "i-1")


def test_tokens_optional(service: Service) -> None:
    assert service.instance is not None
    service.instance = replace(service.instance, tokens_required=False)
    assert service.ask("GET", "/latest/meta-data/instance-id") == (200, b"i-1")
    assert service.ask("GET", "/latest/meta-data/instance-id", **{TOKEN: "wrong"})[0] == 401


def test_switched_off(service: Service) -> None:
    assert service.instance is not None
    service.instance = replace(service.instance, enabled=False)
    assert service.ask("PUT", "/latest/api/token", **{TTL: "60"})[0] == 403


def test_no_instance_at_the_address(service: Service) -> None:
    service.instance = None
    assert service.ask("GET", "/latest/meta-data/")[0] == 404
