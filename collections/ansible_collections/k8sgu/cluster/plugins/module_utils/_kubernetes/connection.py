# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Opens a TLS connection to the API server, directly or through the kubeconfig's or the environment's proxy."""

from __future__ import annotations

import http.client
import socket
import ssl

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.proxy_rules import Proxy
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import Access

# A proxy answers these while the server behind it is down; any other refusal is final.
_PASSING = (502, 503, 504)


def connect(access: Access, timeout: float) -> ssl.SSLSocket:
    """The caller closes it. Raises OSError if a later attempt may succeed, KubernetesError if the proxy refuses."""
    place = access.proxy or access
    plain = socket.create_connection((place.host, place.port), timeout)
    try:
        # Send small packets at once.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if access.proxy:
            _open_tunnel(plain, access.proxy, access)
        return access.tls.wrap_socket(plain, server_hostname=access.server_name or access.host)
    except BaseException:
        plain.close()
        raise


def _open_tunnel(plain: socket.socket, proxy: Proxy, access: Access) -> None:
    """https://www.rfc-editor.org/rfc/rfc9110#CONNECT"""
    target = f"[{access.host}]:{access.port}" if ":" in access.host else f"{access.host}:{access.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    plain.sendall("\r\n".join([*lines, "", ""]).encode())
    # The server sends nothing before the client does, so this reads no part of the TLS stream.
    response = http.client.HTTPResponse(plain, method="CONNECT")
    try:
        response.begin()
    finally:
        response.close()
    if 200 <= response.status < 300:
        return
    said = f"the proxy {proxy} answers {response.status} {response.reason}"
    if response.status in _PASSING:
        raise OSError(said)
    way_out = "its user and password are wrong or missing" if response.status == 407 else "it refuses this server"
    raise KubernetesError(
        f"the API server https://{target}: {said}: {way_out}; correct {proxy.named}, or name {access.host} in NO_PROXY"
    )
