# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.document import ConfigError, find
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.plan import Desired, Entry, Plan, plan

from .pairs import b64, pair

CURRENT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [
        {"cluster": {"server": "https://192.0.2.1:6443", "x-note": "mine"}, "name": "far"},
        {"cluster": {"server": "https://192.0.2.2:6443"}, "name": "near"},
    ],
    "contexts": [{"context": {"cluster": "far", "user": "bob", "extensions": [1]}, "name": "far"}],
    "current-context": "far",
    "users": [{"name": "bob", "user": {"token": "sesame"}}],
}


def desired(
    clusters: dict[str, Any] | None = None,
    users: dict[str, Any] | None = None,
    contexts: dict[str, Any] | None = None,
    current: str | None = None,
) -> Desired:
    """Entries by name; None in place of fields means absent."""

    def entries(section: str, given: dict[str, Any] | None) -> list[Entry]:
        return [
            Entry(f"{section}[{index}]", name, fields is None, fields or {})
            for index, (name, fields) in enumerate((given or {}).items())
        ]

    return Desired("", entries("clusters", clusters), entries("users", users), entries("contexts", contexts), current)


def planned(wanted: Desired, current: dict[str, Any] | None = None, files: dict[str, bytes] | None = None) -> Plan:
    before = copy.deepcopy(CURRENT if current is None else current)
    result = plan(before, wanted, (files or {}).get)
    assert before == (CURRENT if current is None else current), "a plan must not change what it is made from"
    again = plan(result.document, wanted, (files or {}).get)
    assert again.changes == [], "a second run has nothing to do"
    assert again.document == result.document
    return result


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        (desired(clusters={"far": {"server": "https://192.0.2.1:6443"}}), []),
        (desired(clusters={"far": {"server": "https://192.0.2.9:6443"}}), ["cluster 'far': server differed"]),
        (desired(clusters={"new": {"server": "https://192.0.2.3"}}), ["cluster 'new' is added"]),
        (desired(clusters={"near": None}), ["cluster 'near' is removed"]),
        (desired(clusters={"nowhere": None}), []),
        (desired(users={"bob": {"token": "other"}}), ["user 'bob': token differed"]),
        (desired(users={"bob": {"tokenFile": "/run/token"}}), ["user 'bob': tokenFile, token differed"]),
        (
            desired(users={"bob": {"token": "", "username": "b", "password": "p"}}),
            ["user 'bob': token, username, password differed"],
        ),
        (desired(contexts={"far": {"namespace": "web"}}), ["context 'far': namespace differed"]),
        (desired(contexts={"far": None}, current=""), ["context 'far' is removed", "current-context is now ''"]),
        (desired(current="far"), []),
        (desired(current=""), ["current-context is now ''"]),
        (desired(clusters={"far": {"insecure-skip-tls-verify": False, "tls-server-name": ""}}), []),
        (
            desired(clusters={"far": {"insecure-skip-tls-verify": True}}),
            ["cluster 'far': insecure-skip-tls-verify differed"],
        ),
        (
            desired(clusters={"far": None}, contexts={"far": {"cluster": "near"}}),
            ["cluster 'far' is removed", "context 'far': cluster differed"],
        ),
    ],
)
def test_changes(wanted: Desired, changes: list[str]) -> None:
    assert planned(wanted).changes == changes


def test_what_is_not_asked_for_stays() -> None:
    document = planned(
        desired(clusters={"far": {"server": "https://192.0.2.9"}}, contexts={"far": {"namespace": "web"}})
    ).document
    assert find(document, "clusters", "far") == {"server": "https://192.0.2.9", "x-note": "mine"}
    assert find(document, "contexts", "far") == {"cluster": "far", "user": "bob", "extensions": [1], "namespace": "web"}
    assert [entry["name"] for entry in document["clusters"]] == ["far", "near"]
    assert document["users"] == CURRENT["users"]


def test_a_new_file() -> None:
    result = plan(None, desired(clusters={"a": {"server": "https://a"}}, users={"u": {"token": "t"}},
                                contexts={"c": {"cluster": "a", "user": "u"}}, current="c"))  # fmt: skip
    assert result.changes[0] == "the file is created"
    assert result.document["kind"] == "Config"
    assert result.document["apiVersion"] == "v1"
    assert result.document["current-context"] == "c"


def test_embedded_data_replaces_a_reference_and_back() -> None:
    keys = pair("a")
    data = {"client-certificate-data": b64(keys.certificate), "client-key-data": b64(keys.key)}
    paths = {"client-certificate": "a.pem", "client-key": "a-key.pem"}
    files = {"a.pem": keys.certificate, "a-key.pem": keys.key}
    referenced = planned(desired(users={"bob": {"token": "", **paths}}), files=files)
    embedded = planned(desired(users={"bob": data}), referenced.document)
    assert find(embedded.document, "users", "bob") == data
    assert find(planned(desired(users={"bob": paths}), embedded.document, files).document, "users", "bob") == paths


def test_base64_with_other_line_breaks_is_no_difference() -> None:
    data = b64(pair("a").certificate)
    wrapped = "\n".join(data[start : start + 64] for start in range(0, len(data), 64))
    current = {"clusters": [{"name": "far", "cluster": {"server": "https://a", "certificate-authority-data": wrapped}}]}
    assert planned(desired(clusters={"far": {"certificate-authority-data": data}}), current).changes == []


