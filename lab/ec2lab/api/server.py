"""The HTTP endpoint: handles one request at a time, saves its changes before answering, and undoes a failed one.

It adds two checks of EC2 that moto lacks: client tokens for every call that takes one, and DryRun for every EC2 call.
And it guards S3 (`ec2lab.api.s3`), whose contents are received before a request's turn, and sent after it.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
import socket
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from ec2lab.api import consistency, errors, objects, s3_calls
from ec2lab.api.backends import REGION  # first: it sets what moto reads when imported
from ec2lab.api.errors import S3Error
from ec2lab.api.objects import Body
from ec2lab.api.patches import buckets
from ec2lab.api.s3 import callers, contents, documents, requests
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
    rest: Iterable[bytes] = ()  # of an object's content

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
    return Call(action, parameters, str(environ.get("REQUEST_METHOD", "GET")), service)


@dataclass
class Extra:
    """The part of the state that is not moto's objects."""

    tokens: dict[str, tuple[str, Answer]] = field(default_factory=dict)
    # Injected faults by instance, "network", "power", "disk", and by a bucket's ARN: "refusing".
    faults: dict[str, set[str]] = field(default_factory=dict)


class Api:
    """moto behind one lock, with its state on disk. `changed` is called after every change, outside the lock."""

    def __init__(self, state_file: Path, changed: Callable[[], None]) -> None:
        self.lock = threading.RLock()
        self.changed = changed
        self.extra = Extra()
        self.lag = consistency.Lag()
        self._store = Store(state_file)
        self._objects = objects.use(state_file.with_name("objects"))
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._s3 = create_backend_app("s3")

    def load(self) -> bool:
        """Loads the saved state; False when there is none."""
        with self.lock:
            extra = self._store.load()
            if extra is None:
                return False
            self.extra = extra["lab"]
            self._objects.sweep(buckets.named())
            return True

    def save(self) -> None:
        """Call this under the lock after every change that does not come through a request."""
        self._store.save({"lab": self.extra})

    def _roll_back(self) -> None:
        extra = self._store.roll_back()
        if extra is not None:
            self.extra = extra["lab"]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if requests.concerns(environ, self._moto.infer_service_region_host):
            answer, has_changed = self._answer_s3(environ)
        else:
            call = read_call(environ)
            with self.lock:
                answer, has_changed = self._answer(environ, call)
        if has_changed:
            self.changed()
        start_response(answer.status, answer.headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else itertools.chain([answer.body], answer.rest)

    def _answer_s3(self, environ: dict[str, Any]) -> tuple[Answer, bool]:
        """Receives a content, if there is one, without the lock: it may take minutes."""
        asked, source = requests.take_apart(environ), contents.Source(environ)
        try:
            if not asked.is_content:
                asked.document = contents.read_document(source, asked)
                with self.lock:
                    self._admit(environ, asked)
                    return self._made_s3(environ, asked, None, {})
            contents.length_of(asked)
            with self.lock:
                self._admit(environ, asked)
            with self._objects.receive() as incoming:
                content, checksums = contents.receive(source, asked, incoming)
                with self.lock:
                    answer, has_changed = self._made_s3(environ, asked, content, checksums)
                incoming.kept = has_changed and bool(content.segments)
            return answer, has_changed
        except S3Error as error:
            if error.code != "EntityTooLarge":
                source.drain()
            return Answer(*requests.error_answer(error, asked)), False
        except (ConnectionError, TimeoutError):
            raise  # the client has gone
        except OSError as error:
            log.exception("%s could not be written", asked.resource)
            failed = S3Error("InternalError", 500, f"The lab could not write to its disk: {error.strerror or error}")
        except Exception:
            log.exception("%s %s failed", asked.request.method, asked.resource)
            failed = S3Error("InternalError", 500, "The call failed in the lab; its log says more")
        return Answer(*requests.error_answer(failed, asked)), False

    def _admit(self, environ: dict[str, Any], asked: requests.Asked) -> None:
        """S3Error unless the bucket answers at all, the request is signed, and its caller may do what it asks."""
        if self.extra.faults.get(requests.arn(asked.bucket)):
            raise S3Error("SlowDown", 503, "Please reduce your request rate.")
        callers.authenticate(asked)
        if not asked.is_content:
            contents.check_digests(asked)
        callers.authorize(asked)
        documents.check_document(asked)
        refused = self.lag.refusal(consistency.S3, *s3_calls.call(environ, asked.document))
        if refused:
            raise S3Error(refused.code, int(refused.status.partition(" ")[0]), refused.message)

    def _made_s3(
        self, environ: dict[str, Any], asked: requests.Asked, content: Body | None, checksums: Mapping[str, str]
    ) -> tuple[Answer, bool]:
        changes = pending = asked.request.method not in ("GET", "HEAD")
        buckets.call.content, buckets.call.refused = content, callers.refused_deletions(asked)
        try:
            answer = self._run_moto(requests.for_moto(environ, asked, checksums), self._s3)
            if callers.hides_absence(asked, answer.code, answer.body):
                raise S3Error("AccessDenied", 403, "Access Denied")
            if answer.code < 400 and self.lag.calls and not asked.key:
                answer = self._shown(answer, consistency.S3, *s3_calls.call(environ, asked.document))
            if not changes or answer.code >= 400:
                return answer, False
            if asked.request.method == "DELETE" and not asked.key and not asked.names:
                self.extra.faults.pop(requests.arn(asked.bucket), None)
            self._objects.sync()
            self.save()
            pending = False
            return answer, True
        finally:
            buckets.call.content, buckets.call.refused = None, frozenset()
            if pending:
                self._roll_back()
            if changes:
                self._objects.sweep(buckets.named())

    def _answer(self, environ: dict[str, Any], call: Call) -> tuple[Answer, bool]:
        refused = self.lag.refusal(call.service, call.action, call.parameters)
        if refused:
            body = consistency.document(call.service, refused)
            return Answer(
                "400 Bad Request", [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))], body
            ), False
        answer, has_changed = self._made(environ, call)
        if answer.code < 400:
            answer = self._shown(answer, call.service, call.action, call.parameters)
        return answer, has_changed

    def _shown(self, answer: Answer, service: str, action: str, parameters: Mapping[str, str]) -> Answer:
        """The answer without what is not known everywhere yet."""
        whole = answer.body + b"".join(answer.rest)
        body = self.lag.answered(service, action, parameters, whole)
        headers = answer.headers
        if body != whole:
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        return Answer(answer.status, headers, body)

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

    def _run_moto(self, environ: dict[str, Any], app: Callable[..., Any] | None = None) -> Answer:
        started: list[Any] = []
        written: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            started[:] = [status, headers]
            return written.append

        parts = (app or self._moto)(environ, start_response)
        pieces = iter(parts)
        # The first piece opens the files of an object's content: the rest can be read after the lock is released.
        answer = Answer(started[0], started[1], b"".join(written) + next(pieces, b""), _to_the_end(pieces, parts))
        if app is None or answer.code >= 300 or environ["REQUEST_METHOD"] != "GET":
            answer = Answer(answer.status, answer.headers, answer.body + b"".join(answer.rest))
        if answer.code >= 500:
            log.error(
                "%s %s: moto failed: %s", environ.get("REQUEST_METHOD"), environ.get("PATH_INFO"), answer.body[:2000]
            )
            if app is not None:
                raise S3Error("InternalError", 500, "The lab met an error of its own; its log says more")
            return refusal("InternalError", "The lab met an error of its own; its log says more", 500)
        return answer


def _to_the_end(pieces: Iterator[bytes], parts: Any) -> Iterator[bytes]:
    try:
        yield from pieces
    finally:
        close = getattr(parts, "close", None)
        if close:
            close()


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


class _InsecureHandler(_Handler):
    """For a connection to AWS's own names without TLS."""

    def make_environ(self) -> dict[str, Any]:
        return {**super().make_environ(), requests.INSECURE: True}


def serve_connection(server: BaseWSGIServer, connection: socket.socket, client: Any, secure: bool) -> None:
    """Answers on a connection that another server has accepted; `client` is where it comes from."""
    (_Handler if secure else _InsecureHandler)(connection, client, server)


def listen(api: Api, host: str, port: int, fd: int | None = None) -> BaseWSGIServer:
    """A server of the API on `host` and `port`, or on the listening socket `fd`."""
    server = make_server(host, port, api, threaded=True, request_handler=_Handler, fd=fd)
    server.daemon_threads = True  # type: ignore[attr-defined]
    return server


def start(server: BaseWSGIServer, name: str) -> None:
    threading.Thread(target=server.serve_forever, name=name, daemon=True).start()


__all__ = ["REGION", "Answer", "Api", "Call", "Extra", "listen", "read_call", "refusal", "serve_connection", "start"]
