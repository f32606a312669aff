"""CFSSL's documents, piece by piece: durations, hosts, requests, profiles."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.durations import parse_duration
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.hosts import classify_host
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.profiles import find_profile
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import format_subject, parse_request


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8760h", timedelta(hours=8760)),
        ("1h30m", timedelta(minutes=90)),
        ("1.5h", timedelta(minutes=90)),
        (".5h", timedelta(minutes=30)),
        ("90s", timedelta(seconds=90)),
        ("100ms", timedelta(milliseconds=100)),
        ("+10h", timedelta(hours=10)),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, expected: timedelta) -> None:
    assert parse_duration(text, "expiry") == expected


@pytest.mark.parametrize(
    "text", ["", "8760", "h", "one year", "8760 h", "-5h", "0h", "1y", "1h;", "9999999999h", 8760, True, None]
)
def test_invalid_durations_are_refused(text: object) -> None:
    with pytest.raises(PkiError, match=r"^config\.expiry: "):
        parse_duration(text, "config.expiry")


def test_days_are_for_our_own_options_only() -> None:
    assert parse_duration("60d", "renew_before", days=True) == timedelta(days=60)
    with pytest.raises(PkiError, match="write hours"):
        parse_duration("60d", "expiry")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("10.0.0.1", "ip", "10.0.0.1"),
        ("2001:DB8::0001", "ip", "2001:db8::1"),
        ("::ffff:1.2.3.4", "ip", "1.2.3.4"),
        ("localhost", "dns", "localhost"),
        ("kubernetes.default.svc.cluster.local", "dns", "kubernetes.default.svc.cluster.local"),
        ("*.example.com", "dns", "*.example.com"),
        ("ip-10-0-0-1.ec2.internal", "dns", "ip-10-0-0-1.ec2.internal"),
        ("3com.com", "dns", "3com.com"),
        ("me@example.com", "email", "me@example.com"),
        ("https://example.com/path?x=1", "uri", "https://example.com/path?x=1"),
        ("spiffe://cluster.local/ns/a", "uri", "spiffe://cluster.local/ns/a"),
        ("HTTP://Example.com/", "uri", "http://Example.com/"),
        ("file:///etc", "uri", "file:///etc"),
        ("https://[::1]:80/%20?q", "uri", "https://[::1]:80/%20?q"),
        ("URN:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "uri", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
        ("tag:example.com,2026:a", "uri", "tag:example.com,2026:a"),
        ("mailto:me@example.com", "uri", "mailto:me@example.com"),
        ("a:b", "uri", "a:b"),
        ("my_service.default.svc", "dns", "my_service.default.svc"),
        ("_sip._tcp.example.com", "dns", "_sip._tcp.example.com"),
        ("me@my_host.example", "email", "me@my_host.example"),
        ("Me <me@example.com>", "email", "me@example.com"),
        ('"Me, too" <me@example.com>', "email", "me@example.com"),
    ],
)
def test_hosts_are_classified(text: str, kind: str, value: str) -> None:
    assert classify_host(text, "hosts") == (kind, value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" ", "is empty"),
        ("256.1.1.1", "four numbers up to 255"),
        ("010.0.0.1", "without leading zeros"),
        ("10.0.0", "a name, which needs a letter"),
        ("12345", "a name, which needs a letter"),
        ("127.0.0.1.", "four numbers"),
        ("10.0.0.1/24", "is a network; give an IP address without a prefix length"),
        ("fe80::1/64", "is a network"),
        ("10.0.0.1:6443", "has a port"),
        ("localhost:8080", "has a port"),
        ("example.com:443/", "has a port"),
        ("[2001:db8::1]", "is in brackets"),
        ("fe80::1%eth0", "is an address with a zone"),
        ("fe80::1%10", "is an address with a zone"),
        ("fe80::g", "is not a valid IPv6 address"),
        (":::", "is not a valid IPv6 address"),
        ("not a host", "holds a space"),
        ("web.example.com ", "holds a space"),
        ("a.example.com,b.example.com", "each host as its own entry of the list"),
        ("-a.example", "'-a', which begins or ends in a hyphen"),
        ("a-.example", "'a-', which begins or ends in a hyphen"),
        ("a..b", "has an empty part before, after or between its dots"),
        (".example.com", "has an empty part before, after or between its dots"),
        ("a.example.", "ends in a dot; leave the dot off"),
        ("*", "has a wildcard that is not the whole first part"),
        ("a.*.example", "has a wildcard that is not the whole first part"),
        ("*.*.example", "has a wildcard that is not the whole first part"),
        ("f*.example", "has a wildcard that is not the whole first part"),
        ("ex\u00e4mple.com", "beyond ASCII; write a name in its ASCII form"),
        ("x" * 64 + ".com", "a part of 64 characters"),
        ("a." * 127 + "com", "257 characters; a DNS name has at most 253"),
        ("a!b.example", "holds '!'"),
        ("a@b@c", "is not an email address"),
        ('"a b"@example.com', "holds a space"),
        ("me@[10.0.0.1]", "is not an email address"),
        ("http://exa mple", "in a URI, write %20"),
        ("https://example.com/#a", "without #"),
        ("https://example.com/%zz", "is not a URI"),
        ("https://example.com:port/", "is not a URI"),
        ("https://", "is not a URI"),
        ("urn:", "is not a URI"),
        ("/path", "is a path"),
        (5, "is a number, not text"),
        (True, "is a truth value, not text"),
        (None, "is nothing, not text"),
    ],
)
def test_what_is_neither_name_nor_address_is_refused_with_its_reason(text: object, reason: str) -> None:
    with pytest.raises(PkiError) as error:
        parse_request({"CN": "x", "hosts": [text]}, "csr")
    assert error.value.option == "csr.hosts[0]"
    assert reason in error.value.message


def test_a_request_is_read_with_keys_in_any_case() -> None:
    request = parse_request(
        {
            "cn": "kubelet",
            "Names": [{"o": "system:nodes", "C": "US"}, {"O": "two"}],
            "CA": {"pathlen": 1},
            "KEY": {"algo": "rsa", "size": "3072"},
        },
        "csr",
    )
    assert format_subject(request.subject) == "C=US, O=system:nodes+O=two, CN=kubelet"
    assert request.key == ("rsa", 3072)
    assert request.ca is not None
    assert request.ca.pathlen == 1


@pytest.mark.parametrize(
    ("document", "option"),
    [
        ({}, "csr"),
        (None, "csr"),
        ([], "csr"),
        ({"CN": ""}, "csr"),
        ({"names": []}, "csr"),
        ({"names": [{"O": " "}]}, "csr"),
        ({"CN": "x", "hosts": "web"}, "csr.hosts"),
        ({"CN": "x", "names": {"O": "a"}}, "csr.names"),
        ({"CN": "x", "names": ["a"]}, "csr.names[0]"),
        ({"CN": "x", "names": [{"C": "USA"}]}, "csr.names[0].C"),
        ({"CN": "x", "names": [{"C": "U1"}]}, "csr.names[0].C"),
        ({"CN": "x", "names": [{"organisation": "a"}]}, "csr.names[0].organisation"),
        ({"CN": "x" * 65}, "csr.CN"),
        ({"CN": "a\nb"}, "csr"),
        ({"CN": "x", "serialnumber": "1" * 65}, "csr.serialnumber"),
        ({"CN": ["x"]}, "csr.CN"),
        ({"CN": 77}, "csr.CN"),
        ({"CN": True}, "csr.CN"),
        ({"CN": "x", "serialnumber": 77}, "csr.serialnumber"),
        ({"CN": "x", "delegation_enabled": True}, "csr.delegation_enabled"),
        ({"CN": "x", "host": ["a"]}, "csr.host"),
        ({"CN": "x", "cn": "y"}, "csr.cn"),
        ({"CN": "x", "key": "rsa"}, "csr.key"),
        ({"CN": "x", "key": {"algo": "dsa", "size": 2048}}, "csr.key.algo"),
        ({"CN": "x", "key": {"algo": "rsa", "size": 1024}}, "csr.key.size"),
        ({"CN": "x", "key": {"algo": "rsa", "size": 8193}}, "csr.key.size"),
        ({"CN": "x", "key": {"algo": "ecdsa", "size": 255}}, "csr.key.size"),
        ({"CN": "x", "key": {"algo": "rsa", "size": "big"}}, "csr.key.size"),
        ({"CN": "x", "ca": {"expiry": "ten years"}}, "csr.ca.expiry"),
        ({"CN": "x", "ca": {"pathlen": -2}}, "csr.ca.pathlen"),
        ({"CN": "x", "ca": {"pathlenzero": 3}}, "csr.ca.pathlenzero"),
    ],
)
def test_a_malformed_request_is_refused(document: object, option: str) -> None:
    with pytest.raises(PkiError) as error:
        parse_request(document, "csr")
    assert error.value.option == option


def test_a_subject_may_be_missing_where_there_are_hosts() -> None:
    for empty in ({}, {"CN": ""}, {"CN": " "}, {"names": [{"O": ""}]}):
        request = parse_request({**empty, "hosts": ["web.example.com"]}, "csr")
        assert (request.subject, [host.value for host in request.hosts]) == ((), ["web.example.com"])


def test_unsupported_keys_that_are_empty_are_no_error() -> None:
    request = parse_request({"CN": "x", "extensions": [], "delegation_enabled": False}, "csr")
    assert format_subject(request.subject) == "CN=x"
    silent = {"copy_extensions": False, "remote": "", "policies": [], "ct_log_servers": None}
    assert (
        find_profile(profile_with(**silent, cert_store="x", allowed_extensions=["1.2"]), "p", "config").is_ca is False
    )


def test_a_duplicate_value_is_encoded_once_and_each_email_address_separately() -> None:
    names = [{"C": "US", "O": "a", "E": "a@example.com"}, {"C": "US", "O": "b", "E": "b@example.com"}]
    request = parse_request({"CN": "x", "names": names, "hosts": ["a.example", "a.example"]}, "csr")
    assert format_subject(request.subject) == (
        "C=US, O=a+O=b, CN=x, emailAddress=a@example.com, emailAddress=b@example.com"
    )
    assert len(request.hosts) == 1


@pytest.mark.parametrize(
    ("section", "pathlen"),
    [
        ({}, None),
        ({"pathlen": 0}, None),
        ({"pathlen": 0, "pathlenzero": True}, 0),
        ({"pathlen": 2}, 2),
        ({"pathlen": 2, "pathlenzero": True}, 2),
        ({"pathlen": -1}, None),
        ({"pathlen": -1, "pathlenzero": True}, None),
    ],
)
def test_path_lengths_are_read_as_cfssl_reads_them(section: dict[str, Any], pathlen: int | None) -> None:
    request = parse_request({"CN": "x", "ca": {**section, "backdate": "0s"}}, "csr")
    assert request.ca is not None
    assert (request.ca.pathlen, request.ca.backdate) == (pathlen, None)
    constraint = {
        "is_ca": True,
        "max_path_len": section.get("pathlen", 0),
        "max_path_len_zero": "pathlenzero" in section,
    }
    profile = find_profile(profile_with(usages=["cert sign"], ca_constraint=constraint, backdate="0"), "p", "config")
    assert (profile.pathlen, profile.backdate) == (pathlen, timedelta(minutes=5))


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        (r"^[[:alpha:].]+$", "a.b", True),
        (r"^[[:alpha:].]+$", "a1", False),
        (r"^[a-z]+\z", "ab", True),
        (r"^a\\z$", "a\\z", True),
    ],
)
def test_go_s_regular_expressions_are_read(pattern: str, name: str, fits: bool) -> None:
    whitelist = find_profile(profile_with(name_whitelist=pattern), "p", "config").name_whitelist
    assert bool(re.search(whitelist, name)) == fits


def test_a_typing_mistake_gets_a_suggestion() -> None:
    with pytest.raises(PkiError, match="did you mean hosts"):
        parse_request({"CN": "x", "hots": []}, "csr")


def profile_with(**fields: Any) -> dict[str, Any]:
    return {"signing": {"profiles": {"p": {"expiry": "1h", "usages": ["signing"], **fields}}}}


@pytest.mark.parametrize(
    ("config", "option"),
    [
        ([], "config"),
        ({"default": {}}, "config.default"),
        ({"signing": None}, "config"),
        ({"signing": {"profiles": []}}, "config.signing.profiles"),
        ({"signing": {"profiles": {"q": {}}}}, "profile"),
        ({"signing": {"profiles": {"p": {"usages": ["signing"]}}}}, "config.signing.profiles.p.expiry"),
        ({"signing": {"profiles": {"p": {"expiry": "1h"}}}}, "config.signing.profiles.p.usages"),
        (profile_with(usages=["signin"]), "config.signing.profiles.p.usages[0]"),
        (profile_with(usages="signing"), "config.signing.profiles.p.usages"),
        (profile_with(usages=["encipher only"]), "config.signing.profiles.p.usages"),
        (profile_with(usages=["cert sign"]), "config.signing.profiles.p.usages"),
        (profile_with(ca_constraint={"is_ca": True}), "config.signing.profiles.p.usages"),
        (profile_with(ca_constraint={"is_ca": "maybe"}), "config.signing.profiles.p.ca_constraint.is_ca"),
        (profile_with(ca_constraint={"ca": True}), "config.signing.profiles.p.ca_constraint.ca"),
        (profile_with(expiry="1 year"), "config.signing.profiles.p.expiry"),
        (profile_with(backdate="x"), "config.signing.profiles.p.backdate"),
        (profile_with(not_before="yesterday"), "config.signing.profiles.p.not_before"),
        (profile_with(not_after="2026-01-01T00:00:00"), "config.signing.profiles.p.not_after"),
        (
            profile_with(not_before="2026-01-02T00:00:00Z", not_after="2026-01-01T00:00:00Z"),
            "config.signing.profiles.p.not_after",
        ),
        (profile_with(name_whitelist="("), "config.signing.profiles.p.name_whitelist"),
        (profile_with(name_whitelist="[[:^alpha:]]"), "config.signing.profiles.p.name_whitelist"),
        (profile_with(copy_extensions=True), "config.signing.profiles.p.copy_extensions"),
        (profile_with(remote="elsewhere"), "config.signing.profiles.p.remote"),
        (profile_with(usage=["signing"]), "config.signing.profiles.p.usage"),
    ],
)
def test_a_malformed_configuration_is_refused(config: object, option: str) -> None:
    with pytest.raises(PkiError) as error:
        find_profile(config, "p", "config")
    assert error.value.option == option


def test_an_unknown_profile_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(PkiError, match="known are: p"):
        find_profile(profile_with(), "q", "config")
    with pytest.raises(PkiError, match="there is no config"):
        find_profile(None, "q", "config")


def test_without_configuration_cfssl_s_default_counts() -> None:
    profile = find_profile(None, None, "config")
    assert profile.key_usages == {"digital_signature", "key_encipherment"}
    assert profile.extended_key_usages == ("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2")
    assert profile.expiry == timedelta(hours=8760)


def test_addresses_of_lists_are_inherited_from_the_default_profile() -> None:
    config = profile_with()
    config["signing"]["default"] = {"crl_url": "http://crl", "ocsp_url": "http://ocsp", "issuer_urls": ["http://ca"]}
    profile = find_profile(config, "p", "config")
    assert (profile.crl_url, profile.ocsp_url, profile.issuer_urls) == ("http://crl", "http://ocsp", ("http://ca",))
