# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that reaches the internet only by a proxy (k8sgu_proxy): APT and pulls use it, the cluster itself does not."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import os
import platform
import re
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ec2lab import addresses, names, netns

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import api_server
import forward_proxy
import lab_node

LAB = f"node-proxy-{os.getpid()}"
NAME = "demo-worker-0"
VPC = "10.99.0.0/16"
ARCHITECTURE = {"aarch64": "arm64"}.get(platform.machine(), "amd64")
# Names that only the proxy can resolve.
ARCHIVE, REGISTRY = "archive.example", "registry.example"
USER, PASSWORD = "node", "pa55@word"
CRICTL = "/opt/k8sgu/crictl/current/crictl"
APT, RUNTIME = "/etc/apt/apt.conf.d/99k8sgu-proxy", "/etc/containerd/proxy.env"
PULL = f"{CRICTL} --timeout=60s pull {REGISTRY}/probe:1 2>&1"
INSTALL = "apt-get -q update 2>&1 && apt-get -qy install k8sgu-probe 2>&1"


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def image() -> dict[str, tuple[str, bytes]]:
    """Content and its type by path: an image of one file, as a registry serves it."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("probe"))
    layer = gzip.compress(plain.getvalue(), mtime=0)
    rootfs = {"type": "layers", "diff_ids": [digest(plain.getvalue())]}
    config = json.dumps({"architecture": ARCHITECTURE, "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    kinds = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kinds}manifest.v1+json",
        "config": {"mediaType": f"{kinds}config.v1+json", "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": f"{kinds}layer.v1.tar+gzip", "digest": digest(layer), "size": len(layer)}],
    }
    top = (manifest["mediaType"], json.dumps(manifest).encode())
    blobs = {f"/v2/probe/blobs/{digest(blob)}": ("application/octet-stream", blob) for blob in (config, layer)}
    return {"/v2/probe/manifests/1": top, f"/v2/probe/manifests/{digest(top[1])}": top, **blobs}


def archive(directory: Path) -> dict[str, tuple[str, bytes]]:
    """Content and its type by path: a package, as an archive of one directory serves it."""
    control = directory / "deb" / "DEBIAN" / "control"
    control.parent.mkdir(0o755, parents=True)
    fields = "Package: k8sgu-probe\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: nothing\n"
    control.write_text(fields)
    subprocess.run(["dpkg-deb", "--build", directory / "deb", directory / "probe.deb"], check=True, capture_output=True)
    package = (directory / "probe.deb").read_bytes()
    listed = fields + f"Filename: ./probe.deb\nSize: {len(package)}\nSHA256: {digest(package)[7:]}\n"
    release = f"Suite: test\nSHA256:\n {digest(listed.encode())[7:]} {len(listed)} Packages\n"
    content = {"probe.deb": package, "Packages": listed.encode(), "Release": release.encode()}
    return {f"/{name}": ("application/octet-stream", data) for name, data in content.items()}


def serve(content: dict[str, tuple[str, bytes]], tls: ssl.SSLContext | None = None) -> http.server.ThreadingHTTPServer:
    """On loopback, where no node gets."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = content.get(self.path.replace("/./", "/"), ("", b""))
            self.send_response(200 if kind else 404)
            self.send_header("Content-Type", kind or "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Company:
    """A node in a closed network, its proxy, and the servers behind the proxy."""

    def __init__(self, node: lab_node.Node, proxy: forward_proxy.ForwardProxy, directory: Path) -> None:
        self.node, self.proxy, self.directory = node, proxy, directory
        url = f"http://{USER}:{PASSWORD.replace('@', '%40')}@{addresses.MIRROR}:{proxy.port}"
        self.option = {"k8sgu_proxy": {"http": url}}

    def play(self, *arguments: str, **variables: Any) -> tuple[int, str]:
        """How many tasks changed something, and the output."""
        status, output = self.run(*arguments, **variables)
        assert status == 0, output[-4000:]
        return int(re.findall(r"changed=(\d+)", output)[0]), output

    def run(self, *arguments: str, **variables: Any) -> tuple[int, str]:
        """Exit status and output."""
        reached = {**self.node.ansible_variables, "ec2_private_ip": self.address}
        # The limit leaves it out; without one there would be no cluster.
        member = {"hosts": {"demo-control-plane-0": {"ec2_private_ip": "10.99.0.9"}}}
        groups = {"control_plane": member, "etcd": member, "worker": {"hosts": {NAME: reached}}}
        hosts = self.directory / "inventory.yml"
        hosts.write_text(json.dumps({"all": {"children": groups}}))
        given = {
            "k8sgu_vpc_id": "vpc-00000000",
            "k8sgu_state_dir": str(self.directory / "state"),
            "k8sgu_mirror_dir": str(self.node.mirror),
            "k8sgu_mirror_url": self.node.mirror_url,
            **variables,
        }
        status, output = ansible_program.run_playbook(
            "node",
            hosts,
            "--diff",
            "-vvv",
            f"--limit={NAME}",
            *arguments,
            variables=given,
            environment={"AWS_EC2_METADATA_DISABLED": "true"},
        )
        assert "pa55" not in output
        return status, output

    @property
    def address(self) -> str:
        return self.node.run("hostname -I").split()[0]

    def began(self) -> str:
        return self.node.run("systemctl show --value --property=ActiveEnterTimestampMonotonic containerd").strip()


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    reason = lab_node.missing()
    program = api_server.find_program("containerd", "containerd")
    if reason or program is None:
        pytest.skip(reason or "no mirror with containerd; fill one with `make up`, or name it in K8SGU_MIRROR_DIR")
    directory = tmp_path_factory.mktemp("company")
    authority = api_server.issue("registry-ca")
    trusted, _key = authority.write(directory, "ca")
    pki = directory / "state" / "pki"
    pki.mkdir(parents=True)
    api_server.issue(NAME, issuer=authority).write(pki, f"kubelet-{NAME}")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*api_server.issue(REGISTRY, issuer=authority, host=REGISTRY).write(directory, "registry"))
    # What the infrastructure playbook finds out about a VPC that was brought.
    (directory / "state" / "network.json").write_text(json.dumps({"vpc_cidrs": [VPC], "routed_cidrs": []}))
    with lab_node.running(LAB, directory, program.parents[4]) as node:
        ec2 = lab_node.client(lab_node.environment(LAB))
        [vpc] = ec2.describe_vpcs(Filters=[{"Name": "cidr", "Values": [VPC]}])["Vpcs"]
        close(ec2, vpc["VpcId"])
        node.run(
            f"cat >/usr/local/share/ca-certificates/test.crt <<'END'\n{Path(trusted).read_text()}END\n"
            "update-ca-certificates 2>&1\n"
            "rm -rf /etc/apt/sources.list.d/* /var/lib/apt/lists/*\n"
            f"echo 'deb [trusted=yes] http://{ARCHIVE} ./' >/etc/apt/sources.list\n"
        )
        outside = {ARCHIVE: serve(archive(directory)), REGISTRY: serve(image(), tls)}
        # The node reaches the proxy as it reaches the lab's services; the proxy's own connections begin on the host.
        listener = netns.open_socket(
            names.namespace_path(LAB, vpc["VpcId"]), socket.AF_INET, socket.SOCK_STREAM, addresses.MIRROR, 0
        )
        listener.listen()
        hosts = {name: ("127.0.0.1", server.server_address[1]) for name, server in outside.items()}
        with forward_proxy.running(hosts, f"{USER}:{PASSWORD}", listener) as proxy:
            yield Company(node, proxy, directory)
        for server in outside.values():
            server.shutdown()


