# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which requests go through a proxy: the rules of Go's programs, compared with urllib's."""

from __future__ import annotations

import base64

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import proxy_rules

URL = "https://api.example.org:6443"


# From the documentation and the source of golang.org/x/net/http/httpproxy.
@pytest.mark.parametrize(
    ("host", "exceptions", "wanted"),
    [
        ("localhost", "", True),
        ("127.0.0.1", "", True),
        ("127.9.9.9", "", True),
        ("::1", "", True),
        ("198.18.0.2", "", False),
        ("198.18.0.2", "198.18.0.0/22", True),
        ("198.18.4.2", "198.18.0.0/22", False),
        ("198.18.0.2", "198.18.3.1/22", True),
        ("198.18.0.2", "198.18.0.2", True),
        ("198.18.0.2", "198.18.0.2:6443", True),
        ("198.18.0.2", "198.18.0.2:443", False),
        ("198.18.0.20", "198.18.0.2", False),
        ("2001:db8::1", "[2001:db8::1]:6443", True),
        ("2001:db8::1", "2001:db8::/32", True),
        ("example.org", "example.org", True),
        ("api.example.org", "example.org", True),
        ("myexample.org", "example.org", False),
        ("api.example.org", ".example.org", True),
        ("example.org", ".example.org", False),
        ("api.example.org", "*.example.org", True),
        ("example.org", "*.example.org", False),
        ("API.Example.ORG.", "api.example.org", True),
        ("api.example.org", "api.example.org:6443", True),
        ("api.example.org", "api.example.org:443", False),
        ("api.example.org", "nothing/here, ,other.example", False),
        ("api.example.org", "other.example, *", True),
        ("198.18.0.2", "18.0.2", False),
    ],
)
def test_exceptions_are_those_of_go(host: str, exceptions: str, wanted: bool) -> None:
    assert proxy_rules.excepted(host, 6443, exceptions) is wanted


def test_the_names_in_capitals_are_preferred_and_each_scheme_has_its_own() -> None:
    environment = {"HTTP_PROXY": "a:1", "https_proxy": "http://c:3", "HTTPS_PROXY": "http://b:2/"}
    assert proxy_rules.by_environment(URL, environment) == proxy_rules.Proxy("b", 2, "HTTPS_PROXY")
    assert proxy_rules.by_environment("http://api.example.org", environment) == proxy_rules.Proxy("a", 1, "HTTP_PROXY")
    del environment["HTTPS_PROXY"]
    assert proxy_rules.by_environment(URL, environment) == proxy_rules.Proxy("c", 3, "https_proxy")
    assert proxy_rules.by_environment(URL, {**environment, "no_proxy": "example.org"}) is None
    # As in Go, the one in capitals hides the other, and an empty one does not.
    assert proxy_rules.by_environment(URL, {**environment, "NO_PROXY": "x", "no_proxy": "example.org"}) is not None
    assert proxy_rules.by_environment(URL, {**environment, "NO_PROXY": "", "no_proxy": "example.org"}) is None
    assert proxy_rules.by_environment(URL, {}) is None


def test_user_and_password_are_only_in_a_header() -> None:
    proxy = proxy_rules.parse("http://user:p%40ss@proxy.example:3128", "HTTPS_PROXY")
    assert (proxy.host, proxy.port) == ("proxy.example", 3128)
    assert base64.b64decode(proxy.authorization.removeprefix("Basic ")) == b"user:p@ss"
    assert str(proxy) == "proxy.example:3128 (HTTPS_PROXY)"
    assert "ss" not in repr(proxy).replace("HTTPS", "")
    assert proxy.authorization not in repr(proxy)


@pytest.mark.parametrize("url", ["socks5://u:secret@p:1", "https://u:secret@p:1", "http://u:secret@p:99999", "http://"])
def test_a_proxy_that_cannot_be_used_is_an_error_without_its_address(url: str) -> None:
    with pytest.raises(proxy_rules.ProxyError, match=r"^HTTPS_PROXY: .*give http://HOST:PORT") as raised:
        proxy_rules.parse(url, "HTTPS_PROXY")
    assert "secret" not in str(raised.value)
