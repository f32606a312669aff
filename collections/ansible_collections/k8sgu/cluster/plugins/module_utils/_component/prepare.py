# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part: turns options into components; finds every fault of the options before a node is changed."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH118, PTH123

from __future__ import annotations

import difflib
import json
import os
import re
from typing import Any, Callable, Dict, Mapping

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import proxy_rules
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    INSTALL_ROOT,
    NOTHING,
    RELOAD,
    RESTART,
    Artifact,
    Component,
    ComponentError,
    Directory,
    File,
    Health,
    Leaves,
    Link,
    Unit,
    User,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import oci
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError

_LINKS = "/usr/local/bin"
# Where an entry's content comes from; a unit is no program.
_CONTENTS = ("template", "src", "content", "zipapp")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]*")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:]+):\d+")
_MODE = re.compile(r"0?[0-7]{3,4}")
_UNIT = re.compile(r"[a-zA-Z0-9@:._\\-]+\.(service|socket|timer|mount|path|target|slice|automount|swap)")

# Returns the content of an entry with `template`, `src` or `zipapp`.
Load = Callable[[Dict[str, Any]], bytes]


class Mirror:
    """The mirror's manifest, by component, version, architecture and file."""

    def __init__(self, directory: str | None) -> None:
        self.directory = directory
        self._files: dict[tuple[str, str, str], dict[str, dict[str, Any]]] | None = None
        self._images: dict[str, dict[str, Any]] = {}

    def find(self, component: str, version: str, architecture: str, names: list[str]) -> list[dict[str, Any]]:
        """The manifest's entries with these names; all of the component's if no name is given."""
        index = self._index()
        there = index.get((component, version, architecture))
        if there is None:
            raise ComponentError(self._missing(component, version, architecture))
        absent = sorted(set(names) - set(there))
        if absent:
            raise ComponentError(
                f"binaries: the mirror's {component} {version} has no {', '.join(absent)}, only {', '.join(there)}"
            )
        return [there[name] for name in (names or sorted(there))]

    def entry(self, path: str) -> dict[str, Any]:
        """The manifest's entry of a file."""
        for there in self._index().values():
            for entry in there.values():
                if entry["path"] == path:
                    return entry
        raise ComponentError(f"content: the mirror has no file {path}; fill the mirror again")

    def image(self, name: str) -> tuple[dict[str, Any], list[tuple[str, str, int]]]:
        """(descriptor, [(path in the mirror, SHA-256, size)]) of an image with all that it consists of."""
        self._index()
        entry = self._images.get(name)
        if entry is None or not self.directory:
            raise ComponentError(f"content: the mirror has no image {name}; fill the mirror again")
        layout = os.path.join(self.directory, entry["path"])
        try:
            descriptor = oci.tags(layout)[name.rpartition(":")[2]]
            needed, _found = oci.blobs(layout, descriptor, entry["arches"])
        except (MirrorError, KeyError) as error:
            raise ComponentError(f"content: {layout} is damaged ({error}); fill the mirror again") from error
        blobs = [(digest.partition(":")[2], size) for digest, size in needed]
        return descriptor, [(f"{entry['path']}/blobs/sha256/{digest}", digest, size) for digest, size in blobs]

    def _index(self) -> dict[tuple[str, str, str], dict[str, dict[str, Any]]]:
        if self._files is None:
            if not self.directory:
                raise ComponentError("mirror_dir: required where binaries are given; name the mirror on the controller")
            path = os.path.join(self.directory, "manifest.json")
            try:
                with open(path, "rb") as stream:
                    manifest = json.load(stream)
                listed = manifest["files"]
                self._images = {image["name"]: image for image in manifest.get("images", [])}
                index: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
                for entry in listed:
                    key = (entry["component"], entry["version"], entry["arch"])
                    index.setdefault(key, {})[entry["name"]] = entry
            except OSError as error:
                raise ComponentError(
                    f"mirror_dir: {path} cannot be read ({error.strerror}); fill the mirror first"
                ) from error
            except (ValueError, KeyError, TypeError) as error:
                raise ComponentError(
                    f"mirror_dir: {path} is not a mirror's manifest ({error}); fill the mirror again"
                ) from error
            self._files = index
        return self._files

    def _missing(self, component: str, version: str, architecture: str) -> str:
        index = self._index()
        others = sorted(f"{v} for {a}" for c, v, a in index if c == component)
        if others:
            return f"binaries: the mirror has no {component} {version} for {architecture}, only {', '.join(others)}"
        near = difflib.get_close_matches(component, {c for c, _version, _arch in index}, 1)
        return f"binaries: the mirror has no component {component}" + (f"; did you mean {near[0]}?" if near else "")


