# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of the API server: one kept-alive connection per thread; retries while it is unreachable or overloaded."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from typing import Any, Callable, Mapping
from urllib.parse import urlencode

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.connection import connect
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import Access

_ATTEMPT_TIMEOUT_S = 20.0
# X509_V_ERR_CERT_HAS_EXPIRED
_HAS_EXPIRED = 10
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
# Statuses that pass by themselves; the server answers 500 while etcd elects a leader or a webhook's pod starts.
_PASSING = (429, 500, 502, 503, 504)


class ApiError(KubernetesError):
    """The server refused a request; `code` is the HTTP status, `reason` and `details` come from the Status object."""

    def __init__(self, method: str, path: str, code: int, status: Mapping[str, Any]) -> None:
        self.code = code
        self.reason = str(status.get("reason") or "")
        self.message = str(status.get("message") or f"HTTP {code}")
        self.details: Mapping[str, Any] = status.get("details") or {}
        super().__init__(f"{method} {path}: {self.message}")


class _HttpsConnection(http.client.HTTPSConnection):
    """Connects through a proxy if there is one, and verifies the certificate for a name other than the address's."""

    def __init__(self, access: Access, timeout: float) -> None:
        super().__init__(access.host, access.port, timeout=timeout, context=access.tls)
        self._access, self._seconds = access, timeout

    def connect(self) -> None:
        self.sock = connect(self._access, self._seconds)


class Client:
    """`patience` is how long a request is retried before it fails, in seconds; the audit log shows the user agent."""

    def __init__(self, access: Access, patience: float, user_agent: str = "k8sgu") -> None:
        self.access, self.patience, self.user_agent = access, patience, user_agent
        self._local = threading.local()
        self._open: list[_HttpsConnection] = []

    def close(self) -> None:
        for connection in self._open:
            connection.close()

    def get(
        self, path: str, query: Mapping[str, str] | None = None, accept: str = "application/json"
    ) -> dict[str, Any]:
        return self.request("GET", path, query, accept=accept)

    def find(self, path: str) -> dict[str, Any] | None:
        """The object at `path`, None if there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        passes: Callable[[ApiError], bool] | None = None,
    ) -> dict[str, Any]:
        """The answer as data. Raises ApiError for a refusal, KubernetesError if there is no answer in time.

        `passes` decides which refusals are retried, by default those that pass by themselves.
        """
        content = self._content(method, path, query, body, content_type, accept, passes)
        return _decoded(content, f"{method} {path}")

    def text(self, path: str) -> str:
        """An answer that is text, such as metrics. Raises as `request`."""
        return self._content("GET", path, accept="text/plain").decode("utf-8", "replace")

    def _content(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        passes: Callable[[ApiError], bool] | None = None,
    ) -> bytes:
        passing = passes or _passes
        target = self.access.prefix + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": accept, "User-Agent": self.user_agent}
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), content_type
        deadline = time.monotonic() + self.patience
        pause = _FIRST_PAUSE_S
        while True:
            try:
                code, content, after = self._exchange(method, target, data, headers)
            except ssl.SSLCertVerificationError as error:
                advice = (
                    "run playbooks/site.yml, which renews certificates, also after all have expired"
                    if error.verify_code == _HAS_EXPIRED
                    else f"does {self.access.path} belong to this cluster?"
                )
                raise KubernetesError(
                    f"{self._server()}: its certificate is not accepted ({error.verify_message}); {advice}"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                # With TLS 1.3 a server refuses a client certificate by a reset during the handshake.
                if time.monotonic() + pause >= deadline:
                    raise KubernetesError(
                        f"{self._server()}: cannot be reached for {self.patience:g} s "
                        f"({type(error).__name__}: {error}); is it running, and is {self.access.path} right?"
                    ) from error
                after = 0.0
            else:
                if code < 300:
                    return content
                refusal = ApiError(method, path, code, _status(content))
                if code == 401:
                    raise KubernetesError(
                        f"{self._server()}: refuses the credentials of {self.access.path}; are they this cluster's? "
                        "If they have expired, playbooks/site.yml renews them"
                    )
                if not passing(refusal) or time.monotonic() + max(pause, after) >= deadline:
                    raise refusal
            time.sleep(max(pause, after))
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _server(self) -> str:
        way = f" through the proxy {self.access.proxy}" if self.access.proxy else ""
        return f"the API server https://{self.access.host}:{self.access.port}{way}"

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, float]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = _HttpsConnection(self.access, min(_ATTEMPT_TIMEOUT_S, max(self.patience, 1.0)))
            self._local.connection = connection
            self._open.append(connection)
        try:
            connection.request(method, target, body=data, headers=dict(headers))
            response = connection.getresponse()
            content = response.read()
        except BaseException:
            connection.close()  # the next attempt opens a new one
            raise
        after = 0.0
        with contextlib.suppress(ValueError):
            after = min(float(response.getheader("Retry-After") or 0), 5.0)
        return response.status, content, after


def _decoded(content: bytes, request: str) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError) as error:
        raise KubernetesError(f"{request}: the answer is not JSON; is that the address of the API server?") from error


def _status(content: bytes) -> dict[str, Any]:
    try:
        status = json.loads(content)
        return status if isinstance(status, dict) else {}
    except ValueError:
        return {"message": content[:300].decode("utf-8", "replace").strip()}


def _passes(refusal: ApiError) -> bool:
    if refusal.code in _PASSING:
        # The server calls this an internal error too, although the object does not fit its kind.
        return "failed to create typed patch object" not in refusal.message
    if refusal.code == 409:
        # Someone else wrote at the same time, which passes; a conflict of field owners does not.
        return not conflicts(refusal) and refusal.reason == "Conflict"
    return lacks_service_account(refusal)


def lacks_service_account(refusal: ApiError) -> bool:
    """Whether a pod's service account does not exist yet, as right after a namespace or a cluster is made."""
    return refusal.code == 403 and "error looking up service account" in refusal.message


def conflicts(refusal: ApiError) -> list[tuple[str, str]]:
    """(field, message) of each conflict of field owners."""
    causes = refusal.details.get("causes") or []
    return [
        (str(cause.get("field")), str(cause.get("message")))
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    ]
