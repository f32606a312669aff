# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key for snapshots in the bucket is made once, and never replaced."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pyrage
import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._backup import key
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

NAMES = ("backup-identity.txt", "backup-recipient.pub")


def run(directory: Path, check_mode: bool = False) -> dict[str, Any]:
    options = {"path": str(directory / NAMES[0]), "public_path": str(directory / NAMES[1])}
    return key.run(Call(options, check_mode=check_mode))


def content(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()} if directory.exists() else {}


def test_it_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    place = tmp_path / "secrets"
    planned = run(place, check_mode=True)
    assert planned["changes"] == ["a key is made", "the public key is written"] and content(place) == {}
    made = run(place)
    assert made == planned
    assert [stat.S_IMODE((place / name).stat().st_mode) for name in NAMES] == [0o600, 0o644]
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    before = content(place)
    assert run(place)["changed"] is False and content(place) == before
    sealed = pyrage.encrypt(b"data", [pyrage.x25519.Recipient.from_str(before[NAMES[1]].strip())])
    assert pyrage.decrypt(sealed, [pyrage.x25519.Identity.from_str(before[NAMES[0]].strip())]) == b"data"
    assert before[NAMES[0]].strip() not in str(made)


def test_what_age_keygen_wrote_serves(tmp_path: Path) -> None:
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / NAMES[0]).write_text(f"# created: today\n# public key: {identity.to_public()}\n{identity}\n")
    # As after a kill between the two files.
    assert run(tmp_path)["changes"] == ["the public key is written"]
    assert content(tmp_path)[NAMES[1]] == f"{identity.to_public()}\n"


OTHER = str(pyrage.x25519.Identity.generate().to_public())


@pytest.mark.parametrize(
    ("private", "public", "told"),
    [
        ("", f"{OTHER}\n", "Nothing else opens the snapshots in the bucket"),
        (f"{pyrage.x25519.Identity.generate()}\n", f"{OTHER}\n", "is the public key of another one"),
        ("AGE-SECRET-KEY-1NONE\n", "", "a key that age does not know. It was left untouched"),
        ("nothing\n", "", "path: {0} has no line AGE-SECRET-KEY-1..."),
        (f"{pyrage.x25519.Identity.generate()}\n", "nothing\n", "public_path: {1} has no line age1..."),
    ],
    # Not by the keys, which differ between pytest's processes.
    ids=["private one lost", "of another one", "damaged", "no key", "no public key"],
)
def test_keys_that_do_not_fit_are_left_as_they_are(tmp_path: Path, private: str, public: str, told: str) -> None:
    paths = [tmp_path / name for name in NAMES]
    for path, text in zip(paths, (private, public)):
        if text:
            path.write_text(text)
    before = content(tmp_path)
    for check_mode in (True, False):
        with pytest.raises(key.BackupKeyError, match=r"^(public_)?path: ") as failed:
            run(tmp_path, check_mode)
        assert told.format(*paths) in str(failed.value)
        assert content(tmp_path) == before
