# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of k8sgu.cluster.component: renders, reads, looks up checksums, then executes once."""

from __future__ import annotations

import dataclasses
import posixpath
import shlex
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.architectures import mirror_name
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError, Job, encode
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.prepare import (
    Mirror,
    prepare,
    read_authority,
    validate_options,
)
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._compiled import execute, zipapp
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._templates import SourceError, Sources

_MODULE = "k8sgu.cluster.component"
# Below the login user's home directory, since only that is certainly writable without becoming root.
_STAGING = ".ansible/k8sgu-staging"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """See the documentation of the module."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        try:
            job, mirror = self._job(variables)
        except ComponentError as error:
            result.update(failed=True, msg=str(error))
            return result
        answer = self._execute(job, variables)
        if answer.get("missing") and not answer.get("failed"):
            # Only a run that lacks programs needs a second execution; the first has changed nothing.
            staged = self._push(mirror, answer["missing"])
            answer = self._execute(dataclasses.replace(job, staged=staged), variables)
        for internal in ("invocation", "missing"):
            answer.pop(internal, None)
        result.update(answer)
        return result

    def _job(self, variables: dict[str, Any]) -> tuple[Job, Mirror]:
        options = validate_options(self._task.args)
        sources = Sources(self, variables)

        def load(entry: dict[str, Any]) -> bytes:
            if entry.get("zipapp") is not None:
                return _program(entry["zipapp"])
            try:
                if entry["src"] is not None:
                    return sources.read(entry["src"])
                dest = entry.get("dest") or entry["name"]
                return sources.render(entry["template"], dest, entry["vars"]).encode("utf-8")
            except SourceError as error:
                raise ComponentError(str(error)) from error

        mirror = Mirror(options["mirror_dir"])
        publishers = options["publishers"] or {}
        components = prepare(
            options["components"],
            mirror,
            lambda: options["architecture"] or self._architecture(variables),
            load,
            publishers,
        )
        job = Job(
            components,
            options["mirror_url"],
            options["mirror_proxy"],
            read_authority(options["mirror_ca"]),
            publishers.get("proxy") or "",
            lock_timeout=options["lock_timeout"],
            only_fetch=options["state"] == "fetched",
        )
        return job, mirror

    def _architecture(self, variables: dict[str, Any]) -> str:
        """The architecture of the host that the task runs on."""
        host = self._task.delegate_to
        if host:
            variables = variables.get("hostvars", {}).get(host, {})
        facts = variables.get("ansible_facts") or {}
        told = (variables.get("ec2_architecture"), variables.get("ansible_architecture"), facts.get("architecture"))
        for name in map(mirror_name, filter(None, told)):
            if name:
                return name
        raise ComponentError(
            "architecture: the host has neither ec2_architecture nor ansible_architecture; give it, or gather facts"
        )

    def _execute(self, job: Job, variables: dict[str, Any]) -> dict[str, Any]:
        prepared = encode(job)
        arguments = {"prepared": prepared, "check_mode": self._task.check_mode, "diff": self._task.diff}
        answer = execute(self, "_component.run:execute", arguments, variables)
        if answer is None:
            answer = self._execute_module(module_name=_MODULE, module_args={"prepared": prepared}, task_vars=variables)
        return dict(answer)

    def _push(self, mirror: Mirror, missing: list[dict[str, str]]) -> str:
        """Copies programs to the node as the login user and returns their directory. The module verifies them."""
        made = self._low_level_execute_command(
            f"umask 077; mkdir -p {_STAGING} && cd {_STAGING} && ls && pwd", sudoable=False
        )
        *there, staging = made["stdout"].strip().splitlines() if made["rc"] == 0 and made["stdout"].strip() else [""]
        if not staging.startswith("/"):
            raise AnsibleError(f"component: {_STAGING} cannot be made on the node: {made['stderr'] or made['stdout']}")
        # What a run that was cut off has pushed already is not sent again.
        for item in {entry["sha256"]: entry for entry in missing if entry["sha256"] not in there}.values():
            target = posixpath.join(staging, item["sha256"])
            # An interrupted copy keeps its temporary name, so that it is never taken for a complete one.
            self._connection.put_file(posixpath.join(str(mirror.directory), item["url_path"]), target + ".partial")
            moved = self._low_level_execute_command(
                f"mv {shlex.quote(target + '.partial')} {shlex.quote(target)}", sudoable=False
            )
            if moved["rc"] != 0:
                raise AnsibleError(f"component: {target} cannot be put in place on the node: {moved['stderr']}")
        return staging


def _program(module: str) -> bytes:
    try:
        return zipapp(module)
    except LookupError as error:
        raise ComponentError(f"zipapp: {error}") from error
