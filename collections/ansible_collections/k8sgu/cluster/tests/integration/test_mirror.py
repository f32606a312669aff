# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role artifacts through ansible-playbook: check mode, run, both again; and what its images are worth.

The release is the real one's smallest programs, built by the real Go toolchain and apt.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ansible_program
import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import oci

# Go's own library is compiled where its cache is cold, and the machine may be busy.
TIMEOUT_S = 800
GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
pytestmark = [pytest.mark.skipif(GO is None, reason="no Go toolchain on this machine"), pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with releases/ and the play; the release has pause alone, and the build directory is the real one."""
    base = tmp_path_factory.mktemp("site")
    real = yaml.safe_load((Path(__file__).resolve().parents[2] / "releases" / "1.36.yml").read_text())
    releases = base / "releases"
    releases.mkdir()
    (releases / "build").symlink_to(Path(__file__).resolve().parents[2] / "releases" / "build")
    for name, wanted in (
        ("1.36", ["pause"]),
        ("1.37", ["pause", "agnhost"]),
        ("1.38", ["demo-database"]),
    ):
        data = {**real, "release": name, "kubernetes": f"{name}.1", "components": {}}
        data["images"] = {key: dict(real["images"][key]) for key in wanted}
        for image in data["images"].values():
            image["published"] = False
        if "agnhost" in wanted:
            # This tests the userland; the program in it is another small one.
            build = data["images"]["agnhost"]["build"]
            build.update(module="pause", packages={"agnhost": "."}, stamp={}, tags=[])
        (releases / f"{name}.yml").write_text(yaml.safe_dump(data))
    play = [{"hosts": "localhost", "gather_facts": False, "roles": ["k8sgu.cluster.artifacts"]}]
    (base / "play.yml").write_text(yaml.safe_dump(play))
    return base


def playbook(site: Path, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    given = {
        "k8sgu_releases_dir": str(site / "releases"),
        "k8sgu_mirror_dir": str(site / "mirror"),
        "k8sgu_state_dir": str(site / "state"),
        "k8sgu_kubernetes_version": "1.36.1",
        "k8sgu_artifact_source": "build",
        **variables,
    }
    return ansible_program.run(
        "ansible-playbook",
        "--inventory=localhost,",
        "--connection=local",
        site / "play.yml",
        f"--extra-vars={json.dumps(given)}",
        *arguments,
        environment={
            **ansible_program.own_configuration(site, "[defaults]\nnocows = true\n"),
            "XDG_CACHE_HOME": str(site / "cache"),
            "GOCACHE": go_cache(),
        },
        timeout=TIMEOUT_S,
    )


def go_cache() -> str:
    """The user's own cache of compiled packages, which XDG_CACHE_HOME would move too."""
    answer = subprocess.run([str(GO), "env", "GOCACHE"], capture_output=True, text=True, timeout=60, check=True)
    return answer.stdout.strip()


def test_check_run_check_run(site: Path) -> None:
    planned = playbook(site, "--check", "--diff")
    assert "changed=1 " in planned.stdout, planned.stdout + planned.stderr
    assert "+registry.k8s.io/pause:3.10.2" in planned.stdout
    assert not (site / "mirror").exists()
    assert not (site / "cache" / "k8sgu").exists()
    done = playbook(site)
    assert "changed=1 " in done.stdout, done.stdout + done.stderr
    assert "mirror: [1/2] pause amd64: built pause" in done.stdout
    assert "mirror: [2/2] registry.k8s.io/pause:3.10.2: assembled" in done.stdout
    assert "changed=0 " in playbook(site, "--check").stdout
    assert "changed=0 " in playbook(site).stdout
    manifest = json.loads((site / "mirror" / "manifest.json").read_text())
    assert [image["name"] for image in manifest["images"]] == ["registry.k8s.io/pause:3.10.2"]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"k8sgu_kubernetes_version": "1.36.9"}, "there is no release 1.36.9"),
        ({"k8sgu_kubernetes_version": "1.30.1"}, "is below 1.36, the oldest"),
        ({"k8sgu_artifact_architectures": ["riscv64"]}, "architectures: 1.36.1 has no riscv64; it has amd64, arm64"),
        ({"k8sgu_artifact_source": "guess"}, "k8sgu_artifact_source"),
        ({"k8sgu_artifact_source": "directory", "k8sgu_mirror_dir": "/nonexistent/mirror"}, "is not there"),
    ],
)
def test_bad_input(site: Path, variables: dict[str, Any], expected: str) -> None:
    answer = playbook(site, **variables)
    assert answer.returncode != 0
    assert expected in " ".join((answer.stdout + answer.stderr).split())
    assert "Traceback" not in answer.stdout + answer.stderr


