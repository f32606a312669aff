# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that tries a restore once a day: what it hands to the module, and what it leaves of the answer."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import drill, etcd_drill, snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import Snapshot
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

TEMPLATES = Path(__file__).resolve().parents[3] / "roles" / "control_plane" / "templates"


def encryption(keys: list[str], provider: str = "secretbox", kms: str = "") -> str:
    """As the role control_plane writes it for the API server."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), trim_blocks=True, autoescape=False)
    environment.filters["to_json"] = json.dumps
    return environment.get_template("encryption.yml.j2").render(
        control_plane_encryption_keys=[{"name": name, "secret": "c2VjcmV0"} for name in keys],
        k8sgu_encryption_provider=provider,
        k8sgu_encryption_kms_endpoint=kms,
        k8sgu_encryption_resources=["secrets"],
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (encryption(["key-1"]), ["secretbox:v1:key-1:", "aescbc:v1:key-1:"]),
        (
            encryption(["key-2", "key-1"], "aescbc"),
            ["secretbox:v1:key-2:", "aescbc:v1:key-2:", "secretbox:v1:key-1:", "aescbc:v1:key-1:"],
        ),
        (encryption(["key-1"], "kms", "unix:///run/kms"), ["secretbox:v1:key-1:", "aescbc:v1:key-1:", "kms:v2:k8sgu:"]),
        (encryption([], "kms", "unix:///run/kms"), ["kms:v2:k8sgu:"]),
    ],
)
def test_what_the_api_server_can_decrypt(config: str, expected: list[str]) -> None:
    assert drill.prefixes(config) == [f"k8s:enc:{one}" for one in expected]


class Node:
    """A member with snapshots; `told` is what the module answers, without the snapshot's name, or raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.directory = directory
        self.calls: list[Call] = []
        self.told: Any = {
            "steps": {"check": 0.25, "restore": 1.5, "start": 0.5, "read": 0.25},
            "revision": 5000,
            "keys": 1893,
            "living": {"revision": 5066, "keys": 1893},
        }
        (directory / "snapshots").mkdir()
        (directory / "ca.crt").write_text("the authority")
        (directory / "encryption.yml").write_text(encryption(["key-1"]))
        monkeypatch.setattr(etcd_drill, "run", self.run)

    def run(self, call: Call) -> dict[str, Any]:
        self.calls.append(call)
        if isinstance(self.told, Exception):
            raise self.told
        return {"snapshot": call.options["snapshot"], **self.told}

    def take(self, minutes_ago: int) -> str:
        taken = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=minutes_ago)
        name = Snapshot(taken, "3.6.14", 5000, snapshots.BACKUP).name
        (self.directory / "snapshots" / name).write_text("")
        return name

    def start(self, *more: str) -> int:
        return drill.main(
            [
                "--rpo-minutes=35",
                "--rto-seconds=120",
                "--quota=4294967296",
                f"--directory={self.directory / 'snapshots'}",
                f"--authority={self.directory / 'ca.crt'}",
                f"--encryption={self.directory / 'encryption.yml'}",
                f"--result={self.directory / 'result.json'}",
                f"--metrics={self.directory / 'metrics'}",
                *more,
                "cp-0",
                "cp-1",
            ]
        )

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "result.json").read_text())
        return found

    @property
    def metrics(self) -> dict[str, float]:
        lines = (self.directory / "metrics" / "etcd-drill.prom").read_text().splitlines()
        rows = [line.split() for line in lines if not line.startswith("#")]
        return {name.removeprefix("k8sgu_etcd_drill_"): float(value) for name, value in rows}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Node:
    return Node(monkeypatch, tmp_path)


def test_the_newest_is_tried_and_told(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.take(40)
    name = node.take(10)
    assert node.start() == 0
    options = node.calls[0].options
    assert (options["snapshot"], options["nodes"]) == (name, ["cp-0", "cp-1"])
    assert (options["authority"], options["quota"]) == ("the authority", 4294967296)
    assert options["encryption_prefixes"] == ["k8s:enc:secretbox:v1:key-1:", "k8s:enc:aescbc:v1:key-1:"]
    assert (options["drill_dir"], options["timeout"]) == ("/var/lib/k8sgu/drill", 300)
    said = capsys.readouterr()
    assert said.err == "" and said.out.splitlines()[0] == name
    assert "etcd serves again       after 2.5 s (check 0.25, restore 1.5, start 0.5, read 0.25)" in said.out
    assert (node.result["snapshot"], node.result["problems"]) == (name, [])
    assert node.result["rto"]["seconds"] == 2.5 and 600 <= node.result["rpo"]["seconds"] < 700
    assert (node.directory / "result.json").stat().st_mode & 0o777 == 0o600
    assert node.metrics["success"] == 1 and node.metrics["restore_seconds"] == 2.5
    assert 600 <= node.metrics["snapshot_age_seconds"] < 700 and node.metrics["timestamp_seconds"] > 1.7e9


@pytest.mark.parametrize(
    ("minutes_ago", "more", "said"),
    [
        (40, {}, "40 min old, and at most 35 min may be lost (k8sgu_drill_rpo_minutes)"),
        (5, {"steps": {"check": 100, "read": 21}}, "after 121 s, and may take 120 s (k8sgu_drill_rto_seconds)"),
        (5, {"keys": 1892}, "has 1892 keys, and at revision 5000 the living one had 1893"),
    ],
)
def test_what_falls_short_of_the_promise(
    node: Node, capsys: pytest.CaptureFixture[str], minutes_ago: int, more: dict[str, Any], said: str
) -> None:
    node.take(minutes_ago)
    node.told.update(more)
    assert node.start() == 1
    assert said in capsys.readouterr().err and said in node.result["problems"][0]
    assert node.metrics["success"] == 0 and "restore_seconds" in node.metrics


def test_what_could_not_be_tried(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert node.start() == 1 and node.calls == []
    assert "take one: systemctl start etcd-snapshot.service" in capsys.readouterr().err
    assert list(node.result) == ["time", "problems"]
    assert set(node.metrics) == {"timestamp_seconds", "success"}
    node.take(5)
    node.told = EtcdError("this snapshot could not be restored: it is of another cluster")
    assert node.start() == 1
    assert node.result["problems"] == ["this snapshot could not be restored: it is of another cluster"]
    (node.directory / "encryption.yml").unlink()
    assert node.start() == 1 and "encryption.yml" in node.result["problems"][0]


def test_a_result_that_cannot_be_written_is_told(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.take(5)
    assert node.start(f"--result={node.directory / 'ca.crt' / 'result.json'}") == 1
    assert "the result was not written: " in capsys.readouterr().err
