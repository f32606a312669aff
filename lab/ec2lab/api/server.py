"""The HTTP endpoint: handles one request at a time, saves its changes before answering, and undoes a failed one.

It adds two checks of EC2 that moto lacks: client tokens for every call that takes one, and DryRun for every EC2 call.
"""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ec2lab.api import consistency, errors, s3_calls
from ec2lab.api.backends import REGION  # first: it sets what moto reads when imported
from ec2lab.api.store import Store

# isort: split
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

log = logging.getLogger(__name__)

READING = ("Describe", "Get", "List", "Search", "Lookup", "Head")
# A replay of these is answered from moto's own records (patches.instances), with the present state.
OWN_TOKENS = frozenset({"RunInstances"})
UNCHANGED = "Request would have succeeded, but DryRun flag is set."
TOKENS_KEPT = 2000


@dataclass
class Answer:
    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def code(self) -> int:
        return int(self.status.split(" ", 1)[0])


@dataclass
class Call:
    """What a request asks for, as far as the checks for tokens and DryRun need it."""

    action: str
    parameters: dict[str, str]
    method: str
    service: str

    @property
    def changes(self) -> bool:
        if self.action:
            # AssumeRole and GetSessionToken make keys that later calls are signed with.
            return not self.action.startswith(READING) or self.service == "sts"
        return self.method not in ("GET", "HEAD", "OPTIONS")

    @property
    def dry_run(self) -> bool:
        return self.service == "ec2" and self.parameters.get("DryRun", "").lower() == "true"

    @property
    def token(self) -> str:
        return self.parameters.get("ClientToken", "") if self.service == "ec2" else ""

    @property
    def fingerprint(self) -> str:
        plain = sorted((key, value) for key, value in self.parameters.items() if key not in ("ClientToken", "Version"))
        return hashlib.sha256(repr(plain).encode()).hexdigest()


def signed_service(environ: dict[str, Any]) -> str:
    """The service that a request is signed for, `ec2`; "elasticloadbalancing"; empty when unsigned."""
    try:
        return str(environ["HTTP_AUTHORIZATION"]).split("Credential=", 1)[1].split(",")[0].split("/")[3].lower()
    except (KeyError, IndexError):
        return ""


def read_call(environ: dict[str, Any]) -> Call:
    """Reads the body and puts it back for moto."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    service = signed_service(environ)
    parameters: dict[str, str] = {}
    kind = str(environ.get("CONTENT_TYPE", ""))
    if kind.startswith("application/x-www-form-urlencoded"):
        body = environ["wsgi.input"].read(length) if length else b""
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        parameters = dict(pairs)
        if service == "ec2" and "DryRun" in parameters:
            # moto's own DryRun is missing in some calls and checks too little in others: run the call, then undo it.
            body = urlencode([(name, value) for name, value in pairs if name != "DryRun"]).encode()
            environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = io.BytesIO(body)
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    action = parameters.get("Action") or (target.rsplit(".", 1)[-1] if target else "")
    if service == "s3":
        action, parameters = s3_calls.call(environ, b"")
    return Call(action, parameters, str(environ.get("REQUEST_METHOD", "GET")), service)


@dataclass
class Extra:
    """The part of the state that is not moto's objects."""

    tokens: dict[str, tuple[str, Answer]] = field(default_factory=dict)
    # Injected faults by instance: "network", "power", "disk".
    faults: dict[str, set[str]] = field(default_factory=dict)