def unpack(mirror: Path, name: str, tag: str, root: Path) -> dict[str, Any]:
    """Unpack the image for this machine into `root`; its run configuration."""
    layout = str(mirror / "images" / name)
    index = oci.read_json(layout, oci.tags(layout)[tag]["digest"])
    manifest = oci.read_json(layout, index["manifests"][0]["digest"])
    root.mkdir()
    for layer in manifest["layers"]:
        with tarfile.open(oci.blob_path(layout, layer["digest"])) as tar:
            tar.extractall(root, filter="fully_trusted")
    config: dict[str, Any] = oci.read_json(layout, manifest["config"]["digest"])["config"]
    return config


@pytest.mark.skipif(os.geteuid() != 0, reason="an image's userland is tried in a chroot, which needs root")
@pytest.mark.skipif(
    shutil.which("apt-get") is None, reason="a userland is made of Debian packages, and there is no apt"
)
def test_userland(site: Path, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    answer = playbook(site, k8sgu_kubernetes_version="1.37.1", k8sgu_mirror_dir=str(mirror))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    root = tmp_path / "root"
    config = unpack(mirror, "registry.k8s.io/e2e-test-images/agnhost", "2.63.0", root)
    assert (config["Entrypoint"], config["Cmd"]) == (["/agnhost"], ["pause"])
    said = subprocess.run(
        ["chroot", str(root), "/bin/sh", "-c", "/agnhost-2 -v; ls -d /uploads; stat -c %a /tmp; wget --help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.stdout.splitlines() == ["pause.go 3.10.2", "/uploads", "1777"], said.stderr
    assert "Usage: wget" in said.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a process namespace of its own needs root")
def test_pause_reaps_and_ends(site: Path, tmp_path: Path) -> None:
    """pause as process 1: an orphan that ends leaves no zombie behind, and SIGTERM ends it."""
    mirror = tmp_path / "mirror"
    answer = playbook(site, k8sgu_mirror_dir=str(mirror))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    config = unpack(mirror, "registry.k8s.io/pause", "3.10.2", tmp_path / "root")
    assert (config["Entrypoint"], config["User"]) == (["/pause"], "65535:65535")
    # The shell leaves an orphan, and becomes pause without a new process.
    script = '(sleep 1 & echo started) ; exec "$0"'
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script, str(tmp_path / "root" / "pause")]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        pause = children(process.pid)[0]
        deadline = time.monotonic() + 30
        while Path(f"/proc/{pause}/comm").read_text().strip() != "pause" or children(pause):
            assert time.monotonic() < deadline, "the orphan was not reaped within 30 s"
            time.sleep(0.1)
        os.kill(pause, signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="an image's userland is tried in a chroot, which needs root")
@pytest.mark.skipif(
    shutil.which("apt-get") is None, reason="a userland is made of Debian packages, and there is no apt"
)
def test_demo(site: Path, tmp_path: Path) -> None:
    """The website counts in its database, is ready only while that answers, and continues its count."""
    mirror = tmp_path / "mirror"
    answer = playbook(site, k8sgu_kubernetes_version="1.38.1", k8sgu_mirror_dir=str(mirror))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    database = tmp_path / "database"
    config = unpack(mirror, "docker.io/library/redis", "7.0.15", database)
    assert (config["Cmd"], config["User"], config["WorkingDir"]) == (["redis-server"], "999:999", "/data")
    shutil.copy(Path(__file__).resolve().parents[2] / "roles" / "verify" / "files" / "website.pl", database)
    database_port, port = free_port(), free_port()
    serve = ["chroot", "--userspec=999:999", str(database), "redis-server", "--port", str(database_port)]
    serve += ["--bind", "127.0.0.1", "--dir", "/data", "--requirepass", "secret", "--appendonly", "yes"]
    (database / "password").write_text("secret\n")
    names = database / "etc" / "hosts"
    names.write_text("127.0.0.1 localhost database.test\n")
    # On a slow machine a module takes longer than a request may: one that a request's own process loads is refused.
    (database / "once").mkdir()
    (database / "once" / "Once.pm").write_text(
        "package Once; my $first = $$;\n"
        'unshift @INC, sub { die "$_[1] is loaded by a request\\n" if $$ != $first; return };\n1;\n'
    )
    environment = {
        "PERL5OPT": "-I/once -MOnce",
        "DATABASE_ADDRESS": f"database.test:{database_port}",
        "DATABASE_PASSWORD_FILE": "/password",
        "LISTEN_ADDRESS": f"127.0.0.1:{port}",
        "NODE_NAME": 'node-"1"',
    }
    website = ["chroot", "--userspec=65532:65532", str(database), "perl", "/website.pl"]
    running = [subprocess.Popen(serve, stdout=subprocess.DEVNULL)]
    try:
        running.append(subprocess.Popen(website, env={**os.environ, **environment}, stderr=subprocess.DEVNULL))
        wait_for(port, "/readyz", 200)
        assert "seen <strong>1</strong> times" in fetch(port, "/")[1]
        assert json.loads(fetch(port, "/api/visits", "POST")[1])["count"] == 2
        # Name servers that are away take no website with them.
        names.write_text("127.0.0.1 localhost\n")
        assert fetch(port, "/readyz") == (200, "ok\n")
        names.write_text("127.0.0.1 localhost database.test\n")
        running[0].terminate()
        running[0].wait(timeout=30)
        wait_for(port, "/readyz", 503)
        assert fetch(port, "/healthz")[0] == 200
        assert fetch(port, "/")[0] == 503
        # A page waits for a database that moves.
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(fetch, port, "/")
            time.sleep(1)
            assert not asked.done()
            running.append(subprocess.Popen(serve, stdout=subprocess.DEVNULL))
            assert asked.result()[0] == 200
        book = json.loads(fetch(port, "/api/visits")[1])
        assert (book["count"], book["node"], len(book["visits"])) == (3, 'node-"1"', 3)
        assert (book["visits"][0]["node"], book["visits"][0]["client"]) == ('node-"1"', "127.0.0.1")
        assert [fetch(port, "/other")[0], fetch(port, "/", "POST")[0], fetch(port, "/", "HEAD")] == [
            404,
            405,
            (200, ""),
        ]
        # A wrong password is told, and the process ends when asked, also while a request waits.
        (database / "password").write_text("wrong\n")
        status, said = fetch(port, "/readyz")
        assert (status, "WRONGPASS" in said) == (503, True), said
        running[1].terminate()
        assert running[1].wait(timeout=30) == 0
    finally:
        for process in running:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def fetch(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def wait_for(port: int, path: str, status: int) -> None:
    deadline = time.monotonic() + 60
    seen: object = None
    while time.monotonic() < deadline:
        try:
            seen = fetch(port, path)[0]
        except OSError as error:
            seen = error
        if seen == status:
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} gave {seen} instead of {status} for 60 s")


def children(process: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
