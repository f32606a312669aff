# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds and renders templates and files on the controller as ansible.builtin.template does. For action plugins."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH118, PTH120

from __future__ import annotations

import os
from typing import Any, Mapping, Protocol

from ansible.errors import AnsibleError
from ansible.template import trust_as_template

from ansible_collections.k8sgu.cluster.plugins.plugin_utils._ansible_internals import file_content

# ansible.builtin.template's defaults.
_OVERRIDES = {"trim_blocks": True}


class Action(Protocol):
    """The parts of ActionBase that are needed here."""

    _loader: Any
    _templar: Any

    def _find_needle(self, dirname: str, needle: str) -> str: ...


class SourceError(Exception):
    """A template or file cannot be used; the text names it."""


class Sources:
    """Renders templates and reads files for one task."""

    def __init__(self, action: Action, task_vars: Mapping[str, Any]) -> None:
        self._action, self._task_vars = action, task_vars

    def find(self, folder: str, name: str) -> str:
        """Path of a file in the role or the playbook's directory, or `name` itself if it is absolute."""
        try:
            return str(self._action._find_needle(folder, name))
        except AnsibleError as error:
            raise SourceError(f"{name} is not there: {str(error).splitlines()[0]}") from error

    def read(self, name: str) -> bytes:
        """Content of a file. Raises SourceError."""
        path = self.find("files", name)
        try:
            return file_content(self._action._loader, path)
        except (AnsibleError, OSError) as error:
            raise SourceError(f"{path} cannot be read: {error}") from error

    def render(self, name: str, dest: str, variables: Mapping[str, Any]) -> str:
        """The template rendered with the task's variables and `variables`. Raises SourceError."""
        path = self.find("templates", name)
        try:
            text = trust_as_template(self._action._loader.get_text_file_contents(path))
            available: dict[str, Any] = {
                **self._task_vars,
                "template_path": path,
                "template_destpath": dest,
                **variables,
            }
            templar = self._action._templar.copy_with_new_env(
                searchpath=self._search_path(path), available_variables=available
            )
            rendered = templar.template(text, escape_backslashes=False, overrides=dict(_OVERRIDES))
        except AnsibleError as error:
            raise SourceError(f"{path}: {error}") from error
        return "" if rendered is None else str(rendered)

    def _search_path(self, path: str) -> list[str]:
        places = [
            *self._task_vars.get("ansible_search_path", []),
            self._action._loader.get_basedir(),
            os.path.dirname(path),
        ]
        return [place for base in places for place in (os.path.join(base, "templates"), base)]
