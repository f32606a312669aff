# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts that touch a system, each against a real one as far as a test without root can have it."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import socket
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "integration"))

import forward_proxy

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import fetch, health, node, record, systemd, undo
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    RELOAD,
    Artifact,
    Component,
    ComponentError,
    File,
    Health,
    Unit,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.record import Record
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.systemd import UnitState
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import PathState, Undo
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import sha256_of


class Handler(http.server.BaseHTTPRequestHandler):
    """/ok answers at once, /slow from the third request on, /short sends less than it promises; 404s have words."""

    requests = 0
    absent: ClassVar = {"/gone": b"there is no /gone in /lab/mirror\n", "/page": b"<html>\n<h1>404</h1>\n"}

    def do_GET(self) -> None:
        type(self).requests += 1
        body = self.absent.get(self.path, b"healthy: yes")
        ready = self.path == "/ok" or (self.path in ("/slow", "/short") and self.requests >= 3)
        self.send_response(404 if self.path in self.absent else 200 if ready or self.path == "/short" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if ready or self.path != "/short" else body[:4])

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.requests = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def wait(check: Health, timeout: float) -> str | None:
    return health.wait(lambda limit: health.probe(check, limit), timeout, lambda: False)


def test_health_of_an_address(server: str) -> None:
    assert wait(Health(url=f"{server}/ok", expect_body="yes$"), 5) is None
    assert wait(Health(url=f"{server}/slow"), 30) is None
    assert wait(Health(url=f"{server}/never"), 0.2) == "HTTP 503: 'healthy: yes'"
    assert wait(Health(url=f"{server}/never", expect_status=503), 5) is None
    assert "with the body 'healthy: yes'" in str(wait(Health(url=f"{server}/ok", expect_body="no"), 0.2))


def test_health_of_sockets_and_commands(tmp_path: Path, server: str) -> None:
    assert wait(Health(tcp=server.removeprefix("http://")), 5) is None
    assert "ConnectionRefusedError" in str(wait(Health(tcp="127.0.0.1:1"), 0.2))
    path = str(tmp_path / "socket")
    assert "FileNotFoundError" in str(wait(Health(unix=path), 0.2))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert wait(Health(unix=path), 5) is None
    assert wait(Health(command=["echo", "fine"], expect_body="fine"), 5) is None
    assert "its output is 'bad" in str(wait(Health(command=["echo", "bad"], expect_body="fine"), 0.2))
    assert "status 1" in str(wait(Health(command=["false"]), 0.2))
    assert "cannot be run" in str(wait(Health(command=["/nonexistent"]), 0.2))


