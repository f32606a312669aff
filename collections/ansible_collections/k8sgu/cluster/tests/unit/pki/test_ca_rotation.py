# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a rotation in the controller's files: trusted first, then signing, and gone at the end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from pki_support import killed_at, make_ca, make_leaf, picture

from ansible_collections.k8sgu.cluster.plugins.filter.of_former_cas import of_former_cas
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import rotation, signing_key
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import ROTATED, ROTATION_STEPS
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.rotation import Record, RotationError

OTHERS_KEY = b"-----BEGIN PUBLIC KEY-----\nothers\n-----END PUBLIC KEY-----\n"


def take(pki: Path, state: str, names: list[str] | None = None, check_mode: bool = False) -> dict[str, Any]:
    options = {"path": str(pki), "names": names or [], "state": state}
    return rotation.run(Call(options=options, check_mode=check_mode, diff=True))


def make_key(pki: Path, name: str) -> None:
    paths = (str(pki / f"{name}.key"), str(pki / f"{name}.pub"))
    signing_key.apply(signing_key.plan(None, None, "ecdsa", 256, paths), "ecdsa", 256, paths)


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    directory = tmp_path / "pki"
    for name in ("etcd-ca", "kubernetes-ca"):
        make_ca(directory, name)
    make_key(directory, "sa")
    return directory


def make_next(directory: Path) -> None:
    """As role pki does."""
    for name in json.loads((directory / rotation.RECORD).read_text())["names"]:
        if name == "service-account":
            make_key(directory, "sa-next")
        else:
            make_ca(directory, f"{name}-next", csr={"CN": name})


def content(directory: Path) -> dict[str, bytes]:
    return {name: data for name, (_mode, data) in picture(directory).items()}


NAMES = ["etcd-ca", "service-account"]


def test_a_rotation_from_its_first_step_to_its_last(pki: Path) -> None:
    with (pki / "sa.pub").open("ab") as stream:
        stream.write(OTHERS_KEY)
    before = content(pki)
    assert take(pki, "planned", NAMES)["step"] == ""
    assert content(pki) == before
    assert take(pki, "added", NAMES)["changed"]
    assert not take(pki, "added", NAMES)["changed"]
    make_next(pki)
    added = content(pki)
    assert take(pki, "promoted")["changed"]
    promoted = content(pki)
    # The next ones have taken the places of those that signed, whose keys are gone.
    assert promoted["etcd-ca.pem"] == added["etcd-ca-next.pem"]
    assert promoted["etcd-ca-key.pem"] == added["etcd-ca-next-key.pem"]
    assert promoted["etcd-ca-previous.pem"] == before["etcd-ca.pem"]
    assert promoted["sa.key"] == added["sa-next.key"]
    assert promoted["sa.pub"] == added["sa-next.pub"] + OTHERS_KEY
    assert promoted["sa-previous.pub"] == before["sa.pub"]
    assert before["etcd-ca-key.pem"] not in promoted.values()
    assert before["sa.key"] not in promoted.values()
    assert not [name for name in promoted if "-next" in name]
    assert promoted["kubernetes-ca-key.pem"] == before["kubernetes-ca-key.pem"]
    assert not take(pki, "promoted")["changed"]
    assert take(pki, "dropped")["changed"]
    dropped = content(pki)
    assert not [name for name in dropped if "-previous" in name]
    assert dropped["etcd-ca.retired"] == before["etcd-ca.pem"]
    assert not take(pki, "dropped")["changed"]
    assert take(pki, "finished")["changed"]
    assert rotation.RECORD not in content(pki)
    assert not take(pki, "finished")["changed"]
    assert {
        mode & 0o777 for name, (mode, _data) in picture(pki).items() if not name.endswith((".pem", ".pub", ".csr"))
    } == {0o600}


def test_check_mode_changes_nothing_and_says_the_same(pki: Path) -> None:
    for step in ("added", "promoted", "dropped", "finished"):
        before = picture(pki)
        predicted = take(pki, step, NAMES, check_mode=True)
        assert picture(pki) == before
        assert take(pki, step, NAMES) == predicted
        if step == "added":
            make_next(pki)


