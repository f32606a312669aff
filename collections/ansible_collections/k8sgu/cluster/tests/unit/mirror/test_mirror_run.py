# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs against a publisher on loopback: what a user gets, and what is left when a run fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import sha256_of
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import oci, progress, userland
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.run import Outcome, complete
from ansible_collections.k8sgu.cluster.tests.unit.mirror.mirror_support import (
    PROGRAM,
    ROOT,
    Publisher,
    archive,
    parameters,
    serve_image,
    sha256,
    write_release,
    write_tool,
)

DATABASE = archive({"db-1.0/db": b"server" * 30000, "db-1.0/dbctl": b"client" * 20000, "db-1.0/README": b"read me"})


@pytest.fixture
def releases(publisher: Publisher, tmp_path: Path) -> Path:
    """A release of three: a program with a known sum, an archive whose publisher has the sum, one built here."""
    publisher.files["/agent-amd64"] = PROGRAM
    publisher.files["/db-amd64.tgz"] = DATABASE
    publisher.files["/SUMS"] = f"{sha256(DATABASE)}  db-amd64.tgz\n".encode()
    components: dict[str, Any] = {
        "agent": {
            "version": "1.0",
            "upstream": {"url": publisher.url + "/agent-{arch}", "sha256": {"amd64": sha256(PROGRAM)}},
        },
        "db": {
            "version": "2.0",
            "upstream": {
                "url": publisher.url + "/db-{arch}.tgz",
                "files": ["db", "dbctl"],
                "checksums": publisher.url + "/SUMS",
            },
        },
    }
    directory = write_release(tmp_path, components)
    components["tool"] = {"version": "1.0", "build": write_tool(directory)}
    image = {
        "name": "example.org/team/tool:v1",
        "published": False,
        "build": {**write_tool(directory), "layout": {"/tool": "tool"}, "entrypoint": ["/tool"], "user": "65532"},
    }
    return write_release(tmp_path, components, {"tool": image})


def fill(releases: Path, tmp_path: Path, check: bool = False, **changes: Any) -> Outcome:
    return complete(parameters(releases, tmp_path, **changes), check, lambda _text: None)


def tree(root: Path) -> dict[str, str]:
    """{file: checksum} of a directory; empty if it does not exist."""
    return {str(path.relative_to(root)): sha256_of(str(path)) for path in root.rglob("*") if path.is_file()}


def assert_whole(mirror: Path) -> None:
    """Everything in the manifest exists and is right, and no file with a final name is incomplete."""
    expected = {
        "files/agent/1.0/amd64/agent": sha256(PROGRAM),
        "files/db/2.0/amd64/db": sha256(b"server" * 30000),
        "files/db/2.0/amd64/dbctl": sha256(b"client" * 20000),
    }
    for path in mirror.rglob("*"):
        relative = str(path.relative_to(mirror))
        if relative in expected:
            assert sha256_of(str(path)) == expected[relative]
        elif path.parent.name == "sha256" and re.fullmatch(r"[0-9a-f]{64}", path.name):
            assert sha256_of(str(path)) == path.name
    if (mirror / "manifest.json").exists():
        manifest = json.loads((mirror / "manifest.json").read_text())
        for entry in manifest["files"]:
            assert sha256_of(str(mirror / entry["path"])) == entry["sha256"]
            assert (mirror / entry["path"]).stat().st_size == entry["size"]


