"""The lab's own internet on loopback: hosts and registries by name over TLS, AWS's names, the way there by a proxy."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ec2lab import trust
from ec2lab.authority import Authority
from ec2lab.errors import LabError
from ec2lab.services.internet import HTTP, HTTPS, Internet, Outside, check_directory
from ec2lab.shell import run
from ec2lab.trust import certificate_path

BIG = bytes(range(256)) * 4096
MANIFEST = json.dumps({"schemaVersion": 2, "layers": []}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"


class Api(BaseHTTPRequestHandler):
    """Says what it was asked, as the lab's API would see it."""

    protocol_version = "HTTP/1.1"
    prefix = ""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        said = f"{self.prefix}{self.headers['Host']} {len(self.rfile.read(length))}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


class InsecureApi(Api):
    prefix = "without TLS, "


class Net:
    """What is served, and its clients."""

    def __init__(self, directory: Path, ports: dict[int, int], proxy: int, context: ssl.SSLContext) -> None:
        self.directory, self.ports, self.proxy, self.context = directory, ports, proxy, context

    def secure(self, name: str) -> http.client.HTTPSConnection:
        """To the server's port itself, asking for the name."""
        connection = http.client.HTTPSConnection(name, context=self.context, timeout=20)
        opened = socket.create_connection(("127.0.0.1", self.ports[HTTPS]), timeout=20)
        connection.sock = self.context.wrap_socket(opened, server_hostname=name)
        return connection

    def through_proxy(self, name: str, port: int = HTTPS) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection("127.0.0.1", self.proxy, context=self.context, timeout=20)
        connection.set_tunnel(name, port)
        return connection


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    tmp_path = tmp_path_factory.mktemp("internet")
    directory = tmp_path / "net"
    files = directory / "hosts" / "downloads.example.com" / "v1"
    files.mkdir(parents=True)
    (files / "program").write_bytes(BIG)
    (directory / "hosts" / "other.example.com").mkdir()
    layout = directory / "images" / "docker.io" / "library" / "app"
    (layout / "blobs" / "sha256").mkdir(parents=True)
    (layout / "blobs" / "sha256" / DIGEST.removeprefix("sha256:")).write_bytes(MANIFEST)
    entry = {"digest": DIGEST, "annotations": {"org.opencontainers.image.ref.name": "v1"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (tmp_path / "lab").mkdir()
    authority = Authority(tmp_path / "lab")
    ports: dict[int, int] = {}

    def listen(port: int) -> socket.socket:
        opened = socket.create_server(("127.0.0.1", 0))
        ports[port] = opened.getsockname()[1]
        return opened

    api = HTTPServer(("127.0.0.1", 0), Api)

    def serve_aws(connection: socket.socket, client: Any, secure: bool) -> None:
        (Api if secure else InsecureApi)(connection, client, api)

    proxy = socket.create_server(("127.0.0.1", 0))
    outside = Outside(
        Internet(directory, lambda: {"ec2.us-east-1.amazonaws.com"}, serve_aws),
        authority,
        listen,
        lambda: socket.create_connection(("127.0.0.1", ports[HTTPS])),
        proxy,
    )
    context = ssl.create_default_context(cafile=str(certificate_path(tmp_path / "lab")))
    yield Net(directory, ports, proxy.getsockname()[1], context)
    outside.close()
    api.server_close()


Way = Callable[[Net, str], http.client.HTTPConnection]


@pytest.mark.parametrize("way", [Net.secure, Net.through_proxy], ids=["directly", "through the proxy"])
def test_a_file_of_a_host(net: Net, way: Way) -> None:
    with contextlib.closing(way(net, "downloads.example.com")) as connection:
        assert get(connection, "/v1/program") == (200, BIG)
        connection.request("GET", "/v1/program", headers={"Range": f"bytes={len(BIG) - 3}-"})  # the same connection
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (206, BIG[-3:])
        assert get(connection, "/v1/missing")[0] == 404
        assert get(connection, "/../../images/docker.io/library/app/index.json")[0] == 404
    with contextlib.closing(way(net, "other.example.com")) as connection:
        assert get(connection, "/v1/program")[0] == 404


@pytest.mark.parametrize("way", [Net.secure, Net.through_proxy], ids=["directly", "through the proxy"])
def test_an_image_by_tag_and_by_digest_at_the_registry_s_own_host(net: Net, way: Way) -> None:
    with contextlib.closing(way(net, "registry-1.docker.io")) as connection:
        assert get(connection, "/v2/")[0] == 200
        assert get(connection, "/v2/library/app/manifests/v1") == (200, MANIFEST)
        assert get(connection, f"/v2/library/app/manifests/{DIGEST}") == (200, MANIFEST)
        assert get(connection, f"/v2/library/app/blobs/{DIGEST}") == (200, MANIFEST)
        assert get(connection, "/v2/library/other/manifests/v1")[0] == 404
    with contextlib.closing(way(net, "downloads.example.com")) as connection:
        assert get(connection, "/v2/library/app/manifests/v1")[0] == 404


def test_plain_http_is_served_by_the_host_that_is_named(net: Net) -> None:
    for host, status in (("downloads.example.com", 200), ("downloads.example.com:80", 200), ("nowhere.example", 404)):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", net.ports[HTTP], timeout=20)) as connection:
            connection.request("GET", "/v1/program", headers={"Host": host})
            answer = connection.getresponse()
            assert (answer.status, answer.read() == BIG) == (status, status == 200), host


@pytest.mark.parametrize("way", [Net.secure, Net.through_proxy], ids=["directly", "through the proxy"])
@pytest.mark.parametrize("name", ["ec2.us-east-1.amazonaws.com", "new-bucket.s3.us-east-1.amazonaws.com"])
def test_aws_is_the_lab_s_api(net: Net, way: Way, name: str) -> None:
    with contextlib.closing(way(net, name)) as connection:
        for _again in range(2):
            connection.request("POST", "/", body=BIG)
            assert connection.getresponse().read() == f"{name} {len(BIG)}".encode()


def test_aws_without_tls_is_the_lab_s_api_too_which_is_told(net: Net) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", net.ports[HTTP], timeout=20)) as connection:
        connection.request("POST", "/", body=BIG, headers={"Host": "bucket.s3.amazonaws.com:80"})
        assert connection.getresponse().read() == f"without TLS, bucket.s3.amazonaws.com:80 {len(BIG)}".encode()


def test_a_host_that_is_not_there_gets_no_certificate(net: Net) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        net.secure("nowhere.example")


@pytest.mark.parametrize(("name", "port"), [("nowhere.example", HTTPS), ("downloads.example.com", 8443)])
def test_the_proxy_leads_nowhere_else(net: Net, name: str, port: int) -> None:
    connection = net.through_proxy(name, port)
    with contextlib.closing(connection), pytest.raises(OSError, match="403"):
        connection.request("GET", "/")


def test_a_host_that_comes_later_is_served(net: Net) -> None:
    late = net.directory / "hosts" / "late.example.com"
    late.mkdir()
    (late / "a").write_bytes(b"a")
    with contextlib.closing(net.secure("late.example.com")) as connection:
        assert get(connection, "/a") == (200, b"a")


def test_nobody_else_is_trusted_as_the_authority(net: Net, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    Authority(tmp_path / "second")
    assert certificate_path(tmp_path / "second").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "second" / "internet-ca-key.pem").stat().st_mode & 0o777 == 0o600
    context = ssl.create_default_context(cafile=str(certificate_path(tmp_path / "second")))
    with pytest.raises(ssl.SSLCertVerificationError):
        Net(net.directory, net.ports, net.proxy, context).secure("downloads.example.com")


def test_a_second_daemon_keeps_the_authority(tmp_path: Path) -> None:
    """Nodes that run already trust it."""
    Authority(tmp_path)
    before = certificate_path(tmp_path).read_bytes()
    Authority(tmp_path)
    assert certificate_path(tmp_path).read_bytes() == before


def test_a_node_s_seed_trusts_it_as_update_ca_certificates_would(tmp_path: Path) -> None:
    authority = tmp_path / "lab"
    authority.mkdir()
    Authority(authority)
    certificate = certificate_path(authority).read_text()
    skeleton, seed = tmp_path / "skeleton", tmp_path / "seed"
    (skeleton / "etc/ssl/certs").mkdir(parents=True)
    (skeleton / "etc/ssl/certs/ca-certificates.crt").write_text("(the publishers' authorities)\n")
    trust.add(seed, skeleton, authority)
    store = seed / "etc/ssl/certs"
    assert (store / "ca-certificates.crt").read_text() == f"(the publishers' authorities)\n{certificate}"
    assert (seed / "usr/local/share/ca-certificates/ec2lab-internet.crt").read_text() == certificate
    (hashed,) = store.glob("*.0")
    assert hashed.readlink() == Path("ec2lab-internet.pem")
    assert (store / "ca-certificates.crt").stat().st_mode & 0o777 == 0o644
    # OpenSSL finds it by that name.
    (store / "ec2lab-internet.pem").unlink()
    (store / "ec2lab-internet.pem").symlink_to(seed / "usr/local/share/ca-certificates/ec2lab-internet.crt")
    verified = run(["openssl", "verify", "-CApath", str(store), str(certificate_path(authority))])
    assert verified.strip().endswith(": OK")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ([], "has neither a host in hosts/ nor a registry in images/"),
        (["hosts/with space.example"], "'with space.example' is not a host's name"),
        (["images/localhost"], "'localhost' is not a host's name"),
        (["hosts/a.example", "images/registry.example"], ""),
    ],
)
def test_a_directory_that_cannot_be_served_is_refused(tmp_path: Path, made: list[str], told: str) -> None:
    for path in made:
        (tmp_path / path).mkdir(parents=True)
    if not told:
        check_directory(tmp_path)
        return
    with pytest.raises(LabError, match=told):
        check_directory(tmp_path)


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"--internet-dir .*file is not a directory"):
        check_directory(tmp_path / "file")
