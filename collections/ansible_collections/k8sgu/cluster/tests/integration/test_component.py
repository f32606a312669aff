# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.component on a booted node: what an administrator would see there after each run."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import api_server
import lab_node

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.packages import LOCKS

# A minimal service: answers with its version and the first line of the configuration with which it started, counts its
# reloads, and refuses to start if the configuration tells it to.
GREETER = """\
#!/usr/bin/python3
import http.server, signal, sys
VERSION = "@VERSION@"
greeting = open(sys.argv[2]).readline().strip()
reloads = 0
if greeting == "broken" or VERSION == "broken":
    sys.exit("greeter: cannot go on like this")
def reload(*_):
    global reloads
    reloads += 1
signal.signal(signal.SIGHUP, reload)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"{VERSION} {greeting} {reloads}".encode())
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

UNIT = """\
[Unit]
Description=Greeter
[Service]
User={user}
ExecStart=/opt/k8sgu/{program}/current/greeter {port} /etc/{name}/greeting
ExecReload=/bin/kill -HUP $MAINPID
[Install]
WantedBy=multi-user.target
"""


# Answers clients that have a certificate of the CA.
TLS_SERVER = """\
import http.server, ssl
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", {port}), Handler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="{directory}/ca.pem")
context.verify_mode = ssl.CERT_REQUIRED
context.load_cert_chain("{directory}/both.pem", "{directory}/both-key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab_node.Node]:
    reason = lab_node.missing()
    if reason:
        pytest.skip(reason)
    with lab_node.running(f"component-{os.getpid()}", tmp_path_factory.mktemp("lab")) as node:
        yield node


def add_to_mirror(node: lab_node.Node, component: str, version: str, **files: bytes) -> None:
    """Puts programs into the mirror, as the role artifacts does."""
    manifest = node.mirror / "manifest.json"
    content = json.loads(manifest.read_text()) if manifest.exists() else {"schema": 1, "files": [], "images": []}
    for name, data in files.items():
        path = f"files/{component}/{version}/amd64/{name}"
        (node.mirror / path).parent.mkdir(parents=True, exist_ok=True)
        (node.mirror / path).write_bytes(data)
        entry = {"component": component, "name": name, "version": version, "arch": "amd64", "path": path}
        content["files"].append({**entry, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)})
    manifest.write_text(json.dumps(content))


@dataclass
class Outcome:
    """One run of ansible-playbook: its whole output and the result of the task."""

    output: str
    result: dict[str, Any]

    @property
    def changed(self) -> bool:
        return bool(self.result["changed"])

    @property
    def reasons(self) -> str:
        return "\n".join(reason for entry in self.result["components"] for reason in entry["reasons"])

    @property
    def message(self) -> str:
        return str(self.result.get("msg", ""))


@dataclass
class Greeter:
    """A component with a service of its own: `files` and `extra` are merged into its description."""

    node: lab_node.Node
    directory: Path
    name: str
    port: int
    version: str = "1.0"
    greeting: str = "hello"
    files: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def add_version(self, version: str) -> None:
        # As large as to show that contents are not shipped along, and of another size in each version.
        padding = b"# " + os.urandom(1 << 20).hex().encode() + version.encode()
        program = GREETER.replace("@VERSION@", version).encode() + padding
        add_to_mirror(self.node, self.name, version, greeter=program)

    def description(self) -> dict[str, Any]:
        unit = UNIT.format(user=self.name, program=self.name, name=self.name, port=self.port)
        greeting = {"dest": f"/etc/{self.name}/greeting", "template": "greeting.j2", "group": self.name, "mode": "0640"}
        return {
            "name": self.name,
            "binaries": [{"component": self.name, "version": self.version}],
            "user": {"name": self.name, "home": f"/var/lib/{self.name}"},
            "directories": [{"path": f"/var/lib/{self.name}", "owner": self.name, "group": self.name, "mode": "0700"}],
            "files": [{**greeting, "vars": {"greeting": self.greeting}}, *self.files],
            "unit": {"name": f"{self.name}.service", "content": unit},
            "health": {"url": f"http://127.0.0.1:{self.port}/", "expect_body": self.greeting, "timeout": 20},
            **self.extra,
        }

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        (self.directory / "templates").mkdir(exist_ok=True)
        (self.directory / "templates" / "greeting.j2").write_text("{{ greeting }}\n")
        host = {**self.node.ansible_variables, "ec2_architecture": "x86_64"}
        task = {
            "mirror_dir": str(self.node.mirror),
            "mirror_url": self.node.mirror_url,
            "components": [self.description()],
            **self.options,
            **options,
        }
        given, environment, _result = ansible_program.one_task(
            self.directory, host, {"k8sgu.cluster.component": task}, "[connection]\npipelining = true\n"
        )
        return ansible_program.start(
            "ansible-playbook", *given, *arguments, cwd=self.directory, environment=environment
        )

    def finish(self, process: subprocess.Popen[str]) -> Outcome:
        output = process.communicate(timeout=280)[0]
        path = self.directory / "results" / "node"
        assert path.exists(), output
        return Outcome(output, json.loads(path.read_text()))

    def run(self, *arguments: str, ok: bool = True, **options: Any) -> Outcome:
        outcome = self.finish(self.start(*arguments, **options))
        assert ("failed=0" in outcome.output) is ok, outcome.output
        return outcome

    def answer(self) -> str:
        """Version, greeting and reloads of the service as it runs, by another program."""
        return self.node.run(f"curl -s --max-time 5 http://127.0.0.1:{self.port}/", check=False)

    def state(self) -> str:
        """All of the node that the component is made of, but for times and process ids."""
        return self.node.run(
            f"""
            for p in $(find /etc/{self.name} /opt/k8sgu/{self.name} /var/lib/{self.name} \
                       /etc/systemd/system/{self.name}.service 2>/dev/null | sort); do
                stat -c '%n %U:%G %a %N' $p; test -f $p && sha256sum $p; done
            systemctl is-active {self.name}.service; systemctl is-enabled {self.name}.service
            ls -A /var/lib/k8sgu/component | grep -F {self.name}; id {self.name}
            true
            """
        )

    def pid(self) -> str:
        return self.node.run(f"systemctl show -p MainPID --value {self.name}.service").strip()


