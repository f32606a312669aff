# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A TLS connection to the API server: directly, or through the proxy that the kubeconfig or the environment names."""

from __future__ import annotations

import http.client
import socket
import ssl

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.proxy_rules import Proxy
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import Access

# What a proxy answers while the server behind it is not up; any other refusal is its last word.
_PASSING = (502, 503, 504)


def connect(access: Access, timeout: float) -> ssl.SSLSocket:
    """The caller closes it. Raises OSError for what may pass with time, KubernetesError for what the proxy refuses."""
    place = access.proxy or access
    plain = socket.create_connection((place.host, place.port), timeout)
    try:
        # Small packets are sent at once.
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
    # The server says nothing before the client does, so nothing of TLS is read here.
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
        f"the API server https://{target}: {said}: {way_out}; mend {proxy.named}, or name {access.host} in NO_PROXY"
    )
