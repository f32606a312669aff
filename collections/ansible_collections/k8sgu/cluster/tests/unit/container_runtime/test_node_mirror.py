# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mirror on the first control-plane node: what `component` places there, and the program that serves it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import importlib.machinery
import importlib.util
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import fetch
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import Artifact, Component, ComponentError
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.prepare import Mirror, prepare, validate_options
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import oci
from ansible_collections.k8sgu.cluster.tests.unit.mirror.mirror_support import make_certificate

PROGRAM = Path(__file__).resolve().parents[3] / "roles" / "container_runtime" / "files" / "k8sgu-mirror"
TOOL = b"a program" * 100_000
IMAGES = {"registry.k8s.io/team/box:1.0": b"one", "docker.io/team/box:1.0": b"two"}
FILE = "files/tool/1.0/amd64/tool"


def fill(directory: Path) -> Mirror:
    """A mirror with a program and two images, of the same repository and tag in two registries."""
    path = directory / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(TOOL)
    images = []
    for name, content in IMAGES.items():
        layout = f"images/{name.rpartition(':')[0]}"
        layer = oci.Layer(files={"/file": (content, 0o644)})
        digest = oci.write_image(str(directory / layout), name, "1.0", {"amd64": (layer, {})})
        images.append({"name": name, "path": layout, "arches": ["amd64"], "digest": digest, "source": "build"})
    sha256 = hashlib.sha256(TOOL).hexdigest()
    file = {"component": "tool", "name": "tool", "version": "1.0", "arch": "amd64", "path": FILE, "source": "build"}
    files = [{**file, "sha256": sha256, "size": len(TOOL)}]
    (directory / "manifest.json").write_text(json.dumps({"schema": 1, "files": files, "images": images}))
    return Mirror(str(directory))


def described(mirror: Mirror, files: list[str], images: list[str]) -> Component:
    content = {"directory": "/content", "index": "/index.json", "files": files, "images": images}
    options = validate_options({"components": [{"name": "mirror", "content": content}]})
    [component] = prepare(options["components"], mirror, lambda: "amd64", lambda _entry: b"")
    return component


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, ModuleType, Path]]:
    """(port, the program as a module, the CA) of a server of the whole mirror."""
    component = described(fill(tmp_path / "mirror"), [FILE], list(IMAGES))
    content = tmp_path / "content"
    content.mkdir()
    for artifact in component.artifacts:
        assert artifact.path == f"/content/{artifact.sha256}"
        data = (tmp_path / "mirror" / artifact.url_path).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (artifact.sha256, artifact.size)
        (content / artifact.sha256).write_bytes(data)
    [index] = component.files
    (tmp_path / "index.json").write_bytes(index.content or b"")
    loader = importlib.machinery.SourceFileLoader("k8sgu_mirror", str(PROGRAM))
    spec = importlib.util.spec_from_loader("k8sgu_mirror", loader)
    assert spec is not None
    program = importlib.util.module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    loader.exec_module(program)
    bundle = make_certificate(tmp_path)
    for name, value in {
        "INDEX": tmp_path / "index.json",
        "CONTENT": content,
        "CERTIFICATE": bundle,
        "KEY": bundle,
    }.items():
        monkeypatch.setattr(program, name, str(value))
    made: list[Any] = []

    class Server(program.Server):  # type: ignore[misc, name-defined]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(program, "Server", Server)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = int(taken.getsockname()[1])
    thread = threading.Thread(target=program.serve, args=(f"127.0.0.1:{port}",), daemon=True)
    thread.start()
    for _attempt in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            thread.join(0.1)
    yield port, program, bundle
    made[0].shutdown()
    made[0].server_close()


def ask(
    port: int, authority: Path, path: str, method: str = "GET", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port, timeout=30, context=ssl.create_default_context(cafile=str(authority))
    )
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.headers)
    finally:
        connection.close()


