# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu_proxy: every fault, reported without the address, and the values for files on nodes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.filter.proxy_settings import proxy_settings
from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import proxy, proxy_rules

PROXY = "http://proxy.example:3128"
SECRET = "http://user:pa55word@proxy.example:3128"
OWN = ["10.240.0.0/16", "10.200.0.0/16", "10.32.0.0/16", ".cluster.local", "api.example", ""]
MIRROR = "http://169.254.169.251:5080"
ROLES = Path(__file__).resolve().parents[3] / "roles"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"http": PROXY},
        {"https": f"{PROXY}/"},
        {"http": SECRET, "https": "http://10.0.0.1:8080"},
        {"http": "http://a%40b:c%3Ad@proxy:1"},
        {"http": PROXY, "no_proxy": ["a", ".b.example", "*.c.example", "192.0.2.1", "192.0.2.0/24", "d.example:8443"]},
    ],
)
def test_what_can_be_used_is_no_problem(given: dict[str, Any]) -> None:
    assert proxy.problems(given) == []


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("proxy.example:pa55word", "has no scheme"),
        ("user:pa55word@proxy.example:3128", "has no scheme"),
        ("https://user:pa55word@proxy.example:3128", "its scheme is https"),
        ("socks5://user:pa55word@proxy.example:3128", "its scheme is socks5"),
        ("http://user:pa55word@proxy.example", "names no port"),
        ("http://user:pa55word@proxy.example:0", "names no port"),
        ("http://user:pa55word@:3128", "names no host"),
        ("http://user:pa55word@proxy.example:99999", "its port is not a number up to 65535"),
        ("http://user:pa55word@proxy.example:many", "its port is not a number up to 65535"),
        ("http://user:pa55word@proxy.example:3128/path", "has a path"),
        ("http://user:pa55word@@proxy.example:3128", "has more than one @"),
        ("http://user:pa55word%@proxy.example:3128", "has a % that"),
        ('http://user:pa55word"@proxy.example:3128', "has a character that"),
        ("http://user:pa55word @proxy.example:3128", "has a character that"),
        ("http://user:pa55word\n@proxy.example:3128", "has a character that"),
        ("http://user:pa55word@proxy.example:3128?x", "has a character that"),
        ("http://user:pa55word#@proxy.example:3128", "has a character that"),
        ("http://user:pa55word@[::1:3128", "is not an address"),
    ],
)
@pytest.mark.parametrize("kind", ["http", "https"])
def test_a_bad_address_is_one_fault_that_does_not_show_it(url: str, fault: str, kind: str) -> None:
    found = proxy.problems({kind: url})
    assert len(found) == 1, found
    assert found[0].startswith(f"k8sgu_proxy.{kind}: ")
    assert fault in found[0]
    assert "give http://HOST:PORT" in found[0]
    assert "pa55word" not in found[0]
    # Where nobody judged before, such as in a single phase.
    with pytest.raises(AnsibleFilterError, match=rf"k8sgu_proxy\.{kind}: ") as raised:
        proxy_settings({kind: url})
    assert "pa55word" not in str(raised.value)
    assert proxy_settings({kind: url}, judged=True)["https"] == ""


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("*", "excepts everything"),
        ("http://registry.example", "is an address with a scheme"),
        ("10.0.0.0/33", "is no range"),
        ("registry.example/path", "is no range"),
        ("10.0.0.256", "is neither a host nor a range"),
        ("10.0.0", "is neither a host nor a range"),
        ("a b", "is neither a host nor a range"),
        ("", "is neither a host nor a range"),
        ("-a.example", "is neither a host nor a range"),
        ("a.*.example", "is neither a host nor a range"),
        ("a.example:http", "has a port that"),
        ('a.example";', "is neither a host nor a range"),
    ],
)
def test_a_bad_exception_is_named(entry: str, fault: str) -> None:
    [found] = proxy.problems({"http": PROXY, "no_proxy": [entry]})
    assert found.startswith(f"k8sgu_proxy.no_proxy: {entry!r} {fault}")
    assert "give a host" in found


def test_an_address_is_not_a_dictionary() -> None:
    given: Any = SECRET
    assert proxy.problems(given) == ["k8sgu_proxy: is not a dictionary; give {http: http://HOST:PORT}"]


def test_exceptions_need_a_proxy() -> None:
    [found] = proxy.problems({"no_proxy": ["a.example"]})
    assert found.startswith("k8sgu_proxy.no_proxy: there is no proxy")


