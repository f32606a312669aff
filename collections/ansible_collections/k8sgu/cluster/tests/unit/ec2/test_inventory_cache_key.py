from __future__ import annotations

import dataclasses
from typing import Any

import botocore.session
import pytest
from botocore.credentials import DeferredRefreshableCredentials

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.cache_key import (
    account_of_key,
    cache_key,
    identity,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.fetch import Query
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.session import Connection

QUERY = Query(("us-east-1",), ("demo",), ("running",))
# Two ids of keys whose accounts have been published with them.
NEW_KEY, ITS_ACCOUNT = "ASIAY34FZKBOKMUTVV7A", "609629065308"


@pytest.mark.parametrize(
    ("key", "account"),
    [
        (NEW_KEY, ITS_ACCOUNT),
        ("ASIAQNZGKIQY56JQ7WML", "029608264753"),
        ("AKIAIOSFODNN7EXAMPLE", None),  # of the older form, without an account
        ("testing", None),
        ("", None),
    ],
)
def test_the_account_in_a_keys_id(key: str, account: str | None) -> None:
    assert account_of_key(key) == account


class Session:
    """What `identity` reads of a botocore session."""

    profile = "work"

    def __init__(self, config: dict[str, str], credentials: Any) -> None:
        self.config, self.credentials = config, credentials

    def get_scoped_config(self) -> dict[str, str]:
        return self.config

    def get_credentials(self) -> Any:
        return self.credentials


def keys(access_key: str) -> Any:
    session = botocore.session.Session()
    session.set_credentials(access_key, "secret")
    return session.get_credentials()


def fetched_too_early() -> Any:
    raise AssertionError("a call was made for the sake of the cache's key")


DEFERRED = DeferredRefreshableCredentials(refresh_using=fetched_too_early, method="assume-role")


@pytest.mark.parametrize(
    ("connection", "config", "credentials", "account"),
    [
        (Connection(), {}, keys(NEW_KEY), ITS_ACCOUNT),
        (Connection(assume_role_arn="arn:aws:iam::123456789012:role/x"), {}, DEFERRED, "123456789012"),
        (Connection(), {"role_arn": "arn:aws:iam::210987654321:role/x"}, DEFERRED, "210987654321"),
        (Connection(), {"sso_account_id": "111122223333"}, DEFERRED, "111122223333"),
        (Connection(), {"credential_process": "x"}, DEFERRED, None),
        (Connection(), {}, None, None),
    ],
)
def test_the_account_without_asking(
    connection: Connection, config: dict[str, str], credentials: Any, account: str | None
) -> None:
    assert identity(connection, Session(config, credentials))["account"] == account


def test_an_old_key_stands_for_its_account() -> None:
    first = identity(Connection(), Session({}, keys("AKIAIOSFODNN7EXAMPLE")))
    second = identity(Connection(), Session({}, keys("AKIAI44QH8DHBEXAMPLE")))
    assert first != second


@pytest.mark.parametrize(
    "other",
    [
        {"who": {"account": "2"}},
        {"connection": Connection(profile="p")},
        {"endpoint": "http://127.0.0.1:1"},
        {"query": dataclasses.replace(QUERY, regions=("us-east-1", "us-east-2"))},
        {"query": dataclasses.replace(QUERY, clusters=())},
        {"query": dataclasses.replace(QUERY, states=("running", "stopped"))},
        {"query": dataclasses.replace(QUERY, filters=(("vpc-id", ("vpc-1",)),))},
        {"query": dataclasses.replace(QUERY, full=True)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_every_difference_makes_another_key(other: dict[str, Any]) -> None:
    same: dict[str, Any] = {
        "who": {"account": "1"},
        "connection": Connection(),
        "endpoint": "https://ec2.us-east-1.amazonaws.com",
        "query": QUERY,
    }
    assert cache_key(**same) == cache_key(**same)
    assert cache_key(**{**same, **other}) != cache_key(**same)


def test_a_renewed_secret_makes_no_other_key() -> None:
    keys_of = [
        cache_key({"account": "1"}, Connection(access_key=key, secret_key=key), "", QUERY) for key in ("old", "new")
    ]
    assert keys_of[0] == keys_of[1]
