# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a node fetches the programs and images that it lacks, once the mirror on the controller is filled."""

from __future__ import annotations

from typing import Any, Mapping
from urllib.parse import urlsplit

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import proxy_rules
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.registry import base_url

# The controller's own; and what only control-plane nodes run.
ON_NO_NODE = ("kubectl",)
ON_CONTROL_PLANE = ("age", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def sources(
    manifest: Mapping[str, Any],
    release: Mapping[str, Any],
    selectors: Mapping[str, Any],
    node: Mapping[str, Any],
    ways: Mapping[str, Any],
) -> dict[str, list[str]]:
    """{address (host:port): what comes from there} of what the node lacks and fetches without a proxy.

    manifest: the mirror's. release: `components` and `images` of releases/<minor>.yml. selectors: what `needed_for` is
    compared with. node: `architecture` as the mirror names it, `control_plane`, and `programs`, those that are
    installed, as component/version/file. ways: `mirror_url`, `mirror_proxy`, `publishers` in the form for the module
    component, and `registry_mirrors`, the registries that the user has mirrors of. What the first control-plane node
    serves is not among the addresses: nothing serves it yet.
    """
    chosen = [file for file in manifest.get("files") or [] if _wanted(file, release, selectors, node)]
    lacking = [file for file in chosen if program(file) not in node["programs"]]
    found: dict[str, list[str]] = {}

    def add(url: str, what: str) -> None:
        there = found.setdefault(address(url), [])
        if what not in there:
            there.append(what)

    if ways["mirror_url"]:
        for file in lacking if not ways["mirror_proxy"] else []:
            add(ways["mirror_url"], f"{file['component']} {file['version']}")
        return found
    if not ways["publishers"].get("use"):
        return found
    for file in lacking:
        if file["source"] == "upstream" and not _proxied(file["origin"], ways["publishers"]):
            add(file["origin"], f"{file['component']} {file['version']}")
    named = {image["name"] for image in release["images"].values()}
    # A node that has all programs of the release has run its images too.
    for image in manifest.get("images") or [] if lacking else []:
        registry = image["name"].partition("/")[0]
        url = base_url(registry)
        pulled = image["source"] == "upstream" and image["name"] in named and registry not in ways["registry_mirrors"]
        if pulled and not _proxied(url, ways["publishers"]):
            add(url, image["name"])
    return found


def program(file: Mapping[str, Any]) -> str:
    return f"{file['component']}/{file['version']}/{file['name']}"


def _wanted(
    file: Mapping[str, Any], release: Mapping[str, Any], selectors: Mapping[str, Any], node: Mapping[str, Any]
) -> bool:
    name = file["component"]
    component = release["components"].get(name)
    if component is None or file["version"] != component["version"] or file["arch"] != node["architecture"]:
        return False
    if name in ON_NO_NODE or (name in ON_CONTROL_PLANE and not node["control_plane"]):
        return False
    return all(selectors.get(key) == value for key, value in (component.get("needed_for") or {}).items())


def address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or proxy_rules.DEFAULT_PORTS[parts.scheme]}"


def _proxied(url: str, publishers: Mapping[str, Any]) -> bool:
    return proxy_rules.proxied(url, publishers.get("proxy") or "", publishers.get("no_proxy") or "")
