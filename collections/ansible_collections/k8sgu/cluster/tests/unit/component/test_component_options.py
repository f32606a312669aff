# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options to components on the controller; each check is tripped once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import Component, ComponentError
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.prepare import (
    Mirror,
    prepare,
    validate_options,
)


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    files = [
        {
            "component": "etcd",
            "name": name,
            "version": "3.6",
            "arch": "amd64",
            "path": f"files/{name}",
            "sha256": "a",
            "size": 1,
        }
        for name in ("etcd", "etcdctl")
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "files": files, "images": []}))
    return Mirror(str(tmp_path))


def build(mirror: Mirror, component: dict[str, Any]) -> list[Component]:
    checked = validate_options({"components": [component]})
    return prepare(checked["components"], mirror, lambda: "amd64", lambda entry: b"loaded")


def test_binaries_become_artifacts_and_links(mirror: Mirror) -> None:
    binaries = [{"component": "etcd", "version": "3.6", "links": ["etcdctl"]}]
    (component,) = build(mirror, {"name": "etcd", "binaries": binaries})
    assert [artifact.path for artifact in component.artifacts] == [
        "/opt/k8sgu/etcd/3.6/etcd",
        "/opt/k8sgu/etcd/3.6/etcdctl",
    ]
    assert [(link.dest, link.target) for link in component.links] == [
        ("/opt/k8sgu/etcd/current", "3.6"),
        ("/usr/local/bin/etcdctl", "/opt/k8sgu/etcd/current/etcdctl"),
    ]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"name": "a/b"}, "name: use letters"),
        ({"files": []}, "missing required arguments: name"),
        ({"name": "x", "bogus": 1}, "bogus"),
        ({"name": "x", "files": [{"dest": "/x", "content": "", "bogus": 1}]}, "bogus"),
        ({"name": "x", "files": [{"dest": "/x", "content": ""}] * 2}, "/x is already given by x"),
        ({"name": "x", "files": [{"dest": "x", "content": ""}]}, "not an absolute path"),
        ({"name": "x", "files": [{"dest": "/x"}]}, "exactly one of template, src, content and zipapp, not none"),
        ({"name": "x", "files": [{"dest": "/x", "src": "a", "content": "b"}]}, "not src and content"),
        ({"name": "x", "files": [{"dest": "/x", "src": "a", "zipapp": "_etcd.backup"}]}, "not src and zipapp"),
        ({"name": "x", "files": [{"dest": "/x", "zipapp": "a", "state": "absent"}]}, "is to be absent and has content"),
        ({"name": "x", "unit": {"name": "x.service", "zipapp": "_etcd.backup"}}, "zipapp"),
        (
            {"name": "x", "files": [{"dest": "/x", "content": "b", "state": "absent"}]},
            "is to be absent and has content",
        ),
        ({"name": "x", "files": [{"dest": "/x", "content": "b", "vars": {"a": 1}}]}, "are only for a template"),
        ({"name": "x", "files": [{"dest": "/x", "content": "b", "mode": "420"}]}, ""),
        ({"name": "x", "files": [{"dest": "/x", "content": "b", "mode": "u=rw"}]}, "is not octal"),
        ({"name": "x", "files": [{"dest": "/x", "content": "b", "validate": "true"}]}, "lacks %s"),
        ({"name": "x", "user": {"name": "Root!"}}, "not a name for a system account"),
        ({"name": "x", "unit": {"name": "etcd"}}, "not the full name of a unit"),
        ({"name": "x", "on_change": ["sysctl --system"]}, "is not a list of arguments"),
        ({"name": "x", "on_change": [[]]}, "is not a list of arguments"),
        ({"name": "x", "health": {}}, "exactly one of url, tcp, unix and command, not none"),
        ({"name": "x", "health": {"url": "http://a/", "tcp": "a:1"}}, "not url and tcp"),
        ({"name": "x", "health": {"url": "127.0.0.1:80"}}, "not an http or https address"),
        ({"name": "x", "health": {"tcp": "127.0.0.1"}}, "not host:port"),
        ({"name": "x", "health": {"url": "https://a/", "cert": "/c"}}, "cert and key belong together"),
        ({"name": "x", "files": [{"dest": "/x", "content": "", "restart_on": "a"}]}, "restart_on of /x says"),
        ({"name": "x", "files": [{"dest": "/x", "state": "absent", "reload": True, "restart_on": "a"}]}, "or drop it"),
        ({"name": "x", "files": [{"dest": "/x", "content": "", "reload": True, "restart_on": "a"}]}, ""),
        (
            {"name": "x", "health": {"tcp": "a:1", "serves": [{"address": "a", "certificate": "/c"}]}},
            "is not host:port",
        ),
        ({"name": "x", "health": {"tcp": "a:1", "serves": [{"address": "a:1", "certificate": "c"}]}}, "absolute path"),
        ({"name": "x", "health": {"tcp": "a:1", "serves": [{"address": "a:1"}]}}, "certificate"),
        ({"name": "x", "health": {"tcp": "a:1", "timeout": 0}}, "at least 1 second"),
        ({"name": "x", "health": {"url": "http://a/", "expect_body": "("}}, "not a regular expression"),
        ({"name": "x", "binaries": {"component": "etcd"}}, "binaries"),
        ({"name": "x", "binaries": ["etcd"]}, "dict"),
        ({"name": "x", "binaries": [{"component": "etcd"}]}, "version"),
        ({"name": "x", "binaries": [{"component": "etcd", "version": "../x"}]}, "cannot be names of directories"),
        ({"name": "x", "binaries": [{"component": "etcd", "version": "9"}]}, "no etcd 9 for amd64, only 3.6 for amd64"),
        ({"name": "x", "binaries": [{"component": "etdc", "version": "9"}]}, "did you mean etcd?"),
        (
            {"name": "x", "binaries": [{"component": "etcd", "version": "3.6", "files": ["x"]}]},
            "has no x, only etcd, etcdctl",
        ),
        (
            {
                "name": "x",
                "binaries": [{"component": "etcd", "version": "3.6", "files": ["etcd"], "links": ["etcdctl"]}],
            },
            "etcdctl is not among the files",
        ),
    ],
)
def test_faults_of_the_options(mirror: Mirror, options: dict[str, Any], fault: str) -> None:
    if not fault:
        assert build(mirror, options)
        return
    with pytest.raises(ComponentError) as caught:
        build(mirror, options)
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({}, "components: required; give a list, even of one"),
        ({"name": "x", "components": []}, "name. Supported parameters include"),
        ({"components": [], "prepared": "x"}, "prepared: is filled in by the action plugin"),
        ({"components": [{"name": "x"}, {"name": "x"}]}, "x is given twice"),
    ],
)
def test_faults_of_the_list(mirror: Mirror, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ComponentError) as caught:
        prepare(validate_options(options)["components"], mirror, lambda: "amd64", lambda entry: b"loaded")
    assert fault in str(caught.value)