def close(ec2: Any, vpc: str) -> None:
    """The nodes' security group allows egress only to the VPC."""
    [group] = ec2.describe_security_groups(
        Filters=[{"Name": "vpc-id", "Values": [vpc]}, {"Name": "group-name", "Values": ["test"]}]
    )["SecurityGroups"]
    ec2.revoke_security_group_egress(GroupId=group["GroupId"], IpPermissions=group["IpPermissionsEgress"])
    inside = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": VPC}]}
    ec2.authorize_security_group_egress(GroupId=group["GroupId"], IpPermissions=[inside])


@pytest.mark.timeout(300)
def test_a_node_without_a_way_out_is_refused_before_it_is_changed(company: Company, tmp_path: Path) -> None:
    """While it has no programs, so before the test below."""
    manifest = json.loads((company.node.mirror / "manifest.json").read_text())
    for entry in manifest["files"]:
        # An address of nobody's, https://www.rfc-editor.org/rfc/rfc5737.
        entry.update(source="upstream", origin=f"https://192.0.2.1/{entry['name']}")
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "images": []}))
    status, output = company.run(k8sgu_mirror_dir=str(tmp_path), k8sgu_mirror_url="")
    said = " ".join(output.split())
    assert status != 0, said[-4000:]
    assert f"- {NAME}: 192.0.2.1:443 cannot be reached from the node (timed out); " in said, said[-4000:]
    assert re.search(r"containerd [0-9.]+, .* come from there", said), said[-4000:]
    assert "by NAT for its subnet" in said and "(k8sgu_proxy)" in said and "k8sgu_mirror_url" in said
    assert "changed=0 " in said and company.node.run("ls -d /etc/k8sgu", check=False) == ""