_ports = iter(range(18000, 19000))


@pytest.fixture
def greeter(node: lab_node.Node, tmp_path: Path) -> Greeter:
    greeter = Greeter(node, tmp_path, "g" + uuid.uuid4().hex[:8], next(_ports))
    greeter.add_version("1.0")
    return greeter


def test_check_run_check_run(greeter: Greeter) -> None:
    before = greeter.state()
    predicted = greeter.run("--check", "--diff")
    assert predicted.changed
    assert greeter.state() == before

    made = greeter.run()
    assert made.reasons == predicted.reasons
    assert greeter.answer() == "1.0 hello 0"
    state = greeter.state()
    name = greeter.name
    assert f"/etc/{name}/greeting root:{name} 640" in state
    assert f"/var/lib/{name} {name}:{name} 700" in state
    assert f"'/opt/k8sgu/{name}/current' -> '1.0'" in state
    assert "active\nenabled\n" in state

    pid = greeter.pid()
    for arguments in (["--check"], []):
        again = greeter.run(*arguments)
        assert not again.changed, again.reasons
    assert greeter.state() == state
    assert greeter.pid() == pid


def test_only_a_change_that_matters_restarts(greeter: Greeter) -> None:
    def files(quiet: str, reloaded: str) -> list[dict[str, Any]]:
        return [
            {"dest": f"/etc/{greeter.name}/quiet", "content": quiet, "restart": False},
            {"dest": f"/etc/{greeter.name}/reloaded", "content": reloaded, "reload": True},
        ]

    greeter.files = files("1", "1")
    greeter.run()
    pid = greeter.pid()
    greeter.files = files("2", "1")
    assert greeter.run().changed
    assert (greeter.pid(), greeter.answer()) == (pid, "1.0 hello 0")
    greeter.files = files("2", "2")
    predicted = greeter.run("--check")
    assert f"reload {greeter.name}.service" in predicted.reasons
    assert greeter.run().reasons == predicted.reasons
    assert (greeter.pid(), greeter.answer()) == (pid, "1.0 hello 1")
    greeter.greeting = "salve"
    predicted = greeter.run("--check", "--diff")
    assert f"restart {greeter.name}.service: /etc/{greeter.name}/greeting changed" in predicted.reasons
    assert "-hello\n+salve" in predicted.output
    assert greeter.answer() == "1.0 hello 1"
    greeter.run()
    assert greeter.pid() != pid
    assert greeter.answer() == "1.0 salve 0"


def test_a_program_that_a_timer_starts_is_left_alone_while_it_runs(greeter: Greeter) -> None:
    program, service, timer = (
        f"/usr/local/lib/k8sgu/{greeter.name}.pyz",
        f"{greeter.name}-x.service",
        f"{greeter.name}-x.timer",
    )
    node = greeter.node
    run = f"[Service]\nType=oneshot\nExecStart={program} --help\nExecStart=/bin/sleep 600\n"
    midnight = "[Timer]\nOnCalendar=*-*-* 00:00:00\n[Install]\nWantedBy=timers.target\n"
    greeter.files = [{"dest": program, "zipapp": "_etcd.backup", "mode": "0755", "restart": False}]
    units = [{"name": service, "content": run, "state": "on_demand"}, {"name": timer, "content": midnight}]
    greeter.extra = {"units": units}
    greeter.run()
    states = f"systemctl is-active {service} {timer} || true"
    assert node.run(states).split() == ["inactive", "active"]
    node.run(f"systemctl start --no-block {service}")
    # Its second command runs.
    seen = f"journalctl -u {service} | grep -q 'usage: ' && systemctl is-active {service} | grep -q activating"
    node.run(f'timeout 20 sh -c "until {seen}; do sleep 0.1; done"')
    for arguments in (["--check"], []):
        again = greeter.run(*arguments)
        assert not again.changed, again.reasons
    assert node.run(states).split() == ["activating", "active"]
    greeter.files = [{"dest": program, "state": "absent"}]
    greeter.extra = {"units": [{"name": unit["name"], "state": "absent"} for unit in units]}
    greeter.run()
    # It was ended in its midst.
    assert node.run(states).split() == ["failed", "inactive"]
    assert node.run(f"ls {program} /etc/systemd/system/{greeter.name}-x* 2>/dev/null || true") == ""
    assert not greeter.run().changed


