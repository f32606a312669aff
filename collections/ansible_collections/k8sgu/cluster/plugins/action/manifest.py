# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""manifest, which always runs on the controller: templates and files are found there as other actions find them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest import objects
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.run import MODULE, run
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, carry_out
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_process import InProcessAction
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._templates import SourceError, Sources

_SUFFIXES = (".yml", ".yaml", ".json")


class ActionModule(InProcessAction):
    """See the documentation of the module."""

    MODULE = MODULE
    SENDABLE = False

    def work(self, call: Call, variables: dict[str, Any]) -> dict[str, Any]:
        sources = Sources(self, variables)
        return carry_out(MODULE, call, lambda call: run(call, lambda options: _documents(sources, options)))


def _documents(sources: Sources, options: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """(document, origin) of every document. Raises KubernetesError."""
    found: list[tuple[Any, str]] = []
    try:
        for name in options["template"] or []:
            text = sources.render(name, name, options["vars"])
            found += [(document, name) for document in objects.parse(text, name)]
        for name in options["src"] or []:
            for path in _files(sources, name):
                text = sources.read(path).decode("utf-8", "replace")
                found += [(document, path) for document in objects.parse(text, path)]
    except SourceError as error:
        raise KubernetesError(str(error)) from error
    for number, item in enumerate(options["definition"] or [], 1):
        origin = f"definition {number}"
        documents = objects.parse(str(item), origin) if isinstance(item, str) else [item]
        found += [(document, origin) for document in documents]
    return found


def _files(sources: Sources, name: str) -> list[str]:
    path = Path(sources.find("files", name))
    if not path.is_dir():
        return [str(path)]
    found = sorted(str(entry) for entry in path.iterdir() if entry.suffix in _SUFFIXES)
    if not found:
        raise KubernetesError(f"src: {path} holds no file that ends in {', '.join(_SUFFIXES)}")
    return found
