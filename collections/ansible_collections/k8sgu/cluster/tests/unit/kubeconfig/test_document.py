# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.document import (
    ConfigError,
    dump,
    load,
    masked,
    secrets_of,
)

from .pairs import b64, pair

FOREIGN = b"""\
kind: Config
x-tool: {answer: 42}
users:
- user:
    token: 'sesame-open'
    x-colour: blue
  name: bob
preferences: {colors: true}
clusters:
- name: far
  cluster:
    extensions:
    - {name: minikube.sigs.k8s.io, extension: {last-update: 2024-01-02, version: v1.36.0}}
    server: https://192.0.2.1
apiVersion: v1
contexts: []
current-context: ''
"""


def test_unknown_fields_extensions_and_order_survive() -> None:
    document = load(FOREIGN, "config")
    assert list(document) == [
        "kind",
        "x-tool",
        "users",
        "preferences",
        "clusters",
        "apiVersion",
        "contexts",
        "current-context",
    ]
    again = load(dump(document), "config")
    assert again == document
    assert list(again) == list(document)
    assert list(again["clusters"][0]["cluster"]) == ["extensions", "server"]
    # A date is text to kubectl, and stays what it was.
    assert again["clusters"][0]["cluster"]["extensions"][0]["extension"]["last-update"] == "2024-01-02"


@pytest.mark.parametrize(
    "text",
    [
        "y",
        "n",
        "yes",
        "on",
        "1e3",
        "0x1F",
        "012",
        "1_000",
        "12:30:45",
        "2024-01-01",
        "null",
        "~",
        "",
        "a: b",
        "+1",
        ".5",
    ],
)
def test_text_that_looks_like_something_else_is_quoted(text: str) -> None:
    content = dump({"clusters": [{"name": text, "cluster": {"server": "https://a"}}]})
    value = content.decode().split("name: ")[1].splitlines()[0]
    assert value == f"'{text}'"  # the only way that both PyYAML and Go read it as text
    assert load(content, "config")["clusters"][0]["name"] == text


def test_a_long_value_stays_on_one_line() -> None:
    data = b64(pair("a").certificate * 5)
    assert data in dump({"clusters": [{"name": "a", "cluster": {"certificate-authority-data": data}}]}).decode()


def test_json_and_the_empty_file_are_read() -> None:
    assert load(b'{"kind": "Config", "clusters": null}', "config") == {"kind": "Config", "clusters": None}
    assert load(b"", "config") == {}
    assert load(b"# nothing yet\n", "config") == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a: [1", "not YAML"),
        (b"a: b\n--- \nc: d\n", "not YAML"),
        (b"just text", "no mapping"),
        (b"[1, 2]", "no mapping"),
        (b"kind: Pod\napiVersion: v1\n", "kind is not Config"),
        (b"kind: Config\napiVersion: v2\n", "kind is not Config"),
        (b"host: example.com\n", "neither a kind nor clusters"),
        (b"kind: Config\nclusters: {a: b}\n", "clusters are not a list"),
        (b"kind: Config\nusers: [bob]\n", "no name"),
        (b"kind: Config\nusers: [{name: bob, user: secret}]\n", "no name or no fields"),
        (b"kind: Config\nusers: [{name: bob}, {name: bob}]\n", "'bob' twice"),
        (b"kind: Config\nkind: Config\n", "key 'kind' twice"),
        (b"kind: !!python/object:os.system x\n", "not YAML"),
    ],
)
def test_what_is_not_a_kubeconfig_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(content, "/home/me/.kube/config")
    message = str(caught.value)
    assert message.startswith("path: /home/me/.kube/config is not a kubeconfig: ")
    assert reason in message
    assert "left untouched" in message
    assert "secret" not in message


def test_a_syntax_error_does_not_quote_the_text_around_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load(b"kind: Config\nusers:\n- {name: bob, user: {token: sesame-open]}\n", "config")
    assert "sesame" not in str(caught.value)
    assert "line 3" in str(caught.value)


def test_every_secret_is_found_and_masked() -> None:
    keys = pair("a")
    user: dict[str, Any] = {
        "token": "tok-1234",
        "password": "pass-1234",
        "client-key-data": b64(keys.key),
        "client-certificate-data": b64(keys.certificate),
        "username": "bob",
        "auth-provider": {"name": "oidc", "config": {"id-token": "idtok-1234", "client-id": "app"}},
        "exec": {
            "command": "helper",
            "args": ["--cluster=demo", "--token=argtok-1234", "--password", "argpass-1234", "login"],
            "env": [{"name": "AWS_PROFILE", "value": "work"}, {"name": "AWS_SECRET_ACCESS_KEY", "value": "aws-1234"}],
        },
        "x-unknown": "unknown-1234",
    }
    document = {
        "users": [{"name": "bob", "user": user}],
        "clusters": [{"name": "far", "cluster": {"server": "https://a", "proxy-url": "http://me:proxy-1234@p:1"}}],
    }
    found = set(secrets_of(document))
    assert {"tok-1234", "pass-1234", "idtok-1234", "aws-1234", b64(keys.key), keys.key.decode()} <= found
    assert not {"app", "work", "bob"} & found
    shown = masked(document)
    # With its dash: a fingerprint may have these digits by chance.
    assert "-1234" not in shown
    assert "PRIVATE" not in shown
    assert b64(keys.key) not in shown
    for public in ("bob", "helper", "--cluster=demo", "login", "<sha256 ", "--token=<secret>"):
        assert public in shown


def test_a_masked_secret_shows_whether_it_differs() -> None:
    old = {"users": [{"name": "bob", "user": {"token": "one"}}]}
    new = {"users": [{"name": "bob", "user": {"token": "two"}}]}
    assert masked(old) != masked(new, old)
    assert masked(old) == masked(old, old)
    assert yaml.safe_load(masked(new, old))["users"][0]["user"] == {"token": "<another secret>"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("clusters: [{name: 1234, cluster: {}}]", "the name of an entry of its clusters is a number to YAML"),
        ("users: [{name: yes, user: {}}]", "the name of an entry of its users is a truth value"),
        ("users: [{name: 1.30, user: {}}]", "the name of an entry of its users is a number"),
        ("users: [{name: bob, user: {token: 42424242}}]", "token of its user 'bob' is a number"),
        ("contexts: [{name: c, context: {user: 12}}]", "user of its context 'c' is a number"),
        ("contexts: [{name: c, context: {namespace: on}}]", "namespace of its context 'c' is a truth value"),
        ("kind: Config\ncurrent-context: 7", "its current-context is a number"),
        ("clusters: [{cluster: {}}]", "has no name"),
    ],
)
def test_values_that_kubectl_would_not_read_as_text_are_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(text.encode(), "config")
    assert told in str(error.value)
    assert "42424242" not in str(error.value)
    if "no name" not in told:
        assert "put it in quotes" in str(error.value)
