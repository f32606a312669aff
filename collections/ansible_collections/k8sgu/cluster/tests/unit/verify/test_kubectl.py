# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kubectl exec, logs and port-forward as verify calls them, with a program that answers as kubectl does, or not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import cluster, kubectl
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.cluster import ClusterChecks, Pod
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.kubectl import Kubectl, find

# Writes down how it was called, then does what the test says.
PROGRAM = """#!{python}
import json, os, signal, socket, sys, time
with open({calls!r}, "w") as calls:
    json.dump([sys.argv[1:], dict(os.environ), os.getpid()], calls)

def listen():
    server = socket.create_server(("127.0.0.1", 0))
    print(f"Forwarding from 127.0.0.1:{{server.getsockname()[1]}} -> 8080", flush=True)
    connection, _address = server.accept()
    connection.recv(1 << 16)
    return connection

{body}
"""
SERVES = 'listen().sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 7\\r\\n\\r\\nprobe-1"); time.sleep(60)'
SAYS = "print('{}', file=sys.stderr, flush=True); "


class Fake:
    def __init__(self, directory: Path) -> None:
        self.path, self.calls = directory / "kubectl", directory / "calls"

    def does(self, body: str) -> Kubectl:
        self.path.write_text(PROGRAM.format(python=sys.executable, calls=str(self.calls), body=body))
        self.path.chmod(0o755)
        return Kubectl(str(self.path), "/state/admin.kubeconfig")

    def called(self) -> tuple[list[str], dict[str, str], int]:
        arguments, environment, process = json.loads(self.calls.read_text())
        return arguments, environment, process


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def test_a_command_in_a_pod(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert fake.does("print('app version 2')").run_in_pod("n", "p", "/agnhost", "--version") == "app version 2\n"
    arguments, environment, _process = fake.called()
    assert arguments == [
        "--kubeconfig=/state/admin.kubeconfig",
        "--namespace=n",
        "exec",
        "p",
        "--",
        "/agnhost",
        "--version",
    ]
    # Its way is the environment's; its user's own defaults do not count.
    assert environment["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert environment["KUBECTL_KUBERC"] == "false"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (SAYS.format("error: Internal error:\\n  gone") + "sys.exit(1)", "exec: error: Internal error: gone$"),
        ("sys.exit(3)", "exec: it ended with status 3$"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "exec: it ended with status -9$"),
        ("time.sleep(60)", "exec: no answer within 2 s$"),
    ],
)  # fmt: skip
def test_a_command_that_could_not_be_run(fake: Fake, monkeypatch: pytest.MonkeyPatch, body: str, expected: str) -> None:
    monkeypatch.setattr(kubectl, "_TIMEOUT_S", 2.0)
    with pytest.raises(KubernetesError, match=f"^kubectl {expected}"):
        fake.does(body).run_in_pod("n", "p", "true")


def test_logs(fake: Fake) -> None:
    assert fake.does("print('hello')").logs("n", "p") == "hello\n"
    assert fake.called()[0][2:] == ["logs", "p", "--limit-bytes=300"]


def test_a_port_is_forwarded_as_long_as_it_is_needed(fake: Fake) -> None:
    assert fake.does(SERVES).fetch("n", "p", 8080, "/hostname") == "probe-1"
    arguments, _environment, process = fake.called()
    assert arguments[2:] == ["port-forward", "--address=127.0.0.1", "p", ":8080"]
    assert not Path(f"/proc/{process}").exists()


def test_a_forwarding_that_does_not_end_by_itself_is_ended(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubectl, "_END_TIMEOUT_S", 0.2)
    stubborn = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVES}"
    assert fake.does(stubborn).fetch("n", "p", 8080, "/hostname") == "probe-1"
    assert not Path(f"/proc/{fake.called()[2]}").exists()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (SAYS.format("error: unable to forward port") + "sys.exit(1)", "error: unable to forward port$"),
        ("print('nonsense')", r"it printed b'nonsense\\n'$"),
        ("time.sleep(60)", "it does not listen after 2 s$"),
        # The pod refuses, which kubectl says when somebody connects.
        ("taken = listen(); " + SAYS.format("E1 refused") + "taken.close(); time.sleep(60)", "E1 refused$"),
        ("listen().close(); time.sleep(60)", "(RemoteDisconnected|ConnectionResetError): "),
    ],
)  # fmt: skip
def test_a_port_that_could_not_be_forwarded(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, body: str, expected: str
) -> None:
    monkeypatch.setattr(kubectl, "_TIMEOUT_S", 2.0)
    with pytest.raises(KubernetesError, match=f"^kubectl port-forward: {expected}"):
        fake.does(body).fetch("n", "p", 8080, "/hostname")
    assert not Path(f"/proc/{fake.called()[2]}").exists()


def test_the_program_is_found_on_the_path(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.does("pass")
    monkeypatch.setenv("PATH", str(fake.path.parent))
    assert find("kubectl") == find(str(fake.path)) == str(fake.path)
    fake.path.unlink()
    for program in ("kubectl", str(fake.path)):
        with pytest.raises(KubernetesError, match=f"^kubectl: {program} is not there .* playbooks/client_tools.yml"):
            find(program)


def test_a_program_that_is_gone_or_not_for_this_machine(fake: Fake) -> None:
    with pytest.raises(KubernetesError, match="cannot be run: No such file"):
        Kubectl(str(fake.path), "k").logs("n", "p")
    fake.path.write_bytes(b"\x7fELF")
    fake.path.chmod(0o755)
    with pytest.raises(KubernetesError, match="cannot be run: Exec format error"):
        Kubectl(str(fake.path), "k").fetch("n", "p", 80, "/")


def _refuse() -> str:
    raise KubernetesError("kubectl exec: HTTP 500")


class Answers:
    def __init__(self, printed: Callable[[], str], written: str, answered: str) -> None:
        self.printed, self.written, self.answered = printed, written, answered

    def run_in_pod(self, *_arguments: str) -> str:
        return self.printed()

    def logs(self, *_arguments: str) -> str:
        return self.written

    def fetch(self, _namespace: str, pod: str, *_arguments: Any) -> str:
        return self.answered and pod  # each pod answers with its own name


@pytest.mark.parametrize(
    ("answers", "seen"),
    [
        (Answers(lambda: "app version 2", "started", "yes"), "all of it, on 2 nodes"),
        (Answers(lambda: "", "started", "yes"), "a: exec ''"),
        (Answers(lambda: "app version 2", "", "yes"), "logs ''"),
        (Answers(lambda: "app version 2", "started", ""), "port-forward ''; b: "),
        (Answers(_refuse, "started", "yes"), "a: kubectl exec: HTTP 500; b: kubectl exec: HTTP 500"),
    ],
)
def test_the_check_names_the_nodes_that_are_not_reached(
    monkeypatch: pytest.MonkeyPatch, answers: Any, seen: str
) -> None:
    probes = [Pod(cluster.PROBES, f"probe-{name}", name, "10.200.0.2", True) for name in ("a", "b")]
    monkeypatch.setattr(cluster, "pods", lambda *_arguments: probes)
    api: Any = None
    check = ClusterChecks(api, answers, ["a", "b"], "cluster.local", 1).streams()
    assert check.passed is seen.startswith("all")
    assert seen in check.seen
