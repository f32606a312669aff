# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a kubeconfig (https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/) for one connection."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import proxy_rules
from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.proxy_rules import Proxy
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import yaml_text
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError


@dataclass(frozen=True)
class Access:
    """The API server's address and the credentials for it; `path` is the kubeconfig, for messages."""

    path: str
    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext
    server_name: str
    token: str
    proxy: Proxy | None = None


def load(path: str, context: str | None) -> Access:
    """Reads the file and the certificates that it contains or names. Raises KubernetesError."""
    try:
        raw = yaml_text.secret_document(Path(path).read_text(encoding="utf-8"), f"kubeconfig: {path}")
    except FileNotFoundError as error:
        raise KubernetesError(
            f"kubeconfig: {path} does not exist; run the playbook pki first, or name another file"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise KubernetesError(f"kubeconfig: {path} cannot be read: {error}") from error
    if not isinstance(raw, dict) or raw.get("kind") != "Config":
        raise KubernetesError(f"kubeconfig: {path} is not a kubeconfig (kind: Config)")
    return _Reader(path, raw).access(context)


class _Reader:
    def __init__(self, path: str, raw: dict[str, Any]) -> None:
        self.path, self.raw = path, raw

    def fault(self, text: str) -> KubernetesError:
        return KubernetesError(f"kubeconfig: {self.path}: {text}")

    def access(self, wanted: str | None) -> Access:
        name = wanted or self.raw.get("current-context")
        if not name:
            raise self.fault("has no current-context; give the option context")
        context = self._entry("contexts", "context", name)
        cluster = self._entry("clusters", "cluster", context.get("cluster"))
        user = self._entry("users", "user", context.get("user"))
        server = urlsplit(str(cluster.get("server") or ""))
        if server.scheme != "https" or not server.hostname:
            raise self.fault(f"the server {cluster.get('server')!r} is not an https address")
        if any(key in user for key in ("exec", "auth-provider", "username")):
            raise self.fault("only client certificates and tokens are supported; use the cluster's admin.kubeconfig")
        token = str(user.get("token") or "")
        if user.get("tokenFile"):
            token = self._file(user["tokenFile"], "tokenFile").decode().strip()
        return Access(
            self.path,
            server.hostname,
            server.port or 443,
            server.path.rstrip("/"),
            self._tls(cluster, user),
            str(cluster.get("tls-server-name") or ""),
            token,
            self._proxy(cluster),
        )

    def _proxy(self, cluster: dict[str, Any]) -> Proxy | None:
        """The proxy that kubectl would use: the kubeconfig's, regardless of NO_PROXY, or else the environment's."""
        try:
            if cluster.get("proxy-url"):
                return proxy_rules.parse(str(cluster["proxy-url"]), f"proxy-url of {self.path}")
            return proxy_rules.by_environment(str(cluster["server"]), os.environ)
        except proxy_rules.ProxyError as error:
            raise KubernetesError(str(error)) from error

    def _entry(self, section: str, key: str, name: Any) -> dict[str, Any]:
        entries = {
            entry.get("name"): entry.get(key) for entry in self.raw.get(section) or [] if isinstance(entry, dict)
        }
        found = entries.get(name)
        if not isinstance(found, dict):
            raise self.fault(f"has no {key} {name!r}, only {', '.join(map(str, entries)) or 'none'}")
        return found

    def _tls(self, cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
        authority = self._material(cluster, "certificate-authority")
        try:
            tls = ssl.create_default_context(cadata=authority.decode("ascii") if authority else None)
            tls.minimum_version = ssl.TLSVersion.TLSv1_2
        except (ssl.SSLError, UnicodeDecodeError) as error:
            raise self.fault(f"certificate-authority holds no certificate: {error}") from error
        if cluster.get("insecure-skip-tls-verify"):
            raise self.fault("insecure-skip-tls-verify is not supported; give the certificate-authority")
        certificate, key = self._material(user, "client-certificate"), self._material(user, "client-key")
        if certificate and key:
            self._load_pair(tls, certificate + b"\n" + key)
        elif not user.get("token") and not user.get("tokenFile"):
            raise self.fault("the user has neither a client certificate with its key nor a token")
        return tls

    def _load_pair(self, tls: ssl.SSLContext, pem: bytes) -> None:
        """Loads the pair from a file in memory if possible, else a private one: the ssl module reads only files."""
        try:
            if hasattr(os, "memfd_create"):
                handle = os.memfd_create("client", os.MFD_CLOEXEC)
                with os.fdopen(handle, "wb") as stream:
                    stream.write(pem)
                    stream.flush()
                    tls.load_cert_chain(f"/proc/self/fd/{handle}")
                return
            with tempfile.NamedTemporaryFile() as stream:
                stream.write(pem)
                stream.flush()
                tls.load_cert_chain(stream.name)
        except (ssl.SSLError, OSError) as error:
            raise self.fault(f"client-certificate and client-key are not a pair: {error}") from error

    def _material(self, entry: dict[str, Any], key: str) -> bytes:
        inline = entry.get(f"{key}-data")
        if inline:
            try:
                return base64.b64decode(str(inline), validate=True)
            except (binascii.Error, ValueError) as error:
                raise self.fault(f"{key}-data is not base64") from error
        return self._file(entry[key], key) if entry.get(key) else b""

    def _file(self, name: Any, key: str) -> bytes:
        path = Path(self.path).parent / str(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise self.fault(f"{key} {path} cannot be read: {error.strerror}") from error