def test_the_clusters_own_is_excepted_by_itself() -> None:
    made = proxy.settings({"http": PROXY, "no_proxy": ["registry.corp.example", "192.0.2.0/24"]}, OWN, MIRROR)
    for host in (
        *("127.0.0.1", "169.254.169.254", "169.254.169.251", "10.240.0.10", "10.200.1.2", "10.32.0.1", "192.0.2.9"),
        *("kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "ip-10-240-0-10.ec2.internal"),
        *("api.example", "registry.corp.example"),
    ):
        assert proxy_rules.excepted(host, 443, made["no_proxy"]), host
    for host in ("registry.k8s.io", "archive.example.org", "192.0.3.1", "10.241.0.1", "example"):
        assert not proxy_rules.excepted(host, 443, made["no_proxy"]), host
    assert (made["http"], made["https"], made["mirror"]) == (PROXY, PROXY, "")
    # APT knows hosts alone.
    assert {"registry.corp.example", "localhost", "169.254.169.251", "api.example"} == set(made["direct"])
    assert made["addresses"] == ["proxy.example:3128"]


def test_each_scheme_may_have_a_proxy_of_its_own() -> None:
    made = proxy.settings({"http": PROXY, "https": "http://other:8080"}, OWN, "")
    assert (made["http"], made["https"]) == (PROXY, "http://other:8080")
    assert made["addresses"] == ["proxy.example:3128", "other:8080"]
    made = proxy.settings({"https": "http://other:8080"}, OWN, "http://mirror.example")
    assert (made["http"], made["https"], made["mirror"]) == ("", "http://other:8080", "")


@pytest.mark.parametrize(
    ("url", "exceptions", "through"),
    [
        ("https://mirror.example/k8sgu", [], SECRET),
        ("http://mirror.example", [], SECRET),
        ("http://8.8.8.8:5080", [], SECRET),
        ("https://mirror.example/k8sgu", ["mirror.example"], ""),
        ("https://mirror.example/k8sgu", [".example"], ""),
        ("http://10.240.0.5", [], ""),
        ("http://192.168.7.5:80", [], ""),
        (MIRROR, [], ""),
        ("", [], ""),
    ],
)
def test_a_mirror_outside_is_reached_through_the_proxy(url: str, exceptions: list[str], through: str) -> None:
    assert proxy.settings({"http": SECRET, "no_proxy": exceptions}, OWN, url)["mirror"] == through


def test_a_file_with_a_password_is_readable_by_root_only_and_nothing_else_has_it() -> None:
    made = proxy.settings({"http": SECRET}, OWN, MIRROR)
    assert made["mode"] == "0600"
    assert {name for name, value in made.items() if "pa55word" in str(value)} == {"http", "https"}
    assert proxy.settings({"http": PROXY}, OWN, MIRROR)["mode"] == "0644"


@pytest.mark.parametrize("given", [None, {}, {"http": "", "no_proxy": []}])
def test_without_the_option_there_is_nothing(given: dict[str, Any] | None) -> None:
    made = proxy.settings(given, OWN, MIRROR)
    assert not any(made[name] for name in ("http", "https", "no_proxy", "direct", "mirror", "addresses"))


def test_only_what_leaves_the_cluster_is_given_a_proxy() -> None:
    """The kubelet, etcd and the others connect only to the cluster, and etcd would use a proxy for its peers."""
    told = {
        path.relative_to(ROLES).as_posix()
        for path in ROLES.glob("*/templates/*")
        if re.search(r"proxy\.env|proxy_path|HTTPS?_PROXY", path.read_text())
    }
    assert told == {"container_runtime/templates/containerd.service.j2", "etcd/templates/etcd-upload.service.j2"}


def test_everything_that_fetches_from_the_mirror_gets_the_proxy() -> None:
    fetching = 0
    for path in sorted(ROLES.glob("*/tasks/*.yml")):
        for task in yaml.safe_load(path.read_text()) or []:
            options = task.get("k8sgu.cluster.component") or {}
            if "mirror_url" in options:
                fetching += 1
                assert options["mirror_proxy"] == "{{ k8sgu_node_proxy.mirror }}", path
                assert options["publishers"] == "{{ k8sgu_publishers }}", path
    assert fetching == 6


def test_docker_gets_the_proxy_by_a_drop_in_that_systemd_can_read() -> None:
    variables = yaml.safe_load((ROLES / "container_runtime/vars/main/docker.yml").read_text())
    read = variables["container_runtime_proxy_drop_in"]
    assert read["dest"].startswith("/etc/systemd/system/docker.service.d/")
    assert read["content"].splitlines() == ["[Service]", "EnvironmentFile={{ container_runtime_proxy_path }}"]
