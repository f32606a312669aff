# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every value in etcd against the key that writes."""

from __future__ import annotations

import base64
import json

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import scan

PREFIX = "k8s:enc:secretbox:v1:key-2:"
NEW, OLD, PLAIN = PREFIX.encode() + b"\x00", b"k8s:enc:secretbox:v1:key-1:\x00", b"k8s\x00\n\x0c"


class Etcd:
    """`etcdctl get FROM TO -w json --limit N` over a dictionary."""

    def __init__(self, values: dict[str, bytes]) -> None:
        self.values, self.calls = values, 0

    def __call__(self, *arguments: str) -> bytes:
        _get, start, end, *_form, limit = arguments
        assert "\0" not in start + end, "no argument of a program can have that"
        self.calls += 1
        keys = sorted(key for key in self.values if start <= key < end)
        rows = [
            {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(self.values[key]).decode()}
            for key in keys[: int(limit)]
        ]
        return json.dumps({"kvs": rows, "more": len(keys) > int(limit)} if rows else {}).encode()


@pytest.mark.parametrize(
    ("resource", "where"),
    [
        ("secrets", ["/registry/secrets/"]),
        ("services", ["/registry/services/specs/"]),
        ("deployments.apps", ["/registry/deployments/", "/registry/apps/deployments/"]),
        ("ingresses.networking.k8s.io", ["/registry/ingress/"]),
    ],
)
def test_where_a_resource_is(resource, where):
    assert scan.places(resource) == where


@pytest.mark.parametrize("value", [OLD, PLAIN, b"", b"k8s:enc:aescbc:v1:key-2:\x00"])
def test_a_value_that_another_key_or_none_wrote_is_named(value):
    etcd = Etcd({"/registry/secrets/a/good": NEW, "/registry/secrets/a/bad": value, "/registry/configmaps/a/x": PLAIN})
    found = scan.scan(etcd, ["secrets"], PREFIX)
    assert (found.values, found.others) == (2, ["/registry/secrets/a/bad"])
    assert "/registry/secrets/a/bad" in found.describe()


def test_only_below_the_resource_and_page_by_page():
    many = {f"/registry/secrets/a/{number:04}": NEW for number in range(2 * scan.PAGE + 1)}
    etcd = Etcd({**many, "/registry/secretsandmore/a": PLAIN, "/registry/secret": PLAIN})
    found = scan.scan(etcd, ["secrets"], PREFIX)
    assert (found.values, found.others, etcd.calls) == (2 * scan.PAGE + 1, [], 3)


@pytest.mark.parametrize(("value", "seen"), [(OLD, True), (NEW, False), (PLAIN, False)])
def test_before_a_key_is_dropped_everything_that_it_wrote_is_found(value, seen):
    etcd = Etcd({"/registry/secrets/a/good": NEW, "/registry/configmaps/a/dropped": value})
    assert scan.scan(etcd, ["secrets"], PREFIX).others == []
    assert bool(scan.scan(etcd, ["secrets"], PREFIX, everything=True).others) is seen