def test_a_runtime_can_pull(served: tuple[int, ModuleType, Path]) -> None:
    """As containerd does: the base, the tag (with the registry's name), its index and manifest, and the blobs."""
    port, _program, authority = served
    assert ask(port, authority, "/v2/")[:2] == (200, b"{}")
    for name, content in IMAGES.items():
        registry = name.partition("/")[0]
        status, body, headers = ask(port, authority, f"/v2/team/box/manifests/1.0?ns={registry}")
        assert (status, headers["Content-Type"]) == (200, oci.INDEX)
        assert headers["Docker-Content-Digest"] == "sha256:" + hashlib.sha256(body).hexdigest()
        head = ask(port, authority, f"/v2/team/box/manifests/1.0?ns={registry}", "HEAD")
        assert (head[0], head[1], head[2]["Content-Length"]) == (200, b"", str(len(body)))
        inner = json.loads(body)["manifests"][0]["digest"]
        status, body, headers = ask(port, authority, f"/v2/team/box/manifests/{inner}?ns={registry}")
        assert (status, headers["Content-Type"]) == (200, oci.MANIFEST)
        layer = json.loads(body)["layers"][0]
        status, body, headers = ask(port, authority, f"/v2/team/box/blobs/{layer['digest']}?ns={registry}")
        assert (status, len(body), content in body) == (200, layer["size"], True)
        rest = ask(port, authority, f"/v2/team/box/blobs/{layer['digest']}", Range="bytes=100-")
        assert (rest[0], rest[1]) == (206, body[100:])
    # Docker Engine asks without the registry's name.
    assert ask(port, authority, "/v2/team/box/manifests/1.0")[0] == 200
    for path in (
        "/v2/team/box/manifests/1.1",
        "/v2/team/box/manifests/1.0?ns=quay.io",
        f"/v2/team/box/blobs/sha256:{'0' * 64}",
        "/files/../../etc/passwd",
        "/v2/team/box/blobs/../../../etc/passwd",
        "/files/tool/1.0/arm64/tool",
    ):
        assert ask(port, authority, path)[0] == 404, path


@pytest.mark.skipif(os.geteuid() != 0, reason="a node's programs are made root's")
def test_a_node_fetches_programs_there(served: tuple[int, ModuleType, Path], tmp_path: Path) -> None:
    port, _program, authority = served
    target = tmp_path / "opt" / "tool"
    wanted = Artifact(str(target), FILE, hashlib.sha256(TOOL).hexdigest(), len(TOOL))
    url = f"https://127.0.0.1:{port}"
    fetch.install([wanted], url, "", "", mirror_ca=authority.read_text())
    assert target.read_bytes() == TOOL
    target.unlink()
    with pytest.raises(ComponentError, match="certificate verify failed"):
        fetch.install([wanted], url, "", "")
    assert not target.exists()


def test_it_speaks_only_modern_tls(served: tuple[int, ModuleType, Path]) -> None:
    port, _program, authority = served
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert not plain.recv(100).startswith(b"HTTP")
    context = ssl.create_default_context(cafile=str(authority))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA256:AES256-SHA:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as old, pytest.raises(ssl.SSLError):
        context.wrap_socket(old, server_hostname="127.0.0.1")
    # The server goes on, also beside a client that does not speak.
    with socket.create_connection(("127.0.0.1", port), timeout=30):
        assert ask(port, authority, "/v2/")[0] == 200


def test_content_that_is_no_longer_listed_is_removed(served: tuple[int, ModuleType, Path], tmp_path: Path) -> None:
    _port, program, _authority = served
    content = tmp_path / "content"
    before = {path.name for path in content.iterdir()}
    (content / ("0" * 64)).write_bytes(b"of an earlier release")
    (content / ".other.partial").write_bytes(b"not its own")
    program.prune()
    assert {path.name for path in content.iterdir()} == {*before, ".other.partial"}


def test_what_the_mirror_lacks_is_named(tmp_path: Path) -> None:
    mirror = fill(tmp_path)
    with pytest.raises(ComponentError, match="the mirror has no file files/x; fill the mirror again"):
        described(mirror, ["files/x"], [])
    with pytest.raises(ComponentError, match=r"the mirror has no image e.org/x:1; fill the mirror again"):
        described(mirror, [], ["e.org/x:1"])
    (tmp_path / "images" / "docker.io" / "team" / "box" / "index.json").unlink()
    with pytest.raises(ComponentError, match=r"docker.io/team/box is damaged .*; fill the mirror again"):
        described(mirror, [], ["docker.io/team/box:1.0"])
