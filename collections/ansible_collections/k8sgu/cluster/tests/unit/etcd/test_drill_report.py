# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill says: what would be lost, how long it would take, and each reason to fail, with its way out."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.filter.drill_report import drill_report
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import opening
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.drill_report import report
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.drill_result import Promised

NAME = "20261129T180000Z_etcd-3.6.14_rev-5000_backup.db"
NOW = datetime.datetime(2026, 11, 29, 18, 10, tzinfo=datetime.timezone.utc)
SECRET = base64.b64encode(b"s" * 32).decode()
KEYS = json.dumps({"keys": [{"name": "key-1", "secretbox": SECRET, "aescbc": SECRET}]})
PROMISED = Promised(rpo_minutes=35, rto_seconds=120)


def box(content: bytes) -> str:
    """As the provider secretbox writes it with the key of KEYS."""
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    nonce = bytes(range(24))
    stream = opening._xsalsa20(b"s" * 32, nonce, 32 + len(content))
    sealed = bytes(one ^ other for one, other in zip(content, stream[32:]))
    tag = Poly1305.generate_tag(stream[:32], sealed)
    return base64.b64encode(b"k8s:enc:secretbox:v1:key-1:" + nonce + tag + sealed).decode()


def told(**more: Any) -> dict[str, Any]:
    return {
        "snapshot": NAME,
        "steps": {"check": 0.25, "restore": 1.5, "start": 0.5, "read": 0.25},
        "revision": 5000,
        "keys": 1893,
        "living": {"revision": 5066, "keys": 1893},
        "secret": {"key": "/registry/secrets/demo/token", "value": box(b"k8s\x00\n\x0c")},
        **more,
    }


def made(given: dict[str, Any], keys: str = KEYS, **more: Any) -> Any:
    return report("cp-0", given, keys, **{"promised": PROMISED, "last_restore": {}, "now": NOW, **more})


def test_all_is_well() -> None:
    found = made(told())
    assert found.problems == []
    assert found.document == {
        "time": "2026-11-29T18:10:00Z",
        "node": "cp-0",
        "snapshot": NAME,
        "rpo": {"seconds": 600, "revisions": 66, "limit_seconds": 2100},
        "rto": {
            "seconds": 2.5,
            "steps": {"check": 0.25, "restore": 1.5, "start": 0.5, "read": 0.25},
            "limit_seconds": 120,
        },
        "keys": {"restored": 1893, "living": 1893, "revision": 5000},
        "secret": {"key": "/registry/secrets/demo/token", "opens": True},
        "last_restore": None,
        "problems": [],
    }
    assert found.lines == [
        f"{NAME} on cp-0",
        "lost by a restore now   what was written in the last 10 min; 66 revisions",
        "etcd serves again       after 2.5 s (check 0.25, restore 1.5, start 0.5, read 0.25)",
        "keys                    1893, as many as etcd had at revision 5000",
        "Secret                  /registry/secrets/demo/token can be read",
        "last restore            none from here: how long a whole one takes was not measured",
    ]


def test_the_last_restore_is_told() -> None:
    last = {"snapshot": "other.db", "finished": "2026-11-01T10:00:00Z", "seconds": 70, "whole": True}
    found = made(told(), last_restore=last)
    assert found.document["last_restore"] == last
    assert (
        found.lines[-1] == "last restore            70 s until all was verified, on 2026-11-01T10:00:00Z, with other.db"
    )
    part = made(told(), last_restore={**last, "whole": False})
    assert part.lines[-1].endswith("other.db; it was cut off before, and that is its last part")


def test_what_cannot_be_compared_is_no_problem() -> None:
    forgotten = made(told(living={"revision": 9000, "keys": -1}))
    assert forgotten.problems == [] and forgotten.document["keys"]["living"] is None
    assert forgotten.lines[3].endswith("1893, at revision 5000; etcd has forgotten how it was then")
    restored = made(told(living={"revision": 1_000_005_100, "keys": -1}))
    assert restored.document["rpo"]["revisions"] is None and restored.lines[1].endswith(
        "10 min; etcd was restored since"
    )
    none = made(told(secret={"key": "", "value": ""}), keys="")
    assert none.problems == [] and none.document["secret"] is None and none.lines[4].endswith("there is none")
    plain = made(told(secret={"key": "/registry/secrets/demo/plain", "value": ""}), keys="")
    assert plain.problems == []


OTHER = base64.b64encode(b"x" * 32).decode()
WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("too old", {"snapshot": NAME.replace("T18", "T17")}, KEYS, "70 min old, and at most 35 min may be lost (k8sgu_"),
    ("too slow", {"steps": {"check": 100, "read": 21}}, KEYS, "after 121 s, and may take 120 s (k8sgu_drill_rto_sec"),
    ("fewer keys", {"keys": 1892}, KEYS, "has 1892 keys, and at revision 5000 the living one had 1893"),
    ("no keys", {}, "", "token could not be read after a restore: there is no key-1 among the keys. Put"),
    ("other keys", {}, KEYS.replace(SECRET, OTHER), "the key-1 among the keys does not open"),
    ("no file of keys", {}, "{}", "secrets/encryption-keys.json is not a file of encryption keys. Put"),
]


@pytest.mark.parametrize(("case", "given", "keys", "said"), WRONG, ids=[row[0] for row in WRONG])
def test_each_reason_to_fail(case: str, given: dict[str, Any], keys: str, said: str) -> None:
    found = made(told(**given), keys=keys)
    [problem] = found.problems
    assert said in problem and found.document["problems"] == [problem]
    assert SECRET not in json.dumps(found.document) + "".join(found.lines)


def test_the_filter_takes_what_templates_give() -> None:
    found = drill_report(told(), "cp-0", KEYS, "1e9", "120", "")
    assert found["problems"] == [] and found["document"]["rto"]["limit_seconds"] == 120
    with pytest.raises(AnsibleFilterError, match="drill_report: KeyError: 'revision'"):
        drill_report({"snapshot": NAME, "msg": "no"}, "cp-0", KEYS, 1, 1, "")