def read_authority(path: str | None) -> str:
    """The CA's certificate. Raises ComponentError."""
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError as error:
        raise ComponentError(f"mirror_ca: {path}: {error.strerror}; run playbooks/pki.yml first") from error


def validate_options(args: Mapping[str, Any]) -> dict[str, Any]:
    """The options with defaults and types. Raises ComponentError with every fault."""
    if args.get("prepared") is not None:
        raise ComponentError("prepared: is filled in by the action plugin and cannot be given")
    result = ArgumentSpecValidator(ARGUMENT_SPEC).validate(dict(args))
    if result.error_messages:
        raise ComponentError("; ".join(result.error_messages))
    if args.get("components") is None:
        raise ComponentError("components: required; give a list, even of one")
    return dict(result.validated_parameters)


def prepare(
    entries: list[dict[str, Any]],
    mirror: Mirror,
    architecture: Callable[[], str],
    load: Load,
    publishers: Mapping[str, Any] | None = None,
) -> list[Component]:
    """The components with contents and checksums. Raises ComponentError with every fault.

    `publishers`: how nodes reach the publishers of programs, if they are to fetch from there.
    """
    faults: list[str] = []
    components = []
    for entry in entries:
        builder = _Builder(entry, mirror, architecture, load, publishers or {})
        components.append(builder.build())
        faults += builder.faults
    faults += _duplicates(components)
    if faults:
        raise ComponentError("\n".join(faults))
    return components


