# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Health checks of a component, repeated until they succeed or time out."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH123

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from typing import Callable
from urllib.parse import urlsplit

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import systemd
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError, Health

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
# The pause as a share of the time waited so far: on an overloaded machine, frequent checks delay what they wait for.
_PAUSE_SHARE = 0.1
_HOPELESS_EVERY_S = 0.5
_ATTEMPT_TIMEOUT_S = 5.0
_SHOWN_BYTES = 300
_PATIENCE_S = 20.0


def probe(health: Health, timeout: float = _ATTEMPT_TIMEOUT_S) -> str | None:
    """Makes one attempt; returns None when healthy, otherwise what was found instead."""
    try:
        if health.url:
            return _url(health, timeout)
        if health.tcp:
            host, _colon, port = health.tcp.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout).close()
        elif health.unix:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
                client.settimeout(timeout)
                client.connect(health.unix)
        elif health.command:
            output = systemd.run(health.command, timeout=max(int(timeout), 1))
            if health.expect_body and not re.search(health.expect_body, output):
                return f"its output is {output[:_SHOWN_BYTES]!r}"
    except (OSError, http.client.HTTPException) as error:  # ssl.SSLError is an OSError
        return f"{type(error).__name__}: {error}"
    except ComponentError as error:
        return str(error)
    return None


def works(health: Health, patience: float = _PATIENCE_S) -> bool:
    """Whether the check succeeds within `patience` seconds, since a busy machine may be late with an answer.

    A certificate that is not accepted is no matter of time.
    """
    last = ""

    def attempt(limit: float) -> str | None:
        nonlocal last
        last = probe(health, limit) or ""
        return last or None

    return wait(attempt, patience, lambda: "CERTIFICATE" in last) is None


def presented(health: Health, timeout: float = _ATTEMPT_TIMEOUT_S) -> str | None:
    """Asks each server of `serves` for its certificate; returns None when it is the one in the file.

    Who signed it is not asked: it is compared byte by byte.
    """
    if not health.serves:
        return None
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        if health.cert:
            context.load_cert_chain(health.cert, health.key)
        for one in health.serves:
            with open(one["certificate"], encoding="ascii") as stream:
                first, end, _rest = stream.read().partition(ssl.PEM_FOOTER)
            wanted = ssl.PEM_cert_to_DER_cert(first[first.find(ssl.PEM_HEADER) :] + end)
            host, _colon, port = one["address"].rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), timeout) as connection, context.wrap_socket(
                connection, server_hostname=host.strip("[]")
            ) as secured:
                if secured.getpeercert(binary_form=True) != wanted:
                    return f"{one['address']} presents another certificate than {one['certificate']}"
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _url(health: Health, timeout: float) -> str | None:
    parts = urlsplit(health.url or "")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        import ssl  # takes 20 ms, which only components with TLS need

        context = ssl.create_default_context(cafile=health.ca)
        if health.cert:
            context.load_cert_chain(health.cert, health.key)
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        response = connection.getresponse()
        body = response.read(1 << 20).decode("utf-8", "replace")
    if response.status != health.expect_status:
        return f"HTTP {response.status}: {body[:_SHOWN_BYTES].strip()!r}"
    if health.expect_body and not re.search(health.expect_body, body):
        return f"HTTP {response.status} with the body {body[:_SHOWN_BYTES].strip()!r}"
    return None


def wait(attempt: Callable[[float], str | None], timeout: float, hopeless: Callable[[], bool]) -> str | None:
    """Repeats `attempt` until it returns None or `timeout` (seconds) is over; returns its last result.

    `attempt` gets the seconds that it may take. `hopeless` ends the wait early, for a unit that systemd has given up.
    """
    begun = asked = time.monotonic()
    deadline = begun + timeout
    while True:
        answer = attempt(max(min(_ATTEMPT_TIMEOUT_S, deadline - time.monotonic()), 0.5))
        now = time.monotonic()
        if answer is None or now >= deadline:
            return answer
        if now >= asked + _HOPELESS_EVERY_S:
            if hopeless():
                return answer
            asked = now
        pause = min(max((now - begun) * _PAUSE_SHARE, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        time.sleep(min(pause, max(deadline - now, 0)))
