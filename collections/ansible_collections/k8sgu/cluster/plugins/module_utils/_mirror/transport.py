# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP for the mirror: verified, with timeouts and retries; interrupted downloads are resumed."""

# Paths come and go as text here.
# ruff: noqa: PTH103, PTH105, PTH108, PTH116, PTH120, PTH123
from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Callable, Mapping
from urllib.parse import urlsplit

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import sha256_of, sync_directory
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import (
    MirrorError,
    Unavailable,
    storage_errors,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.files import CHUNK, sync_file

AGENT = "k8sgu-mirror"
# Statuses that may change after a moment.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_SMALL = 8 << 20


@dataclass(frozen=True)
class Limits:
    """timeout_s: silence after which a connection counts as broken. attempts: how often to try in all."""

    timeout_s: float = 30.0
    attempts: int = 5
    pause_s: float = 1.0


class Failure(Exception):
    """A failed attempt; `passing` says whether another attempt may succeed."""

    def __init__(self, message: str, passing: bool, status: int = 0, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.passing = passing
        self.status = status
        self.headers = headers or {}


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from HTTPS to plain HTTP, and sends no credentials to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise Failure(f"{req.full_url}: redirects to {newurl}, which is not HTTPS", passing=False)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and urlsplit(newurl).netloc != urlsplit(req.full_url).netloc:
            request.remove_header("Authorization")
        return request


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def open_url(url: str, timeout: float, headers: Mapping[str, str] | None = None, method: str = "GET") -> Any:
    """Send one request and return the answer. Raises Failure. Trusts OpenSSL's CAs (SSL_CERT_FILE sets others)."""
    if urlsplit(url).scheme != "https" and not (urlsplit(url).scheme == "http" and is_loopback(url)):
        raise Failure(f"{url}: is not an https address", passing=False)
    request = urllib.request.Request(url, headers={"User-Agent": AGENT, **(headers or {})}, method=method)  # noqa: S310
    handlers: list[Any] = [_SafeRedirects, urllib.request.HTTPSHandler(context=ssl.create_default_context())]
    if is_loopback(url):
        handlers.append(urllib.request.ProxyHandler({}))  # otherwise the environment's proxies would be used
    opener = urllib.request.build_opener(*handlers)
    try:
        return opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            raise Failure(
                f"{url}: {error.code} {error.reason}", error.code in _PASSING, error.code, dict(error.headers.items())
            ) from error
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Failure(f"{url}: its certificate is not trusted: {reason.verify_message}", passing=False) from error
        raise Failure(f"{url}: {reason}", passing=True) from error
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"{url}: {error or type(error).__name__}", passing=True) from error


def retrying(limits: Limits, stop: threading.Event, attempt: Callable[[], Any]) -> Any:
    """The result of `attempt`, repeated after a passing Failure with doubling pauses. Raises Unavailable."""
    pause = limits.pause_s
    for number in range(1, limits.attempts + 1):
        try:
            return attempt()
        except Failure as failure:
            if not failure.passing:
                raise Unavailable(str(failure)) from failure
            if number == limits.attempts:
                raise Unavailable(f"{failure} ({number} attempts)") from failure
        if stop.wait(pause):
            raise MirrorError("stopped, since another part failed")
        pause = min(pause * 2, 30.0)
    raise AssertionError("a loop over at least one attempt")


def read_small(url: str, limits: Limits, stop: threading.Event, headers: Mapping[str, str] | None = None) -> bytes:
    """The body of a small answer, such as a file of checksums. Raises Unavailable."""

    def attempt() -> bytes:
        with open_url(url, limits.timeout_s, headers) as answer:
            return read_bounded(url, answer)

    body: bytes = retrying(limits, stop, attempt)
    return body


def read_bounded(url: str, answer: Any) -> bytes:
    try:
        body: bytes = answer.read(_SMALL + 1)
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"{url}: broke off: {error or type(error).__name__}", passing=True) from error
    if len(body) > _SMALL:
        raise Failure(f"{url}: is larger than {_SMALL} bytes, too large for a file of this kind", passing=False)
    return body


