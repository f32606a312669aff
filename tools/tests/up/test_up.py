"""`make up` and `make down` as a user runs them, in a lab and with a cluster of the test's own.

The user's folder has a name that must be quoted, and the shell remembers another lab (`eval "$(ec2lab env)"`), which is
gone: K8SGU_LAB says which lab is meant.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(
    0, str(Path(__file__).resolve().parents[3] / "collections/ansible_collections/k8sgu/cluster/tests/integration")
)

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import forward_proxy  # type: ignore[import-not-found]  # of another tree

from tools import newest_ansible

ROOT = Path(__file__).resolve().parents[3]
NAME = "maketest"
STATE = ROOT / ".state" / NAME
GONE = "maketest-gone"
# Nobody listens there.
REMEMBERED = {
    "EC2LAB_NAME": GONE,
    "EC2LAB_IMAGE_ID": "ami-0123456789abcdef0",
    "EC2LAB_MIRROR_DIR": f"/var/lib/ec2lab/{GONE}/mirror",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "AKIAGONE",
    "AWS_SECRET_ACCESS_KEY": "gone",
}
# One worker is enough for a demo.
ONE_WORKER = ["-e", '{"k8sgu_worker_count": 1}']


def run(*command: str, folder: Path = ROOT, **settings: str) -> subprocess.CompletedProcess[str]:
    """`settings` are added to the environment."""
    mirror = os.environ.get("K8SGU_MIRROR_DIR")
    names = {"K8SGU_LAB": NAME, "K8SGU_CLUSTER": NAME}
    environment = {**os.environ, **REMEMBERED, **names, "ANSIBLE_NOCOLOR": "1", **settings}
    if mirror:
        environment["EC2LAB_MIRROR_DIR"] = mirror
    return subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


@pytest.fixture
def removed_again() -> Iterator[None]:
    if os.geteuid() != 0 or not shutil.which("systemd-nspawn"):
        pytest.skip("a lab needs root and systemd-nspawn (see tools/apt-packages.txt)")
    run("tools/down")
    yield
    run("tools/down")


# Programs that no mirror has yet are built, which takes time.
@pytest.mark.timeout(45 * 60)
def test_up_ends_in_a_cluster_that_is_shown_and_down_in_nothing(removed_again: None, tmp_path: Path) -> None:
    folder = tmp_path / "it's a folder"
    folder.symlink_to(ROOT)
    # Behind a proxy, as in most companies: downloads go through it, and the lab is reached without it.
    with forward_proxy.running() as proxy:
        settings = forward_proxy.variables(f"http://127.0.0.1:{proxy.port}")
        settings["NO_PROXY"] = ".corp.example"
        address = up_and_shown(folder, settings)
    hosts = {re.sub(r"^\S+ (https?://)?|[:/].*", "", line) for line in proxy.requests}
    assert not {host for host in hosts if re.fullmatch(r"localhost|[0-9.]+", host)}, proxy.requests
    with urllib.request.urlopen(address, timeout=20) as page:
        assert page.status == 200

    # Another lab of this machine must not use the keys of an existing cluster.
    other = run("tools/up", K8SGU_LAB="maketest-b")
    assert other.returncode == 1
    assert f"holds the cluster {NAME} of lab {NAME}, and this is lab maketest-b" in other.stderr

    # A command that is no playbook finds the key for SSH too.
    ping = run(str(ROOT / ".venv" / "bin" / "ansible"), "all", "-m", "ping", "-e", f"k8sgu_cluster_name={NAME}")
    assert ping.returncode == 0 and ping.stdout.count("ping: pong") == 2, ping.stdout + ping.stderr

    nothing_is_left_to_do_under_the_newest_ansible()

    down = run("tools/down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert not STATE.exists()
    left = run(sys.executable, "molecule/resources/residue.py", NAME)
    assert left.returncode == 0, left.stdout + left.stderr


def nothing_is_left_to_do_under_the_newest_ansible() -> None:
    """Of a cluster that another ansible-core has made, and nothing of ours is what a later one will refuse."""
    made = run(sys.executable, "tools/newest_ansible.py")
    assert made.returncode == 0, made.stderr
    programs = made.stdout.strip()
    program = f"{programs}/ansible-playbook"
    path = f"{programs}:{ROOT}/.venv/bin:{os.environ['PATH']}"
    assert f"[core {newest_ansible.version()}]" in run(program, "--version").stdout
    # Wide, so that warnings are not broken.
    again = run(program, "site.yml", "-e", f"k8sgu_cluster_name={NAME}", *ONE_WORKER, PATH=path, COLUMNS="2000")
    told = again.stdout + again.stderr
    assert again.returncode == 0, told[-6000:]
    recap = again.stdout[again.stdout.index("PLAY RECAP") :]
    assert re.findall(r"(\S+) +: .*changed=0 .*failed=0", recap) == [
        "localhost",
        f"{NAME}-control-plane-0",
        f"{NAME}-worker-0",
    ], recap
    warnings = re.findall(r"^\[(?:DEPRECATION )?WARNING\]: .*", told, re.MULTILINE)
    assert [warning for warning in warnings if "in this shell, is not used" not in warning] == []


def up_and_shown(folder: Path, settings: dict[str, str]) -> str:
    """The address of the demo, when everything that is told has been looked at."""
    up = run(str(folder / "tools" / "up"), *ONE_WORKER, folder=folder.parent, **settings)
    assert up.returncode == 0, up.stdout[-6000:] + up.stderr[-2000:]
    told = up.stdout[up.stdout.index("\nReady in") :]
    assert re.search(r"Ready in \d+ min \d+ s\.", told)
    assert f"kubeconfig   .state/{NAME}/admin.kubeconfig\n" in told
    assert (STATE / "admin.kubeconfig").is_file()
    assert not Path(f"/var/lib/ec2lab/{GONE}").exists()
    assert "http://127.0.0.1:9 in this shell, is not used" in " ".join(up.stderr.split())
    place = json.loads((STATE / "place.json").read_text())
    assert place["arn"].endswith(f":user/{NAME}/lab-admin")
    address = re.search(r"demo +(http://\S+)", told)
    assert address, told
    for node in (f"{NAME}-control-plane-0", f"{NAME}-worker-0"):
        assert re.search(rf"{node} +Ready ", told), told

    # The commands that are shown next, one after the other in one shell.
    commands = told.partition("Next:\n")[2]
    assert ["cd", str(folder)] in [shlex.split(line) for line in commands.splitlines()]
    assert ".corp.example" in commands
    shown = run("bash", "-euc", commands, folder=folder.parent, **settings)
    assert shown.returncode == 0, commands + shown.stdout[-4000:] + shown.stderr
    assert "website-" in shown.stdout
    assert "failed=0" in shown.stdout
    return str(address[1])
