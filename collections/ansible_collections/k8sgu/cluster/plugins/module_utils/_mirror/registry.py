# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pulls images from a registry: https://github.com/opencontainers/distribution-spec, with token authentication as in
https://distribution.github.io/distribution/spec/auth/token/. Every blob is verified by its digest."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from typing import Any, Callable, Mapping
from urllib.parse import urlencode, urljoin, urlsplit

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import oci
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.transport import (
    Failure,
    Limits,
    download,
    is_loopback,
    open_url,
    read_bounded,
    retrying,
)

_ACCEPT = ", ".join((*oci.INDEXES, *oci.MANIFESTS))
# docker.io is a name; the registry has another address.
_HOSTS = {"docker.io": "registry-1.docker.io"}


def base_url(registry: str) -> str:
    """The address of a registry's API: HTTPS, except for a registry on this machine."""
    url = f"https://{_HOSTS.get(registry, registry)}"
    return url.replace("https:", "http:", 1) if is_loopback(url) else url


class Registry:
    """One repository of a registry. Fetches a token when the registry asks for one, and renews it in time."""

    def __init__(self, registry: str, repository: str, limits: Limits, stop: threading.Event) -> None:
        self._base = base_url(registry)
        self._repository = repository
        self._limits = limits
        self._stop = stop
        self._token = ""
        self._challenge = ""
        self._renew_at = 0.0
        self._lock = threading.Lock()

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """(document, media type) of a tag or digest; verified when the reference is a digest."""
        url = f"{self._base}/v2/{self._repository}/manifests/{reference}"

        def attempt() -> tuple[bytes, str]:
            with self._open(url, {"Accept": _ACCEPT}) as answer:
                return read_bounded(url, answer), str(answer.headers.get("Content-Type", "")).partition(";")[0].strip()

        body, media_type = retrying(self._limits, self._stop, attempt)
        if reference.startswith("sha256:"):
            actual = "sha256:" + hashlib.sha256(body).hexdigest()
            if actual != reference:
                raise MirrorError(f"{url}: has the digest {actual}; it was not used")
        return body, media_type

    def blob(self, digest: str, layout: str, on_progress: Callable[[int, int], None]) -> None:
        """Download a blob into the layout, resuming an interrupted download."""
        path = oci.blob_path(layout, digest)
        if oci.has_blob(layout, digest):
            return
        url = f"{self._base}/v2/{self._repository}/blobs/{digest}"
        download(url, path, digest.partition(":")[2], self._limits, self._stop, on_progress, self._authorization)

    def _authorization(self) -> Mapping[str, str]:
        if self._challenge and time.monotonic() >= self._renew_at:
            self._authenticate(self._challenge)
        with self._lock:
            return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _open(self, url: str, headers: Mapping[str, str], method: str = "GET") -> Any:
        try:
            return open_url(url, self._limits.timeout_s, {**headers, **self._authorization()}, method)
        except Failure as failure:
            challenge = {key.lower(): value for key, value in failure.headers.items()}.get("www-authenticate", "")
            if failure.status != 401 or not challenge:
                raise
            self._authenticate(challenge)
            return open_url(url, self._limits.timeout_s, {**headers, **self._authorization()}, method)

    def _authenticate(self, challenge: str) -> None:
        scheme, _space, rest = challenge.partition(" ")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = fields.get("realm", "")
        if scheme.lower() != "bearer" or not realm:
            raise Failure(f"{self._base}: asks for '{scheme}' authentication, which is not supported", passing=False)
        query = {
            "service": fields.get("service", ""),
            "scope": fields.get("scope", f"repository:{self._repository}:pull"),
        }
        separator = "&" if urlsplit(realm).query else "?"
        url = urljoin(self._base, realm) + separator + urlencode(query)
        with open_url(url, self._limits.timeout_s) as answer:
            body = read_bounded(url, answer)
        try:
            data = json.loads(body)
            token = data.get("token") or data["access_token"]
            lifetime = int(data.get("expires_in") or 60)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise Failure(f"{url}: gave no token", passing=False) from error
        with self._lock:
            self._token = str(token)
            self._challenge = challenge
            self._renew_at = time.monotonic() + 0.8 * lifetime


def resolve(registry: Registry, image: str, tag: str, pinned: str | None) -> tuple[bytes, str, str]:
    """(document, media type, digest) of a tag. Raises MirrorError when the tag is not what is pinned."""
    body, media_type = registry.manifest(tag)
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    if pinned is not None and digest != f"sha256:{pinned}":
        raise MirrorError(f"{image}: its tag now names {digest}, but sha256:{pinned} is pinned; it was not used")
    return body, media_type, digest


def pull(
    registry: Registry,
    layout: str,
    name: str,
    tag: str,
    arches: tuple[str, ...],
    resolved: tuple[bytes, str, str],
    on_progress: Callable[[int, int], None],
) -> str:
    """Pull an image's architectures into a layout and tag it there; returns the digest, which is the registry's."""
    body, media_type, digest = resolved
    document = _object(name, body)
    media_type = str(document.get("mediaType") or media_type)
    oci.put_blob(layout, body)
    if media_type in oci.INDEXES:
        offered: dict[str, str] = {}
        for entry in document.get("manifests", []):
            platform = entry.get("platform", {})
            if platform.get("os") == "linux" and not platform.get("os.version"):
                offered.setdefault(platform.get("architecture"), entry["digest"])
        missing = [arch for arch in arches if arch not in offered]
        if missing:
            raise MirrorError(f"{name}: has no {', '.join(missing)}; it has {', '.join(sorted(map(str, offered)))}")
        for arch in arches:
            inner, _type = registry.manifest(str(offered[arch]))
            oci.put_blob(layout, inner)
            _pull_parts(registry, layout, _object(name, inner), on_progress)
    elif media_type in oci.MANIFESTS:
        _pull_parts(registry, layout, document, on_progress)
        _needed, found = oci.blobs(layout, {"digest": digest, "size": len(body)}, arches)
        if set(arches) - found:
            raise MirrorError(f"{name}: has no {', '.join(sorted(set(arches) - found))}")
    else:
        raise MirrorError(f"{name}: has the unknown media type '{media_type}'")
    oci.set_tag(layout, name, tag, {"mediaType": media_type, "digest": digest, "size": len(body)})
    return digest


def _pull_parts(
    registry: Registry, layout: str, manifest: dict[str, Any], on_progress: Callable[[int, int], None]
) -> None:
    parts = [manifest["config"], *manifest["layers"]]
    total, done = sum(int(part["size"]) for part in parts), 0
    for part in parts:
        before = done
        registry.blob(str(part["digest"]), layout, lambda at, _all, before=before: on_progress(before + at, total))  # type: ignore[misc]
        done += int(part["size"])


def _object(name: str, body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError as error:
        raise MirrorError(f"{name}: its manifest is not JSON") from error
    if not isinstance(data, dict):
        raise MirrorError(f"{name}: its manifest is not a JSON object")
    return data
