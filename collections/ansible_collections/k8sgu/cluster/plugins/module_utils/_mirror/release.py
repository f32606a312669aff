# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contents of a release: releases/<minor>.yml as typed data.

docs/releases.md describes the file; every field is checked here, and an unknown one is an error.
"""

# Paths come and go as text here.
# ruff: noqa: PTH116, PTH118, PTH119, PTH123, PTH208
from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, field
from typing import Any, Mapping
from urllib.parse import urlsplit

from ansible.module_utils.common.yaml import yaml_load

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import is_release, nearest, three
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import YAML, fault

# The roles' configuration files and flags are for this minor version and later ones.
FLOOR = (1, 36)
SELECTORS = ("container_runtime", "pod_network", "metrics_server", "observability", "demo", "backup_bucket")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_IMAGE = re.compile(r"([a-z0-9.-]+(?::\d+)?)/([a-z0-9._/-]+):([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})")


@dataclass(frozen=True)
class Upstream:
    """A file that its publisher offers. `url` and `checksums` may contain {version} and {arch}.

    files: the members of the archive to extract; empty: the file is the program itself.
    sha256: known checksums by architecture. checksums: address of the publisher's checksums, for the others.
    """

    url: str
    files: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    checksums: str = ""


@dataclass(frozen=True)
class Recipe:
    """One `go build`: `packages` maps a program's name to its Go package; `module` is a directory below releases/build.

    tree: a module that is built in a copy of its own sources, with some packages replaced: `instead` maps a package's
    directory to a file of the recipe's directory that is the whole package then.
    """

    module: str
    packages: tuple[tuple[str, str], ...]
    tags: tuple[str, ...] = ()
    stamp: tuple[tuple[str, str], ...] = ()
    tree: str = ""
    instead: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Component:
    name: str
    version: str
    upstream: Upstream | None
    builds: tuple[Recipe, ...]
    distribution: str  # the Debian package that serves in its place, or empty
    needed_for: Mapping[str, Any]

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the programs, the same from every source."""
        if self.builds:
            return tuple(name for recipe in self.builds for name, _package in recipe.packages)
        if self.upstream and self.upstream.files:
            return tuple(os.path.basename(member) for member in self.upstream.files)
        return (self.name,)


@dataclass(frozen=True)
class Userland:
    """Programs of Debian packages, with the libraries that they load; `busybox` gets a link for each of its applets.

    trees: patterns of directories to take whole, such as an interpreter's modules.
    """

    packages: tuple[str, ...]
    programs: tuple[str, ...]
    busybox: str = ""
    trees: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageBuild:
    """How to build an image: programs, a userland, directories, links, and its configuration."""

    recipe: Recipe | None
    layout: tuple[tuple[str, str], ...]  # path in the image -> program of the recipe
    userland: Userland | None
    links: tuple[tuple[str, str], ...]
    directories: tuple[str, ...]
    owner: tuple[tuple[str, str], ...]  # path -> "uid:gid"
    bind_low_ports: tuple[str, ...]  # programs with the file capability cap_net_bind_service
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    user: str
    workdir: str
    ports: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Image:
    key: str
    name: str  # registry/repository:tag
    published: bool
    build: ImageBuild | None
    needed_for: Mapping[str, Any]

    @property
    def registry(self) -> str:
        return self._parts()[0]

    @property
    def repository(self) -> str:
        return self._parts()[1]

    @property
    def tag(self) -> str:
        return self._parts()[2]

    def _parts(self) -> tuple[str, str, str]:
        match = _IMAGE.fullmatch(self.name)
        if not match:
            raise MirrorError(f"image {self.key}: '{self.name}' is not of the form registry/repository:tag")
        return match.group(1), match.group(2), match.group(3)


@dataclass(frozen=True)
class Release:
    path: str
    minor: str
    kubernetes: str
    architectures: tuple[str, ...]
    components: tuple[Component, ...]
    images: tuple[Image, ...]


def find_release(releases_dir: str, version: str) -> Release:
    """The release whose Kubernetes version is `version`. Raises MirrorError, naming the nearest that exists."""
    if not is_release(version):
        raise MirrorError(f"kubernetes_version: '{version}' is not of the form 1.36.4")
    known = _known_versions(releases_dir)
    canonical = ".".join(map(str, three(version)))
    if canonical in known:
        return load_release(known[canonical])
    if three(version)[:2] < FLOOR:
        raise MirrorError(
            f"kubernetes_version: {version} is below {FLOOR[0]}.{FLOOR[1]}, the oldest that the roles can configure; "
            f"the nearest release is {nearest(version, known)}"
        )
    raise MirrorError(
        f"kubernetes_version: there is no release {version} in {releases_dir}; the nearest is "
        f"{nearest(version, known)} (there are {', '.join(sorted(known, key=three))})"
    )