def test_all_faults_are_reported_at_once(mirror: Mirror) -> None:
    files = [{"dest": "relative", "content": ""}, {"dest": "/y"}]
    with pytest.raises(ComponentError) as caught:
        build(mirror, {"name": "x", "files": files, "unit": {"name": "etcd"}})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("publishers", "source", "origin", "proxied"),
    [
        ({"use": True}, "upstream", True, False),
        ({"use": True}, "build", False, False),
        ({"use": False}, "upstream", False, False),
        ({"use": True, "proxy": "http://proxy.example:1"}, "upstream", True, True),
        ({"use": True, "proxy": "http://proxy.example:1", "no_proxy": ".e.org,10.0.0.0/8"}, "upstream", True, False),
        (None, "upstream", False, False),
    ],
)
def test_only_what_a_publisher_has_comes_from_there(
    tmp_path: Path, publishers: dict[str, Any] | None, source: str, origin: bool, proxied: bool
) -> None:
    url = "https://dl.e.org/etcd.tar.gz"
    file = {"component": "etcd", "name": "etcd", "version": "3.6", "arch": "amd64", "path": "files/etcd", "size": 1}
    file.update(sha256="a", source=source, origin=url if source == "upstream" else "go.etcd.io/etcd/server/v3")
    (tmp_path / "manifest.json").write_text(json.dumps({"schema": 1, "files": [file], "images": []}))
    wanted = {"name": "etcd", "binaries": [{"component": "etcd", "version": "3.6"}]}
    options = validate_options({"components": [wanted], "publishers": publishers})
    [component] = prepare(
        options["components"], Mirror(str(tmp_path)), lambda: "amd64", lambda _entry: b"", options["publishers"]
    )
    [artifact] = component.artifacts
    assert (artifact.origin, artifact.proxied) == (url if origin else "", proxied)


@pytest.mark.parametrize(
    ("content", "fault"),
    [(None, "cannot be read"), ("no json", "not a mirror's manifest"), ("{}", "not a mirror's manifest")],
)
def test_faults_of_the_mirror(tmp_path: Path, content: str | None, fault: str) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    binaries = [{"component": "etcd", "version": "3.6"}]
    with pytest.raises(ComponentError, match=fault):
        build(Mirror(str(tmp_path)), {"name": "x", "binaries": binaries})
    with pytest.raises(ComponentError, match="mirror_dir: required where binaries are given"):
        build(Mirror(None), {"name": "x", "binaries": binaries})