def test_a_version_is_fetched_beside_the_one_that_runs(greeter: Greeter) -> None:
    greeter.run()
    state, pid = greeter.state(), greeter.pid()
    greeter.add_version("2.0")
    # What else has changed waits for the installation.
    greeter.version, greeter.greeting = "2.0", "salve"
    program = f"/opt/k8sgu/{greeter.name}/2.0/greeter"
    predicted = greeter.run("--check", state="fetched")
    assert predicted.reasons == f"program {program}: missing"
    assert greeter.state() == state
    assert greeter.run(state="fetched").reasons == predicted.reasons
    assert not greeter.run(state="fetched").changed
    after = [line for line in greeter.state().splitlines() if "2.0" not in line]
    assert after == [line for line in state.splitlines() if "2.0" not in line]
    assert (greeter.pid(), greeter.answer()) == (pid, "1.0 hello 0")

    assert f"program {program}" not in greeter.run().reasons
    assert greeter.answer() == "2.0 salve 0"


def test_changes_by_others_are_undone(greeter: Greeter) -> None:
    greeter.run()
    state = greeter.state()
    program = f"/opt/k8sgu/{greeter.name}/1.0/greeter"
    # The time of change is put back, as somebody would who does not want to be seen.
    greeter.node.run(f"cp -p {program} /root/saved; echo '# more' >>{program}; touch -r /root/saved {program}")
    greeter.node.run(f"echo other >/etc/{greeter.name}/greeting; chmod 0666 /etc/{greeter.name}/greeting")
    predicted = greeter.run("--check")
    assert f"program {program}: content differs" in predicted.reasons
    assert "mode 0666 instead of 0640" in predicted.reasons
    assert greeter.run().reasons == predicted.reasons
    assert greeter.state() == state
    assert not greeter.run().changed
    greeter.node.run(f"truncate -s 1000 {program}")
    assert greeter.run().changed
    greeter.node.run(f"chmod 0777 {program}")
    assert "0755" in greeter.run().reasons
    assert greeter.state() == state


def test_a_stopped_or_disabled_unit_is_started_and_enabled(greeter: Greeter) -> None:
    greeter.run()
    greeter.node.run(f"systemctl disable --now {greeter.name}.service")
    reasons = greeter.run().reasons
    assert f"enable {greeter.name}.service" in reasons
    assert f"start {greeter.name}.service" in reasons
    assert greeter.answer() == "1.0 hello 0"
    assert not greeter.run().changed


def test_a_prevented_restart_is_made_later(greeter: Greeter) -> None:
    """A unit is restarted because of what it was started with, not because this run wrote a file."""
    greeter.run()
    record = f"/var/lib/k8sgu/component/{greeter.name}.json"
    greeter.node.run(f"sed -i '/started_with/,$ s/[0-9a-f]\\{{64\\}}/0/' {record}")
    outcome = greeter.run()
    assert "it was started with another" in outcome.reasons
    assert not greeter.run().changed


def test_an_unhealthy_change_is_rolled_back(greeter: Greeter) -> None:
    greeter.run()
    state, name = greeter.state(), greeter.name
    greeter.add_version("broken")
    greeter.version, greeter.greeting = "broken", "salve"
    outcome = greeter.run(ok=False)
    assert f"waited for http://127.0.0.1:{greeter.port}/ to answer 200" in outcome.message
    assert "last seen: ConnectionRefusedError" in outcome.message
    assert f"were restored, and {name}.service runs as before" in outcome.message
    assert outcome.result["rolled_back"] == name
    assert any("cannot go on like this" in line for line in outcome.result["journal"])
    assert greeter.answer() == "1.0 hello 0"

    greeter.version, greeter.greeting = "1.0", "hello"
    assert not greeter.run().changed
    left = [line for line in greeter.state().splitlines() if "/broken" not in line]
    assert left == state.splitlines()


def test_an_unhealthy_first_installation_leaves_nothing_running(greeter: Greeter) -> None:
    greeter.greeting = "broken"
    outcome = greeter.run(ok=False)
    assert "cannot go on like this" in "".join(outcome.result["journal"])
    assert "were restored" in outcome.message
    state = greeter.state()
    assert f"/etc/{greeter.name}/greeting" not in state
    assert "greeter.service" not in state
    assert greeter.node.run(f"systemctl is-enabled {greeter.name}.service", check=False).strip() != "enabled"
    greeter.greeting = "hello"
    greeter.run()
    assert greeter.answer() == "1.0 hello 0"
    assert not greeter.run().changed


