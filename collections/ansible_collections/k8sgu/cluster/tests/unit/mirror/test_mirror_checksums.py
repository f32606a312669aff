# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publishers' sums in each of their forms, and the lock file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.checksums import Lock, published_sum
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError

SUM, OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SUM, SUM),
        (f"{SUM.upper()}\n", SUM),
        (f"{OTHER}  tool.tgz.sig\n{SUM}  tool.tgz\n", SUM),
        (f"{SUM} *./release/tool.tgz\n", SUM),
        (f"{OTHER}  other.tgz\n", None),
        (json.dumps({"assets": [{"name": "tool.tgz", "digest": f"sha256:{SUM}"}]}), SUM),
        (json.dumps({"assets": [{"name": "tool.tgz", "digest": None}]}), None),
        (json.dumps({"assets": "none"}), None),
        ("<html>Sign in</html>", None),
        ("", None),
        ("{", None),
    ],
)
def test_published_sum(text: str, expected: str | None) -> None:
    assert published_sum(text, "tool.tgz") == expected


def test_pins_survive_and_a_difference_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "1.36.lock.yml"
    lock = Lock(str(path))
    lock.pin("files", "https://e.org/a", SUM)
    lock.pin("images", "e.org/a:1", OTHER)
    lock.pin("files", "https://e.org/a", SUM)
    again = Lock(str(path))
    assert (again.get("files", "https://e.org/a"), again.get("images", "e.org/a:1")) == (SUM, OTHER)
    before = path.read_bytes()
    with pytest.raises(MirrorError, match=f"now gives {OTHER}, but .*{SUM}"):
        again.pin("files", "https://e.org/a", OTHER)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["files: {a: 123}", "files: {a: xyz}", "a: ["])
def test_damaged_lock(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lock.yml"
    path.write_text(text)
    with pytest.raises(MirrorError, match=r"is not a SHA-256|is not YAML"):
        Lock(str(path))
