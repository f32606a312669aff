# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Downloads from a server that misbehaves: what is resumed, what is retried, what is refused."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "integration"))

import forward_proxy

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.transport import (
    answers,
    download,
    probe,
    read_small,
)
from ansible_collections.k8sgu.cluster.tests.unit.mirror.mirror_support import HOST, PROGRAM, QUICK, Publisher, sha256

STOP = threading.Event()


def get(publisher: Publisher, target: Path, digest: str = "", path: str = "/file") -> None:
    download(publisher.url + path, str(target), digest or sha256(PROGRAM), QUICK, STOP, lambda _done, _total: None)


@pytest.fixture
def target(tmp_path: Path, publisher: Publisher) -> Path:
    publisher.files["/file"] = PROGRAM
    return tmp_path / "download" / "file"


def test_plain(publisher: Publisher, target: Path) -> None:
    get(publisher, target)
    assert target.read_bytes() == PROGRAM
    assert not target.with_name("file.part").exists()


def test_downloads_go_through_a_proxy_and_loopback_does_not(
    publisher: Publisher, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(publisher.host.rpartition(":")[2])
    publisher.url = f"https://{HOST}:{port}"
    with forward_proxy.running({HOST: ("127.0.0.1", port)}, "user:pa55@word") as proxy:
        for name, value in forward_proxy.variables(f"http://user:pa55%40word@127.0.0.1:{proxy.port}").items():
            monkeypatch.setenv(name, value)
        get(publisher, target)
        assert target.read_bytes() == PROGRAM
        assert proxy.requests == [f"CONNECT {HOST}:{port}"]
        for name, value in forward_proxy.variables(f"http://user:wr0ng@127.0.0.1:{proxy.port}").items():
            monkeypatch.setenv(name, value)
        with pytest.raises(MirrorError, match=r"407 Proxy Authentication Required") as raised:
            get(publisher, target.with_name("again"))
        assert "wr0ng" not in str(raised.value)
        assert answers(f"https://127.0.0.1:{port}/file", 10) == ""
        assert len(proxy.requests) == 1


def test_broken_off_is_continued(publisher: Publisher, target: Path) -> None:
    publisher.cut["/file"] = [100_000]
    get(publisher, target)
    assert target.read_bytes() == PROGRAM
    assert [wanted for _method, _path, wanted in publisher.requests] == ["", "bytes=100000-"]


def test_a_killed_run_is_resumed(publisher: Publisher, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("file.part").write_bytes(PROGRAM[:70_000])
    get(publisher, target)
    assert target.read_bytes() == PROGRAM
    assert publisher.requests[0][2] == "bytes=70000-"


def test_server_without_ranges(publisher: Publisher, target: Path) -> None:
    publisher.ranges = False
    publisher.cut["/file"] = [100_000]
    get(publisher, target)
    assert target.read_bytes() == PROGRAM


def test_complete_part(publisher: Publisher, target: Path) -> None:
    """Killed between the last byte and the rename: the server has nothing more (416)."""
    target.parent.mkdir()
    target.with_name("file.part").write_bytes(PROGRAM)
    get(publisher, target)
    assert target.read_bytes() == PROGRAM


@pytest.mark.parametrize("part", [b"x" * 1000, PROGRAM + b"more"])
def test_part_of_another_file_is_thrown_away(publisher: Publisher, target: Path, part: bytes) -> None:
    target.parent.mkdir()
    target.with_name("file.part").write_bytes(part)
    get(publisher, target)
    assert target.read_bytes() == PROGRAM


def test_truncated_every_time(publisher: Publisher, target: Path) -> None:
    publisher.ranges = False
    publisher.cut["/file"] = [10, 20, 30]
    with pytest.raises(MirrorError, match=rf"broke off after 30 of {len(PROGRAM)} bytes.*\(3 attempts\)"):
        get(publisher, target)
    assert not target.exists()


def test_passing_errors_are_retried(publisher: Publisher, target: Path) -> None:
    publisher.errors["/file"] = [503, 429]
    get(publisher, target)
    assert target.read_bytes() == PROGRAM


def test_final_errors_are_not(publisher: Publisher, target: Path) -> None:
    with pytest.raises(MirrorError, match="/none: 404"):
        get(publisher, target, path="/none")
    assert publisher.asked()["/none"] == 1


def test_wrong_sum_shows_both_and_removes_the_file(publisher: Publisher, target: Path) -> None:
    publisher.files["/file"] = b"other"
    with pytest.raises(MirrorError, match=f"{sha256(b'other')}, but {sha256(PROGRAM)} is pinned; the file was removed"):
        get(publisher, target)
    assert list(target.parent.iterdir()) == []


def test_redirect_to_plain_http_is_refused(publisher: Publisher, target: Path) -> None:
    publisher.redirects["/file"] = "http://127.0.0.1:1/file"
    with pytest.raises(MirrorError, match="which is not HTTPS"):
        get(publisher, target)


def test_redirect_within_https_is_followed(publisher: Publisher, target: Path) -> None:
    publisher.redirects["/moved"] = publisher.url + "/file"
    get(publisher, target, path="/moved")
    assert target.read_bytes() == PROGRAM


def test_plain_http_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="is not an https address"):
        download("http://192.0.2.1/x", str(tmp_path / "x"), "0" * 64, QUICK, STOP, lambda _done, _total: None)


def test_untrusted_certificate(publisher: Publisher, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(MirrorError, match="its certificate is not trusted"):
        get(publisher, target)


def test_stopped_run_keeps_what_it_has(publisher: Publisher, target: Path) -> None:
    stop = threading.Event()

    def first_bytes(_done: int, _total: int) -> None:
        stop.set()

    publisher.files["/file"] = PROGRAM * 20
    with pytest.raises(MirrorError, match="stopped"):
        download(f"{publisher.url}/file", str(target), "0" * 64, QUICK, stop, first_bytes)
    assert target.with_name("file.part").stat().st_size > 0


def test_small_file_is_bounded(publisher: Publisher) -> None:
    publisher.files["/sums"] = b"x" * (9 << 20)
    with pytest.raises(MirrorError, match="is larger than"):
        read_small(publisher.url + "/sums", QUICK, STOP)


def test_probe(publisher: Publisher) -> None:
    publisher.files["/file"] = PROGRAM
    found = probe({"up": publisher.url + "/file", "gone": publisher.url + "/none", "down": "https://127.0.0.1:1/x"}, 5)
    assert found["up"] == ""
    assert "404" in found["gone"]
    assert "refused" in found["down"]
    publisher.token = "secret"
    assert answers(publisher.url + "/v2/", 5) == ""


def test_probe_does_not_wait_for_the_silent(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, told = threading.Event(), threading.Event()

    def silent(_handler: object) -> None:
        asked.set()
        told.wait(30)

    monkeypatch.setattr(publisher, "answer", silent)
    try:
        assert "timed out" in probe({"silent": publisher.url + "/file"}, 0.5)["silent"]
        # It gave up by itself: nobody has told the server to answer yet.
        assert asked.is_set() and not told.is_set()
    finally:
        told.set()