def test_an_overlapping_component_starts_meanwhile_and_ends_by_itself(greeter: Greeter) -> None:
    path = f"/etc/{greeter.name}-after"
    after = {"name": f"{greeter.name}-after", "files": [{"dest": path, "content": "begun"}]}
    greeter.greeting = "broken"
    outcome = greeter.run(ok=False, components=[greeter.description(), after])
    assert [entry["name"] for entry in outcome.result["components"]] == [greeter.name]
    greeter.extra = {"overlap": True}
    outcome = greeter.run(ok=False, components=[greeter.description(), after])
    assert [entry["name"] for entry in outcome.result["components"]] == [greeter.name, after["name"]]
    assert outcome.result["rolled_back"] == greeter.name
    assert greeter.node.run(f"cat {path}") == "begun"
    greeter.greeting = "hello"
    outcome = greeter.run(components=[greeter.description(), after])
    assert [entry["changed"] for entry in outcome.result["components"]] == [True, False]
    assert greeter.answer() == "1.0 hello 0"
    assert not greeter.run(components=[greeter.description(), after]).changed


def test_an_error_of_the_nodes_file_system_is_rolled_back_and_ends_what_overlaps(greeter: Greeter) -> None:
    path = f"/etc/{greeter.name}-after"
    after = {"name": f"{greeter.name}-after", "files": [{"dest": path, "content": "first"}]}
    greeter.extra = {"overlap": True}
    greeter.run(components=[greeter.description(), after])
    greeter.greeting = "salve"
    nowhere = {"path": f"/proc/{greeter.name}", "owner": "root", "group": "root", "mode": "0755"}
    changed = {**after, "files": [{"dest": path, "content": "second"}], "directories": [nowhere]}
    outcome = greeter.run(ok=False, components=[greeter.description(), changed])
    assert f"component {after['name']}: {nowhere['path']}: No such file or directory. Its files" in outcome.message
    assert outcome.result["rolled_back"] == after["name"]
    assert greeter.node.run(f"cat {path}") == "first"
    assert not greeter.run(components=[greeter.description(), after]).changed
    assert greeter.answer() == "1.0 salve 0"


def test_without_rollback_what_failed_stays_to_be_looked_at(greeter: Greeter) -> None:
    greeter.extra = {"rollback": False}
    greeter.greeting = "broken"
    outcome = greeter.run(ok=False)
    assert "rolled_back" not in outcome.result
    assert greeter.node.run(f"cat /etc/{greeter.name}/greeting") == "broken\n"


def test_something_else_on_the_port_is_not_taken_for_the_unit(greeter: Greeter) -> None:
    greeter.run()
    squatter = Greeter(greeter.node, greeter.directory, greeter.name + "x", greeter.port)
    squatter.add_version("1.0")
    squatter.extra = {"health": {"url": f"http://127.0.0.1:{greeter.port}/", "timeout": 3}}
    outcome = squatter.run(ok=False)
    assert f"answers already, although {squatter.name}.service is not running" in outcome.message


def test_a_stopped_unit_is_started_though_another_of_ours_answers_its_check(greeter: Greeter, tmp_path: Path) -> None:
    """As the API server does where it is what a kubelet's check asks: it has our CA's certificate and takes ours."""
    port, directory = next(_ports), f"/etc/{greeter.name}-tls"
    authority = api_server.issue("test-ca")
    authority.write(tmp_path, "ca")
    api_server.issue("both", issuer=authority).write(tmp_path, "both")
    files = {name: (tmp_path / name).read_text() for name in ("ca.pem", "both.pem", "both-key.pem")}
    files["server.py"] = TLS_SERVER.format(port=port, directory=directory)
    greeter.node.run(
        f"mkdir {directory}\n"
        + "".join(f"cat >{directory}/{name} <<'END'\n{text}END\n" for name, text in files.items())
        + f"systemd-run --unit={greeter.name}-tls python3 {directory}/server.py\n"
        + f"for try in $(seq 300); do grep -q ':{port:04X} ' /proc/net/tcp && exit; sleep 0.1; done; exit 1\n"
    )
    health = {"ca": f"{directory}/ca.pem", "cert": f"{directory}/both.pem", "key": f"{directory}/both-key.pem"}
    greeter.extra = {"health": {"url": f"https://127.0.0.1:{port}/", "timeout": 20, **health}}
    greeter.run()
    greeter.node.run(f"systemctl stop {greeter.name}.service")
    assert f"start {greeter.name}.service: it is" in greeter.run().reasons
    assert greeter.answer() == "1.0 hello 0"
    assert not greeter.run().changed

    # Without our certificate it might be anybody.
    greeter.node.run(f"systemctl stop {greeter.name}.service")
    greeter.extra = {"health": {"tcp": f"127.0.0.1:{port}", "timeout": 3}}
    assert "answers already, although" in greeter.run(ok=False).message
    greeter.node.run(f"systemctl stop {greeter.name}-tls.service")


