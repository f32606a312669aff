# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read on a node, from files and from what programs say."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.prepare import Mirror
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import Member
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import load_release
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import facts, member, programs, wanted

RELEASES = Path(__file__).resolve().parents[3] / "releases"
RELEASE = load_release(str(RELEASES / "1.37.yml"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node that runs kubelet 1.36.4, with 1.37.2 beside it."""
    for name, text in (
        ("opt/k8sgu/kubelet/1.36.4/kubelet", "old"),
        ("opt/k8sgu/kubelet/1.37.2/kubelet", "new"),
        ("opt/k8sgu/etcd/3.7.3/etcd", "cut off"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    records = tmp_path / "var/lib/k8sgu/component"
    records.mkdir(parents=True)
    binaries = {"/opt/k8sgu/kubelet/1.36.4/kubelet": [], "/usr/bin/else": []}
    (records / "kubelet.json").write_text(json.dumps({"binaries": binaries}))
    more = ("etcd/3.6.14/etcd", "etcd/3.6.14/etcdctl", "crictl/1.36.0/crictl")
    (records / "etcd.json").write_text(json.dumps({"binaries": {f"/opt/k8sgu/{path}": [] for path in more}}))
    (records / "damaged.json").write_text("{")
    return tmp_path


def entry(component: str, name: str, version: str, text: str) -> dict[str, Any]:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"component": component, "name": name, "version": version, "sha256": digest, "size": len(text)}


WANTED = [
    entry("kubelet", "kubelet", "1.37.2", "new"),
    entry("etcd", "etcd", "3.7.3", "whole"),
    entry("etcd", "etcdctl", "3.7.3", "whole"),
    entry("kube-scheduler", "kube-scheduler", "1.37.2", "not on this node"),
]


def test_what_of_a_release_is_on_the_node(root: Path) -> None:
    versions = {"kubelet": "1.37.2", "etcd": "3.7.3", "crictl": "1.37.0", "kube-scheduler": "1.37.2"}
    found = {item["path"]: (item["name"], item["state"]) for item in programs.files(root, WANTED, versions)}
    assert found == {
        "/opt/k8sgu/kubelet/1.37.2/kubelet": ("kubelet", "there"),
        "/opt/k8sgu/etcd/3.7.3/etcd": ("etcd", "different"),
        "/opt/k8sgu/etcd/3.7.3/etcdctl": ("etcdctl", "missing"),
        # The node has it, and the mirror lacks the release's.
        "/opt/k8sgu/crictl/1.37.0/crictl": ("crictl", "unmirrored"),
    }
    assert programs.places(root, programs.files(root, WANTED, versions)) == {
        "kubelet": f"{root}/opt/k8sgu/kubelet/1.37.2/kubelet"
    }


def test_what_runs_is_read_from_the_processes_and_shows_no_other_flag(root: Path) -> None:
    for number, place, words in (
        (9, "/opt/k8sgu/kube-apiserver/1.37.2/kube-apiserver", "x\0--emulated-version=1.36\0--token=secret\0"),
        # Its file was replaced while it ran.
        (8, "/opt/k8sgu/kubelet/1.36.4/kubelet (deleted)", "x\0--emulated-version\0"),
        (7, "/usr/sbin/else", "x\0"),
    ):
        process = root / "proc" / str(number)
        process.mkdir(parents=True)
        (process / "exe").symlink_to(place)
        (process / "cmdline").write_text(words)
    assert programs.running(root) == {
        "kubelet": {"version": "1.36.4", "flags": {"emulated-version": ""}},
        "kube-apiserver": {"version": "1.37.2", "flags": {"emulated-version": "1.36"}},
    }


HELP = """Usage: kubelet [flags]

      --config string        A file.
  -v, --v Level              number for the log level verbosity, not --vmodule
      --feature-gates mapStringBool   Options are:
                             AllAlpha=true|false (ALPHA - default=false)
"""


def test_flags_are_those_of_the_help() -> None:
    answers = {"/k/kubelet": (0, HELP), "/k/kube-proxy": (1, 'E1 run.go] "command failed" err="no"')}
    found = programs.known_flags({"kubelet": "/k/kubelet", "kube-proxy": "/k/kube-proxy"}, lambda c: answers[c[0]])
    assert found == {"kubelet": {"flags": ["config", "feature-gates", "v"]}, "kube-proxy": {"problem": "no"}}


def test_feature_gates_are_tried() -> None:
    asked = []

    def ask(command: Sequence[str]) -> tuple[int, str]:
        asked.append(list(command[:2]))
        if "--feature-gates=Gone=true" in command:
            return (
                1,
                'E1129 18:02:30.961271   14970 run.go:72] "command failed" err="unrecognized feature gate: Gone"\n',
            )
        # A gate that is taken, by a program that then misses something else.
        return 1, 'E1129 18:02:30.961271   14970 run.go:72] "command failed" err="no kubeconfig"\n'

    gates = {"kube-apiserver": {"Gone": "true", "Kept": "false"}, "kube-scheduler": {"Gone": "true"}}
    found = programs.refused_gates({"kube-apiserver": "/a"}, gates, ask)
    assert found == {"kube-apiserver": {"Gone": "unrecognized feature gate: Gone"}}
    assert asked == [["/a", "--feature-gates=Gone=true"], ["/a", "--feature-gates=Kept=false"]]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            # 1.36
            'E1 run.go:72] "command failed" err="failed to construct kubelet dependencies: unable to load client CA '
            'file /nonexistent/k8sgu/ca.crt: open /nonexistent/k8sgu/ca.crt: no such file or directory"',
            "",
        ),
        (
            # 1.37
            'E1 run.go:72] "command failed" err="failed to run Kubelet: open /nonexistent/k8sgu/ca.crt: no such file"',
            "",
        ),
        (
            'I1 codec.go:102] "Using lenient decoding" err="strict decoding error: unknown field '
            '\\"gone\\""\nE1 run.go:72] "command failed" err="failed to construct kubelet dependencies: no"\n',
            'unknown field "gone"',
        ),
        (
            "panic: failed to merge, error: unrecognized feature gate: Gone\n\ngoroutine 1 [running]:\nk8s.io/x.go:1\n",
            "failed to merge, error: unrecognized feature gate: Gone",
        ),
        (
            'E1 run.go:72] "command failed" err="failed to load kubelet config file"',
            "failed to load kubelet config file",
        ),
        ("", "it ended with status 1 and said nothing"),
    ],
)
def test_whether_a_kubelet_takes_a_configuration(tmp_path: Path, said: str, expected: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("kind: KubeletConfiguration\n")
    seen = []

    def ask(command: Sequence[str]) -> tuple[int, str]:
        copy = Path(command[1].partition("=")[2])
        seen.append((copy.read_text(), oct(copy.stat().st_mode & 0o777), command[2]))
        return 1, said

    assert programs.kubelet_configuration("/k", config, ask) == expected
    assert seen == [("kind: KubeletConfiguration\n", "0o444", f"--client-ca-file={programs.NO_CA}")]


def test_a_program_that_does_not_end_is_no_answer(tmp_path: Path) -> None:
    def ask(command: Sequence[str]) -> tuple[int, str]:
        raise subprocess.TimeoutExpired(list(command), 60)

    (tmp_path / "config").write_text("")
    assert "timed out after 60 seconds" in programs.kubelet_configuration("/k", tmp_path / "config", ask)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_programs_are_asked_as_nobody() -> None:
    assert programs.ask_as_nobody(["/usr/bin/id", "-u"]) == (0, f"{programs.NOBODY}\n")


def test_images_by_tag_and_digest() -> None:
    there = {
        "images": [
            {"repoTags": ["r/pause:1"], "repoDigests": ["r/pause@sha256:a"]},
            {"repoTags": ["r/dns:1"], "repoDigests": ["r/dns@sha256:other"]},
            {"repoTags": ["r/docker:1"], "repoDigests": []},
            {"repoTags": None, "repoDigests": ["r/untagged@sha256:b"]},
        ]
    }
    named = (("r/pause:1", "sha256:a"), ("r/dns:1", "sha256:b"), ("r/docker:1", "sha256:c"), ("r/none:1", "sha256:d"))
    items = [{"name": name, "digest": digest, "size": 1} for name, digest in named]
    found = facts.images(items, lambda _command: (0, json.dumps(there)))
    assert [item["state"] for item in found["images"]] == ["there", "different", "there", "missing"]
    assert facts.images(items, lambda _command: (1, "no socket\n")) == {"problem": "no socket", "images": []}
    assert facts.images([], lambda _command: (1, "")) == {"problem": "", "images": []}


def test_room_of_a_directory_that_is_still_to_be_made(tmp_path: Path) -> None:
    found = facts.disk(tmp_path, "/var/lib/none")
    assert found["path"] == "/var/lib/none" and found["device"] == tmp_path.stat().st_dev and found["free"] > 0


NOW = datetime.datetime(2026, 11, 29, 12, tzinfo=datetime.timezone.utc)


def event(time: str, **annotations: str) -> str:
    return json.dumps(
        {
            "user": {"username": "u"},
            "userAgent": "boxer/1",
            "objectRef": {"apiGroup": "g", "apiVersion": "v1beta1", "resource": "boxes", "name": "x"},
            "annotations": annotations,
            "requestReceivedTimestamp": time,
        }
    )


def test_who_used_an_api_that_goes_is_in_the_audit_log(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    goes = {facts.REMOVED: "1.37"}
    log.write_text("\n".join([event("b", **goes), event("a", **goes), event("c"), event("d", **goes)[:-30], ""]))
    old = tmp_path / "audit-2026.log"
    old.write_text(event("0", **goes) + "\n")
    os.utime(old, times=(0, 0))
    assert facts.deprecated(log, NOW) == [
        {
            "group": "g",
            "version": "v1beta1",
            "resource": "boxes",
            "removed": "1.37",
            "user": "u",
            "agent": "boxer/1",
            "count": 2,
            "last": "b",
        }
    ]
    assert facts.deprecated(tmp_path / "none" / "audit.log", NOW) == []


STATUS = {
    "version": "3.7.3",
    "storageVersion": "3.7.0",
    "dbSize": 5,
    "dbSizeInUse": 4,
    "dbSizeQuota": 9,
    "leader": 1,
    "errors": ["memberID:1 alarm:NOSPACE "],
}


class Members:
    """etcd of two members, of which one answers only what is asked of itself."""

    def read(self) -> list[Member]:
        names = ((1, "a"), (2, "b"))
        return [Member(number, name, (), (f"https://{name}",), learner=False) for number, name in names]

    def status(self, one: Member) -> dict[str, Any]:
        return STATUS

    def healthy(self, listed: list[Member]) -> set[int]:
        return {1}


def etcdctl(*arguments: str) -> bytes:
    if arguments[:2] == ("downgrade", "validate"):
        raise subprocess.CalledProcessError(1, "etcdctl", stderr=f"Error: not to {arguments[-1]}\n".encode())
    assert arguments[:2] == ("alarm", "list")
    return json.dumps({"alarms": [{"memberID": 2, "alarm": 1}]}).encode()


def test_a_member_of_etcd() -> None:
    found = member.member("a", "", Members(), etcdctl)
    assert (found["size"], found["in_use"], found["quota"], found["problem"]) == (5, 4, 9, "")
    assert [(one["name"], one["storage"], one["leads"]) for one in found["running"]] == [
        ("a", "3.7.0", True),
        ("b", "3.7.0", False),
    ]
    assert found["silent"] == ["b"] and found["alarms"] == [{"member": "b", "alarm": "NOSPACE"}]
    # Asked only where the release before has an older minor version.
    assert found["back"] == member.member("a", "3.7.1", Members(), etcdctl)["back"] == ""
    assert member.member("a", "3.6.14", Members(), etcdctl)["back"] == "not to 3.6"


def test_a_member_that_does_not_answer() -> None:
    class Silent(Members):
        def read(self) -> list[Member]:
            raise EtcdError("etcd does not list its members: context deadline exceeded")

    assert member.member("a", "", Silent(), etcdctl)["problem"].endswith("context deadline exceeded")
    assert member.member("c", "", Members(), etcdctl) == {"problem": "there is none of the name c"}


def test_what_a_release_brings_to_an_architecture(tmp_path: Path) -> None:
    versions = {item.name: item.version for item in RELEASE.components}
    files = [
        {**entry("kubelet", "kubelet", RELEASE.kubernetes, "k"), "arch": "amd64", "path": "p"},
        {**entry("kubelet", "kubelet", RELEASE.kubernetes, "k"), "arch": "arm64", "path": "p"},
        {**entry("kubelet", "kubelet", "1.36.4", "k"), "arch": "amd64", "path": "p"},
    ]
    packages = [{"component": "runc", "version": versions["runc"], "arch": "amd64", "package": "runc"}]
    options = {"architecture": "amd64", "images": ["r/pause:1"], "flags": {}}
    found = wanted.wanted(RELEASE, {"files": files, "packages": packages}, options, Mirror(str(tmp_path)))
    assert found["files"] == [entry("kubelet", "kubelet", RELEASE.kubernetes, "k")]
    assert found["images"] == [{"name": "r/pause:1", "digest": "", "size": 0}] and found["gates"] == {}
    # A package of the distribution is nothing that is brought.
    assert "runc" in versions and found["versions"] == {k: v for k, v in versions.items() if k != "runc"}


def test_a_release_that_is_not_there_brings_nothing(tmp_path: Path) -> None:
    options = {"releases_dir": str(RELEASES), "kubernetes_version": "1.99.9", "mirror_dir": str(tmp_path)}
    assert wanted.prepare(options) == wanted.NOTHING
