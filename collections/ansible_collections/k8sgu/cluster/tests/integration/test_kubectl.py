# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kubectl as verify calls it, with a real API server and a kubelet that has logs and refuses all else.

That exec and port-forward get an answer is seen on whole clusters, by verify itself.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import api_server
from forward_proxy import ForwardProxy
from test_manifest import client, programs, server

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.kubectl import Kubectl

__all__ = ["client", "programs", "server"]  # fixtures
MERGE = "application/merge-patch+json"


class Kubelet(http.server.BaseHTTPRequestHandler):
    """Answers the API server."""

    def do_GET(self) -> None:
        path, _query, options = self.path.partition("?")
        known = path == "/containerLogs/default/probe/c" and "limitBytes=300" in options
        self.answer(200, b"started\n") if known else self.do_POST()

    def do_POST(self) -> None:
        self.answer(500, b"the runtime is not there")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[int]:
    """Its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*api_server.issue("kubelet", issuer=api_server.issue("ca")).write(tmp_path, "kubelet"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kubelet) as listening:
        listening.socket = context.wrap_socket(listening.socket, server_side=True)
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_address[1]
        listening.shutdown()


@pytest.fixture
def kubectl(server: api_server.ApiServer, client: Client, kubelet: int) -> Iterator[Kubectl]:
    program = api_server.find_program("kubectl", "kubectl")
    if program is None:
        pytest.skip("no mirror with kubectl; fill one with `make up`, or name it in K8SGU_MIRROR_DIR")
    client.request("POST", "/api/v1/nodes", body={"metadata": {"name": "worker"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet}},
    }
    client.request("PATCH", "/api/v1/nodes/worker/status", body={"status": status}, content_type=MERGE)
    spec = {"nodeName": "worker", "containers": [{"name": "c", "image": "none:1"}], "terminationGracePeriodSeconds": 0}
    client.request("POST", "/api/v1/namespaces/default/pods", body={"metadata": {"name": "probe"}, "spec": spec})
    running = {"status": {"phase": "Running"}}
    client.request("PATCH", "/api/v1/namespaces/default/pods/probe/status", body=running, content_type=MERGE)
    yield Kubectl(str(program), str(server.kubeconfig))
    client.request("DELETE", "/api/v1/namespaces/default/pods/probe")
    client.request("DELETE", "/api/v1/nodes/worker")


def test_logs_are_the_kubelets(kubectl: Kubectl) -> None:
    assert kubectl.logs("default", "probe") == "started\n"


def test_refusals_are_explained(kubectl: Kubectl) -> None:
    with pytest.raises(
        KubernetesError, match=r"^kubectl exec: error: .* upgrade connection: the runtime is not there$"
    ):
        kubectl.run_in_pod("default", "probe", "/agnhost", "--version")
    with pytest.raises(KubernetesError, match=r"^kubectl port-forward: .*the runtime is not there"):
        kubectl.fetch("default", "probe", 8080, "/hostname")
    with pytest.raises(KubernetesError, match=r'^kubectl exec: Error from server \(NotFound\): pods "gone" not found$'):
        kubectl.run_in_pod("default", "gone", "true")


def test_the_way_is_the_kubeconfigs(kubectl: Kubectl, tmp_path: Path) -> None:
    config = yaml.safe_load(Path(kubectl.kubeconfig).read_text())
    with contextlib.closing(ForwardProxy(socket.create_server(("127.0.0.1", 0)))) as proxy:
        config["clusters"][0]["cluster"]["proxy-url"] = f"http://127.0.0.1:{proxy.port}"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        assert replace(kubectl, kubeconfig=str(tmp_path / "kubeconfig")).logs("default", "probe") == "started\n"
    server = config["clusters"][0]["cluster"]["server"]
    assert set(proxy.requests) == {f"CONNECT {server.removeprefix('https://')}"}
