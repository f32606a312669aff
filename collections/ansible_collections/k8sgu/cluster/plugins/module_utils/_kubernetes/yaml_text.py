# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads YAML as Kubernetes does; the only module here that needs PyYAML, which every Ansible controller has."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import YAML, fault

try:
    import yaml
except ImportError:
    pass  # said by _require before anything else here is called
else:

    class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Reads no timestamps, and refuses duplicate keys instead of using the last one."""

        yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own attribute
            first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:timestamp"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key_node, _value in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, str):
                    raise _fault(f"the key {key!r} is not text; quote it", key_node.start_mark)
                if key in seen:
                    raise _fault(f"the key {key!r} is given twice", key_node.start_mark)
                seen.add(key)
            return dict(super().construct_mapping(node, deep))

    def _fault(problem: str, mark: Any) -> Exception:
        return yaml.constructor.ConstructorError(None, None, problem, mark)


def _require() -> None:
    missing = fault(YAML)
    if missing:
        raise KubernetesError(missing)


def documents(text: str, origin: str) -> list[Any]:
    """The documents of a YAML (or JSON) text; empty ones are left out."""
    _require()
    try:
        return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise KubernetesError(f"{origin}{place}: is not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise KubernetesError(f"{origin}: is not YAML: {error}") from error


def secret_document(text: str, origin: str) -> Any:
    """Parses one document whose content must not appear in errors."""
    _require()
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise KubernetesError(f"{origin} is not YAML") from error


def dump(body: Any) -> str:
    _require()
    return str(yaml.safe_dump(body, default_flow_style=False, sort_keys=True))
