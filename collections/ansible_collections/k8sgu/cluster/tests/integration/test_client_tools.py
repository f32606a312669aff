# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""client_tools.yml on workstations that lack this or that: what is an offer stops nobody, and each source serves."""

from __future__ import annotations

import hashlib
import http.server
import json
import platform
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_program
import pytest

# What this machine has and another Linux may lack.
LACKING = {"go", "gofmt", "apt-get", "dpkg-deb", "cfssl", "cfssljson", "aws", "kubectl", "pip", "pip3"}
KUBECTL = '#!/bin/sh\necho \'{"clientVersion": {"gitVersion": "v1.36.4"}}\'\n'
TOOLS = ("cfssl", "cfssljson")
# Go's compiler, as far as the role calls it: what it is asked to build is what it writes.
GO = """#!/bin/sh
echo "$*" >"$(dirname "$0")/go.called"
while [ "$1" != -o ]; do shift; done
for program in cfssl cfssljson; do printf '#!/bin/sh\\necho built\\n' >"$2$program"; done
"""
NO_GO = "#!/bin/sh\necho 'go: github.com/cloudflare/cfssl@v1.6.5: no proxy answers' >&2\nexit 1\n"
# A package manager without network, and one that has the package.
NO_APT = "#!/bin/sh\necho 'E: Unable to locate package golang-cfssl' >&2\nexit 100\n"
APT = '#!/bin/sh\n[ "$*" = "-qq download golang-cfssl" ] && : >golang-cfssl_1_amd64.deb\n'
DPKG = """#!/bin/sh
[ "$1" = --extract ] && mkdir -p usr/bin
for program in cfssl cfssljson; do printf '#!/bin/sh\\necho packaged\\n' >"usr/bin/$program"; done
"""


