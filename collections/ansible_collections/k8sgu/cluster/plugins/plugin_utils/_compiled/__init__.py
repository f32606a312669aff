# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Executes a module's work on a node from compiled code that an earlier execution left there.

Ansible sends a module with everything that it imports as one archive, whose compiled code Python does not keep: half a
megabyte of sources is compiled in each execution, which takes several times as long as the work if there is nothing to
change. Here only the module's own part is sent, and the node keeps it compiled, below a directory that only root can
enter, under a name made from its content.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.k8sgu.cluster.plugins.plugin_utils._ansible_internals import node_interpreter, run_source

_UTILS = "ansible_collections.k8sgu.cluster.plugins.module_utils"
_ROOT = PurePosixPath(*_UTILS.split("."))
_DIRECTORY = Path(__file__).parents[2] / "module_utils"
_IMPORT = re.compile(
    rf"^[ ]*from {re.escape(_UTILS)}\.(?P<module>[\w.]+) import (?P<names>\([^)]*\)|[^(\n]+)$", re.MULTILINE
)
# Imports that are only for types are not executed.
_TYPING_BLOCK = re.compile(r"^if TYPE_CHECKING:\n(?:(?:[ ]+.*)?\n)+", re.MULTILINE)
_NODE_HALF = Path(__file__).with_name("on_node.py")
# Nothing but the standard library, and none of the caller's settings of Python.
_FIRST_LINE = b"#!/usr/bin/python3 -IS\n"
# Printed before the answer, since a shell's profile may print something first.
_MARK = "k8sgu-answer:"
_SHOWN_CHARACTERS = 2000


def execute(
    action: ActionBase, function: str, arguments: dict[str, Any], variables: dict[str, Any]
) -> dict[str, Any] | None:
    """Calls `function` ("<package>.<module>:<name>") with `arguments` on the task's host as root; returns its answer.

    Arguments and answer are JSON. The function's module may import only the standard library and our own code. Check
    mode stores nothing new.
    None if a module must be sent: Python's path on the node is not known yet, or Ansible must not send programs by the
    connection's input (pipelining is off, or remote files are to be kept).
    """
    interpreter = node_interpreter(action, variables)
    if interpreter is None:
        return None
    digest, archive = _archive(function.partition(":")[0])
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
def _archive(module: str) -> tuple[str, str]:
    """(SHA-256, content in Base64) of a ZIP archive of a module below module_utils and of all that it imports there.

    The same sources give the same bytes.
    """
    content = _zipped(_sources(module))
    return hashlib.sha256(content).hexdigest(), base64.b64encode(content).decode("ascii")


@functools.cache
def zipapp(module: str) -> bytes:
    """A program that Python on a node runs: a module below module_utils with its function `main`, and all it imports.

    `main` takes no argument and returns the exit status. The same sources give the same bytes. Raises LookupError if
    there is no such module. https://docs.python.org/3/library/zipapp.html
    """
    if _file(module) is None:
        raise LookupError(f"there is no {module} in module_utils")
    files = _sources(module)
    # zipimport finds a package by this file, which the directories of a collection lack.
    for package in (_ROOT, *list(_ROOT.parents)[:-1]):
        files.setdefault(str(package / "__init__.py"), b"")
    files["__main__.py"] = f"import sys\n\nfrom {_UTILS}.{module} import main\n\nsys.exit(main())\n".encode()
    return _zipped(files, _FIRST_LINE)


def _sources(module: str) -> dict[str, bytes]:
    """{path: source} of a module below module_utils and of all that it imports there."""
    sources: dict[str, bytes] = {}
    _collect(module, sources)
    return {str(_ROOT / path): source for path, source in sources.items()}


def _zipped(files: dict[str, bytes], before: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    buffer.write(before)
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in sorted(files.items()):
            # Without the file's time, which differs between checkouts, and not compressed, as versions of zlib differ.
            archive.writestr(zipfile.ZipInfo(path), content)
    return buffer.getvalue()


def _collect(module: str, sources: dict[str, bytes]) -> None:
    """Adds the source of a module or package below module_utils, by its path there, and those of what it imports."""
    parts = module.split(".")
    if len(parts) > 1:
        _collect(".".join(parts[:-1]), sources)
    file = _file(module)
    if file is None:
        raise AssertionError(f"there is no {module} in module_utils")
    path = "/".join([*parts, "__init__.py"] if file.name == "__init__.py" else [*parts[:-1], file.name])
    if path in sources:
        return
    sources[path] = file.read_bytes()
    text = _TYPING_BLOCK.sub("", sources[path].decode("utf-8"))
    for match in _IMPORT.finditer(text):
        names = re.findall(r"(\w+)(?: as \w+)?", match["names"])
        below = [f"{match['module']}.{name}" for name in names if _file(f"{match['module']}.{name}")]
        for found in below or [match["module"]]:
            _collect(found, sources)


def _file(module: str) -> Path | None:
    """The source of a module or package below module_utils, if it is one."""
    path = _DIRECTORY.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_name(f"{path.name}.py")) if file.is_file()), None)