def test_what_answers_late_works_and_a_refused_certificate_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, answers = [0.0], ["timed out", "timed out", None]
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(health.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(health, "probe", lambda _check, _limit: answers.pop(0) if len(answers) > 1 else answers[0])
    check = Health(tcp="127.0.0.1:1")
    assert health.works(check)
    answers[:], began = ["ConnectionRefusedError"], now[0]
    assert not health.works(check)
    assert 20 <= now[0] - began < 22
    answers[:], began = ["SSLError: [SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] expired"], now[0]
    assert not health.works(check)
    assert now[0] - began < 2


@pytest.mark.parametrize(("active", "asked"), [("inactive", 0), ("failed", 0), ("activating", 0), ("active", 1)])
def test_only_what_can_be_reloaded_is_asked_whether_it_works(
    active: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is waited for, which at a first start would be for nothing."""
    calls: list[Health] = []
    monkeypatch.setattr(health, "works", lambda check: calls.append(check) or False)
    component = Component(
        "x",
        files=[File("/nonexistent/x.crt", content=b"x", effect=RELOAD)],
        units=[Unit("x.service", content=None)],
        health=Health(tcp="127.0.0.1:1"),
    )
    current = node.examine(component, {}, Record(), {"x.service": UnitState("loaded", active)})
    assert len(calls) == asked
    assert current.healthy == (asked == 0)


def test_health_of_a_served_certificate(tmp_path: Path) -> None:
    """A program that serves its old certificate is not healthy, whoever signed both."""
    for name in ("old", "new"):
        names = "/CN=127.0.0.1"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        files = ["-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.crt"]
        subprocess.run([*command, "-days", "1", "-subj", names, *files], check=True, capture_output=True)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "old.crt", tmp_path / "old.key")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.socket = served.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{running.server_address[1]}"
        told = {name: [{"address": address, "certificate": str(tmp_path / f"{name}.crt")}] for name in ("old", "new")}
        assert health.presented(Health(tcp=address)) is None
        assert health.presented(Health(tcp=address, serves=told["old"])) is None
        both = Health(tcp=address, serves=told["old"] + told["new"])
        assert health.presented(both) == f"{address} presents another certificate than {tmp_path}/new.crt"
        assert f"and {address} to present {tmp_path}/new.crt" in both.describe()
        served.load_cert_chain(tmp_path / "new.crt", tmp_path / "new.key")
        assert health.presented(Health(tcp=address, serves=told["new"])) is None
        running.shutdown()
    assert "ConnectionRefusedError" in str(health.presented(Health(tcp=address, serves=told["new"])))
    (tmp_path / "new.crt").write_text("no certificate")
    assert "Error" in str(health.presented(Health(tcp=address, serves=told["new"])))


@pytest.mark.parametrize("ready_after", [0.0, 0.03, 0.5, 3.0, 20.0, 59.0])
def test_waiting_checks_rarely_and_notices_soon(monkeypatch: pytest.MonkeyPatch, ready_after: float) -> None:
    """With a fake clock: no later than a tenth of the wait or a second, and fewer than a hundred times."""
    now, asked = [100.0], [0]

    def attempt(_limit: float) -> str | None:
        asked[0] += 1
        return None if now[0] >= 100 + ready_after else "not yet"

    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(health.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert health.wait(attempt, 60, lambda: False) is None
    assert now[0] - 100 <= min(ready_after * 1.12 + 0.05, ready_after + 1)
    assert asked[0] < 100


def test_a_hopeless_wait_ends_early() -> None:
    assert health.wait(lambda _limit: "no", 600, lambda: True) == "no"


def test_a_command_that_does_not_end_is_named() -> None:
    with pytest.raises(ComponentError, match="sleep 30: did not end within 1 s"):
        systemd.run(["sleep", "30"], timeout=1)


def artifact(tmp_path: Path, content: bytes, url_path: str) -> Artifact:
    return Artifact(
        str(tmp_path / "opt" / "1" / "program"), url_path, hashlib.sha256(content).hexdigest(), len(content)
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="programs are made root's")


@needs_root
def test_programs_are_fetched_verified_and_put_in_place(tmp_path: Path, server: str) -> None:
    wanted = artifact(tmp_path, b"healthy: yes", "short")  # two of its answers end too early
    leftover = tmp_path / "opt" / "1" / ".program.partial"
    leftover.parent.mkdir(parents=True)
    leftover.write_bytes(b"of a run that was killed")
    fetch.install([wanted], server, "", "")
    path = Path(wanted.path)
    assert path.read_bytes() == b"healthy: yes"
    assert path.stat().st_mode & 0o7777 == 0o755
    assert [entry.name for entry in path.parent.iterdir()] == ["program"]

    for other, fault in (
        (artifact(tmp_path, b"Healthy: yes", "ok"), "not the 12 bytes"),
        (artifact(tmp_path, b"healthy: yes", "nothing"), "503"),
        (artifact(tmp_path, b"healthy: yes", "gone"), r"404 Not Found \(there is no /gone in /lab/mirror\); fill the"),
        (artifact(tmp_path, b"healthy: yes", "page"), "404 Not Found; fill the mirror again"),
    ):
        with pytest.raises(ComponentError, match=fault):
            fetch.install([other], server, "", "")
        assert path.read_bytes() == b"healthy: yes"
        assert [entry.name for entry in path.parent.iterdir()] == ["program"]
    with pytest.raises(ComponentError, match="does mirror_url reach it"):
        fetch.install([wanted], "http://127.0.0.1:1", "", "")


@needs_root
def test_a_proxy_to_the_mirror_is_the_one_that_is_given(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = artifact(tmp_path, b"healthy: yes", "ok")
    mirror = "http://mirror.example"
    address = ("127.0.0.1", int(server.rpartition(":")[2]))
    with forward_proxy.dead() as dead, forward_proxy.running({"mirror.example": address}, "u:pa55@word") as proxy:
        # As /etc/environment of a company's image has it: of no concern where no proxy is given.
        for name, value in forward_proxy.variables(dead).items():
            monkeypatch.setenv(name, value)
        fetch.install([wanted], server, "", "")
        assert proxy.requests == []
        fetch.install([wanted], mirror, f"http://u:pa55%40word@127.0.0.1:{proxy.port}", "")
        assert proxy.requests == ["GET http://mirror.example/ok"]
        with pytest.raises(ComponentError, match=r"407 Proxy Authentication Required") as raised:
            fetch.install([wanted], mirror, f"http://u:wr0ng@127.0.0.1:{proxy.port}", "")
        assert "wr0ng" not in str(raised.value)
        with pytest.raises(ComponentError, match=r"does mirror_url reach it through k8sgu_proxy\?") as raised:
            fetch.install([wanted], mirror, dead.replace("//", "//u:pa55%40word@"), "")
        assert "pa55" not in str(raised.value)


class Publisher(http.server.BaseHTTPRequestHandler):
    """What a publisher serves, by path; an answer that is a number of bytes first breaks off after so many."""

    files: ClassVar[dict[str, bytes]] = {}
    broken: ClassVar[dict[str, int]] = {}
    refused: ClassVar[dict[str, int]] = {}  # by path, the status of the next answer
    sent: ClassVar[dict[str, int]] = {}

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        body = self.files.get(path)
        if path in self.refused or body is None:
            self.send_error(self.refused.pop(path, 404))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        part = body[: self.broken.pop(path, len(body))]
        self.wfile.write(part)
        self.sent[path] = self.sent.get(path, 0) + len(part)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def publisher() -> Iterator[str]:
    for known in (Publisher.files, Publisher.broken, Publisher.refused, Publisher.sent):
        known.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Publisher) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def archive(members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def published(tmp_path: Path, name: str, content: bytes, origin: str, proxied: bool = False) -> Artifact:
    path = str(tmp_path / "opt" / "1" / name)
    return Artifact(path, "unused", hashlib.sha256(content).hexdigest(), len(content), origin=origin, proxied=proxied)


@needs_root
def test_programs_come_from_their_publishers(tmp_path: Path, publisher: str) -> None:
    """One download for all programs of an archive, also after one that broke off; nothing that differs is placed."""
    # Incompressible, so that half of the archive has one of the programs.
    one, two, alone = os.urandom(3 << 20), os.urandom(3 << 20), b"a program of its own"
    packed = archive({"./LICENSE": b"x", "db-v1/docs/one": b"of another kind", "db-v1/one": one, "db-v1/two": two})
    Publisher.files.update({"/db.tar.gz": packed, "/alone": alone})
    Publisher.broken["/db.tar.gz"] = len(packed) // 2 + (1 << 20)
    Publisher.refused["/alone"] = 429
    group = [
        published(tmp_path, "one", one, f"{publisher}/db.tar.gz"),
        published(tmp_path, "two", two, f"{publisher}/db.tar.gz"),
        published(tmp_path, "alone", alone, f"{publisher}/alone"),
    ]
    fetch.install(group, "", "", "")
    assert [sha256_of(artifact.path) for artifact in group] == [artifact.sha256 for artifact in group]
    assert Path(group[0].path).stat().st_mode & 0o7777 == 0o755
    assert Publisher.sent == {"/db.tar.gz": len(packed) + len(packed) // 2 + (1 << 20), "/alone": len(alone)}
    directory = Path(group[0].path).parent
    assert sorted(entry.name for entry in directory.iterdir()) == ["alone", "one", "two"]

    before = {path: path.read_bytes() for path in directory.iterdir()}
    other = hashlib.sha256(b"wanted").hexdigest()
    wrong = published(tmp_path, "one", b"wanted", f"{publisher}/db.tar.gz")
    with pytest.raises(ComponentError) as raised:
        fetch.install([wrong], "", "", "")
    for part in (
        f"db-v1/one in {publisher}/db.tar.gz",
        other,
        hashlib.sha256(one).hexdigest(),
        "its publisher changed",
    ):
        assert part in str(raised.value)
    for path, expected in (
        ("/db.tar.gz", "has no three"),
        ("/nothing.tar.gz", r"404 Not Found.*; k8sgu_proxy names a proxy to lead there; or set k8sgu_mirror_url"),
        ("/alone", "SHA-256 .*, not the 6 bytes"),
    ):
        with pytest.raises(ComponentError, match=expected):
            fetch.install([published(tmp_path, "three", b"wanted", publisher + path)], "", "", "")
    with pytest.raises(ComponentError, match=r"http://127.0.0.1:1/x cannot be fetched .*has no way there. k8sgu_proxy"):
        fetch.install([published(tmp_path, "three", b"wanted", "http://127.0.0.1:1/x")], "", "", "")
    assert {path: path.read_bytes() for path in directory.iterdir()} == before


@needs_root
def test_a_full_disk_is_named(tmp_path: Path, publisher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Publisher.files["/one"] = os.urandom(3 << 20)
    wanted = published(tmp_path, "one", Publisher.files["/one"], f"{publisher}/one")
    directory = Path(wanted.path).parent
    directory.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)], check=True, timeout=30)
    try:
        with pytest.raises(ComponentError, match=r"needs 3 MiB, has \d MiB; make room"):
            fetch.install([wanted], "", "", "")
        monkeypatch.setattr(fetch, "_check_space", lambda _artifacts: None)  # as where others fill it meanwhile
        with pytest.raises(ComponentError, match=r"/one has cannot be written: No space left on device; make room"):
            fetch.install([wanted], "", "", "")
        assert Publisher.sent.get("/one", 0) <= 2 * len(Publisher.files["/one"])
    finally:
        subprocess.run(["umount", str(directory)], check=True, timeout=30)


@needs_root
def test_publishers_are_reached_through_the_proxy(tmp_path: Path, publisher: str) -> None:
    Publisher.files["/one"] = b"one"
    address = ("127.0.0.1", int(publisher.rpartition(":")[2]))
    far = published(tmp_path, "one", b"one", "http://publisher.example/one", proxied=True)
    near = published(tmp_path, "two", b"one", f"{publisher}/one")
    with forward_proxy.running({"publisher.example": address}, "u:pa55@word") as proxy:
        fetch.install([far, near], "", "", "", f"http://u:pa55%40word@127.0.0.1:{proxy.port}")
        assert proxy.requests == ["GET http://publisher.example/one"]
        with pytest.raises(ComponentError, match="k8sgu_proxy has to lead there") as raised:
            fetch.install([far], "", "", "", "http://u:pa55%40word@127.0.0.1:1")
        assert "pa55" not in str(raised.value)


@needs_root
def test_pushed_programs_are_taken_and_removed(tmp_path: Path) -> None:
    wanted = artifact(tmp_path, b"pushed", "x")
    (tmp_path / wanted.sha256).write_bytes(b"pushed")
    fetch.install([wanted], "", "", str(tmp_path))
    assert Path(wanted.path).read_bytes() == b"pushed"
    assert not (tmp_path / wanted.sha256).exists()
    (tmp_path / wanted.sha256).write_bytes(b"Pushed")
    with pytest.raises(ComponentError, match="the pushed copy has 6 bytes"):
        fetch.install([wanted], "", "", str(tmp_path))


@needs_root
def test_a_fingerprint_saves_hashing_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = artifact(tmp_path, b"content", "x")
    path = Path(wanted.path)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    path.chmod(0o755)
    hashed: list[str] = []
    monkeypatch.setattr(node, "sha256_of", lambda name: hashed.append(name) or sha256_of(name))
    kept = Record()
    for _attempt in range(3):
        assert node.examine_binaries([wanted], kept) == {wanted.path: wanted.sha256}
    assert len(hashed) == 1
    before = path.stat()
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert node.examine_binaries([wanted], kept) != {wanted.path: wanted.sha256}
    assert len(hashed) == 2
    path.write_bytes(b"content")
    path.chmod(0o777)
    assert node.examine_binaries([wanted], kept) == {wanted.path: "permissions"}
    path.unlink()
    assert node.examine_binaries([wanted], kept) == {wanted.path: ""}


def test_the_way_back_and_the_record_survive_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undo, "DIRECTORY", str(tmp_path / "state"))
    monkeypatch.setattr(record, "DIRECTORY", str(tmp_path / "state"))
    assert undo.read("x") is None
    states = {
        "/a": PathState("file", 1, 2, 0o600, b"\xffsecret"),
        "/b": PathState(),
        "/c": PathState("link", target="d"),
    }
    written = Undo(states, {"x.service": {"running": True, "enabled": False}})
    undo.write("x", written)
    assert undo.read("x") == written
    assert (tmp_path / "state" / "x.undo.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "state" / "x.undo.json").write_text("{")
    assert undo.read("x") == Undo()
    undo.forget("x")
    assert undo.read("x") is None

    kept = Record(started_with={"x.service": {"/a": "1"}})
    record.write("x", kept)
    assert record.read("x") == kept
    (tmp_path / "state" / "x.json").write_text("[]")
    assert record.read("x") == Record()


def test_paths_are_restored(tmp_path: Path) -> None:
    file, link, gone = (str(tmp_path / name) for name in ("file", "link", "gone"))
    Path(file).write_text("old")
    Path(link).symlink_to("old")
    before = {path: undo.examine(path) for path in (file, link, gone)}
    Path(file).write_text("new")
    undo.replace_link(link, "new")
    Path(gone).write_text("new")
    for path, state in before.items():
        undo.restore(path, state)
    assert {path: undo.examine(path) for path in before} == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "link"]
