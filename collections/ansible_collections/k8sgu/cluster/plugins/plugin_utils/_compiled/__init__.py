# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module's work on a node, from what an earlier execution left compiled there.

Ansible sends a module with all that it imports as one archive, of which Python keeps nothing compiled: half a megabyte
of sources is compiled for each execution, which takes several times as long as the work of one that finds all in order.
What is sent here is the module's own part alone, and the node keeps it compiled, below a directory that only root may
enter, under a name made from its content.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import io
import json
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, Sequence

from ansible.plugins.action import ActionBase

from ansible_collections.k8sgu.cluster.plugins.plugin_utils._ansible_internals import node_interpreter, run_source

_UTILS = "ansible_collections.k8sgu.cluster.plugins.module_utils"
_NODE_HALF = Path(__file__).with_name("on_node.py")
# Before the answer, since a shell's profile may have printed something before.
_MARK = "k8sgu-answer:"
_SHOWN_CHARACTERS = 2000


def execute(
    action: ActionBase, function: str, arguments: dict[str, Any], packages: Sequence[str], variables: dict[str, Any]
) -> dict[str, Any] | None:
    """The answer of `function` ("<package>.<module>:<name>") to `arguments`, executed on the task's host as root.

    `packages` are those of module_utils that it needs. Arguments and answer are JSON. Check mode keeps nothing new.
    None where a module has to be sent: Python's path on the node is not known yet, or Ansible is to send no program by
    the connection's input (pipelining is off, or what is sent is to be kept for a look).
    """
    interpreter = node_interpreter(action, variables)
    if interpreter is None:
        return None
    digest, archive = _archive(tuple(packages))
    job = {
        "name": action._task.action.rpartition(".")[2],
        "digest": digest,
        "archive": archive,
        "keep": not action._task.check_mode,
        "function": f"{_UTILS}.{function}",
        "arguments": arguments,
    }
    source = f"{_NODE_HALF.read_text(encoding='utf-8')}\nmain({json.dumps(job)!r}, {_MARK!r})\n"
    done = run_source(action, interpreter, source)
    if done is None:
        return None
    _before, mark, answer = done["stdout"].rpartition(_MARK)
    if not mark:
        said = (done["stderr"] or done["stdout"]).strip()[-_SHOWN_CHARACTERS:]
        return {
            "failed": True,
            "msg": f"{job['name']}: {interpreter} ended with status {done['rc']} and no answer: {said}",
        }
    data: dict[str, Any] = json.loads(answer)
    return data


@functools.cache
def _archive(packages: tuple[str, ...]) -> tuple[str, str]:
    """(SHA-256, content in Base64) of a ZIP archive of packages of module_utils; the same sources, the same bytes."""
    root = PurePosixPath(*_UTILS.split("."))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in sorted(packages):
            spec = importlib.util.find_spec(f"{_UTILS}.{package}")
            if spec is None or not spec.submodule_search_locations:
                raise AssertionError(f"{package} is no package of module_utils")
            [directory] = spec.submodule_search_locations
            for path in sorted(Path(directory).glob("*.py")):
                # Without the file's own time, which differs from one checkout to the next.
                archive.writestr(zipfile.ZipInfo(str(root / package / path.name)), path.read_bytes())
    return hashlib.sha256(buffer.getvalue()).hexdigest(), base64.b64encode(buffer.getvalue()).decode("ascii")
