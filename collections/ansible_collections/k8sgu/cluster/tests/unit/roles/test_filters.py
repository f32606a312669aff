# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that roles share."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.filter.architecture import architecture
from ansible_collections.k8sgu.cluster.plugins.filter.flags import flags
from ansible_collections.k8sgu.cluster.plugins.filter.lives import lives
from ansible_collections.k8sgu.cluster.plugins.filter.reload_copies import reload_copies


def test_flags_are_the_lines_of_a_unit() -> None:
    values = {"name": "a", "pre-vote": True, "auto-tls": False, "gates": "A=true,B=false", "chance": 0.001, "port": 0}
    assert flags(values) == (
        "  --name=a \\\n  --pre-vote=true \\\n  --auto-tls=false \\\n  --gates=A=true,B=false \\\n  --chance=0.001 \\\n"
        "  --port=0"
    )
    assert flags({}) == ""
    with pytest.raises(AnsibleFilterError, match="takes a dictionary"):
        flags(["name=a"])  # type: ignore[arg-type]


def test_copies_are_made_anew_by_one_rename_each() -> None:
    assert reload_copies("\n  /a.crt \\\n  /a.key\n", "etcd") == (
        "ExecReload=+/usr/bin/install -d -m 0700 /run/etcd-new\n"
        "ExecReload=+/usr/bin/install -o etcd -m 0400 -t /run/etcd-new \\\n"
        "  /a.crt \\\n"
        "  /a.key\n"
        "ExecReload=+/bin/sh -c 'mv -f -t /run/etcd /run/etcd-new/* && rmdir /run/etcd-new'"
    )
    with pytest.raises(AnsibleFilterError, match="takes the paths of files, not ' '"):
        reload_copies(" ", "etcd")


def test_an_architecture_that_the_mirror_does_not_have() -> None:
    assert architecture("aarch64") == "arm64"
    assert architecture("Darwin arm64", "Darwin arm64") == "Darwin arm64"
    with pytest.raises(AnsibleFilterError, match="riscv64 is not supported; use a machine with x86_64 or aarch64"):
        architecture("riscv64")


@pytest.mark.parametrize(
    ("record", "nodes", "expected"),
    [
        ({}, [], False),
        ({"members": ["a"]}, [], False),
        ({"members": ["a"]}, [{"membership": None}], True),
        ({}, [{"membership": None}], False),
        ({}, [{"membership": {"born": False}}], False),
        ({}, [{"membership": None}, {"membership": {"born": True}}], True),
    ],
)
def test_a_cluster_lives_by_its_record_or_by_a_node(
    record: dict[str, Any], nodes: list[dict[str, Any]], expected: bool
) -> None:
    assert lives({"record": record, "nodes": nodes}) is expected


def test_lives_must_be_a_dictionary() -> None:
    with pytest.raises(AnsibleFilterError, match="takes a dictionary"):
        lives([])
