# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""node_exporter with the role's own flags and TLS: whom it answers, by which certificate, and with which numbers."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import ipaddress
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import api_server
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROLES = Path(__file__).parents[2] / "roles"
START_TIMEOUT_S = 30
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def made(cls) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder("kubernetes-ca", key, "kubernetes-ca")
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return cls(builder.sign(key, hashes.SHA256()), key)

    def leaf(self, path: Path, purpose: x509.ObjectIdentifier, *names: x509.GeneralName) -> Path:
        """A certificate at `path`, its key beside it."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(path.stem, key, "kubernetes-ca")
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        _write(path.with_suffix(".key"), key.private_bytes(*_PEM, serialization.NoEncryption()))
        _write(path, _pem(builder.sign(self.key, hashes.SHA256())))
        return path


_PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)


def _builder(name: str, key: ec.EllipticCurvePrivateKey, issuer: str) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes) -> None:
    """By a rename, as a reload of the unit does it."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(content)
    beside.rename(path)


ADDRESS = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
PROMETHEUS = x509.DNSName("prometheus")


@dataclass(frozen=True)
class Exporter:
    authority: Authority
    directory: Path
    port: int

    def get(self, client: Path | None, path: str = "/metrics") -> tuple[int, str]:
        """Raises OSError where it refuses; verifies the server."""
        context = ssl.create_default_context(cadata=_pem(self.authority.certificate).decode())
        if client:
            context.load_cert_chain(client, client.with_suffix(".key"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def served(self) -> int:
        """The serial number of the certificate that it presents."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.port))
        return x509.load_pem_x509_certificate(pem.encode()).serial_number


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    program = api_server.find_program("node-exporter", "node_exporter")
    if program is None:
        pytest.skip("no mirror with node-exporter; fill one with `make up`, or name it in K8SGU_MIRROR_DIR")
    directory = tmp_path_factory.mktemp("node-exporter")
    authority = Authority.made()
    role = yaml.safe_load((ROLES / "observability/vars/main.yml").read_text())
    defaults = yaml.safe_load((ROLES / "cluster_facts/defaults/main.yml").read_text())
    (directory / "ca.crt").write_bytes(_pem(authority.certificate))
    authority.leaf(directory / "server.crt", SERVER, ADDRESS)
    web = role["observability_node_exporter_web"]
    web["tls_server_config"].update(
        cert_file="server.crt",
        key_file="server.key",
        client_ca_file="ca.crt",
        min_version="TLS12",
        cipher_suites=defaults["k8sgu_tls_cipher_suites"],
    )
    (directory / "web.yml").write_text(yaml.safe_dump(web))
    metrics = directory / "metrics"
    metrics.mkdir()
    (metrics / "ours.prom").write_text("k8sgu_test_days_left 42\n")
    port = api_server.free_port()
    given = {
        **role["observability_node_exporter_flags"],
        "web.listen-address": f"127.0.0.1:{port}",
        "web.config.file": directory / "web.yml",
        "collector.textfile.directory": metrics,
    }
    log = directory / "log"
    unit = (ROLES / "observability/templates/node-exporter.service.j2").read_text()
    switches = re.findall(r"^  (--\S+) \\$", unit, re.MULTILINE)
    command = [program, *switches, *(f"--{name}={value}" for name, value in given.items())]
    with log.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as process:
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield Exporter(authority, directory, port)
        finally:
            process.terminate()


def test_prometheus_has_the_nodes_numbers_and_ours(exporter: Exporter) -> None:
    client = exporter.authority.leaf(exporter.directory / "prometheus.crt", CLIENT, PROMETHEUS)
    status, text = exporter.get(client)
    assert status == 200
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}
    # What alerts of node-mixin look at, as far as every kernel has it.
    assert names >= {"node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_load1", "node_uname_info"}
    assert "k8sgu_test_days_left 42" in text
    assert "node_textfile_scrape_error 0" in text
    # Nothing about itself, and no interface of a pod.
    assert not {name for name in names if name.startswith(("go_", "process_", "promhttp_"))}
    assert 'device="veth' not in text


@pytest.mark.parametrize("who", ["nobody", "another client", "a server", "of another authority"])
def test_everybody_else_is_refused(exporter: Exporter, who: str) -> None:
    path = exporter.directory / f"{who.replace(' ', '-')}.crt"
    client = {
        "nobody": lambda: None,
        "another client": lambda: exporter.authority.leaf(path, CLIENT, x509.DNSName("kubernetes-admin")),
        "a server": lambda: exporter.authority.leaf(path, SERVER, PROMETHEUS),
        "of another authority": lambda: Authority.made().leaf(path, CLIENT, PROMETHEUS),
    }[who]()
    for page in ("/metrics", "/"):
        with pytest.raises(OSError, match=r"(?i)alert|reset|broken pipe"):
            exporter.get(client, page)


def test_a_renewed_certificate_is_served_without_a_restart(exporter: Exporter) -> None:
    before = exporter.served()
    exporter.authority.leaf(exporter.directory / "server.crt", SERVER, ADDRESS)
    assert exporter.served() != before
