"""The mirror over HTTP and as a registry: the requests of containerd and of nodes that download."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from ec2lab.services import mirror

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Reply:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class Client:
    def __init__(self, base: str, root: Path) -> None:
        self.base, self.root = base, root

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        request = Request(self.base + path, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
        try:
            with urlopen(request, timeout=20) as answer:
                return Reply(answer.status, dict(answer.headers), answer.read())
        except HTTPError as error:
            return Reply(error.code, dict(error.headers), error.read())


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    root = tmp_path / "mirror"
    root.mkdir()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = mirror.serve(listening, root, "mirror under test")
    yield Client(f"http://127.0.0.1:{listening.getsockname()[1]}", root)
    server.close()


def put_blob(layout: Path, content: bytes) -> str:
    digest = hashlib.sha256(content).hexdigest()
    directory = layout / "blobs" / "sha256"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / digest).write_bytes(content)
    return f"sha256:{digest}"


@pytest.fixture
def coredns(client: Client) -> dict[str, str]:
    """An image with an index above its manifest; returns the digests."""
    layout = client.root / "images" / "registry.k8s.io" / "coredns" / "coredns"
    layout.mkdir(parents=True)
    layer = put_blob(layout, b"a layer")
    manifest = put_blob(layout, json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": []}).encode())
    index = put_blob(layout, json.dumps({"schemaVersion": 2, "manifests": [{"digest": manifest}]}).encode())
    named = {"digest": index, "mediaType": INDEX, "annotations": {mirror.REF_NAME: "v1.14.2"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return {"layer": layer, "manifest": manifest, "index": index}


def test_a_file_whole_and_in_parts(client: Client) -> None:
    content = os.urandom(3 << 20)
    (client.root / "files").mkdir()
    (client.root / "files" / "etcd").write_bytes(content)
    whole = client.get("/files/etcd")
    assert (whole.status, whole.body) == (200, content)
    assert whole.headers["Accept-Ranges"] == "bytes"
    for asked, first, last in (("bytes=0-9", 0, 9), ("bytes=1000-", 1000, len(content) - 1)):
        part = client.get("/files/etcd", Range=asked)
        assert (part.status, part.body) == (206, content[first : last + 1])
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{len(content)}"
    assert client.get("/files/etcd", Range="bytes=-5").body == content[-5:]
    assert client.get("/files/etcd", Range=f"bytes={len(content)}-").status == 416
    assert client.get("/files/etcd", If_None_Match=whole.headers["ETag"]).status == 304
    head = client.get("/files/etcd", "HEAD")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(content)), b"")


def test_nothing_outside_the_directory(client: Client, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (client.root / "link").symlink_to(tmp_path / "secret")
    for path in ("/../secret", "/%2e%2e/secret", "/link", "//etc/passwd"):
        assert client.get(path).status == 404, path


def test_a_missing_file(client: Client) -> None:
    answer = client.get("/files/nothing")
    assert answer.status == 404
    assert answer.body.decode() == f"there is no /files/nothing in {client.root}\n"


def test_the_registry_is_there(client: Client) -> None:
    answer = client.get("/v2/")
    assert answer.status == 200
    assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


def test_a_pull_as_containerd_does_it(client: Client, coredns: dict[str, str]) -> None:
    base, query = "/v2/coredns/coredns", "?ns=registry.k8s.io"
    head = client.get(f"{base}/manifests/v1.14.2{query}", "HEAD")
    assert head.status == 200
    assert head.headers["Docker-Content-Digest"] == coredns["index"]
    assert head.headers["Content-Type"] == INDEX
    index = client.get(f"{base}/manifests/{coredns['index']}{query}")
    assert f"sha256:{hashlib.sha256(index.body).hexdigest()}" == coredns["index"]
    manifest = client.get(f"{base}/manifests/{coredns['manifest']}{query}")
    assert (manifest.status, manifest.headers["Content-Type"]) == (200, MANIFEST)
    assert client.get(f"{base}/blobs/{coredns['layer']}{query}").body == b"a layer"
    assert client.get(f"{base}/blobs/{coredns['layer']}{query}", Range="bytes=2-").body == b"layer"
    assert json.loads(client.get(f"{base}/tags/list{query}").body)["tags"] == ["v1.14.2"]


def test_a_manifest_without_a_media_type_shows_its_kind(client: Client, coredns: dict[str, str]) -> None:
    layout = client.root / "images" / "registry.k8s.io" / "coredns" / "coredns"
    bare = put_blob(layout, b'{"schemaVersion": 2, "manifests": []}')
    assert client.get(f"/v2/coredns/coredns/manifests/{bare}?ns=registry.k8s.io").headers["Content-Type"] == INDEX


def test_missing_content_gives_the_registry_s_errors(client: Client, coredns: dict[str, str]) -> None:
    for path, code in (
        ("/v2/coredns/coredns/manifests/v9?ns=registry.k8s.io", "MANIFEST_UNKNOWN"),
        ("/v2/coredns/coredns/manifests/v1.14.2?ns=docker.io", "NAME_UNKNOWN"),
        ("/v2/nothing/manifests/v1?ns=registry.k8s.io", "NAME_UNKNOWN"),
        ("/v2/../../etc/manifests/v1?ns=registry.k8s.io", "NAME_UNKNOWN"),
        (f"/v2/coredns/coredns/blobs/sha256:{'0' * 64}?ns=registry.k8s.io", "BLOB_UNKNOWN"),
        ("/v2/coredns/coredns/blobs/latest?ns=registry.k8s.io", "DIGEST_INVALID"),
    ):
        answer = client.get(path)
        assert answer.status == 404, path
        error = json.loads(answer.body)["errors"][0]
        assert error["code"] == code, path
        assert error["message"].endswith(f"; this mirror is {client.root}")


def test_without_a_namespace_every_registry_is_tried(client: Client, coredns: dict[str, str]) -> None:
    assert client.get("/v2/coredns/coredns/manifests/v1.14.2").status == 200


def test_many_at_once(client: Client) -> None:
    content = os.urandom(8 << 20)
    (client.root / "kubelet").write_bytes(content)
    got: list[bool] = []
    threads = [threading.Thread(target=lambda: got.append(client.get("/kubelet").body == content)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [True] * 20