EXEC = {"command": "helper", "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}


def test_exec_keeps_what_it_does_not_know() -> None:
    current = {"users": [{"name": "bob", "user": {"exec": {**EXEC, "x-more": 1}}}]}
    result = planned(desired(users={"bob": {"exec": {**EXEC, "command": "other"}}}), current)
    assert result.changes == ["user 'bob': exec.command differed"]
    assert find(result.document, "users", "bob") == {"exec": {**EXEC, "command": "other", "x-more": 1}}


A, B = pair("a"), pair("b")
TWO = {"client-certificate-data": b64(A.certificate), "client-key-data": b64(B.key)}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (desired(current="nowhere"), "current_context: 'nowhere' does not exist; name one of far"),
        (desired(contexts={"far": None}), "current_context: 'far' does not exist"),
        (
            desired(contexts={"c": {"cluster": "lost", "user": "bob"}}),
            "contexts[0].cluster: context 'c' names the cluster 'lost'",
        ),
        (
            desired(contexts={"c": {"cluster": "far", "user": "lost"}}),
            "contexts[0].user: context 'c' names the user 'lost'",
        ),
        (desired(contexts={"c": {"cluster": "far"}}), "contexts[0].user: context 'c' names no user"),
        (desired(clusters={"far": None}), "clusters: cluster 'far' cannot be removed while context 'far' names it"),
        (desired(users={"bob": None}), "users: user 'bob' cannot be removed while context 'far' names it"),
        (desired(clusters={"new": {}}), "clusters[0].server: cluster 'new' has none"),
        (desired(clusters={"new": {"server": "192.0.2.1:6443"}}), "clusters[0].server: is not an address"),
        (desired(clusters={"new": {"server": "ftp://a"}}), "clusters[0].server: is not an address"),
        (desired(clusters={"new": {"server": "https://a:99999"}}), "clusters[0].server: is not an address"),
        (desired(clusters={"far": {"proxy-url": "proxy"}}), "clusters[0].proxy_url: is not an address"),
        (
            desired(clusters={"far": {"insecure-skip-tls-verify": True, "certificate-authority": "ca.pem"}}),
            "clusters[0].insecure_skip_tls_verify",
        ),
        (
            desired(clusters={"far": {"certificate-authority-data": b64(A.key)}}),
            "clusters[0].certificate_authority: holds no certificate",
        ),
        (
            desired(clusters={"far": {"certificate-authority-data": b64(A.certificate[:-40])}}),
            "clusters[0].certificate_authority: holds no certificate, or a truncated one",
        ),
        (desired(users={"u": TWO}), "users[0] (user 'u'): the client certificate and the client key are not a pair"),
        (
            desired(
                users={"u": {"client-certificate-data": b64(A.certificate), "client-key-data": b64(A.encrypted_key)}}
            ),
            "the client key is encrypted",
        ),
        (
            desired(
                users={"u": {"client-certificate-data": b64(A.certificate), "client-key-data": b64(b"-----BEGIN X")}}
            ),
            "the client key is not a readable PEM key",
        ),
        (
            desired(users={"u": {"client-certificate-data": b64(A.certificate)}}),
            "users[0].client_key: user 'u' has a client certificate without",
        ),
        (
            desired(users={"u": {"client-key-data": b64(A.key)}}),
            "users[0].client_certificate: user 'u' has a client key without",
        ),
        (desired(users={"bob": {"username": "b", "password": "p"}}), "a token and a user name with password"),
        (desired(users={"bob": {"as-groups": ["g"]}}), "without a user; give impersonate"),
        (desired(users={"u": {"exec": {**EXEC, "command": ""}}}), "users[0].exec.command"),
        (desired(users={"u": {"exec": {**EXEC, "apiVersion": ""}}}), "users[0].exec.api_version"),
        (desired(users={"u": {"exec": {**EXEC, "interactiveMode": "Maybe"}}}), "users[0].exec.interactive_mode"),
        (desired(users={"u": {"exec": EXEC, "auth-provider": {"name": "x"}}}), "an auth provider and exec"),
        (desired(clusters={"": {"server": "https://a"}}), "clusters[0].name: is empty"),
    ],
)
def test_refused(wanted: Desired, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(copy.deepcopy(CURRENT), wanted)
    assert message in str(caught.value)


def test_a_name_given_twice_is_refused() -> None:
    entry = Entry("users[0]", "u", False, {"token": "t"})
    with pytest.raises(ConfigError, match="users: 'u' is given twice"):
        plan(None, Desired("", [], [entry, entry], [], None))


def test_a_referenced_pair_is_checked_when_it_is_there() -> None:
    wanted = desired(users={"u": {"client-certificate": "a.pem", "client-key": "b-key.pem"}})
    with pytest.raises(ConfigError, match="are not a pair"):
        plan(None, wanted, {"a.pem": A.certificate, "b-key.pem": B.key}.get)
    assert plan(None, wanted, {"a.pem": A.certificate}.get).changes  # the kubelet, say, has yet to fetch the other


def test_dangling_names_from_before_are_warnings() -> None:
    current = {
        **CURRENT,
        "current-context": "lost",
        "contexts": [{"name": "old", "context": {"cluster": "gone", "user": "bob"}}],
    }
    warnings = planned(desired(users={"bob": {"token": "x"}}), current).warnings
    assert warnings == [
        "context 'old' names the cluster 'gone', which does not exist; it was so before",
        "the current context 'lost' does not exist; it was so before",
    ]
