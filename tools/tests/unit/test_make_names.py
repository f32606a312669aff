"""Which lab and cluster `make up` and `make down` mean, whose keys they touch, and what they print to be copied.

The scripts run in a folder whose name has to be quoted, with the real ec2lab; no lab is started.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LAB = f"names-{os.getpid()}"
DESCRIPTION = Path("inventories/lab/group_vars/all/cluster.yml")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("ec2lab needs root")
    folder = tmp_path / "it's a folder"
    (folder / DESCRIPTION).parent.mkdir(parents=True)
    shutil.copy(ROOT / DESCRIPTION, folder / DESCRIPTION)
    (folder / "tools").mkdir()
    for name in ("up", "down", "common.sh"):
        shutil.copy(ROOT / "tools" / name, folder / "tools" / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


def run(project: Path, *command: str, **shell: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "EC2LAB_", "K8SGU_"))}
    return subprocess.run(
        command, cwd=project, env={**kept, **shell}, capture_output=True, text=True, check=False, timeout=120
    )


def keep_state(project: Path, cluster: str, arn: str) -> Path:
    directory = project / ".state" / cluster
    directory.mkdir(parents=True)
    place = {"account": "1" * 12, "region": "us-east-1", "arn": arn}
    (directory / "place.json").write_text(json.dumps(place))
    return directory


def of_lab(name: str) -> str:
    return f"arn:aws:iam::{'1' * 12}:user/{name}/lab-admin"


@pytest.mark.parametrize("script", ["tools/up", "tools/down"])
def test_a_shell_pointed_at_another_lab_must_say_which(project: Path, script: str) -> None:
    state = keep_state(project, "demo", of_lab("default"))
    done = run(project, script, EC2LAB_NAME="other")
    assert done.returncode == 1
    assert "which means lab default, but this shell is pointed at lab other" in done.stderr
    assert "K8SGU_LAB=default or K8SGU_LAB=other" in done.stderr
    assert state.exists()


@pytest.mark.parametrize(
    ("arn", "said"),
    [
        (of_lab("other"), "holds the cluster demo of lab other, and this is lab"),
        ("arn:aws:iam::111111111111:user/me", "of account 111111111111, region us-east-1, and this is lab"),
    ],
)
def test_up_does_not_touch_the_state_of_another_place(project: Path, arn: str, said: str) -> None:
    state = keep_state(project, "demo", arn)
    done = run(project, "tools/up", K8SGU_LAB=LAB)
    assert done.returncode == 1
    assert f"{said} {LAB}" in done.stderr
    assert not Path(f"/var/lib/ec2lab/{LAB}").exists()
    way_out = done.stderr.splitlines()[-1]
    assert run(project, "bash", "-euc", way_out).returncode == 0
    assert not state.exists()


def test_down_removes_its_own_keys_and_says_whose_are_left(project: Path) -> None:
    gone = keep_state(project, "demo", of_lab(LAB))
    second = keep_state(project, "second", of_lab(LAB))
    account = keep_state(project, "production", "arn:aws:iam::111111111111:user/me")
    unknown = project / ".state" / "unknown"
    unknown.mkdir()
    before = keep_state(project, "before", f"arn:aws:iam::{'1' * 12}:user/lab-admin")
    done = run(project, "tools/down", K8SGU_LAB=LAB)
    assert done.returncode == 0, done.stderr
    assert not gone.exists()
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"The keys of cluster second of lab {LAB}, which is gone, are kept.")
    assert run(project, "bash", "-euc", line.partition("To remove them: ")[2]).returncode == 0
    assert not second.exists()
    assert [each for each in (account, unknown, before) if not each.exists()] == []


def test_down_keeps_the_keys_of_a_cluster_that_is_elsewhere(project: Path) -> None:
    """The state directory of a name is one for every inventory."""
    state = keep_state(project, "demo", "arn:aws:iam::111111111111:user/me")
    done = run(project, "tools/down", K8SGU_LAB=LAB)
    assert done.returncode == 0, done.stderr
    assert state.exists()
    assert f"{state} is kept: it holds the cluster demo of account 111111111111, region us-east-1" in done.stderr


def test_the_cluster_is_the_inventorys_unless_another_is_named(project: Path) -> None:
    show = '. tools/common.sh; echo "$cluster" "${named[@]}"'
    assert run(project, "bash", "-euc", show).stdout == "demo -e k8sgu_cluster_name=demo\n"
    text = (project / DESCRIPTION).read_text()
    (project / DESCRIPTION).write_text(text.replace("k8sgu_cluster_name: demo", 'k8sgu_cluster_name: "mine"  # ours'))
    assert run(project, "bash", "-euc", show).stdout == "mine -e k8sgu_cluster_name=mine\n"
    assert run(project, "bash", "-euc", show, K8SGU_CLUSTER="b").stdout == "b -e k8sgu_cluster_name=b\n"
    refused = run(project, "bash", "-euc", show, K8SGU_CLUSTER="../x")
    assert refused.returncode == 1
    assert "K8SGU_CLUSTER (or k8sgu_cluster_name in" in refused.stderr


@pytest.mark.parametrize("word", ["plain/path-1.2", "two words", "it's", 'a "b" $HOME `id`', "*", "", "ä;b\nc"])
def test_a_quoted_word_is_read_back_as_it_was(project: Path, word: str) -> None:
    script = '. tools/common.sh; eval "set -- $(quoted "$WORD")"; [ $# = 1 ] && printf "%s" "$1"'
    assert run(project, "bash", "-euc", script, WORD=word).stdout == word
