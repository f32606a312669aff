# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses the proxy of a request by HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as Go's programs do.

This agrees with kubectl and containerd. Python's urllib supports no ranges as exceptions, and uses a proxy even for
loopback. https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config
"""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import dataclass, field
from typing import Mapping
from urllib.parse import unquote, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


class ProxyError(Exception):
    """The proxy cannot be used. The text never contains its address, which may contain a password."""


@dataclass(frozen=True)
class Proxy:
    """`named` is the setting from which it comes, for messages; `authorization` is a header's value, or empty."""

    host: str
    port: int
    named: str
    authorization: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port} ({self.named})"


def parse(url: str, named: str) -> Proxy:
    """The proxy at `url`, which may lack its scheme as in Go. Raises ProxyError if it is not an http address."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ProxyError(f"{named}: is not the address of a proxy; give http://HOST:PORT")
    if parts.scheme != "http":
        raise ProxyError(
            f"{named}: its scheme is {parts.scheme}, and only http is supported; give http://HOST:PORT, or list in "
            "NO_PROXY what is reached without a proxy"
        )
    authorization = ""
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(credentials.encode()).decode()
    return Proxy(host, port or DEFAULT_PORTS["http"], named, authorization)


def by_environment(url: str, environment: Mapping[str, str]) -> Proxy | None:
    """The environment's proxy for `url`, None if it is reached directly. Raises ProxyError."""
    parts = urlsplit(url)
    names = (f"{parts.scheme.upper()}_PROXY", f"{parts.scheme}_proxy")
    # Go prefers the names in capitals.
    named = next((name for name in names if environment.get(name)), None)
    exceptions = environment.get("NO_PROXY") or environment.get("no_proxy") or ""
    if named is None or excepted(parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme], exceptions):
        return None
    return parse(environment[named], named)


def proxied(url: str, proxy: str, exceptions: str) -> bool:
    """Whether `proxy`, for every address but the comma-separated exceptions, is used for `url`; empty is none."""
    rules = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": exceptions}
    return bool(proxy) and by_environment(url, rules) is not None


def excepted(host: str, port: int, exceptions: str) -> bool:
    """Whether a host is reached without a proxy: loopback always is, others if the comma-separated list has them."""
    host = host.lower().rstrip(".")
    number = address(host)
    if host == "localhost" or (number is not None and number.is_loopback):
        return True
    for entry in (one.strip().lower() for one in exceptions.split(",")):
        if entry == "*":
            return True
        if "/" in entry:
            if number is not None and _in_range(number, entry):
                return True
            continue
        name, wanted = with_port(entry)
        if not name or (wanted and wanted != str(port)):
            continue
        if number is not None:
            if address(name) == number:
                return True
            continue
        # ".example.org" and "*.example.org" match the hosts below it; "example.org" also matches itself.
        name = name[1:] if name.startswith("*.") else name
        if host == name or host.endswith(name if name.startswith(".") else f".{name}"):
            return True
    return False


def address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """`text` as an IP address, None if it is a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _in_range(number: ipaddress.IPv4Address | ipaddress.IPv6Address, entry: str) -> bool:
    try:
        return number in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def with_port(entry: str) -> tuple[str, str]:
    """(host, port or empty) of an exception; an IPv6 address with a port is in brackets."""
    if entry.startswith("["):
        name, _bracket, rest = entry[1:].partition("]")
        return name, rest.lstrip(":")
    if entry.count(":") == 1:
        name, _colon, port = entry.partition(":")
        return name, port
    return entry, ""
