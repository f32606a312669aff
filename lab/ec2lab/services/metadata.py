"""The instance metadata service; only version 2 if the instance requires it.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html

A token is bound to its instance and, as on EC2, is lost when the service restarts: clients fetch a new one on a 401.
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ec2lab.services.http import Handler, Server

LONGEST_TOKEN_S = 21600


@dataclass(frozen=True)
class Metadata:
    """The metadata of one instance; made from the API's objects under its lock."""

    instance_id: str
    enabled: bool
    tokens_required: bool
    hop_limit: int
    values: dict[str, str]  # path below /latest/meta-data/ -> text
    document: dict[str, Any]  # /latest/dynamic/instance-identity/document
    user_data: bytes | None = None


# Returns the instance with a private address, or None.
Lookup = Callable[[str], Metadata | None]


@dataclass
class Tokens:
    """Session tokens, each with its instance and its end."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _held: dict[str, tuple[str, float]] = field(default_factory=dict)

    def issue(self, instance_id: str, seconds: int) -> str:
        token = base64.urlsafe_b64encode(secrets.token_bytes(42)).decode()
        now = time.monotonic()
        with self._lock:
            for old in [key for key, (_owner, until) in self._held.items() if until < now]:
                del self._held[old]
            self._held[token] = (instance_id, now + seconds)
        return token

    def valid(self, token: str, instance_id: str) -> bool:
        with self._lock:
            owner, until = self._held.get(token, ("", 0.0))
        return owner == instance_id and until > time.monotonic()


@dataclass
class Context:
    lookup: Lookup
    tokens: Tokens


class MetadataHandler(Handler):
    @property
    def context(self) -> Context:
        context: Context = self.server.context  # type: ignore[attr-defined]
        return context

    def _instance(self) -> Metadata | None:
        """The caller's metadata; None after the request has been refused."""
        found = self.context.lookup(self.client_address[0])
        if found is None:
            self.answer(404)
        elif not found.enabled:
            self.answer(403)
            found = None
        return found

    def do_PUT(self) -> None:
        instance = self._instance()
        if instance is None:
            return
        # The hop limit applies to this answer and its retransmissions, so close the connection after it.
        self.close_connection = True
        self.connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, instance.hop_limit)
        if self.path != "/latest/api/token":
            self.answer(405)
            return
        # A request that came through a proxy is forged on behalf of somebody else.
        if self.headers.get("X-Forwarded-For"):
            self.answer(403)
            return
        wanted = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not wanted.isdigit() or not 1 <= int(wanted) <= LONGEST_TOKEN_S:
            self.answer(400)
            return
        token = self.context.tokens.issue(instance.instance_id, int(wanted))
        self.answer(200, token.encode(), X_Aws_Ec2_Metadata_Token_Ttl_Seconds=wanted, Connection="close")

    def do_GET(self) -> None:
        instance = self._instance()
        if instance is None:
            return
        token = self.headers.get("X-aws-ec2-metadata-token")
        if (token is None and instance.tokens_required) or (
            token is not None and not self.context.tokens.valid(token, instance.instance_id)
        ):
            self.answer(401)
            return
        found = content(instance, self.path.split("?", 1)[0])
        if found is None:
            self.answer(404)
        else:
            self.answer(200, found)

    do_HEAD = do_GET


def content(instance: Metadata, path: str) -> bytes | None:
    """The answer to a GET; None for a 404. Directories end in a slash in listings."""
    versions = ("latest", "2021-07-15", "2021-03-23", "2020-10-27", "2009-04-04", "1.0")
    parts = [part for part in path.split("/") if part]
    if not parts:
        return "\n".join(sorted(versions)).encode()
    if parts[0] not in versions:
        return None
    rest = parts[1:]
    if not rest:
        return b"dynamic\nmeta-data" + (b"\nuser-data" if instance.user_data else b"")
    if rest == ["user-data"]:
        return instance.user_data or None
    if rest[0] == "dynamic":
        tree = {"dynamic/instance-identity/document": json.dumps(instance.document, indent=2)}
        return _browse(tree, "/".join(rest))
    if rest[0] == "meta-data":
        return _browse(instance.values, "/".join(rest[1:]))
    return None


def _browse(tree: dict[str, str], path: str) -> bytes | None:
    if path in tree:
        return tree[path].encode()
    below = path + "/" if path else ""
    entries: dict[str, None] = {}
    for key in tree:
        if key.startswith(below):
            name, slash, _rest = key[len(below) :].partition("/")
            entries[name + slash] = None
    # A directory may have a listing of its own: that of public-keys/ is "0=NAME".
    for name in [entry[:-1] for entry in entries if entry.endswith("/")]:
        entries.pop(name, None)
    return "\n".join(entries).encode() if entries else None


def serve(listening: socket.socket, lookup: Lookup, tokens: Tokens, name: str) -> Server:
    server = Server(listening, MetadataHandler, Context(lookup, tokens))
    server.start(name)
    return server
