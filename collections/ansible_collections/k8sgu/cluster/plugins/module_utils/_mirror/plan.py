# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what is missing and where it will come from. Pure.

wanted(release, options)                the items that the options need
missing(wants, store, options, sources) those that the mirror lacks, each with its reason
decide(missing, options, unreachable)   each missing item with its source
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable, Mapping
from urllib.parse import urlsplit

from ansible_collections.k8sgu.cluster.plugins.module_utils._files.present import present
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import oci
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import Sources
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.registry import base_url
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import Component, Image, Release
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.store import Store, file_path, image_path

SOURCES = ("auto", "upstream", "build", "directory")


@dataclass(frozen=True)
class Options:
    """The user's choices; kubernetes_version determines which releases/<minor>.yml is used."""

    source: str
    architectures: tuple[str, ...]
    selectors: Mapping[str, Any]  # release.SELECTORS
    verify: bool = False


@dataclass(frozen=True)
class Want:
    """One component on one architecture, or one image on all of them."""

    component: Component | None
    image: Image | None
    arches: tuple[str, ...]

    @property
    def title(self) -> str:
        if self.component is not None:
            return f"{self.component.name} {self.component.version} {self.arches[0]}"
        return present(self.image, "one of the two is always there").name


@dataclass(frozen=True)
class Step:
    """A missing item: why it is missing; its source (upstream, build, distribution or directory), and why that one."""

    want: Want
    reason: str
    source: str = ""
    because: str = ""

    def describe(self) -> str:
        return f"{self.want.title}: {self.source}{f', {self.because}' if self.because else ''} ({self.reason})"


def wanted(release: Release, options: Options) -> list[Want]:
    """The items that the options need. Raises MirrorError when an architecture is not in the release."""
    unknown = [arch for arch in options.architectures if arch not in release.architectures]
    if unknown or not options.architectures:
        raise MirrorError(
            f"architectures: {release.kubernetes} has no {', '.join(unknown) or 'empty list'}; "
            f"it has {', '.join(release.architectures)}"
        )
    arches = tuple(sorted(set(options.architectures)))
    wants = [
        Want(component, None, (arch,))
        for component in release.components
        if _chosen(component.needed_for, options)
        for arch in arches
    ]
    return wants + [Want(None, image, arches) for image in release.images if _chosen(image.needed_for, options)]


def _chosen(needed_for: Mapping[str, Any], options: Options) -> bool:
    return all(options.selectors.get(name) == value for name, value in needed_for.items())


def missing(wants: Iterable[Want], store: Store, options: Options, sources: Sources) -> list[Step]:
    """The wanted items that the mirror lacks. An item from a source other than the chosen one counts as missing."""
    steps = []
    for want in wants:
        reason = (
            _component_lack(want, store, options, sources)
            if want.component
            else _image_lack(want, store, options, sources)
        )
        if reason:
            steps.append(Step(want, reason))
    return steps


def _component_lack(want: Want, store: Store, options: Options, sources: Sources) -> str:
    component = present(want.component, "the caller has checked")
    recorded = store.package(component.name, component.version, want.arches[0])
    if recorded is not None and component.distribution == recorded.get("package") and options.source != "upstream":
        return ""
    keys = build_keys(component, want.arches[0], sources)
    chosen = _choice(options, component.upstream is not None)
    for name in component.files:
        path = file_path(component.name, component.version, want.arches[0], name)
        entry = store.files.get(path)
        if entry is None:
            return "not in the mirror"
        reason = _unsuitable(entry, keys.get(name, ""), chosen)
        if not reason:
            if options.verify:
                store.forget(path)
            reason = store.intact(path, str(entry["sha256"]), int(entry["size"]))
        if reason:
            return f"{name} {reason}"
    return ""


def build_keys(component: Component, arch: str, sources: Sources) -> dict[str, str]:
    """{program: key of what it would be made from}."""
    return {
        name: sources.key(recipe, package, arch) for recipe in component.builds for name, package in recipe.packages
    }


def image_key(image: Image, arches: Iterable[str], sources: Sources) -> str:
    """The key of what an image would be made from."""
    build = image.build
    if build is None:
        return ""
    programs = [
        sources.key(build.recipe, package, arch)
        for arch in arches
        if build.recipe
        for _name, package in build.recipe.packages
    ]
    spec = json.dumps([image.name, repr(replace(build, recipe=None)), sorted(arches), programs])
    return hashlib.sha256(spec.encode()).hexdigest()


def _choice(options: Options, published: bool) -> Options:
    """The options with the item's actual source: an unpublished item is built even with `upstream`."""
    return replace(options, source="build") if options.source == "upstream" and not published else options


def _unsuitable(entry: Mapping[str, Any], key: str, options: Options) -> str:
    """Why an existing entry of the manifest cannot be used; empty when it can."""
    source = entry.get("source")
    if options.source in ("upstream", "build") and source != options.source and source != "distribution":
        return f"comes from {source}"
    if source == "build" and options.source != "directory" and entry.get("key") != key:
        return "was built from other sources"
    return ""