def test_a_file_that_its_program_refuses_is_not_put_in_place(greeter: Greeter) -> None:
    greeter.run()
    state, pid = greeter.state(), greeter.pid()
    checked = {"dest": f"/etc/{greeter.name}/checked", "content": "bad", "validate": "grep good %s"}
    greeter.files, greeter.greeting = [checked], "salve"
    outcome = greeter.run(ok=False)
    assert f"/etc/{greeter.name}/checked is not accepted by grep" in outcome.message
    assert greeter.state() == state
    assert greeter.pid() == pid
    greeter.files[0]["content"] = "good"
    greeter.run()
    assert greeter.answer() == "1.0 salve 0"


def test_commands_run_after_a_change_and_only_then(greeter: Greeter) -> None:
    log = f"/root/{greeter.name}.log"
    greeter.extra = {"on_change": [["sh", "-c", f"echo ran >>{log}"]]}
    greeter.run()
    greeter.run()
    assert greeter.node.run(f"cat {log}") == "ran\n"
    greeter.greeting = "salve"
    greeter.run()
    assert greeter.node.run(f"cat {log}") == "ran\nran\n"


def test_secrets_stay_out_of_all_output_and_of_the_nodes_journal(greeter: Greeter) -> None:
    secret = "s3cret-" + uuid.uuid4().hex
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")[:-2]
    entry = {"dest": f"/etc/{greeter.name}/secret", "content": "{{ lookup('file', 'secret.txt') }}", "mode": "0600"}
    greeter.files = [{**entry, "secret": True}]
    source = greeter.directory / "secret.txt"
    source.write_text(secret)
    outputs = [greeter.run("--check", "--diff", "-vvvvv").output, greeter.run("--diff", "-vvvvv").output]
    source.write_text(secret + "-2")
    outputs.append(greeter.run("--diff", "-vvvvv").output)
    assert "(secret, after)" in outputs[0]
    assert greeter.node.run(f"cat /etc/{greeter.name}/secret") == secret + "-2"
    outputs.append(greeter.node.run("journalctl --no-pager -o export"))
    for output in outputs:
        assert secret not in output
        assert encoded not in output


def test_programs_are_pushed_if_there_is_no_address(greeter: Greeter) -> None:
    predicted = greeter.run("--check", mirror_url="")
    made = greeter.run(mirror_url="")
    assert made.reasons == predicted.reasons
    assert greeter.answer() == "1.0 hello 0"
    assert greeter.node.run("ls -A /home/ubuntu/.ansible/k8sgu-staging 2>/dev/null", check=False) == ""
    assert not greeter.run(mirror_url="").changed


def test_what_a_run_that_was_cut_off_has_pushed_is_not_sent_again(greeter: Greeter) -> None:
    program = greeter.node.mirror / f"files/{greeter.name}/1.0/amd64/greeter"
    content = program.read_bytes()
    staged = f"/home/ubuntu/.ansible/k8sgu-staging/{hashlib.sha256(content).hexdigest()}"
    directories = f"install -d -o ubuntu -g ubuntu /home/ubuntu/.ansible {Path(staged).parent}"
    stage = f"{directories}; install -o ubuntu /dev/stdin {staged}"
    greeter.node.run(f"printf damaged | sh -c '{stage}'")
    assert "the pushed copy has 7 bytes" in greeter.run(ok=False, mirror_url="").message
    # That one is gone, so the next run pushes it; here it is the whole program, and the controller has none to send.
    encoded = base64.b64encode(content).decode()
    greeter.node.run(
        f"sh -c '{stage}' <<END\n{encoded}\nEND\nbase64 -d {staged} >{staged}.new; mv {staged}.new {staged}"
    )
    program.unlink()
    greeter.run(mirror_url="")
    assert greeter.answer() == "1.0 hello 0"
    assert greeter.node.run("ls -A /home/ubuntu/.ansible/k8sgu-staging 2>/dev/null", check=False) == ""


def test_a_program_that_is_not_the_manifests_is_refused(greeter: Greeter) -> None:
    greeter.add_version("2.0")
    path = greeter.node.mirror / f"files/{greeter.name}/2.0/amd64/greeter"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    greeter.run()
    greeter.version = "2.0"
    for options in ({}, {"mirror_url": ""}):
        outcome = greeter.run(ok=False, **options)
        assert "not the" in outcome.message
        assert "of the mirror's manifest" in outcome.message
    assert greeter.answer() == "1.0 hello 0"
    path.unlink()
    assert "answers 404" in greeter.run(ok=False).message
    greeter.version = "1.0"
    assert not greeter.run().changed