def test_check_run_check_run(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    planned = fill(releases, tmp_path, check=True)
    assert not (tmp_path / "mirror").exists()
    assert not (tmp_path / "cache").exists()
    assert not (releases / "1.36.lock.yml").exists()
    done = fill(releases, tmp_path)
    assert planned.as_result()["steps"] == done.as_result()["steps"]
    assert [step["source"] for step in done.as_result()["steps"]] == ["upstream", "upstream", "build", "build"]
    assert done.as_result()["changed"]
    assert_whole(tmp_path / "mirror")
    before = tree(tmp_path)
    publisher.requests.clear()
    assert not fill(releases, tmp_path, check=True).as_result()["changed"]
    assert not fill(releases, tmp_path).as_result()["changed"]
    assert tree(tmp_path) == before
    assert publisher.requests == []


def test_manifest_is_as_documented(releases: Path, tmp_path: Path) -> None:
    fill(releases, tmp_path)
    manifest = json.loads((tmp_path / "mirror" / "manifest.json").read_text())
    assert manifest["schema"] == 1
    agent = next(entry for entry in manifest["files"] if entry["component"] == "agent")
    assert {key: agent[key] for key in ("name", "version", "arch", "source", "path", "sha256", "size")} == {
        "name": "agent",
        "version": "1.0",
        "arch": "amd64",
        "source": "upstream",
        "path": "files/agent/1.0/amd64/agent",
        "sha256": sha256(PROGRAM),
        "size": len(PROGRAM),
    }
    assert os.access(tmp_path / "mirror" / agent["path"], os.X_OK)
    [image] = manifest["images"]
    assert (image["name"], image["path"], image["arches"]) == (
        "example.org/team/tool:v1",
        "images/example.org/team/tool",
        ["amd64"],
    )
    layout = tmp_path / "mirror" / image["path"]
    index = json.loads((layout / "index.json").read_text())["manifests"][0]
    assert (index["digest"], index["annotations"]["org.opencontainers.image.ref.name"]) == (image["digest"], "v1")


def test_published_sum_is_pinned(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    fill(releases, tmp_path)
    lock = yaml.safe_load((releases / "1.36.lock.yml").read_text())
    assert lock["files"] == {publisher.url + "/db-amd64.tgz": sha256(DATABASE)}
    # Its publisher puts up another file, with a sum to match: what was pinned counts.
    other = archive({"db-1.0/db": b"evil", "db-1.0/dbctl": b"evil"})
    publisher.files["/db-amd64.tgz"] = other
    publisher.files["/SUMS"] = f"{sha256(other)}  db-amd64.tgz\n".encode()
    with pytest.raises(MirrorError, match=f"has the sha256 {sha256(other)}, but {sha256(DATABASE)} is pinned"):
        fill(releases, tmp_path, mirror_dir=str(tmp_path / "second"), cache_dir=str(tmp_path / "cache2"))
    assert not (tmp_path / "second" / "files" / "db").exists()


def test_sum_that_does_not_match_pins_nothing(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["/SUMS"] = f"{'0' * 64}  db-amd64.tgz\n".encode()
    with pytest.raises(MirrorError, match=f"has the sha256 {sha256(DATABASE)}, but {'0' * 64} is pinned"):
        fill(releases, tmp_path)
    assert not (releases / "1.36.lock.yml").exists()
    publisher.files["/SUMS"] = b"<html>sign in</html>"
    with pytest.raises(MirrorError, match=r"gives no SHA-256 for db-amd64\.tgz; unverified files are not used"):
        fill(releases, tmp_path)


@pytest.mark.parametrize(("parallel", "most"), [(1, 1), (3, 3)])
def test_so_many_downloads_at_a_time(publisher: Publisher, tmp_path: Path, parallel: int, most: int) -> None:
    components = {}
    for number in range(6):
        publisher.files[f"/part{number}"] = PROGRAM + str(number).encode()
        digest = sha256(publisher.files[f"/part{number}"])
        upstream = {"url": f"{publisher.url}/part{number}", "sha256": {"amd64": digest}}
        components[f"part{number}"] = {"version": "1.0", "upstream": upstream}
    publisher.slow = 0.05
    # With source: upstream nothing is probed, and so every request is a download.
    fill(write_release(tmp_path, components), tmp_path, parallel=parallel, source="upstream")
    assert publisher.peak == most


def test_a_person_sees_that_it_lives(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.3)
    publisher.files["/big"] = PROGRAM * 16
    upstream = {"url": f"{publisher.url}/big", "sha256": {"amd64": sha256(PROGRAM * 16)}}
    directory = write_release(tmp_path, {"big": {"version": "1.0", "upstream": upstream}})
    publisher.slow = 0.02
    said: list[str] = []
    complete(parameters(directory, tmp_path), False, said.append)
    beats = [line for line in said if line.startswith("    under way: ")]
    assert any(re.search(r"big 1\.0 amd64 \([1-4]\.\d MB of 5\.4 MB, \d+%, 0:0\d\)", line) for line in beats), said


def test_a_userland_of_another_architecture_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userland, "machine_architecture", lambda: "amd64")
    parts = {"packages": ["busybox-static"], "programs": ["/bin/busybox"]}
    image = {"name": "example.org/team/box:1.0", "published": False, "build": {"userland": parts}}
    directory = write_release(tmp_path, {}, {"box": image})
    with pytest.raises(MirrorError, match=r"this machine's distribution \(amd64\), and arm64 is wanted; use source"):
        fill(directory, tmp_path, architectures=["amd64", "arm64"])
    assert not (tmp_path / "mirror").exists()


@pytest.mark.parametrize(
    ("version", "warned"), [("5:7.0.15-1~deb12u1", False), ("5:7.2.4-1", True), ("7.0.15", False), ("5:7.0.1-1", True)]
)
def test_a_tag_that_the_distribution_does_not_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, warned: bool
) -> None:
    made = userland.Packages({"redis-server": version, "busybox-static": "1:1.35.0"}, oci.Layer())
    monkeypatch.setattr(userland, "assemble", lambda _userland, _work: made)
    parts = {"packages": ["redis-server", "busybox-static"], "programs": []}
    image = {"name": "docker.io/library/redis:7.0.15", "published": False, "build": {"userland": parts}}
    said: list[str] = []
    complete(parameters(write_release(tmp_path, {}, {"database": image}), tmp_path), False, said.append)
    assert any("redis:7.0.15: this distribution's redis-server is 7." in line for line in said) == warned


def test_a_package_is_used_until_there_is_a_file(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    data = yaml.safe_load((releases / "1.36.yml").read_text())
    del data["components"]["db"]
    data["components"]["agent"]["distribution"] = "agent-bin"
    (releases / "1.36.yml").write_text(yaml.safe_dump(data))

    def recorded() -> tuple[list[Any], list[Any]]:
        found = json.loads((tmp_path / "mirror" / "manifest.json").read_text())
        return found["packages"], [entry["source"] for entry in found["files"] if entry["component"] == "agent"]

    entry = {"component": "agent", "version": "1.0", "arch": "amd64", "package": "agent-bin", "source": "distribution"}
    fill(releases, tmp_path, source="build")
    assert recorded() == ([entry], [])
    fill(releases, tmp_path, source="upstream")
    assert recorded() == ([], ["upstream"])
    # What upstream gave serves with any source, so the file goes only with its entry.
    (tmp_path / "mirror" / "files" / "agent" / "1.0" / "amd64" / "agent").unlink()
    fill(releases, tmp_path, source="build")
    assert recorded() == ([entry], [])
    # Of another version it says nothing.
    data["components"]["agent"]["version"] = "1.1"
    (releases / "1.36.yml").write_text(yaml.safe_dump(data))
    [step] = fill(releases, tmp_path, source="build").as_result()["steps"]
    assert (step["item"], step["source"]) == ("agent 1.1 amd64", "distribution")


def test_second_mirror_comes_from_the_cache(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    fill(releases, tmp_path)
    publisher.requests.clear()
    fill(releases, tmp_path, mirror_dir=str(tmp_path / "second"), source="upstream")
    assert publisher.requests == []
    assert_whole(tmp_path / "second")


def test_an_automatic_choice_is_explained(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    data = yaml.safe_load((releases / "1.36.yml").read_text())
    recipe = {**write_tool(releases, "agent"), "packages": {"agent": "."}}
    data["components"]["agent"]["build"] = recipe
    data["components"]["agent"]["upstream"]["url"] = "https://127.0.0.1:1/agent-{arch}"
    (releases / "1.36.yml").write_text(yaml.safe_dump(data))
    said: list[str] = []
    outcome = complete(parameters(releases, tmp_path), False, said.append)
    sources = {step["item"]: (step["source"], step["because"]) for step in outcome.as_result()["steps"]}
    assert sources["agent 1.0 amd64"] == ("build", "127.0.0.1:1 does not answer")
    assert sources["db 2.0 amd64"] == ("upstream", f"{publisher.host} answers")
    assert any("127.0.0.1:1: does not answer, so its programs are built here: " in line for line in said)
    assert any("[4/4] " in line for line in said)


def with_recipe(releases: Path, component: str) -> None:
    """Give a published component of the release a recipe too."""
    data = yaml.safe_load((releases / "1.36.yml").read_text())
    data["components"][component]["build"] = write_tool(releases, component)
    (releases / "1.36.yml").write_text(yaml.safe_dump(data))


@pytest.mark.parametrize("status", [403, 404, 503])
def test_an_item_that_its_publisher_refuses_is_built(
    releases: Path, publisher: Publisher, tmp_path: Path, status: int
) -> None:
    with_recipe(releases, "agent")
    publisher.refused["/agent-amd64"] = status
    said: list[str] = []
    outcome = complete(parameters(releases, tmp_path, attempts=1), False, said.append)
    steps = {step["item"]: step for step in outcome.as_result()["steps"]}
    assert steps["agent 1.0 amd64"]["source"] == "build"
    assert f"/agent-amd64: {status} " in steps["agent 1.0 amd64"]["because"]
    assert any(f"/agent-amd64: {status} " in line and "source: build instead" in line for line in said)
    assert not fill(releases, tmp_path).as_result()["changed"]


def test_only_auto_builds_what_its_publisher_refuses(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    with_recipe(releases, "agent")
    del publisher.files["/agent-amd64"]
    with pytest.raises(MirrorError, match=r"/agent-amd64: 404 "):
        fill(releases, tmp_path, source="upstream")


def test_a_wrong_checksum_is_an_error_even_with_a_recipe(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    with_recipe(releases, "agent")
    publisher.files["/agent-amd64"] = b"evil" * 1000
    with pytest.raises(MirrorError, match=r"has the sha256 .* is pinned; the file was removed"):
        fill(releases, tmp_path)
    assert not (tmp_path / "mirror" / "files" / "agent").exists()


def test_automatic_choice_without_go(
    releases: Path, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _name, path=None: None)
    expected = (
        r"^tool 1\.0 amd64 would be built here, since it is not published: that needs Go 1\.21 or newer, and there is "
        r"no `go` on PATH; install it .*source: directory with a mirror that was filled elsewhere$"
    )
    with pytest.raises(MirrorError, match=expected):
        fill(releases, tmp_path)


def test_a_changed_recipe_is_built_again(releases: Path, tmp_path: Path) -> None:
    fill(releases, tmp_path)
    write_tool(releases, text="changed")
    steps = fill(releases, tmp_path).as_result()["steps"]
    assert {(step["item"], step["reason"]) for step in steps} == {
        ("tool 1.0 amd64", "tool was built from other sources"),
        ("example.org/team/tool:v1", "was built from other sources"),
    }


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "agent is missing"),
        (lambda path: path.write_bytes(b"short"), f"agent has 5 bytes instead of {len(PROGRAM)}"),
        (lambda path: path.write_bytes(b"x" * len(PROGRAM)), "agent has the sha256 "),
    ],
)
def test_damage_is_repaired(releases: Path, tmp_path: Path, damage: Any, reason: str) -> None:
    fill(releases, tmp_path)
    path = tmp_path / "mirror" / "files" / "agent" / "1.0" / "amd64" / "agent"
    path.write_bytes(path.read_bytes())  # of its own: what is linked to it in the cache stays
    os.utime(path, ns=(1, 1))
    damage(path)
    [step] = fill(releases, tmp_path).as_result()["steps"]
    assert step["reason"].startswith(reason)
    assert_whole(tmp_path / "mirror")


def test_a_damaged_blob_is_fetched_again(tmp_path: Path) -> None:
    registry = Publisher(None)
    serve_image(registry, "team/tool", "v1", ("amd64",))
    directory = write_release(tmp_path, {}, {"tool": {"name": f"{registry.host}/team/tool:v1"}})
    fill(directory, tmp_path, source="upstream")
    layout = tmp_path / "mirror" / "images" / registry.host / "team" / "tool"
    for path in sorted((layout / "blobs" / "sha256").iterdir()):
        whole = path.read_bytes()
        path.write_bytes(b"x" * len(whole))
        assert fill(directory, tmp_path, source="upstream").as_result()["changed"]
        assert path.read_bytes() == whole
        assert not fill(directory, tmp_path, source="upstream").as_result()["changed"]
    registry.close()


def test_directory(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    fill(releases, tmp_path)
    publisher.close()
    site = {"mirror_dir": str(tmp_path / "site"), "cache_dir": str(tmp_path / "cache2"), "source": "directory"}
    outcome = fill(releases, tmp_path, **site, source_dir=str(tmp_path / "mirror"))
    assert {step["source"] for step in outcome.as_result()["steps"]} == {"directory"}
    assert_whole(tmp_path / "site")
    assert not fill(releases, tmp_path, **site).as_result()["changed"]


def test_directory_with_a_file_missing(releases: Path, tmp_path: Path) -> None:
    fill(releases, tmp_path)
    (tmp_path / "mirror" / "files" / "db" / "2.0" / "amd64" / "dbctl").unlink()
    blob = next(path for path in (tmp_path / "mirror" / "images").rglob("sha256/*") if path.stat().st_size > 100000)
    blob.unlink()
    changes = {"mirror_dir": str(tmp_path / "site"), "source_dir": str(tmp_path / "mirror"), "source": "directory"}
    with pytest.raises(
        MirrorError, match=r"is not complete .*db 2.0 amd64 dbctl is missing; .*tool:v1 blob .* is missing"
    ):
        fill(releases, tmp_path, check=True, **changes)
    with pytest.raises(MirrorError, match="is not complete"):
        fill(releases, tmp_path, **changes)
    assert not (tmp_path / "site").exists()
    with pytest.raises(MirrorError, match="is not there; copy a filled mirror to it"):
        fill(releases, tmp_path, **{**changes, "source_dir": str(tmp_path / "none")})


def test_manifest_that_leads_out(releases: Path, tmp_path: Path) -> None:
    fill(releases, tmp_path)
    path = tmp_path / "mirror" / "images" / "example.org" / "team" / "tool" / "index.json"
    index = json.loads(path.read_text())
    index["manifests"][0]["digest"] = "sha256:../../../../../../etc/passwd"
    path.write_text(json.dumps(index))
    [step] = fill(releases, tmp_path).as_result()["steps"]
    assert step["item"] == "example.org/team/tool:v1"


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99}', '{"files": [{}]}'])
def test_damaged_manifest(releases: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "manifest.json").write_text(text)
    with pytest.raises(MirrorError, match=r"manifest\.json: .*(remove it|version of k8sgu|empty mirror_dir)"):
        fill(releases, tmp_path)


@pytest.mark.parametrize("option", ["parallel", "attempts", "timeout"])
def test_numbers_below_one(releases: Path, tmp_path: Path, option: str) -> None:
    with pytest.raises(MirrorError, match=f"^{option}: must be at least 1, not 0"):
        fill(releases, tmp_path, **{option: 0})


RUNNER = """
import json, sys
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.run import complete
try:
    complete(json.loads(sys.argv[1]), False, lambda text: print(text, flush=True))
except MirrorError as error:
    sys.exit(str(error))
"""


def start(given: dict[str, Any], *wrapper: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
    argv = [*wrapper, sys.executable, "-c", RUNNER, json.dumps(given)]
    return subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def test_killed_at_any_moment(
    releases: Path, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed later and later until a run completes: nothing is ever incomplete, and the final mirror is the same."""
    fill(releases, tmp_path, mirror_dir=str(tmp_path / "reference"), cache_dir=str(tmp_path / "reference-cache"))
    given = parameters(releases, tmp_path)

    def kill(process: subprocess.Popen[str]) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert_whole(tmp_path / "mirror")

    # The first time at its first request, which is answered only afterwards: however fast a machine is, this one lands.
    asked, killed, answer = threading.Event(), threading.Event(), publisher.answer

    def answer_late(handler: Any) -> None:
        asked.set()
        killed.wait(60)
        answer(handler)

    monkeypatch.setattr(publisher, "answer", answer_late)
    process = start(given)
    assert asked.wait(60)
    kill(process)
    killed.set()
    publisher.slow = 0.02
    for delay in [0.1 + 0.15 * number for number in range(14)] + [120.0]:
        process = start(given)
        try:
            process.communicate(timeout=delay)
            assert process.returncode == 0
            break
        except subprocess.TimeoutExpired:
            kill(process)
    publisher.slow = 0
    fill(releases, tmp_path)
    reference, mirror = tree(tmp_path / "reference"), tree(tmp_path / "mirror")
    assert {name for name in mirror if "k8sgu" in name} == set()
    reference.pop(".verified.json")
    mirror.pop(".verified.json")
    assert mirror == reference


def refused_on_a_small_disk(releases: Path, tmp_path: Path, option: str, size: str) -> str:
    """The error of a run whose `option` is `small` in tmp_path, a small file system."""
    small = tmp_path / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
    given = parameters(releases, tmp_path, **{option: str(small)})
    process = start(given, "unshare", "--mount", "sh", "-c", mount, str(small))
    _output, said = process.communicate(timeout=240)
    assert process.returncode == 1
    return said


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system of its own needs root")
def test_full_disk(releases: Path, tmp_path: Path) -> None:
    said = refused_on_a_small_disk(releases, tmp_path, "mirror_dir", "100k")
    assert "no space left (" in said
    assert "point mirror_dir and cache_dir at a larger file system" in said
    assert str(tmp_path / "small") in said


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system of its own needs root")
def test_a_build_without_room_is_not_begun(releases: Path, tmp_path: Path) -> None:
    said = refused_on_a_small_disk(releases, tmp_path, "cache_dir", "8m")
    assert f"{tmp_path}/small: 8 MiB are free, and what is missing takes about 40" in said
    assert "point cache_dir (XDG_CACHE_HOME) at a larger file system" in said
    # Neither was anything fetched.
    assert not (tmp_path / "mirror").exists()


def test_a_killed_run_takes_its_builds_along(releases: Path, tmp_path: Path) -> None:
    """A compiler that would take minutes ends with the run, although its parent was killed."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(f"""#!/bin/sh
if [ "$1" = env ]; then echo '{{"GOVERSION": "go1.99.0"}}'; exit; fi
echo $$ > "{tmp_path}/building.part" && mv "{tmp_path}/building.part" "{tmp_path}/building"
exec sleep 300
""")
    go.chmod(0o755)
    process = start(parameters(releases, tmp_path), "env", f"PATH={go.parent}:{os.environ['PATH']}")
    try:
        wait_until((tmp_path / "building").exists)
        compiler = int((tmp_path / "building").read_text())
        assert running(compiler)
        process.kill()
        process.communicate()
        wait_until(lambda: not running(compiler))
    finally:
        process.kill()
        process.wait()


def running(process: int) -> bool:
    """Whether the process has ended; one that only waits to be reaped has."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "not within 60 s"
        time.sleep(0.05)


def test_temporary_files_of_killed_runs_are_removed(releases: Path, tmp_path: Path) -> None:
    fill(releases, tmp_path)
    program = tmp_path / "mirror" / "files" / "agent" / "1.0" / "amd64" / "agent"
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    stray = program.with_name(f".agent.{gone}.0123abcd.k8sgu")
    stray.write_bytes(b"half")
    program.unlink()
    fill(releases, tmp_path)
    assert sorted(path.name for path in program.parent.iterdir()) == ["agent"]


def test_two_runs_on_one_mirror_lose_nothing(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    """Of different caches, and so at the same time, with different options."""
    data = yaml.safe_load((releases / "1.36.yml").read_text())
    data["components"]["agent"]["needed_for"] = {"pod_network": "routed"}
    data["components"]["db"]["needed_for"] = {"pod_network": "vxlan"}
    (releases / "1.36.yml").write_text(yaml.safe_dump(data))
    publisher.slow = 0.1
    networks = ("routed", "vxlan")
    changes = [{"pod_network": network, "cache_dir": str(tmp_path / network)} for network in networks]
    runs = [start(parameters(releases, tmp_path, **change)) for change in changes]
    for process in runs:
        _output, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    manifest = json.loads((tmp_path / "mirror" / "manifest.json").read_text())
    assert {entry["component"] for entry in manifest["files"]} == {"agent", "db", "tool"}
    for change in changes:
        assert not fill(releases, tmp_path, **change).as_result()["changed"]


def test_two_runs_at_a_time(releases: Path, publisher: Publisher, tmp_path: Path) -> None:
    publisher.slow = 0.1
    first = start(parameters(releases, tmp_path))
    time.sleep(0.2)
    second = start(parameters(releases, tmp_path, mirror_dir=str(tmp_path / "second")))
    for process in (first, second):
        _output, said = process.communicate(timeout=240)
        assert process.returncode == 0, said
    assert_whole(tmp_path / "mirror")
    assert_whole(tmp_path / "second")
