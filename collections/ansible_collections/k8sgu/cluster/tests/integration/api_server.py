# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real API server with its etcd on loopback, for tests that need no node: two processes, ready within seconds."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ROOT = Path(__file__).resolve().parents[6]
COLLECTION = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 120


def default_version(component: str) -> str:
    """The version that a component has in the release that clusters have by default."""
    kubernetes = yaml.safe_load((COLLECTION / "roles/cluster_facts/defaults/main.yml").read_text())[
        "k8sgu_kubernetes_version"
    ]
    release = yaml.safe_load((COLLECTION / f"releases/{kubernetes.rpartition('.')[0]}.yml").read_text())
    return str(release["components"][component]["version"])


def find_program(component: str, name: str, version: str = "") -> Path | None:
    """The newest build of a program in one of the mirrors that this checkout may have filled.

    version: what its version begins with; by default that of the release that clusters have by default.
    """
    version = version or default_version(component)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    mirrors = [Path(os.environ[key]) for key in ("K8SGU_MIRROR_DIR", "EC2LAB_MIRROR_DIR") if os.environ.get(key)]
    mirrors += [*ROOT.glob(".state/mirror"), *ROOT.glob(".state/*/mirror"), cache / "k8sgu" / "mirror"]
    found = [
        path
        for mirror in mirrors
        for path in mirror.glob(f"files/{component}/{version}*/*/{name}")
        if os.access(path, os.X_OK)
    ]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def write(self, directory: Path, name: str) -> tuple[str, str]:
        """Paths of the certificate and its key."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}-key.pem"
        certificate.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        key.touch(mode=0o600)
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )
        return str(certificate), str(key)


def issue(
    name: str, organization: str = "", issuer: Pair | None = None, host: str = "localhost", minutes: int = 1440
) -> Pair:
    """A certificate that has `minutes` left, usable on 127.0.0.1 and `host`; without an issuer it is an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    subject = x509.Name(attributes)
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(minutes=minutes))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName(host)]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def write_kubeconfig(path: Path, server: str, authority: str, certificate: str, key: str) -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": authority}}],
                "users": [{"name": "admin", "user": {"client-certificate": certificate, "client-key": key}}],
            }
        )
    )
    return path


@dataclass(frozen=True)
class ApiServer:
    """`kubeconfig` is the administrator's; `directory` holds the certificates and logs."""

    directory: Path
    url: str
    kubeconfig: Path
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running(
    directory: Path, etcd: Path, kube_apiserver: Path, accounts_required: bool = False, more: Sequence[str] = ()
) -> Iterator[ApiServer]:
    """Both programs, ended with the block; `accounts_required` is whether a pod needs a service account.

    more: further flags of the API server.
    """
    authority = issue("test-ca")
    authority_path, _key = authority.write(directory, "ca")
    server_certificate, server_key = issue("kube-apiserver", issuer=authority).write(directory, "server")
    admin_certificate, admin_key = issue("admin", "system:masters", authority).write(directory, "admin")
    client_port, peer_port, port = free_port(), free_port(), free_port()
    url = f"https://127.0.0.1:{port}"
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, *command: str) -> subprocess.Popen[bytes]:
        with (directory / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        processes.append(process)
        return process

    try:
        start(
            "etcd",
            str(etcd),
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client_port}",
            f"--advertise-client-urls=http://127.0.0.1:{client_port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
            f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
            "--unsafe-no-fsync",
        )
        process = start(
            "kube-apiserver",
            str(kube_apiserver),
            f"--etcd-servers=http://127.0.0.1:{client_port}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--tls-cert-file={server_certificate}",
            f"--tls-private-key-file={server_key}",
            f"--client-ca-file={authority_path}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={server_key}",
            f"--service-account-signing-key-file={server_key}",
            f"--service-account-issuer={url}",
            "--service-cluster-ip-range=10.96.0.0/24",
            # Its controller is not there to make the accounts.
            *([] if accounts_required else ["--disable-admission-plugins=ServiceAccount"]),
            *more,
        )
        tls = ssl.create_default_context(cafile=authority_path)
        tls.load_cert_chain(admin_certificate, admin_key)
        wait_until_ready(url, tls, processes, directory)
        kubeconfig = write_kubeconfig(directory / "admin.kubeconfig", url, authority_path, admin_certificate, admin_key)
        yield ApiServer(directory, url, kubeconfig, process)
    finally:
        # Nothing of theirs is needed any more, and an orderly end takes the API server half a minute.
        for process in reversed(processes):
            process.kill()
            process.wait()


def wait_until_ready(url: str, tls: ssl.SSLContext, processes: list[subprocess.Popen[bytes]], directory: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    seen: object = "nothing"
    while time.monotonic() < deadline:
        for process in processes:
            if process.poll() is not None:
                logs = "\n".join((log.read_text()[-2000:]) for log in directory.glob("*.log"))
                raise RuntimeError(f"{process.args} ended with {process.returncode}:\n{logs}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", context=tls, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError as error:
            seen = error
        time.sleep(0.2)
    raise RuntimeError(f"the API server was not ready after {START_TIMEOUT_S} s: {seen}")