def test_a_unit_that_is_to_be_absent_is_removed_with_its_file(greeter: Greeter) -> None:
    greeter.run()
    greeter.extra = {"unit": {"name": f"{greeter.name}.service", "state": "absent"}}
    predicted = greeter.run("--check")
    assert greeter.run().reasons == predicted.reasons
    assert greeter.answer() == ""
    shown = greeter.node.run(f"systemctl show -p LoadState --value {greeter.name}.service")
    assert shown.strip() == "not-found"
    assert not greeter.run().changed


def test_faults_of_the_node_are_found_before_anything_is_changed(greeter: Greeter) -> None:
    before = greeter.state()
    name = greeter.name
    greeter.files = [
        {"dest": f"/etc/{name}/a", "content": "", "owner": "nobody-knows"},
        {"dest": "/etc/systemd", "content": ""},
    ]
    for arguments in ([], ["--check"]):
        message = greeter.run(*arguments, ok=False).message
        assert f"/etc/{name}/a: its owner nobody-knows does not exist" in message
        assert "/etc/systemd: is a directory where a file should be" in message
    assert greeter.state() == before


def test_all_faults_of_the_options_are_reported_at_once(greeter: Greeter) -> None:
    greeter.files = [
        {"dest": "relative", "content": ""},
        {"dest": "/etc/x", "content": "", "mode": "rw"},
        {"dest": "/etc/y"},
        {"dest": "/etc/z", "template": "missing.j2"},
        {"dest": "/etc/p", "zipapp": "_etcd.nothing"},
    ]
    greeter.version = "7.7"
    message = greeter.run(ok=False).message
    for expected in (
        "'relative' is not an absolute path",
        "mode 'rw' of /etc/x is not octal",
        "/etc/y needs exactly one of template, src, content and zipapp",
        "/etc/p: zipapp: there is no _etcd.nothing in module_utils",
        "missing.j2 is not there",
        f"the mirror has no {greeter.name} 7.7 for amd64, only 1.0 for amd64",
    ):
        assert expected in message


def test_root_is_asked_for(greeter: Greeter) -> None:
    greeter.options = {}
    process = greeter.start("-e", "ansible_become=false")
    assert "set become: true" in greeter.finish(process).message


def test_another_run_on_the_node_is_waited_for_and_then_named(greeter: Greeter) -> None:
    greeter.node.run("flock /run/k8sgu-component.lock sleep 30 >/dev/null 2>&1 &")
    outcome = greeter.run(ok=False, lock_timeout=1)
    assert "another run is still working on the node after 1 s" in outcome.message
    greeter.node.run("kill $(lslocks -n -o PID,PATH | awk '/k8sgu-component/ {print $1}')")
    greeter.run()


def offer_package(node: lab_node.Node, package: str, after_installation: str = "true") -> None:
    """In an archive on the node itself, since the node need not reach any other."""
    node.run(
        textwrap.dedent(
            f"""
            set -e
            mkdir -p /srv/{package}/build/DEBIAN && cd /srv/{package}
            printf '%s\\n' 'Package: {package}' 'Version: 1' 'Architecture: all' 'Description: t' \
                'Maintainer: t <t@example.com>' >build/DEBIAN/control
            printf '%s\\n' '#!/bin/sh' '{after_installation}' >build/DEBIAN/postinst
            chmod 0755 build/DEBIAN/postinst
            dpkg-deb -b build t.deb >/dev/null
            {{ cat build/DEBIAN/control; echo "Filename: ./t.deb"; echo "Size: $(stat -c %s t.deb)"
              echo "SHA256: $(sha256sum t.deb | cut -d' ' -f1)"; }} >Packages
            mkdir -p /etc/apt/saved && mv /etc/apt/sources.list* /etc/apt/saved/ 2>/dev/null || true
            echo "deb [trusted=yes] file:/srv/{package} ./" >/etc/apt/sources.list
            """
        )
    )


def test_a_unit_that_a_package_started_is_restarted_with_our_settings(greeter: Greeter) -> None:
    package = "k8sgu-test-starts-" + greeter.name
    unit = r"[Service]\nExecStart=/bin/sleep infinity\n"
    offer_package(
        greeter.node,
        package,
        f'printf "{unit}" >/lib/systemd/system/{greeter.name}.service; systemctl daemon-reload; '
        f"systemctl start {greeter.name}",
    )
    greeter.extra = {"packages": [package]}
    greeter.run()
    assert greeter.greeting in greeter.answer()
    assert not greeter.run().changed


def test_packages_are_installed_once(greeter: Greeter) -> None:
    package = "k8sgu-test-" + greeter.name
    offer_package(greeter.node, package)
    greeter.extra = {"packages": ["procps", package]}
    predicted = greeter.run("--check")
    assert f"package {package}: not installed" in predicted.reasons
    assert "procps" not in predicted.reasons
    greeter.run()
    assert "install ok installed" in greeter.node.run(f"dpkg-query -W -f '${{Status}}' {package}")
    assert not greeter.run().changed
    greeter.extra = {"packages": ["k8sgu-no-such-package"]}
    assert "k8sgu-no-such-package" in greeter.run(ok=False).message