def _known_versions(releases_dir: str) -> dict[str, str]:
    try:
        names = sorted(os.listdir(releases_dir))
    except OSError as error:
        raise MirrorError(f"releases_dir: {releases_dir}: {error.strerror}") from error
    known = {}
    for name in names:
        if re.fullmatch(r"\d+\.\d+\.yml", name):
            path = os.path.join(releases_dir, name)
            known[load_release(path).kubernetes] = path
    if not known:
        raise MirrorError(f"releases_dir: {releases_dir} has no <minor>.yml, such as 1.36.yml")
    return known


def read_release(path: str) -> Any:
    """A release file's content, unchecked; parsed once per process, so do not change it. Raises MirrorError."""
    try:
        status = os.stat(path)
        return _parsed(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise MirrorError(f"{path}: {error.strerror}") from error


@functools.lru_cache(maxsize=16)
def _parsed(path: str, _changed_ns: int, _size: int) -> Any:
    missing = fault(YAML)
    if missing:
        raise MirrorError(missing)
    with open(path, "rb") as stream:
        try:
            return yaml_load(stream)
        except OSError:
            raise
        except Exception as error:  # PyYAML's exception classes cannot be named when it is missing
            raise MirrorError(f"{path}: is not YAML: {error}") from error


def load_release(path: str) -> Release:
    """Read and check one release file. Raises MirrorError with the file and the field."""
    data = read_release(path)
    fields = Fields(data, path)
    release = Release(
        path=path,
        minor=fields.text("release"),
        kubernetes=fields.text("kubernetes"),
        architectures=fields.texts("architectures"),
        components=tuple(_component(name, fields.below("components", name)) for name in fields.names("components")),
        images=tuple(_image(name, fields.below("images", name)) for name in fields.names("images")),
    )
    fields.end()
    if not release.kubernetes.startswith(release.minor + ".") or os.path.basename(path) != f"{release.minor}.yml":
        raise MirrorError(f"{path}: file name, release {release.minor} and kubernetes {release.kubernetes} disagree")
    return release


class Fields:
    """A mapping of the file. Each field is read with its type; a field that was never read is an error in `end`."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise MirrorError(f"{where}: is not a mapping")
        self._data: dict[str, Any] = data
        self._where = where
        self._read: set[str] = set()

    def error(self, name: str, problem: str) -> MirrorError:
        return MirrorError(f"{self._where}: {name}: {problem}")

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        return self._data.get(name, default)

    def has(self, name: str) -> bool:
        return self._data.get(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        value = self.get(name, default)
        if not isinstance(value, str) or (not value and default is None):
            raise self.error(name, "must be text; quote it if YAML would read a number")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(name, "must be a list of strings")
        return tuple(value)

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        value = self.get(name, {})
        if not isinstance(value, dict) or not all(isinstance(item, str) for pair in value.items() for item in pair):
            raise self.error(name, "must be a mapping of strings")
        return tuple(value.items())

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise self.error(name, "must be true or false")
        return value

    def names(self, name: str) -> list[str]:
        value = self.get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, "must be a mapping")
        for key in value:
            if not isinstance(key, str) or not _NAME.fullmatch(key):
                raise self.error(name, f"'{key}' is not a name (lower case letters, digits, '.', '_', '-')")
        return list(value)

    def below(self, name: str, key: str) -> Fields:
        self._read.add(name)
        return Fields(self._data[name][key], f"{self._where}: {name}.{key}")

    def child(self, name: str) -> Fields | None:
        value = self.get(name)
        return None if value is None else Fields(value, f"{self._where}: {name}")

    def children(self, name: str) -> list[Fields]:
        value = self.get(name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        return [Fields(item, f"{self._where}: {name}") for item in values]

    def end(self) -> None:
        unknown = sorted(str(name) for name in self._data if name not in self._read)
        if unknown:
            raise MirrorError(
                f"{self._where}: unknown field {', '.join(unknown)}; there are {', '.join(sorted(self._read))}"
            )


def _component(name: str, fields: Fields) -> Component:
    component = Component(
        name=name,
        version=fields.text("version"),
        upstream=_upstream(fields.child("upstream")),
        builds=tuple(_recipe(item, True) for item in fields.children("build")),
        distribution=fields.text("distribution", ""),
        needed_for=_needed_for(fields),
    )
    if not (component.upstream or component.builds or component.distribution):
        raise fields.error("upstream", "a component needs at least one of upstream, build, distribution")
    if component.upstream and component.builds:
        offered = sorted(os.path.basename(member) for member in component.upstream.files) or [name]
        if offered != sorted(component.files):
            raise fields.error("build", f"makes {sorted(component.files)}, but upstream offers {offered}")
    fields.end()
    return component


def _needed_for(fields: Fields) -> Mapping[str, Any]:
    value = fields.get("needed_for", {})
    if not isinstance(value, dict) or not set(value) <= set(SELECTORS):
        raise fields.error("needed_for", f"must be a mapping with any of {', '.join(SELECTORS)}")
    return value


def _upstream(fields: Fields | None) -> Upstream | None:
    if fields is None:
        return None
    upstream = Upstream(
        url=fields.text("url"),
        files=fields.texts("files"),
        sha256=dict(fields.pairs("sha256")),
        checksums=fields.text("checksums", ""),
    )
    for name, url in (("url", upstream.url), ("checksums", upstream.checksums)):
        if url and urlsplit(url).scheme != "https":
            raise fields.error(name, f"{url}: must be an https address")
    for arch, digest in upstream.sha256.items():
        if not _SHA256.fullmatch(digest):
            raise fields.error("sha256", f"{arch}: '{digest}' is not a SHA-256 (64 hexadecimal digits)")
    if not upstream.sha256 and not upstream.checksums:
        raise fields.error(
            "checksums", "there is neither a checksum nor an address to read one from; unverified files are not used"
        )
    fields.end()
    return upstream


def _recipe(fields: Fields, whole: bool) -> Recipe:
    value = fields.get("packages")
    if isinstance(value, list):
        packages = tuple((program_name(package), package) for package in fields.texts("packages"))
    else:
        packages = fields.pairs("packages")
    if not packages:
        raise fields.error("packages", "must name at least one Go package")
    recipe = Recipe(
        module=fields.text("module"),
        packages=packages,
        tags=fields.texts("tags"),
        stamp=fields.pairs("stamp"),
        tree=fields.text("tree", ""),
        instead=fields.pairs("instead"),
    )
    if bool(recipe.tree) != bool(recipe.instead):
        raise fields.error("tree", "must be given together with instead")
    if recipe.module.startswith("/") or ".." in recipe.module.split("/"):
        raise fields.error("module", "must be a directory below releases/build")
    if any(re.search(r"[\s'\"]", text) for pair in recipe.stamp for text in pair):
        raise fields.error("stamp", "the linker allows no spaces or quotes")
    if whole:
        fields.end()
    return recipe


def program_name(package: str) -> str:
    """The name that the go command gives a package's program: its last element that is not a major version."""
    elements = package.split("/")
    if len(elements) > 1 and re.fullmatch(r"v\d+", elements[-1]):
        return elements[-2]
    return elements[-1]


def _image(name: str, fields: Fields) -> Image:
    image = Image(
        key=name,
        name=fields.text("name"),
        published=fields.flag("published", True),
        build=_image_build(fields.child("build")),
        needed_for=_needed_for(fields),
    )
    image.repository  # noqa: B018 - checks the name
    if not image.published and image.build is None:
        raise fields.error("build", "an image that is not published needs one")
    fields.end()
    return image


def _image_build(fields: Fields | None) -> ImageBuild | None:
    if fields is None:
        return None
    userland = None
    inner = fields.child("userland")
    if inner is not None:
        userland = Userland(
            inner.texts("packages"), inner.texts("programs"), inner.text("busybox", ""), inner.texts("trees")
        )
        inner.end()
    build = ImageBuild(
        recipe=_recipe(fields, False) if fields.has("module") else None,
        layout=fields.pairs("layout"),
        userland=userland,
        links=fields.pairs("links"),
        directories=fields.texts("directories"),
        owner=fields.pairs("owner"),
        bind_low_ports=fields.texts("bind_low_ports"),
        entrypoint=fields.texts("entrypoint"),
        command=fields.texts("command"),
        user=fields.text("user", ""),
        workdir=fields.text("workdir", ""),
        ports=fields.texts("ports"),
        environment=fields.pairs("environment"),
    )
    programs = {name for name, _package in build.recipe.packages} if build.recipe else set()
    missing = {program for _path, program in build.layout} - programs
    if missing:
        raise fields.error("layout", f"{', '.join(sorted(missing))}: not a program of its packages")
    fields.end()
    return build
