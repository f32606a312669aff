# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applies or removes one set of objects."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Callable, List, Mapping, Tuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import kubeconfig
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest import objects
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.engine import Engine, Options
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

# Returns (document, origin) pairs for the module's options.
Documents = Callable[[Mapping[str, Any]], List[Tuple[Any, str]]]


class NotApplied(Exception):
    """The set could not be applied or removed; `result` has what was done by then."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


def run(call: Call, documents: Documents) -> dict[str, Any]:
    """The module's result. Raises NotApplied."""
    engine: Engine | None = None
    try:
        options = objects.plain(call.options)
        check_options(options)
        given = objects.collect(documents(options), options["name"])
        if options["state"] == "present" and not given:
            raise KubernetesError(
                "template, src, definition: there is no object in them; use state: absent to remove a set"
            )
        access = kubeconfig.load(options["kubeconfig"], options["context"])
        with contextlib.closing(Client(access, options["request_timeout"])) as client:
            engine = Engine(client, _engine_options(options, call.check_mode))
            engine.run(given)
    except KubernetesError as error:
        raise NotApplied(str(error), _result(engine, call.diff)) from error
    return _result(engine, call.diff)


def check_options(options: Mapping[str, Any]) -> None:
    """Raises KubernetesError for errors that the argument specification cannot express."""
    # The name is part of a ConfigMap's name and the value of a label.
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?", options["name"]):
        raise KubernetesError(
            f"name: {options['name']!r} is not a DNS label of at most 53 lower-case letters, digits and -"
        )
    if options["state"] == "present" and not any(options[key] for key in ("template", "src", "definition")):
        raise KubernetesError("template, src, definition: at least one is required with state: present")
    for key in ("wait_timeout", "request_timeout"):
        if options[key] < 1:
            raise KubernetesError(f"{key}: must be at least 1 second")


def _engine_options(options: Mapping[str, Any], check_mode: bool) -> Options:
    return Options(
        name=options["name"],
        namespace=options["namespace"],
        present=options["state"] == "present",
        prune=options["prune"],
        wait=options["wait"],
        wait_timeout=options["wait_timeout"],
        force_conflicts=options["force_conflicts"],
        take_over=options["take_over"],
        check_mode=check_mode,
    )


def _result(engine: Engine | None, diff: bool) -> dict[str, Any]:
    if engine is None:
        return {"changed": False, "objects": []}
    done = engine.result
    result: dict[str, Any] = {
        "changed": done.changed,
        "objects": done.summary(),
        "server_version": done.server_version,
    }
    return {**result, "diff": done.diff()} if diff else result


# The action plugin gives `run` the documents.
MODULE = Module(ARGUMENT_SPEC, errors=(NotApplied,))