def _duplicates(components: list[Component]) -> list[str]:
    owners: dict[str, str] = {}
    faults = []
    names = [component.name for component in components]
    faults += [
        f"components: {name} is given twice; merge the two" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    for component in components:
        paths = [file.dest for file in component.files] + [link.dest for link in component.links]
        paths += [unit.path for unit in component.units if unit.content is not None]
        for path in paths:
            if path in owners:
                faults.append(f"component {component.name}: {path} is already given by {owners[path]}; keep one")
            owners.setdefault(path, component.name)
    return faults


class _Builder:
    """Builds one component; collects faults instead of stopping at the first."""

    def __init__(
        self,
        raw: dict[str, Any],
        mirror: Mirror,
        architecture: Callable[[], str],
        load: Load,
        publishers: Mapping[str, Any],
    ) -> None:
        self.raw, self.mirror, self.architecture, self.load = raw, mirror, architecture, load
        self.publishers = publishers
        self.faults: list[str] = []
        self.links: list[Link] = []
        self.artifacts: list[Artifact] = []

    def fault(self, text: str) -> None:
        self.faults.append(f"component {self.raw['name']}: {text}")

    def build(self) -> Component:
        raw = self.raw
        if not _NAME.fullmatch(raw["name"]):
            self.fault("name: use letters, digits, dots, dashes and underscores")
        self._binaries()
        index = self._content_files()
        return Component(
            name=raw["name"],
            artifacts=self.artifacts,
            packages=raw["packages"],
            user=self._user(),
            directories=[
                Directory(self._path("directories", d["path"]), d["owner"], d["group"], self._mode("directories", d))
                for d in raw["directories"]
            ],
            files=[*index, *(self._file(entry) for entry in raw["files"])],
            links=self.links,
            units=[self._unit(entry) for entry in self._unit_entries()],
            on_change=self._on_change(),
            health=self._health(),
            rollback=raw["rollback"],
            overlap=raw["overlap"],
            leaves=self._leaves(),
        )

    def _leaves(self) -> Leaves:
        raw = self.raw["leaves"]
        if raw is None:
            return Leaves()
        return Leaves(**{**raw, "paths": [self._path("leaves", path) for path in raw["paths"]]})

    def _path(self, option: str, path: str) -> str:
        if not path.startswith("/") or "\0" in path or os.path.normpath(path) == "/":
            self.fault(f"{option}: {path!r} is not an absolute path of a file or directory on the node")
        return os.path.normpath(path)

    def _mode(self, option: str, entry: dict[str, Any]) -> int:
        if not _MODE.fullmatch(entry["mode"]):
            self.fault(
                f"{option}: mode {entry['mode']!r} of {entry.get('dest') or entry.get('path')} is not octal; "
                'write it in quotes, as "0644"'
            )
            return 0
        return int(entry["mode"], 8)

    def _user(self) -> User | None:
        raw = self.raw["user"]
        if raw is None:
            return None
        user = User(raw["name"], raw["group"] or raw["name"], raw["home"])
        for account in [user.name, user.group]:
            if not _ACCOUNT.fullmatch(account):
                self.fault(
                    f"user: {account!r} is not a name for a system account; use lower-case letters, digits, - and _"
                )
        return user

    def _content(self, option: str, entry: dict[str, Any], label: str, needed: bool) -> bytes | None:
        ways = [key for key in _CONTENTS if key in entry]
        given = [key for key in ways if entry[key] is not None]
        if len(given) > 1 or (needed and not given):
            known = f"{', '.join(ways[:-1])} and {ways[-1]}"
            self.fault(f"{option}: {label} needs exactly one of {known}, not {' and '.join(given) or 'none'}")
            return b""
        if not given:
            return None
        if entry["vars"] and given != ["template"]:
            self.fault(f"{option}: vars of {label} are only for a template")
        if given == ["content"]:
            return str(entry["content"]).encode("utf-8")
        try:
            return self.load(entry)
        except ComponentError as error:
            self.fault(f"{option}: {label}: {error}")
            return b""

    def _file(self, entry: dict[str, Any]) -> File:
        dest = self._path("files", entry["dest"])
        absent = entry["state"] == "absent"
        if absent and any(entry[key] is not None for key in _CONTENTS):
            self.fault(f"files: {dest} is to be absent and has content; drop one")
        content = None if absent else self._content("files", entry, dest, needed=True)
        if entry["validate"] is not None and "%s" not in entry["validate"]:
            self.fault(f"files: validate of {dest} lacks %s, the placeholder for the file to check")
        effect = RELOAD if entry["reload"] else RESTART if entry["restart"] else NOTHING
        if entry["restart_on"] is not None and (effect == RESTART or absent):
            self.fault(
                f"files: restart_on of {dest} says what restarts besides a reload or nothing; set reload, or restart "
                "to false, or drop it"
            )
        return File(
            dest,
            content,
            entry["owner"],
            entry["group"],
            self._mode("files", entry),
            entry["secret"],
            effect,
            entry["validate"],
            entry["restart_on"],
        )

    def _binaries(self) -> None:
        for entry in self.raw["binaries"]:
            try:
                self._binary_set(entry)
            except ComponentError as error:
                self.fault(str(error))

    def _binary_set(self, entry: dict[str, Any]) -> None:
        component, version = entry["component"], entry["version"]
        if not _NAME.fullmatch(component) or not _NAME.fullmatch(version):
            raise ComponentError(f"binaries: {component!r} {version!r} cannot be names of directories")
        effect = RESTART if entry["restart"] else NOTHING
        found = self.mirror.find(component, version, self.architecture(), entry["files"])
        names = [item["name"] for item in found]
        for item in found:
            origin = self._origin(item)
            self.artifacts.append(
                Artifact(
                    f"{INSTALL_ROOT}/{component}/{version}/{item['name']}",
                    item["path"],
                    item["sha256"],
                    item["size"],
                    effect,
                    origin,
                    self._proxied(origin),
                )
            )
        self.links.append(Link(f"{INSTALL_ROOT}/{component}/current", version, effect))
        for name in entry["links"]:
            if name not in names:
                raise ComponentError(f"binaries: links: {name} is not among the files {', '.join(names)}")
            self.links.append(Link(f"{_LINKS}/{name}", f"{INSTALL_ROOT}/{component}/current/{name}", NOTHING))

    def _content_files(self) -> list[File]:
        """The index of the mirror's content that this node serves; the content itself goes to the artifacts."""
        raw = self.raw["content"]
        if raw is None:
            return []
        content: dict[str, tuple[str, int]] = {}
        files: dict[str, str] = {}
        images: dict[str, list[str]] = {}
        try:
            for path in raw["files"]:
                entry = self.mirror.entry(path)
                files[path] = entry["sha256"]
                content[entry["sha256"]] = (path, entry["size"])
            for name in raw["images"]:
                descriptor, parts = self.mirror.image(name)
                images[name] = [descriptor["mediaType"], descriptor["digest"]]
                content.update({digest: (path, size) for path, digest, size in parts})
        except ComponentError as error:
            self.fault(str(error))
        directory = self._path("content", raw["directory"])
        self.artifacts += [
            Artifact(f"{directory}/{digest}", path, digest, size, NOTHING)
            for digest, (path, size) in sorted(content.items())
        ]
        blobs = sorted(set(content) - set(files.values()))
        text = json.dumps({"files": files, "images": images, "blobs": blobs}, indent=1, sort_keys=True) + "\n"
        return [File(self._path("content", raw["index"]), text.encode(), effect=NOTHING)]

    def _origin(self, item: Mapping[str, Any]) -> str:
        """The publisher's address, where nodes are to fetch there; a program that was built here has none."""
        return str(item.get("origin", "")) if self.publishers.get("use") and item.get("source") == "upstream" else ""

    def _proxied(self, origin: str) -> bool:
        publishers = self.publishers
        return bool(origin) and proxy_rules.proxied(
            origin, publishers.get("proxy") or "", publishers.get("no_proxy") or ""
        )

    def _unit_entries(self) -> list[dict[str, Any]]:
        single = [self.raw["unit"]] if self.raw["unit"] else []
        return single + list(self.raw["units"])

    def _unit(self, entry: dict[str, Any]) -> Unit:
        name = entry["name"]
        if not _UNIT.fullmatch(name):
            self.fault(f"unit: {name!r} is not the full name of a unit, such as etcd.service")
        absent = entry["state"] == "absent"
        content = None if absent else self._content("unit", entry, name, needed=False)
        return Unit(name, content, entry["enabled"] and not absent, entry["state"])

    def _on_change(self) -> list[list[str]]:
        commands = []
        for command in self.raw["on_change"]:
            whole = len(command) == 1 and " " in str(command[0])  # a command line instead of a list of arguments
            if not command or whole or not all(isinstance(word, (str, int, float)) for word in command):
                self.fault(f"on_change: {command!r} is not a list of arguments such as [sysctl, --system]")
            commands.append([str(word) for word in command])
        return commands

    def _health(self) -> Health | None:
        raw = self.raw["health"]
        if raw is None:
            return None
        kinds = [key for key in ("url", "tcp", "unix", "command") if raw[key]]
        if len(kinds) != 1:
            self.fault(f"health: needs exactly one of url, tcp, unix and command, not {' and '.join(kinds) or 'none'}")
        if raw["url"] and not re.match(r"https?://[^/]+", raw["url"]):
            self.fault(f"health: url {raw['url']!r} is not an http or https address")
        if raw["tcp"] and not _HOST_PORT.fullmatch(raw["tcp"]):
            self.fault(f"health: tcp {raw['tcp']!r} is not host:port")
        for one in raw["serves"]:
            if not _HOST_PORT.fullmatch(one["address"]):
                self.fault(f"health: serves: address {one['address']!r} is not host:port")
            self._path("health: serves", one["certificate"])
        if bool(raw["cert"]) != bool(raw["key"]):
            self.fault("health: cert and key belong together; give both or neither")
        if raw["timeout"] < 1:
            self.fault("health: timeout must be at least 1 second")
        try:
            re.compile(raw["expect_body"] or "")
        except re.error as error:
            self.fault(f"health: expect_body is not a regular expression: {error}")
        return Health(**raw)