@pytest.mark.parametrize("step", ["added", "promoted", "dropped", "finished"])
def test_killed_anywhere_the_next_run_ends_as_if_nothing_had_been(pki: Path, tmp_path: Path, step: str) -> None:
    for earlier in ROTATION_STEPS[: (*ROTATION_STEPS, "finished").index(step)]:
        take(pki, earlier, NAMES)
        if earlier == "added":
            make_next(pki)
    whole = tmp_path / "whole"
    shutil.copytree(pki, whole)
    take(whole, step, NAMES)
    kills = 0
    while True:
        copy = tmp_path / str(kills)
        shutil.copytree(pki, copy)
        if not killed_at(kills, lambda copy=copy: take(copy, step, NAMES)):  # type: ignore[misc]
            break
        take(copy, step, NAMES if step != "finished" else None)
        assert picture(copy) == picture(whole)
        kills += 1
    assert kills > (1 if step == "finished" else 5)


def test_a_second_rotation_keeps_every_retired_certificate(pki: Path) -> None:
    former = []
    for _time in range(2):
        former.append((pki / "etcd-ca.pem").read_bytes())
        take(pki, "added", ["etcd-ca"])
        make_next(pki)
        for step in ("promoted", "dropped", "finished"):
            take(pki, step)
    assert (pki / "etcd-ca.retired").read_bytes() == b"".join(former)


@pytest.mark.parametrize(
    ("record", "asked", "step", "message"),
    [
        (Record(), [], "planned", "k8sgu_rotate: says nothing, and no rotation is under way"),
        (Record(), [], "added", "k8sgu_rotate: says nothing"),
        (
            Record(("etcd-ca",), "added"),
            ["kubernetes-ca"],
            "planned",
            "k8sgu_rotate: names kubernetes-ca, and the rotation of etcd-ca",
        ),
        (Record(), ["etcd-ca"], "promoted", "state: promoted comes after added"),
        (Record(), ["etcd-ca"], "dropped", "state: dropped comes after promoted"),
        (Record(("etcd-ca",), "added"), [], "dropped", "state: dropped comes after promoted"),
        (Record(("etcd-ca",), "promoted"), [], "finished", "state: finished comes after dropped"),
        (
            Record(("etcd-ca",), "added"),
            [],
            "promoted",
            "path: etcd-ca-next.pem, etcd-ca-next-key.pem, etcd-ca-next.csr",
        ),
    ],
)
def test_refused(record: Record, asked: list[str], step: str, message: str) -> None:
    with pytest.raises(RotationError) as raised:
        rotation.plan(record, asked, step, {"etcd-ca.pem": b"", "etcd-ca-key.pem": b""})
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"names": [], "step": "added"}',
        '{"names": ["x"], "step": "added"}',
        '{"names": ["etcd-ca"], "step": "x"}',
    ],
)
def test_a_broken_record_is_not_taken_for_none(pki: Path, text: str) -> None:
    (pki / rotation.RECORD).write_text(text)
    with pytest.raises(RotationError, match=r"rotation\.json is not a record of a rotation"):
        take(pki, "planned", NAMES)


@pytest.mark.parametrize("name", ROTATED)
def test_the_plan_names_what_follows(name: str) -> None:
    told = ["\n".join(rotation.lines(Record((name,), step))) for step in ("", *ROTATION_STEPS)]
    assert all(f"former {name}" in text for text in told)
    assert ["make another" in text for text in told] == [True, False, False, False]
    assert ["sign, with new" in text for text in told] == [True, True, True, False]
    assert ("rolling update" in told[0]) == (name == "kubernetes-ca")
    assert ("every member of etcd" in told[0]) == (name == "etcd-ca")
    assert ("token" in told[0]) == (name == "service-account")


def test_what_a_former_ca_has_signed_is_found(pki: Path) -> None:
    for name in ("web", "database"):
        make_leaf(pki, name=name, ca=str(pki / "etcd-ca.pem"), csr={"CN": name, "hosts": ["a.example"]})
    take(pki, "added", ["etcd-ca"])
    make_next(pki)
    take(pki, "promoted")
    make_leaf(pki, name="web", ca=str(pki / "etcd-ca.pem"), csr={"CN": "web", "hosts": ["a.example"]})
    found = [
        {"place": f"/x/{name}", "pem": (pki / f"{name}.pem").read_text()}
        for name in ("web", "database", "etcd-ca-previous")
    ]
    present = [(pki / "etcd-ca.pem").read_text()]
    assert of_former_cas(found, present) == ["/x/database (database, signed by etcd-ca)"]
    assert of_former_cas([{"place": "/x/broken", "pem": "-"}], present) == ["/x/broken (it cannot be read)"]
    x509.load_pem_x509_certificate(present[0].encode()).verify_directly_issued_by(
        x509.load_pem_x509_certificate(present[0].encode())
    )
