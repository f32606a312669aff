from __future__ import annotations

import json

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import keys
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.keys import Key, KeysError

ONE = Key("key-1", keys.random_secret(), keys.random_secret())
TWO = Key("key-2", keys.random_secret(), keys.random_secret())


@pytest.mark.parametrize(
    ("before", "step", "names"),
    [
        ([], "present", ["key-1"]),
        ([ONE], "present", ["key-1"]),
        ([ONE], "added", ["key-1", "key-2"]),
        ([ONE, TWO], "added", ["key-1", "key-2"]),
        ([ONE, TWO], "promoted", ["key-2", "key-1"]),
        ([TWO, ONE], "promoted", ["key-2", "key-1"]),
        ([TWO, ONE], "dropped", ["key-2"]),
        ([TWO], "dropped", ["key-2"]),
        ([TWO], "added", ["key-2", "key-3"]),
    ],
)
def test_each_step_and_its_repetition(before, step, names):
    after, reasons = keys.plan(before, step)
    assert [key.name for key in after] == names
    assert bool(reasons) == (after != before)
    assert keys.plan(after, step) == (after, [])
    assert all(key in after for key in before) or step == "dropped"


@pytest.mark.parametrize(
    ("before", "step", "says"),
    [
        ([], "added", "there is none yet"),
        ([ONE], "promoted", "state: added"),
        ([ONE, TWO, Key("key-3", ONE.secretbox, ONE.aescbc)], "added", "state: dropped"),
    ],
)
def test_a_step_out_of_turn_is_refused(before, step, says):
    with pytest.raises(KeysError, match=says):
        keys.plan(before, step)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"keys": []}',
        json.dumps({"keys": [{"name": "key-1", "secretbox": ONE.secretbox}]}),
        json.dumps({"keys": [{"name": "key-1", "secretbox": ONE.secretbox, "aescbc": "c2hvcnQ="}]}),
        json.dumps({"keys": [{"name": "key-1", "secretbox": "not base64!", "aescbc": ONE.aescbc}]}),
        keys.serialize([ONE, Key("key-1", TWO.secretbox, TWO.aescbc)]),
    ],
    # Names of the tests' own: the texts hold random keys.
    ids=["nothing", "no keys", "empty", "half a key", "a short key", "no key", "a name twice"],
)
def test_a_damaged_file_is_refused_and_not_replaced(text):
    with pytest.raises(KeysError, match="restore it from a backup"):
        keys.parse(text, "keys.json")


def test_what_is_written_is_read_back():
    assert keys.parse(keys.serialize([ONE, TWO]), "x") == [ONE, TWO]


def test_each_algorithm_has_its_own_secret():
    made, _reasons = keys.plan([], "present")
    added, _reasons = keys.plan(made, "added")
    secrets = [secret for key in added for secret in (key.secretbox, key.aescbc)]
    assert len(set(secrets)) == 4


def test_a_lost_file_is_not_replaced_when_nodes_have_keys():
    with pytest.raises(KeysError, match=r"cp-0, cp-2.*backup.*/etc/kubernetes/encryption\.yml"):
        keys.refuse_loss("keys.json", ["cp-0", "cp-2"])
    keys.refuse_loss("keys.json", [])
