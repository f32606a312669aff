"""What the lab is to a host behind a proxy: addresses of this host, which no proxy reaches."""

from __future__ import annotations

from collections.abc import Mapping

from ec2lab import addresses

# What a program is told of proxies, and what a program that is started as root needs to be told as well.
ADDRESSES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
EXCEPTIONS = ("NO_PROXY", "no_proxy")
# Programs differ: Go's and curl know ranges, Python's do not, and only Go's except loopback by themselves.
LOOPBACK = ("localhost", "127.0.0.1")


def exceptions(environment: Mapping[str, str], public_range: str) -> str:
    """The value of NO_PROXY and of no_proxy: what the user has in either, and the lab's API, nodes and services.

    One value for both, since programs differ in which one they prefer.
    """
    theirs = [one.strip() for name in EXCEPTIONS for one in environment.get(name, "").split(",") if one.strip()]
    if "*" in theirs:
        return "*"  # all there is; for most programs it must stand alone
    return ",".join(dict.fromkeys([*theirs, *LOOPBACK, public_range, *addresses.SERVICES]))


def kept_by_sudo(environment: Mapping[str, str]) -> str:
    """sudo's option that lets the settings through, empty where there are none: sudo drops them."""
    names = [name for name in (*ADDRESSES, *EXCEPTIONS) if environment.get(name)]
    return f"--preserve-env={','.join(names)}" if names else ""
