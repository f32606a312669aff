# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of boto3 in this process to a server of this process, handed over without a connection.

A client makes, signs and retries its request, and reads the answer, as always. Left out are a socket, a thread of the
server and two parsers of HTTP for each call, which were half of what tests with thousands of calls took. Programs that
tests start reach the same server by HTTP. So does S3 from here, whose bodies are streams, and so does everything with
K8SGU_TEST_DIRECT_CALLS=0.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.handlers import BUILTIN_HANDLERS

# What a WSGI server calls, by the host and port of its URL.
_applications: dict[str, Callable[[dict[str, Any], Any], Iterable[bytes]]] = {}


def serve(url: str, application: Callable[[dict[str, Any], Any], Iterable[bytes]]) -> None:
    """From now on for every client whose session is made after this module was imported; the others use HTTP."""
    if os.environ.get("K8SGU_TEST_DIRECT_CALLS", "1") != "0":
        _applications[urlsplit(url).netloc] = application


def end(url: str) -> None:
    _applications.pop(urlsplit(url).netloc, None)


class _Body(io.BytesIO):
    """As urllib3 hands over the body of an answer."""

    def stream(self, **_options: Any) -> Iterator[bytes]:
        yield self.read()


def _answer(event_name: str, request: AWSPreparedRequest, **_event: Any) -> AWSResponse | None:
    """botocore's handler before it sends a request; None: send it."""
    parts = urlsplit(request.url)
    application = _applications.get(parts.netloc)
    if application is None or event_name.startswith("before-send.s3."):
        return None
    sent = request.body or b""
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    environ: dict[str, Any] = {
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": parts.scheme,
        "wsgi.input": io.BytesIO(sent.encode("latin-1") if isinstance(sent, str) else sent),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(parts.path).decode("latin-1"),
        "QUERY_STRING": parts.query,
        "REQUEST_URI": target,
        "RAW_URI": target,
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": 0,
        "SERVER_NAME": parts.hostname,
        "SERVER_PORT": str(parts.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": parts.netloc,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = text
    started: list[Any] = []
    try:
        body = b"".join(application(environ, lambda status, headers, _exc=None: started.extend((status, headers))))
    except Exception:
        # As a server does.
        traceback.print_exc()
        return AWSResponse(request.url, 500, {}, _Body())
    status, headers = started[-2:]
    return AWSResponse(request.url, int(status.split()[0]), dict(headers), _Body(body))


# The sessions of botocore that are made later have it.
BUILTIN_HANDLERS.append(("before-send", _answer))
