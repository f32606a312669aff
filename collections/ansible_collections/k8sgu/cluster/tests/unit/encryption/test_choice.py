# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A choice of encryption at rest against what etcd already has."""

from __future__ import annotations

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import choice

SOCKET = "unix:///run/kms.sock"
BOX = choice.wanted("secretbox", "key-1", ["secrets"], "")
BOX_KMS = choice.wanted("secretbox", "key-1", ["secrets"], SOCKET)
KMS = choice.wanted("kms", "", ["secrets"], SOCKET)
KMS_KEYS = choice.wanted("kms", "key-1", ["secrets"], SOCKET)


@pytest.mark.parametrize(
    ("before", "now", "endpoint", "servers"),
    [
        (None, BOX, "", 3),
        (BOX, BOX, "", 3),
        (BOX, choice.wanted("aescbc", "key-1", ["secrets"], ""), "", 3),
        (BOX, choice.wanted("secretbox", "key-1", ["configmaps"], ""), "", 3),
        (BOX, BOX_KMS, SOCKET, 3),
        (BOX_KMS, KMS_KEYS, SOCKET, 3),
        (BOX, KMS_KEYS, SOCKET, 1),
        (KMS_KEYS, BOX_KMS, SOCKET, 3),
        (BOX_KMS, BOX, "", 3),
        (None, KMS, SOCKET, 3),
    ],
)
def test_what_every_server_can_read_may_be_written(before, now, endpoint, servers):
    assert choice.problems(now, endpoint, before, servers) == []


@pytest.mark.parametrize(
    ("before", "now", "endpoint", "servers", "says"),
    [
        (None, KMS, "/run/kms.sock", 1, "unix:///path"),
        (None, KMS, "unix://run/kms.sock", 1, "unix:///path"),
        (None, choice.wanted("kms", "", ["secrets"], ""), "", 1, "is empty, and k8sgu_encryption_provider is kms"),
        (None, choice.wanted("secretbox", "key-1", ["*.*"], ""), "", 1, "name each one"),
        (None, choice.wanted("secretbox", "key-1", ["Secrets"], ""), "", 1, "name each one"),
        (KMS_KEYS, BOX, "", 1, "keep it until a run"),
        (BOX, KMS_KEYS, SOCKET, 3, "first set k8sgu_encryption_kms_endpoint"),
        (KMS, BOX_KMS, SOCKET, 3, "first make a key"),
        (KMS, choice.wanted("kms", "", ["secrets", "configmaps"], SOCKET), SOCKET, 1, "then change them"),
        (KMS_KEYS, choice.wanted("kms", "key-1", ["configmaps"], SOCKET), SOCKET, 1, "then change them"),
    ],
)
def test_choices_that_make_data_unreadable_are_refused_with_what_to_do(before, now, endpoint, servers, says):
    (problem,) = choice.problems(now, endpoint, before, servers)
    assert problem.startswith("k8sgu_encryption_")
    assert says in problem


@pytest.mark.parametrize(
    "other",
    [
        choice.wanted("secretbox", "key-2", ["secrets"], ""),
        choice.wanted("aescbc", "key-1", ["secrets"], ""),
        choice.wanted("secretbox", "key-1", ["secrets", "configmaps"], ""),
        BOX_KMS,
    ],
)
def test_each_difference_makes_what_is_written_stale(other):
    assert other != BOX


def test_the_record_is_read_back_and_a_damaged_one_says_what_to_do(tmp_path):
    path = tmp_path / "record.json"
    assert choice.read(path) is None
    path.write_text(choice.serialize(KMS_KEYS))
    assert choice.read(path) == KMS_KEYS
    path.write_text("{}")
    with pytest.raises(choice.RecordError, match="remove it"):
        choice.read(path)