def test_an_image_that_updates_itself_is_waited_for(greeter: Greeter) -> None:
    """As a cloud image does after its first boot: APT's and dpkg's locks are held while SSH answers already."""
    package = "k8sgu-test-waits-" + greeter.name
    offer_package(greeter.node, package)
    holder = (
        "import fcntl, time\\n"
        f"files = [open(path, 'w') for path in {LOCKS!r}]\\n"
        "[fcntl.lockf(file, fcntl.LOCK_EX) for file in files]\\n"
        "open('/run/k8sgu-test-held', 'w').close()\\n"
        "time.sleep(10)\\n"
        "open('/run/k8sgu-test-given-up', 'w').close()\\n"
    )
    node = greeter.node
    node.run(
        f"""
        rm -f /run/k8sgu-test-held /run/k8sgu-test-given-up
        printf "{holder}" >/run/k8sgu-test-hold.py
        systemd-run --quiet --unit=k8sgu-test-hold python3 /run/k8sgu-test-hold.py
        for i in $(seq 100); do [ -e /run/k8sgu-test-held ] && break; sleep 0.1; done
        test -e /run/k8sgu-test-held
        """
    )
    greeter.extra = {"packages": [package]}
    greeter.run()
    node.run("test -e /run/k8sgu-test-given-up")
    assert "install ok installed" in node.run(f"dpkg-query -W -f '${{Status}}' {package}")


# On the node, while something there may be killed.
KILLER = "/run/k8sgu-test-killer"


