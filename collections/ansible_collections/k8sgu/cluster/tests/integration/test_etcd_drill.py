# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.etcd_drill on a real etcd: what a restore would give is looked at, and nothing is left or disturbed."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import etcd_cluster
import test_etcd_restore as restores

from ansible_collections.k8sgu.cluster.plugins.plugin_utils._compiled import zipapp

WAIT_S = 60


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd_cluster.Etcd]:
    with restores.filled(tmp_path_factory.mktemp("etcd")) as etcd:
        yield etcd


def options(etcd: etcd_cluster.Etcd, name: str, /, **given: Any) -> dict[str, Any]:
    of_a_restore = restores.options(etcd, "prepared")
    shared = ("nodes", "authority", "encryption_prefixes", "directory", "etcdutl")
    programs = etcd.members["cp-0"].programs
    return {
        "snapshot": name,
        **{option: of_a_restore[option] for option in shared},
        "drill_dir": str(etcd.directory / "drill"),
        "etcd": str(programs / "etcd"),
        **given,
    }


def drill(etcd: etcd_cluster.Etcd, name: str, /, check: bool = False, **given: Any) -> dict[str, Any]:
    return etcd.run("etcd_drill", "cp-0", check, **options(etcd, name, **given))


def left(etcd: etcd_cluster.Etcd) -> list[str]:
    return sorted(path.name for path in etcd.directory.iterdir() if path.name.startswith("drill"))


def test_what_a_restore_would_give_is_told(etcd: etcd_cluster.Etcd) -> None:
    name = restores.taken(etcd)
    taken = restores.revision(etcd)
    etcd.fill({"/registry/pods/later": "not in it"})
    planned = drill(etcd, name, check=True)
    assert list(planned["steps"]) == ["check"] and "keys" not in planned and left(etcd) == []
    done = drill(etcd, name)
    assert not done.get("failed") and done["changed"] is False, done
    assert list(done["steps"]) == ["check", "restore", "start", "read"]
    assert all(seconds >= 0 for seconds in done["steps"].values()) and done["steps"]["start"] > 0
    assert (done["keys"], done["revision"]) == (restores.KEYS + 3, taken)
    # etcd still knows how it was then, and goes on.
    assert done["living"] == {"revision": taken + 1, "keys": done["keys"]}
    assert done["secret"]["key"] == "/registry/secrets/demo/one"
    assert base64.b64decode(done["secret"]["value"]) == f"{restores.SECRET}xyz".encode()
    assert left(etcd) == ["drill.lock"]

    etcd.etcdctl("cp-0", "compact", str(taken + 1))
    assert drill(etcd, name)["living"] == {"revision": taken + 1, "keys": -1}

    etcd.fill({"/registry/secrets/demo/two": "as it is"})
    plain = drill(etcd, restores.taken(etcd))
    assert plain["secret"] == {"key": "/registry/secrets/demo/two", "value": ""}
    etcd.etcdctl("cp-0", "del", "--prefix", "/registry/secrets/")
    assert drill(etcd, restores.taken(etcd))["secret"] == {"key": "", "value": ""}
    etcd.fill({"/registry/secrets/demo/one": f"{restores.SECRET}xyz"})


def test_a_killed_one_takes_its_etcd_along_and_leaves_nothing_to_the_next(etcd: etcd_cluster.Etcd) -> None:
    name = restores.taken(etcd)
    # etcdctl never says that the drill's etcd is healthy, so that it stays.
    silent = etcd.directory / "etcdctl"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    command, environment = etcd.module("etcd_drill", "cp-0", **options(etcd, name, etcdctl=str(silent)))
    module = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    place = str(etcd.directory / "drill")
    deadline = time.monotonic() + WAIT_S
    while not serving(place):
        assert time.monotonic() < deadline and module.poll() is None
        time.sleep(0.05)
    second = drill(etcd, name)
    assert second["failed"] and second["msg"].startswith("another drill is under way on this node; it holds ")
    module.send_signal(signal.SIGKILL)
    module.wait()
    while serving(place):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert left(etcd) == ["drill", "drill.lock"]
    assert drill(etcd, name)["keys"] > 0 and left(etcd) == ["drill.lock"]