def _image_lack(want: Want, store: Store, options: Options, sources: Sources) -> str:
    image = present(want.image, "what is no component is an image")
    entry = store.images.get(image.name)
    if entry is None:
        return "not in the mirror"
    lacking = set(want.arches) - set(entry.get("arches", []))
    if lacking:
        return f"has no {', '.join(sorted(lacking))}"
    key = image_key(image, entry.get("arches", []), sources)
    reason = _unsuitable(entry, key, _choice(options, image.published))
    if reason:
        return reason
    layout = image_path(image.registry, image.repository)
    try:
        descriptor = oci.tags(store.path(layout)).get(image.tag)
        if descriptor is None or descriptor.get("digest") != entry.get("digest"):
            return "its tag is not in the layout"
        needed, found = oci.blobs(store.path(layout), descriptor, want.arches)
    except (MirrorError, KeyError, TypeError, ValueError) as error:
        return f"is damaged: {error}"
    if set(want.arches) - found:
        return f"has no {', '.join(sorted(set(want.arches) - found))}"
    for digest, size in needed:
        path = f"{layout}/blobs/sha256/{digest.partition(':')[2]}"
        if options.verify:
            store.forget(path)
        reason = store.intact(path, digest.partition(":")[2], size)
        if reason:
            return f"blob {digest[:19]} {reason}"
    return ""


Pinned = Callable[[str], bool]  # whether the checksum of an address is known already


def publishers(steps: Iterable[Step], pinned: Pinned) -> dict[str, str]:
    """{publisher: one address to try} of the publishers that the missing items need."""
    addresses: dict[str, str] = {}
    for step in steps:
        for url in _addresses(step.want, pinned):
            addresses.setdefault(publisher(url), url)
    return addresses


def _addresses(want: Want, pinned: Pinned) -> list[str]:
    """The addresses that an item needs from upstream: its own and, unless it is pinned, that of its checksum."""
    url = upstream_address(want)
    upstream = want.component.upstream if want.component else None
    if upstream is None or upstream.sha256.get(want.arches[0]) or pinned(url):
        return [url] if url else []
    return [url, fill(upstream.checksums, present(want.component, "it has an upstream").version, want.arches[0])]


def upstream_address(want: Want) -> str:
    """The address of an item at its publisher; empty when it is not published."""
    if want.component is not None:
        upstream = want.component.upstream
        return fill(upstream.url, want.component.version, want.arches[0]) if upstream else ""
    image = want.image
    if image is None or not image.published:
        return ""
    return f"{base_url(image.registry)}/v2/"


def publisher(url: str) -> str:
    return urlsplit(url).netloc


def fill(template: str, version: str, arch: str) -> str:
    return template.replace("{version}", version).replace("{arch}", arch)


def decide(
    steps: Iterable[Step], options: Options, unreachable: Mapping[str, str], pinned: Pinned = lambda _url: False
) -> list[Step]:
    """Each step with its source. unreachable: {publisher: why it does not answer}. Raises MirrorError."""
    return [_decide(step, options.source, unreachable, pinned) for step in steps]


def fallback(step: Step, problem: str) -> Step | None:
    """A step that gets an item from another source after its publisher failed; None when there is no other source."""
    try:
        return replace(_decide(step, "build", {}, lambda _url: True), because=problem)
    except MirrorError:
        return None


def _decide(step: Step, source: str, unreachable: Mapping[str, str], pinned: Pinned) -> Step:
    url = upstream_address(step.want)
    can_build = _can_build(step.want)
    package = step.want.component.distribution if step.want.component else ""
    if source == "directory":
        return replace(step, source="directory")
    if source == "upstream":
        if url:
            return replace(step, source="upstream")
        if can_build:
            return replace(step, source="build", because="it is not published")
        raise MirrorError(f"{step.want.title}: is not published; choose source: build or auto")
    if source == "auto" and url:
        silent = [publisher(needed) for needed in _addresses(step.want, pinned) if unreachable.get(publisher(needed))]
        if not silent:
            return replace(step, source="upstream", because=f"{publisher(url)} answers")
        problem, because = unreachable[silent[0]], f"{silent[0]} does not answer"
        if not can_build and not package:
            raise MirrorError(
                f"{step.want.title}: {problem}, and there is no recipe to build it; try again, or use source: directory"
            )
    else:
        because = "" if url else "it is not published"
    if can_build:
        return replace(step, source="build", because=because)
    if package:
        return replace(
            step, source="distribution", because=f"{because + ', and ' if because else ''}the package {package} serves"
        )
    raise MirrorError(f"{step.want.title}: there is no recipe to build it; choose source: upstream or directory")


def _can_build(want: Want) -> bool:
    if want.component is not None:
        return bool(want.component.builds)
    return want.image is not None and want.image.build is not None