def kill_when(node: lab_node.Node, condition: str) -> subprocess.Popen[bytes]:
    """On the node: kills the module, as the kernel would, once the condition holds while it is at work."""
    node.run(f"touch {KILLER}")
    script = f"""
        i=0
        while [ $i -lt 3000 ] && [ -e {KILLER} ]; do
            i=$((i + 1))
            if {condition}; then
                pid=$(lslocks -n -o PID,PATH | awk '/k8sgu-component/ {{print $1}}')
                [ -n "$pid" ] && kill -9 $pid && exit 0
            fi
            sleep 0.01
        done
        exit 1
    """
    process = subprocess.Popen(
        ["ssh", *node.ssh_options, f"ubuntu@{node.address}", "sudo", "sh"], stdin=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(script.encode())
    process.stdin.close()
    return process


KILL_POINTS = {
    "while a file is checked": {"validate": True},
    "between files and restart": {"on_change": True},
    "while health is waited for": {"health": True},
}


@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_at_a_known_point_and_run_again(greeter: Greeter, point: str) -> None:
    """The second run must end like an undisturbed one: the unit runs with the new files, nothing is left to do."""
    greeter.run()
    marker = f"/run/{greeter.name}.marker"
    pause = f"touch {marker}; if [ -e {marker}.block ]; then sleep 60; fi"
    greeter.node.run(f"touch {marker}.block")
    greeter.greeting = "salve"
    chosen = KILL_POINTS[point]
    if "validate" in chosen:
        script = f"/root/{greeter.name}.sh"
        greeter.node.run(f"printf '%s\\n' '{pause}' >{script}")
        greeter.files = [{"dest": f"/etc/{greeter.name}/checked", "content": "x", "validate": f"sh {script} %s"}]
    elif "on_change" in chosen:
        greeter.extra = {"on_change": [["sh", "-c", pause]]}
    else:
        greeter.extra = {"health": {"command": ["sh", "-c", pause], "timeout": 100}}
    killer = kill_when(greeter.node, f"[ -e {marker} ]")
    process = greeter.start()
    assert killer.wait(timeout=60) == 0
    process.communicate(timeout=120)
    greeter.node.run(f"rm {marker}.block")

    completed = greeter.run()
    assert completed.changed
    assert greeter.answer() == "1.0 salve 0"
    assert not greeter.run().changed
    assert ".k8sgu" not in greeter.state()
    assert "undo" not in greeter.state()


def test_killed_before_a_reload_and_run_again(greeter: Greeter) -> None:
    """The next run reloads, since nobody has read the new file, and restarts nothing."""
    marker = f"/run/{greeter.name}.marker"
    reloaded = {"dest": f"/etc/{greeter.name}/reloaded", "content": "1", "reload": True}
    greeter.files = [reloaded]
    greeter.extra = {"on_change": [["sh", "-c", f"touch {marker}; if [ -e {marker}.block ]; then sleep 60; fi"]]}
    greeter.run()
    pid = greeter.pid()
    greeter.node.run(f"rm {marker}; touch {marker}.block")
    greeter.files = [{**reloaded, "content": "2"}]
    killer = kill_when(greeter.node, f"[ -e {marker} ]")
    process = greeter.start()
    assert killer.wait(timeout=60) == 0
    process.communicate(timeout=120)
    assert greeter.node.run(f"cat /etc/{greeter.name}/reloaded") == "2"
    assert greeter.answer() == "1.0 hello 0"
    greeter.node.run(f"rm {marker}.block")
    predicted = greeter.run("--check")
    assert f"reload {greeter.name}.service: it has not yet read its changed files" in predicted.reasons
    assert greeter.run().reasons == predicted.reasons
    assert (greeter.pid(), greeter.answer()) == (pid, "1.0 hello 1")
    assert not greeter.run().changed


def test_what_does_not_work_is_restarted_where_it_would_be_reloaded(greeter: Greeter) -> None:
    reloaded = {"dest": f"/etc/{greeter.name}/reloaded", "content": "1", "reload": True}
    greeter.files = [reloaded]
    ill = f"/run/{greeter.name}.ill"
    check = {"command": ["sh", "-c", f"! [ -e {ill} ]"], "timeout": 20}
    # Its next start cures it.
    cure = greeter.description()["unit"]
    cure = {**cure, "content": cure["content"].replace("[Service]", f"[Service]\nExecStartPre=+/bin/rm -f {ill}")}
    greeter.extra = {"health": check, "unit": cure}
    greeter.run()
    pid = greeter.pid()
    greeter.node.run(f"touch {ill}")
    greeter.files = [{**reloaded, "content": "2"}]
    predicted = greeter.run("--check")
    assert f"restart {greeter.name}.service: /etc/{greeter.name}/reloaded changed, and it is not" in predicted.reasons
    assert greeter.run().reasons == predicted.reasons
    assert greeter.pid() != pid
    assert not greeter.run().changed


def test_a_killed_unhealthy_run_is_rolled_back_to_what_worked_last(greeter: Greeter) -> None:
    """The way back is kept on the node, so that it survives the run that was to walk it."""
    greeter.run()
    marker = f"/run/{greeter.name}.marker"
    greeter.greeting = "broken"
    blocked = {"on_change": [["sh", "-c", f"touch {marker}; if [ -e {marker}.block ]; then sleep 60; fi"]]}
    greeter.extra = blocked
    greeter.node.run(f"touch {marker}.block")
    killer = kill_when(greeter.node, f"[ -e {marker} ]")
    process = greeter.start()
    assert killer.wait(timeout=60) == 0
    process.communicate(timeout=120)
    assert greeter.node.run(f"cat /etc/{greeter.name}/greeting") == "broken\n"
    greeter.node.run(f"rm {marker}.block")
    outcome = greeter.run(ok=False)
    assert "runs as before" in outcome.message
    assert greeter.node.run(f"cat /etc/{greeter.name}/greeting") == "hello\n"
    assert greeter.answer() == "1.0 hello 0"


def test_killed_at_any_moment_and_run_again(greeter: Greeter) -> None:
    """Kills at moments spread over a whole run; whatever was done by then, the next run completes it."""
    greeter.add_version("2.0")
    greeter.run()
    for number, delay in enumerate((0.0, 0.02, 0.06, 0.15)):
        greeter.greeting = f"salve{number}"
        greeter.version = "2.0" if number % 2 == 0 else "1.0"
        greeter.files = [{"dest": f"/etc/{greeter.name}/f{n}", "content": str(number)} for n in range(20)]
        locked = "lslocks -n -o PATH | grep -q k8sgu-component"
        killer = kill_when(greeter.node, f"{locked} && sleep {delay}")
        process = greeter.start()
        process.communicate(timeout=120)
        # A killer that came too late would wait there for the next run.
        greeter.node.run(f"rm {KILLER}")
        killer.wait(timeout=60)
        greeter.run()
        assert greeter.answer() == f"{greeter.version} {greeter.greeting} 0"
        assert not greeter.run().changed
        assert ".k8sgu" not in greeter.state()


def test_a_unit_that_was_started_often_is_started_once_more(greeter: Greeter) -> None:
    limit = "[Unit]\nStartLimitIntervalSec=600\nStartLimitBurst=2\n"
    greeter.extra = {"unit": {**greeter.description()["unit"]}}
    greeter.extra["unit"]["content"] = limit + greeter.extra["unit"]["content"]
    for number in range(4):
        greeter.greeting = f"hello{number}"
        assert greeter.run().changed
        assert greeter.answer() == f"1.0 hello{number} 0"


def test_a_run_with_nothing_to_do_is_cheap(greeter: Greeter) -> None:
    """Time that the components take on the node, Ansible's own start left out: the best of some runs, for something
    else may have the machine during one of them."""
    greeter.files = [{"dest": f"/etc/{greeter.name}/f{number}", "content": "x" * 2000} for number in range(15)]
    greeter.run()
    taken = []
    while not taken or (min(taken) >= 1.0 and len(taken) < 10):
        outcome = greeter.run()
        assert not outcome.changed
        taken.append(sum(entry["seconds"] for entry in outcome.result["components"]))
    # Generous: what it takes on an idle machine is in the benchmarks.
    assert min(taken) < 1.0, taken