def answers(url: str, timeout: float) -> str:
    """Empty when the server of `url` answers (also if it refuses anonymous access), otherwise why not."""
    try:
        with open_url(url, timeout, method="HEAD"):
            return ""
    except Failure as failure:
        return "" if failure.status in (401, 405) else str(failure)


def download(
    url: str,
    path: str,
    sha256: str,
    limits: Limits,
    stop: threading.Event,
    on_progress: Callable[[int, int], None],
    headers: Callable[[], Mapping[str, str]] = dict,
) -> None:
    """Download `url` to `path` and verify it. Resumes what a failed or killed run left in `path`.part.

    on_progress gets the bytes so far and the total (0: unknown). Raises MirrorError; `path` exists only when complete.
    """
    part = path + ".part"
    resumed = _size(part) > 0

    def attempt() -> None:
        _transfer(url, part, limits.timeout_s, stop, on_progress, headers())

    with storage_errors(part):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        retrying(limits, stop, attempt)
        actual = sha256_of(part)
        if actual != sha256 and resumed:
            # The resumed part may be outdated, or the server may have miscounted: try once more from the start.
            os.unlink(part)
            retrying(limits, stop, attempt)
            actual = sha256_of(part)
        if actual != sha256:
            os.unlink(part)
            raise MirrorError(
                f"{url}: has the sha256 {actual}, but {sha256} is pinned; the file was removed. Its "
                "publisher changed it, or something in between did: find out which before you change the pin"
            )
        sync_file(part)
        os.replace(part, path)
        sync_directory(os.path.dirname(path))


def _transfer(
    url: str,
    part: str,
    timeout: float,
    stop: threading.Event,
    on_progress: Callable[[int, int], None],
    headers: Mapping[str, str],
) -> None:
    offset = _size(part)
    wanted = {**headers, **({"Range": f"bytes={offset}-"} if offset else {})}
    try:
        answer = open_url(url, timeout, wanted)
    except Failure as failure:
        if failure.status == 416 and offset:
            # Nothing follows what is here: it is complete, or not part of this file. The checksum decides.
            total = failure.headers.get("Content-Range", "").rpartition("/")[2]
            if total == str(offset):
                return
            os.unlink(part)
            raise Failure(f"{url}: cannot be resumed", passing=True) from failure
        raise
    with answer:
        if offset and answer.status == 206:
            if not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {offset}-"):
                os.unlink(part)
                raise Failure(f"{url}: did not resume where it was asked to", passing=True)
        else:
            offset = 0
        length = answer.headers.get("Content-Length")
        expected = offset + int(length) if length and length.isdigit() else 0
        with open(part, "ab" if offset else "wb") as stream:
            done = offset
            while True:
                if stop.is_set():
                    raise Failure(f"{url}: stopped, since another part failed", passing=False)
                try:
                    chunk = answer.read(CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise Failure(
                        f"{url}: broke off after {done} of {expected or '?'} bytes: {error}", passing=True
                    ) from error
                if not chunk:
                    break
                stream.write(chunk)
                done += len(chunk)
                on_progress(done, expected)
    if expected and done != expected:
        raise Failure(f"{url}: broke off after {done} of {expected} bytes", passing=True)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def probe(addresses: Mapping[str, str], timeout: float) -> dict[str, str]:
    """{publisher: empty when it answers, otherwise why not}; tries one address of each, all at once.

    A name server that does not answer blocks its caller beyond any timeout, so the threads are not waited for.
    """
    results: dict[str, str] = {}

    def ask(publisher: str, url: str) -> None:
        results[publisher] = answers(url, timeout)

    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in addresses.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout + 1
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    silent = f"no answer within {timeout:g} s"
    return {publisher: results.get(publisher, f"{url}: {silent}") for publisher, url in addresses.items()}
