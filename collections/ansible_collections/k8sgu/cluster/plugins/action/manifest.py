# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.manifest: all of it happens on the controller, so there is no module to be executed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import kubeconfig
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest import objects
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.engine import Engine, Options
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.spec import argument_spec
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._templates import SourceError, Sources

_SUFFIXES = (".yml", ".yaml", ".json")


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """See the documentation of the module."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(changed=False, objects=[])
        engine: Engine | None = None
        client: Client | None = None
        try:
            options = self._options()
            given = objects.collect(self._documents(options, task_vars or {}), options["name"])
            if options["state"] == "present" and not given:
                raise KubernetesError(
                    "template, src, definition: there is no object in them; use state: absent to remove a set"
                )
            access = kubeconfig.load(self._loader.path_dwim(options["kubeconfig"]), options["context"])
            client = Client(access, options["request_timeout"])
            engine = Engine(client, self._engine_options(options))
            engine.run(given)
        except (KubernetesError, SourceError) as error:
            result.update(failed=True, msg=str(error))
        finally:
            if client:
                client.close()
        if engine:
            result.update(
                changed=engine.result.changed,
                objects=engine.result.summary(),
                server_version=engine.result.server_version,
            )
            if self._task.diff:
                result["diff"] = engine.result.diff()
        return result

    def _options(self) -> dict[str, Any]:
        checked = ArgumentSpecValidator(argument_spec()).validate(dict(self._task.args))
        if checked.error_messages:
            raise KubernetesError("; ".join(checked.error_messages))
        options: dict[str, Any] = objects.plain(checked.validated_parameters)
        # Part of the name of a ConfigMap and the value of a label.
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?", options["name"]):
            raise KubernetesError(
                f"name: {options['name']!r} is not a DNS label of at most 53 lower-case letters, digits and -"
            )
        if options["state"] == "present" and not any(options[key] for key in ("template", "src", "definition")):
            raise KubernetesError("template, src, definition: at least one is required with state: present")
        for key in ("wait_timeout", "request_timeout"):
            if options[key] < 1:
                raise KubernetesError(f"{key}: is at least 1 second")
        return options

    def _engine_options(self, options: dict[str, Any]) -> Options:
        return Options(
            name=options["name"],
            namespace=options["namespace"],
            present=options["state"] == "present",
            prune=options["prune"],
            wait=options["wait"],
            wait_timeout=options["wait_timeout"],
            force_conflicts=options["force_conflicts"],
            take_over=options["take_over"],
            check_mode=self._task.check_mode,
        )

    def _documents(self, options: dict[str, Any], variables: dict[str, Any]) -> list[tuple[Any, str]]:
        """Every document with where it comes from."""
        sources = Sources(self, variables)
        found: list[tuple[Any, str]] = []
        for name in options["template"] or []:
            text = sources.render(name, name, options["vars"])
            found += [(document, name) for document in objects.parse(text, name)]
        for name in options["src"] or []:
            for path in self._files(sources, name):
                text = sources.read(path).decode("utf-8", "replace")
                found += [(document, path) for document in objects.parse(text, path)]
        for number, item in enumerate(options["definition"] or [], 1):
            origin = f"definition {number}"
            documents = objects.parse(str(item), origin) if isinstance(item, str) else [item]
            found += [(document, origin) for document in documents]
        return found

    def _files(self, sources: Sources, name: str) -> list[str]:
        path = Path(sources.find("files", name))
        if not path.is_dir():
            return [str(path)]
        found = sorted(str(entry) for entry in path.iterdir() if entry.suffix in _SUFFIXES)
        if not found:
            raise KubernetesError(f"src: {path} holds no file that ends in {', '.join(_SUFFIXES)}")
        return found