@pytest.mark.timeout(900)
def test_the_proxy_is_used_and_removed_with_the_option(company: Company) -> None:
    node, proxy = company.node, company.proxy
    assert company.play()[0] == 2
    began = company.began()
    assert node.run(f"ls {APT} {RUNTIME} 2>/dev/null", check=False) == ""
    assert "k8sgu-probe" in node.run(INSTALL, check=False)
    assert "rpc error" in node.run(PULL, check=False)
    assert node.run(f"dpkg -s k8sgu-probe 2>/dev/null; {CRICTL} images -q {REGISTRY}/probe:1") == ""
    assert proxy.requests == proxy.refused == []

    # Check mode says what it would do, and does not.
    assert company.play("--check", **company.option)[0] == 2
    assert node.run(f"ls {APT} {RUNTIME} 2>/dev/null", check=False) == ""
    changed, output = company.play(**company.option)
    assert changed == 2
    assert "(secret, after)" in output
    assert company.began() != began
    assert node.run(f"stat -c '%a %U' {APT} {RUNTIME}") == "600 root\n600 root\n"
    # A unit's settings are told to anybody.
    assert "pa55" not in node.run("runuser -u ubuntu -- systemctl show containerd.service")

    node.run(INSTALL)
    assert "install ok installed" in node.run("dpkg -s k8sgu-probe")
    assert f"GET http://{ARCHIVE}/./probe.deb" in proxy.requests
    node.run(PULL)
    assert f"CONNECT {REGISTRY}:443" in proxy.requests
    assert proxy.refused == []

    # The cluster's own: the mirror, an address of the VPC where nobody listens, a name of the cluster.
    before = list(proxy.requests)
    pause = node.run("grep -o 'registry.k8s.io/pause[^\"]*' /etc/containerd/config.toml").strip()
    node.run(f"{CRICTL} pull {pause}")
    for place in (f"{company.address}:5000", "registry.kube-system.svc.cluster.local"):
        assert "rpc error" in node.run(f"{CRICTL} --timeout=60s pull {place}/probe:1 2>&1", check=False)
    assert proxy.requests == before

    began = company.began()
    assert company.play(**company.option)[0] == 0
    assert company.play("--check")[0] == 2
    assert node.run(f"stat -c %a {APT} {RUNTIME}") == "600\n600\n"
    assert company.began() == began
    assert company.play()[0] == 2
    assert node.run(f"ls {APT} {RUNTIME} 2>/dev/null", check=False) == ""
    assert company.began() != began
    node.run(f"{CRICTL} rmi {REGISTRY}/probe:1")
    assert "rpc error" in node.run(PULL, check=False)
    assert proxy.requests == before
    assert company.play()[0] == 0