class Api:
    """moto behind one lock, with its state on disk. `changed` is called after every change, outside the lock."""

    def __init__(self, state_file: Path, changed: Callable[[], None]) -> None:
        self.lock = threading.RLock()
        self.changed = changed
        self.extra = Extra()
        self.lag = consistency.Lag()
        self._store = Store(state_file)
        self._moto = DomainDispatcherApplication(create_backend_app)

    def load(self) -> bool:
        """Loads the saved state; False when there is none."""
        with self.lock:
            extra = self._store.load()
            if extra is None:
                return False
            self.extra = extra["lab"]
            return True

    def save(self) -> None:
        """Call this under the lock after every change that does not come through a request."""
        self._store.save({"lab": self.extra})

    def _roll_back(self) -> None:
        extra = self._store.roll_back()
        if extra is not None:
            self.extra = extra["lab"]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        call = read_call(environ)
        with self.lock:
            answer, has_changed = self._answer(environ, call)
        if has_changed:
            self.changed()
        start_response(answer.status, answer.headers)
        return [] if call.method == "HEAD" else [answer.body]

    def _answer(self, environ: dict[str, Any], call: Call) -> tuple[Answer, bool]:
        refused = self.lag.refusal(call.service, call.action, call.parameters)
        if refused:
            body = consistency.document(call.service, refused)
            return Answer(
                refused.status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))], body
            ), False
        answer, has_changed = self._made(environ, call)
        if answer.code < 400:
            body = self.lag.answered(call.service, call.action, call.parameters, answer.body)
            if body != answer.body:
                headers = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
                answer = Answer(answer.status, [*headers, ("Content-Length", str(len(body)))], body)
        return answer, has_changed

    def _made(self, environ: dict[str, Any], call: Call) -> tuple[Answer, bool]:
        if not call.changes:
            answer = self._run_moto(environ)
            if call.dry_run and answer.code < 400:
                answer = refusal("DryRunOperation", UNCHANGED, 412)
            return answer, False
        key = f"{call.action}/{call.token}"
        generic = bool(call.token) and call.action not in OWN_TOKENS and not call.dry_run
        if generic and key in self.extra.tokens:
            before, answer = self.extra.tokens[key]
            if before == call.fingerprint:
                return answer, False
            return refusal(
                "IdempotentParameterMismatch",
                "The request uses the same client token as a previous, but non-identical request.",
            ), False
        try:
            answer = self._run_moto(environ)
            if call.dry_run and answer.code < 400:
                answer = refusal("DryRunOperation", UNCHANGED, 412)
            if answer.code >= 400:
                self._roll_back()
                return answer, False
            if generic:
                self.extra.tokens[key] = (call.fingerprint, answer)
                for old in list(self.extra.tokens)[:-TOKENS_KEPT]:
                    del self.extra.tokens[old]
            self.save()
        except OSError as error:  # the state could not be written: nothing has happened
            log.exception("%s: the state could not be written", call.action)
            self._roll_back()
            return refusal("InternalError", f"The lab could not write its state: {error.strerror}", 500), False
        except BaseException:
            log.exception("%s failed", call.action or call.method)
            self._roll_back()
            return refusal("InternalError", f"{call.action} failed in the lab; its log says more", 500), False
        return answer, True

    def _run_moto(self, environ: dict[str, Any]) -> Answer:
        started: list[Any] = []
        written: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            started[:] = [status, headers]
            return written.append

        parts = self._moto(environ, start_response)
        try:
            body = b"".join(written) + b"".join(parts)
        finally:
            close = getattr(parts, "close", None)
            if close:
                close()
        answer = Answer(started[0], started[1], body)
        if answer.code >= 500:
            log.error("%s %s: moto failed: %s", environ.get("REQUEST_METHOD"), environ.get("PATH_INFO"), body[:2000])
            return refusal("InternalError", "The lab met an error of its own; its log says more", 500)
        return answer


def refusal(code: str, message: str, status: int = 400) -> Answer:
    body = errors.document(code, message, str(uuid.uuid4()))
    phrase = {400: "Bad Request", 412: "Precondition Failed", 500: "Internal Server Error"}[status]
    return Answer(
        f"{status} {phrase}", [("Content-Type", "text/xml;charset=UTF-8"), ("Content-Length", str(len(body)))], body
    )


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections open: a playbook makes hundreds of calls
    timeout = 120

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        log.debug("%s %s %s", self.command, self.path, code)

    def log(self, type: str, message: str, *args: Any) -> None:
        log.debug(message, *args)


def listen(api: Api, host: str, port: int, fd: int | None = None) -> BaseWSGIServer:
    """A server of the API on `host` and `port`, or on the listening socket `fd`."""
    server = make_server(host, port, api, threaded=True, request_handler=_Handler, fd=fd)
    server.daemon_threads = True  # type: ignore[attr-defined]
    return server


def start(server: BaseWSGIServer, name: str) -> None:
    threading.Thread(target=server.serve_forever, name=name, daemon=True).start()


__all__ = ["REGION", "Answer", "Api", "Call", "Extra", "listen", "read_call", "refusal", "start"]