def serving(place: str) -> bool:
    """Whether an etcd runs in this directory."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "cwd") == place:
                return True
        except OSError:
            continue
    return False


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *restores.REFUSED[:3],
    ("that is not there", {"snapshot": "20261129T181500Z_etcd-3.6.14_rev-1_x.db"}, "_x.db is not there"),
    ("that fills the quota", {"quota": 4096}, "fills etcd's quota of 0 MiB by itself"),
    ("a name that is none", {"snapshot": "db"}, "snapshot: db has no name such as etcd_snapshot gives"),
    ("an etcd that does not start", {"etcd": "/bin/false"}, "the restored etcd does not start: it ended with 1: "),
]


@pytest.mark.parametrize(("what", "given", "said"), REFUSED, ids=[row[0] for row in REFUSED])
def test_one_that_could_not_be_restored_is_named(
    etcd: etcd_cluster.Etcd, what: str, given: dict[str, Any], said: str
) -> None:
    told = drill(etcd, restores.taken(etcd), **given)
    assert told["failed"] and said in told["msg"], told
    assert left(etcd) == ["drill.lock"]


def test_waiting_for_it_ends(etcd: etcd_cluster.Etcd) -> None:
    silent = etcd.directory / "etcd"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    told = drill(etcd, restores.taken(etcd), etcd=str(silent), timeout=5)
    assert told["failed"] and "restored etcd: not done within 5 s (timeout); it says: " in told["msg"], told
    assert left(etcd) == ["drill.lock"] and not serving(str(etcd.directory / "drill"))


def test_a_damaged_one(etcd: etcd_cluster.Etcd) -> None:
    path = etcd.directory / "snapshots" / restores.taken(etcd)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    told = drill(etcd, path.name)
    path.unlink()
    assert told["failed"] and f"{path} is no whole snapshot" in told["msg"]


def test_the_program_of_the_timer(etcd: etcd_cluster.Etcd, tmp_path: Path) -> None:
    restores.taken(etcd)
    given = options(etcd, "")
    path = tmp_path / "etcd-drill.pyz"
    path.write_bytes(zipapp("_etcd.drill"))
    (tmp_path / "ca.crt").write_text(given["authority"])
    (tmp_path / "encryption.yml").write_text("      - secretbox:\n          keys:\n            - name: key-2\n")

    def start() -> tuple[int, str, dict[str, Any]]:
        done = subprocess.run(
            [
                *(sys.executable, str(path), "--rpo-minutes=35", "--rto-seconds=120"),
                *(
                    f"--{name.replace('_', '-')}={given[name]}"
                    for name in ("directory", "drill_dir", "etcd", "etcdutl")
                ),
                f"--etcdctl={etcd.members['cp-0'].programs / 'etcdctl'}",
                f"--environment={etcd.environment('cp-0')}",
                *(f"--authority={tmp_path / 'ca.crt'}", f"--encryption={tmp_path / 'encryption.yml'}"),
                *(f"--result={tmp_path / 'result.json'}", f"--metrics={tmp_path / 'metrics'}"),
                *given["nodes"],
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stderr, json.loads((tmp_path / "result.json").read_text())

    status, said, result = start()
    assert (status, said, result["problems"]) == (0, "", [])
    assert result["keys"]["restored"] == result["keys"]["living"] > 0
    assert "k8sgu_etcd_drill_success 1\n" in (tmp_path / "metrics" / "etcd-drill.prom").read_text()
    (tmp_path / "encryption.yml").write_text("            - name: key-3\n")
    status, said, result = start()
    assert status == 1 and "key-2" in said and result["problems"] == said.splitlines()
    assert "k8sgu_etcd_drill_success 0\n" in (tmp_path / "metrics" / "etcd-drill.prom").read_text()
    assert left(etcd) == ["drill.lock"]


def test_by_ansible_as_on_a_node(etcd: etcd_cluster.Etcd, tmp_path: Path) -> None:
    given = {**options(etcd, restores.taken(etcd)), "environment": str(etcd.environment("cp-0"))}
    given["etcdctl"] = str(etcd.members["cp-0"].programs / "etcdctl")
    module = "k8sgu.cluster.etcd_drill"
    results, said = ansible_program.run_tasks(
        tmp_path,
        [
            {module: given, "register": "planned", "check_mode": True},
            {module: given, "register": "done"},
        ],
        "--diff",
        variables={},
    )
    assert (results["planned"]["changed"], results["done"]["changed"]) == (False, False)
    assert results["done"]["keys"] > 0 and "failed=0" in said
    assert json.dumps(results["planned"]["plan"]) == json.dumps(results["done"]["plan"])
