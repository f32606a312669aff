"""Proxy settings for a host behind a proxy: the lab's addresses are the host's own, and no proxy reaches them."""

from __future__ import annotations

from collections.abc import Mapping

from ec2lab import addresses

# The variables that tell programs about proxies; a program started as root needs them too.
ADDRESSES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
EXCEPTIONS = ("NO_PROXY", "no_proxy")
# Programs differ: Go and curl support ranges, Python does not, and only Go excepts loopback by itself.
LOOPBACK = ("localhost", "127.0.0.1")


def exceptions(environment: Mapping[str, str], public_range: str) -> str:
    """The value of NO_PROXY and of no_proxy: what the user has in either, and the lab's API, nodes and services.

    One value for both, since programs differ in which one they prefer.
    """
    theirs = [one.strip() for name in EXCEPTIONS for one in environment.get(name, "").split(",") if one.strip()]
    if "*" in theirs:
        return "*"  # matches everything; most programs require that it stands alone
    return ",".join(dict.fromkeys([*theirs, *LOOPBACK, public_range, *addresses.SERVICES]))


def kept_by_sudo(environment: Mapping[str, str]) -> str:
    """sudo's option that keeps the proxy settings, which sudo drops by default; empty when none are set."""
    names = [name for name in (*ADDRESSES, *EXCEPTIONS) if environment.get(name)]
    return f"--preserve-env={','.join(names)}" if names else ""
