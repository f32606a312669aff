# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of objects, read page by page: https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks."""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client

PAGE = 500
# For `accept`: of each object its metadata alone.
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


def every(
    client: Client, path: str, query: Mapping[str, str] | None = None, accept: str = "application/json"
) -> Iterator[dict[str, Any]]:
    """Every object of a collection, with the kind and version that items of lists do not have themselves."""
    asked = {**(query or {}), "limit": str(PAGE)}
    while True:
        page = client.get(path, asked, accept)
        version, kind = page["apiVersion"], page["kind"].removesuffix("List")
        # Without objects, a list of metadata has null.
        for item in page["items"] or ():
            yield {"apiVersion": version, "kind": kind, **item}
        token = page["metadata"].get("continue")
        if not token:
            return
        asked["continue"] = token
