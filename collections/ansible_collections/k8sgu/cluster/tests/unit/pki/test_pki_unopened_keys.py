# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter unopened_keys: a passphrase against keys of every kind on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.filter.unopened_keys import unopened_keys
from ansible_collections.k8sgu.cluster.plugins.module_utils._options import libraries
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import keys
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import KeySpec

PASSPHRASE = "tr0ubador-and-3"


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    key = keys.generate(KeySpec("ecdsa", 256))
    encrypted = keys.dump(key, PASSPHRASE)
    contents = {
        "encrypted": encrypted,
        "plain": keys.dump(key, None),
        "broken": b"-----BEGIN EC PRIVATE KEY-----\n",
        "cut short": encrypted[:100],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "directory").mkdir()
    return [str(tmp_path / name) for name in (*contents, "directory", "missing")]


@pytest.mark.parametrize(
    ("passphrase", "unopened"), [(PASSPHRASE, []), ("another", ["encrypted"]), ("", ["encrypted", "cut short"])]
)
def test_keys_that_a_passphrase_does_not_decrypt(paths: list[str], passphrase: str, unopened: list[str]) -> None:
    assert [Path(path).name for path in unopened_keys(paths, passphrase)] == unopened


def test_without_the_library_the_module_is_left_to_say_so(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "usable", lambda _library: False)
    assert unopened_keys(paths, "another") == []


def test_one_path_is_no_list(paths: list[str]) -> None:
    with pytest.raises(AnsibleFilterError, match="a list of files"):
        unopened_keys(paths[0], "another")
