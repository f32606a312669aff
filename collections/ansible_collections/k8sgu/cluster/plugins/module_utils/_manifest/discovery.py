# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the resource of a kind by aggregated discovery (https://kubernetes.io/docs/concepts/overview/kubernetes-api/)."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.objects import Key

_ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Resource(NamedTuple):
    """A kind as the server has it: the plural in its address, and whether it is namespaced."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str) -> str:
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if self.namespaced:
            base += f"/namespaces/{namespace}"
        return f"{base}/{self.plural}/{name}"


class Discovery:
    """The kinds that the server has, read once; `refresh` reads them again after definitions were added."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._resources: dict[tuple[str, str, str], Resource] = {}
        self.refresh()

    def refresh(self) -> None:
        found: dict[tuple[str, str, str], Resource] = {}
        for path in ("/api", "/apis"):
            answer = self._client.get(path, accept=_ACCEPT)
            if answer.get("kind") != "APIGroupDiscoveryList":
                raise KubernetesError("the API server is older than 1.30, which this module needs")
            for group in answer.get("items") or []:
                name = group.get("metadata", {}).get("name", "")
                # Versions come in the order of the server's preference.
                for version in group.get("versions") or []:
                    for entry in version.get("resources") or []:
                        kind = (entry.get("responseKind") or {}).get("kind")
                        if kind and "patch" in entry.get("verbs", []):
                            resource = Resource(
                                name, version["version"], kind, entry["resource"], entry.get("scope") == "Namespaced"
                            )
                            found.setdefault((name, resource.version, kind), resource)
        self._resources = found

    def exact(self, group: str, version: str, kind: str) -> Resource | None:
        return self._resources.get((group, version, kind))

    def preferred(self, key: Key) -> Resource | None:
        """The kind in the version that the server prefers; None if the server no longer has it."""
        return next((r for r in self._resources.values() if (r.group, r.kind) == (key.group, key.kind)), None)

    def advice(self, group: str, version: str, kind: str) -> str:
        """A hint what an unknown kind may have been meant to be."""
        same = [r for r in self._resources.values() if r.kind == kind]
        if same:
            served = ", ".join(sorted({f"{r.group}/{r.version}".strip("/") for r in same}))
            return f"the server has {kind} in {served}"
        near = difflib.get_close_matches(kind, {r.kind for r in self._resources.values()}, 1)
        if near:
            return f"did you mean {near[0]}?"
        return "is its custom resource definition missing from the set?"