@dataclass
class Publisher:
    """Serves what is in `files` on loopback, and 404 for the rest."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            body = made.files.get(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Workstation:
    """A PATH of its own, the directory for the tools, and a mirror with kubectl."""

    base: Path
    url: str

    @property
    def tools(self) -> Path:
        return self.base / "tools"

    def add(self, name: str, program: str) -> None:
        path = self.base / "bin" / name
        path.write_text(program)
        path.chmod(0o755)

    def play(
        self,
        *arguments: str,
        playbook: str = "client_tools",
        inventory: object = "localhost,",
        sums: Mapping[str, str] | None = None,
        **variables: Any,
    ) -> tuple[int, str]:
        given = {
            "k8sgu_state_dir": str(self.base / "state"),
            "k8sgu_mirror_dir": str(self.base / "mirror"),
            "k8sgu_client_tools_dir": str(self.tools),
            "client_tools_cfssl_upstream": {
                "url": f"{self.url}/v{{version}}/{{program}}_{{version}}_linux_{{arch}}",
                "sha256": {tool: dict.fromkeys(("amd64", "arm64"), (sums or {}).get(tool, "0" * 64)) for tool in TOOLS},
                "distribution": "golang-cfssl",
            },
            **variables,
        }
        # Their sudo, their compilers and their package managers are the machine's that the tests run on.
        status, output = ansible_program.run_playbook(
            playbook, inventory, *arguments, variables=given, environment={"PATH": str(self.base / "bin")}
        )
        return status, " ".join(output.split())

    def installed(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.tools.iterdir()}


@pytest.fixture
def workstation(tmp_path: Path, publisher: Publisher) -> Workstation:
    made = Workstation(tmp_path, publisher.url)
    (tmp_path / "bin").mkdir()
    for path in Path("/usr/bin").iterdir():
        if path.name not in LACKING:
            (tmp_path / "bin" / path.name).symlink_to(path)
    made.add("aws", "#!/bin/sh\n")
    made.tools.mkdir()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    kubectl = tmp_path / "mirror/files/kubectl/1.36.4" / architecture / "kubectl"
    kubectl.parent.mkdir(parents=True)
    kubectl.write_text(KUBECTL)
    return made


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def test_without_any_source_the_run_goes_on_and_says_so(workstation: Workstation, publisher: Publisher) -> None:
    for url, why in (
        (publisher.url, "HTTP Error 404"),
        (f"http://127.0.0.1:{closed_port()}", "Connection refused"),
    ):
        workstation.url = url
        status, output = workstation.play()
        assert status == 0 and "failed=0" in output, output[-3000:]
        assert output.count("cfssl and cfssljson are missing: ") == 1, output[-3000:]
        said = output[output.index("cfssl and cfssljson are missing: ") :]
        assert f"{url}/v1.6.5/cfssl_1.6.5_linux_" in said and why in said, said
        assert "Go: not on PATH; package golang-cfssl: no apt-get on PATH. " in said
        assert "or install Go or the Debian package golang-cfssl" in said and "The cluster does not need it." in said
    assert list(workstation.installed()) == ["kubectl"]
    # The first of the two that is not there is enough.
    assert len(publisher.asked) == 1


def test_the_phases_after_it_do_without(workstation: Workstation) -> None:
    """Certificates are signed by a module, not by cfssl."""
    node = {"node-0": {"ec2_private_ip": "10.240.0.10"}}
    children = {group: {"hosts": node} for group in ("control_plane", "etcd")} | {"worker": {}}
    inventory = workstation.base / "inventory.yml"
    inventory.write_text(json.dumps({"all": {"children": children}}))
    status, output = workstation.play("--tags=client_tools,pki", playbook="site", inventory=inventory)
    assert status == 0, output[-3000:]
    assert output.index("cfssl and cfssljson are missing: ") < output.index("TASK [k8sgu.cluster.pki : ")
    assert (workstation.base / "state" / "pki" / "kube-apiserver.pem").is_file()


def test_a_reason_of_every_source_is_told(workstation: Workstation) -> None:
    workstation.add("go", NO_GO)
    workstation.add("apt-get", NO_APT)
    status, output = workstation.play()
    assert status == 0, output[-3000:]
    for reason in ("HTTP Error 404", "no proxy answers", "E: Unable to locate package golang-cfssl"):
        assert reason in output, output[-3000:]
    assert list(workstation.installed()) == ["kubectl"]


def test_who_requires_it_is_told_in_an_error(workstation: Workstation) -> None:
    status, output = workstation.play(k8sgu_client_tools_required=["kubectl", "cfssl"])
    assert status != 0 and "k8sgu_client_tools_required: cfssl and cfssljson are missing: " in output, output[-3000:]


def test_a_tool_that_there_is_not_is_refused(workstation: Workstation) -> None:
    status, output = workstation.play(k8sgu_client_tools_required=["helm"])
    assert status != 0 and "k8sgu_client_tools_required" in output and "helm" in output, output[-3000:]
    assert workstation.installed() == {}


def test_upstream_comes_first(workstation: Workstation, publisher: Publisher) -> None:
    workstation.add("go", GO)
    contents = {tool: f"#!/bin/sh\necho {tool} of upstream\n".encode() for tool in TOOLS}
    for architecture in ("amd64", "arm64"):
        publisher.files |= {f"/v1.6.5/{tool}_1.6.5_linux_{architecture}": content for tool, content in contents.items()}
    sums = {tool: hashlib.sha256(content).hexdigest() for tool, content in contents.items()}
    status, output = workstation.play(sums=sums)
    assert status == 0 and "are missing: " not in output, output[-3000:]
    installed = workstation.installed()
    assert {tool: installed[tool].encode() for tool in TOOLS} == contents
    assert not (workstation.base / "bin" / "go.called").exists()
    status, output = workstation.play(sums=sums)
    assert status == 0 and "changed=0" in output and len(publisher.asked) == 2, output[-3000:]

    for tool in TOOLS:
        (workstation.tools / tool).unlink()
    status, output = workstation.play(sums={"cfssl": "1" * 64})
    assert status != 0 and "The checksum for" in output and "1" * 64 in output, output[-3000:]
    assert list(workstation.installed()) == ["kubectl"]


def test_go_compiles_where_upstream_does_not_answer(workstation: Workstation) -> None:
    workstation.add("go", GO)
    status, output = workstation.play("--check")
    assert status == 0 and workstation.installed() == {}, output[-3000:]
    status, output = workstation.play()
    assert status == 0 and "are missing: " not in output, output[-3000:]
    assert [workstation.installed()[tool] for tool in TOOLS] == ["#!/bin/sh\necho built\n"] * 2
    asked = (workstation.base / "bin" / "go.called").read_text()
    assert asked.endswith("github.com/cloudflare/cfssl/cmd/cfssl github.com/cloudflare/cfssl/cmd/cfssljson\n")


def test_the_package_serves_where_nothing_else_does(workstation: Workstation) -> None:
    workstation.add("go", NO_GO)
    workstation.add("apt-get", APT)
    workstation.add("dpkg-deb", DPKG)
    status, output = workstation.play()
    assert status == 0 and "are missing: " not in output, output[-3000:]
    assert [workstation.installed()[tool] for tool in TOOLS] == ["#!/bin/sh\necho packaged\n"] * 2


def test_into_a_directory_of_the_system_nothing_is_installed(workstation: Workstation) -> None:
    """Ansible from the distribution's package: what is required must be there, and the rest is told."""
    workstation.add("kubectl", KUBECTL)
    system = {"client_tools_system_dirs": [str(workstation.tools)]}
    status, output = workstation.play(**system)
    assert status == 0 and f"k8sgu_client_tools_dir {workstation.tools} belongs to the system" in output, output[-3000:]
    status, output = workstation.play(**system, k8sgu_client_tools_required=["cfssl"])
    assert status != 0 and f"{workstation.tools} belongs to the system, and tools are missing (cfssl)" in output
    assert workstation.installed() == {}


def test_without_the_aws_command_line_and_an_index_the_run_goes_on(workstation: Workstation) -> None:
    (workstation.base / "bin" / "aws").unlink()
    workstation.add("cfssl", "")
    workstation.add("cfssljson", "")
    status, output = workstation.play()
    assert status == 0 and "aws is missing: pip could not install awscli (" in output, output[-3000:]
    assert "cfssl and cfssljson are missing" not in output and "The cluster does not need it." in output
    status, output = workstation.play(k8sgu_client_tools_required=["aws"])
    assert status != 0 and "k8sgu_client_tools_required: aws is missing" in output, output[-3000:]


def test_kubectl_is_required_unless_said_otherwise(workstation: Workstation) -> None:
    shutil.rmtree(workstation.base / "mirror")
    status, output = workstation.play()
    assert status != 0 and "kubectl is missing or not within one minor version of 1.36.4" in output, output[-3000:]
    status, output = workstation.play(k8sgu_client_tools_required=[])
    assert status == 0 and "the mirror has none for this machine" in output, output[-3000:]
