# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of the mirror: reads, plans, checks what the plan needs, fills."""

# Paths are text here.
# ruff: noqa: PTH111, PTH112, PTH117, PTH118
from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import room, userland
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.checksums import Lock
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.fill import (
    Filler,
    builds_of,
    cache_lock,
    mirror_lock,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import (
    Builder,
    Sources,
    Toolchain,
    check_toolchain,
    find_toolchain,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.plan import (
    Options,
    Step,
    decide,
    missing,
    publishers,
    wanted,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.progress import Progress, Say
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import SELECTORS, Release, find_release
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.store import Store
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.transport import Limits, probe
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

# A publisher that needs longer than this for its first byte counts as unreachable.
_PROBE_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Outcome:
    release: Release
    steps: tuple[Step, ...]
    store: Store
    present: tuple[str, ...]  # titles of the items that were in the mirror before

    def as_result(self) -> dict[str, Any]:
        """The task's result, as the module's documentation describes it."""
        before = sorted(self.present)
        after = sorted([*self.present, *(step.want.title for step in self.steps)])
        return {
            "changed": bool(self.steps),
            "mirror_dir": self.store.root,
            "kubernetes_version": self.release.kubernetes,
            "steps": [
                {"item": step.want.title, "source": step.source, "reason": step.reason, "because": step.because}
                for step in self.steps
            ],
            "packages": sorted({str(entry["package"]) for entry in self.store.packages.values()}),
            "diff": {
                "before_header": self.store.root,
                "after_header": self.store.root,
                "before": "".join(line + "\n" for line in before),
                "after": "".join(line + "\n" for line in after),
            },
        }


def default_cache_dir() -> str:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(base if os.path.isabs(base) else os.path.expanduser("~/.cache"), "k8sgu")


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises MirrorError and FileError."""
    return complete(call.options, call.check_mode, call.say).as_result()


def complete(params: Mapping[str, Any], check_mode: bool, say: Say) -> Outcome:
    """Complete the mirror for the parameters (those of ARGUMENT_SPEC). Raises MirrorError."""
    for name in ("parallel", "attempts", "timeout"):
        if params[name] < 1:
            raise MirrorError(f"{name}: must be at least 1, not {params[name]}")
    release = find_release(params["releases_dir"], params["kubernetes_version"])
    sources = Sources(os.path.join(params["releases_dir"], "build"))
    store = Store(params["mirror_dir"])
    options = Options(
        source=params["source"],
        architectures=tuple(params["architectures"]),
        selectors={name: params[name] for name in SELECTORS},
        verify=params["verify"],
    )
    wants = wanted(release, options)
    lacking = missing(wants, store, options, sources)
    absent = {step.want.title for step in lacking}
    present = tuple(want.title for want in wants if want.title not in absent)
    if not lacking:
        if not check_mode:
            store.remember_verified()
        return Outcome(release, (), store, present)
    lock = Lock(params["lock_file"] or os.path.join(params["releases_dir"], f"{release.minor}.lock.yml"))

    def pinned(url: str) -> bool:
        return lock.get("files", url) is not None

    unreachable: Mapping[str, str] = {}
    if options.source == "auto":
        addresses = publishers(lacking, pinned)
        unreachable = {name: problem for name, problem in probe(addresses, _PROBE_TIMEOUT_S).items() if problem}
        _tell(addresses, unreachable, say)
    steps = decide(lacking, options, unreachable, pinned)
    toolchain = _preflight_build(steps, sources, options)
    directory = _preflight_directory(steps, params, store, options, sources)
    _preflight_room(steps, params["cache_dir"] or default_cache_dir(), toolchain, sources, store)
    if check_mode:
        return Outcome(release, tuple(steps), store, present)
    progress = Progress(say)
    cache_dir = params["cache_dir"] or default_cache_dir()
    say(f"{len(steps)} of {len(wants)} items are missing from {store.root}")
    with cache_lock(cache_dir, progress), mirror_lock(store.root, progress):
        # Another run may have added some items, whose records must not be lost.
        store.load()
        absent = {step.want.title for step in missing([step.want for step in steps], store, options, sources)}
        limits = Limits(timeout_s=params["timeout"], attempts=params["attempts"])
        done: list[Step] = []
        left = [step for step in steps if step.want.title in absent]
        while left:
            builder = Builder(toolchain, sources, cache_dir, progress.stop) if toolchain else None
            filler = Filler(store, sources, builder, lock, cache_dir, limits, params["parallel"], progress, directory)
            others = filler.fill(left, yielding=options.source == "auto")
            refused = {step.want.title for step in others}
            done += [step for step in left if step.want.title not in refused]
            left = others
            toolchain = _preflight_build(left, sources, options)
        lacking = missing(wants, store, options, sources)
    if lacking:
        raise MirrorError("the mirror was filled, and still " + "; ".join(step.describe() for step in lacking))
    store.remember_verified()
    return Outcome(release, tuple(done), store, present)


def _tell(addresses: Mapping[str, str], unreachable: Mapping[str, str], say: Say) -> None:
    for name in sorted(addresses):
        problem = unreachable.get(name)
        say(f"{name}: {'does not answer, so its programs are built here: ' + problem if problem else 'answers'}")


def _preflight_build(steps: list[Step], sources: Sources, options: Options) -> Toolchain | None:
    """The Go toolchain if one is needed; checks userlands too, before anything is changed."""
    modules = set()
    for step in steps:
        if step.source != "build":
            continue
        if step.want.component is not None:
            modules |= {recipe.module for recipe in step.want.component.builds}
        build = step.want.image.build if step.want.image else None
        if build is not None and build.recipe is not None:
            modules.add(build.recipe.module)
        if build is not None and build.userland is not None:
            here = userland.machine_architecture()
            foreign = [arch for arch in step.want.arches if arch != here]
            if foreign:
                raise MirrorError(
                    f"{step.want.title}: its userland comes from the packages of this machine's distribution "
                    f"({here or 'which has no apt'}), and {', '.join(foreign)} is wanted; use source: upstream or "
                    "directory, or demo: false"
                )
    if not modules:
        return None
    first = next(step for step in steps if step.source == "build")
    if options.source == "build":
        why, otherwise = "source: build", "source: upstream or directory"
    else:
        why = f"{first.want.title} would be built here, since {first.because}: that"
        otherwise = "source: directory with a mirror that was filled elsewhere"
    return check_toolchain(find_toolchain(), sources, sorted(modules), why, otherwise)


def _preflight_room(
    steps: list[Step], cache_dir: str, toolchain: Toolchain | None, sources: Sources, store: Store
) -> None:
    """Raises MirrorError if builds have too little room, which they would only notice after many minutes."""
    if toolchain is None:
        return
    builds = Builder(toolchain, sources, cache_dir, threading.Event()).unbuilt(builds_of(steps))
    environment = toolchain.environment()
    go = {name: environment[name] for name in ("GOCACHE", "GOMODCACHE") if environment.get(name)}
    faults = room.check(builds, {"mirror_dir": store.root, "cache_dir": cache_dir, **go})
    if faults:
        raise MirrorError("; ".join(faults))


def _preflight_directory(
    steps: list[Step], params: Mapping[str, Any], store: Store, options: Options, sources: Sources
) -> Store | None:
    """The directory to copy from. Raises MirrorError that lists everything missing."""
    if options.source != "directory":
        return None
    path = params["source_dir"] or store.root
    if not os.path.isdir(path):
        raise MirrorError(f"source: directory: {path} is not there; copy a filled mirror to it")
    directory = Store(path)
    lacking = missing([step.want for step in steps], directory, options, sources)
    if lacking:
        raise MirrorError(
            f"source: directory: {directory.root} is not complete for these options: "
            + "; ".join(f"{step.want.title} {step.reason}" for step in lacking)
            + "; copy it again from a mirror that was filled with the same options"
        )
    return directory


MODULE = Module(ARGUMENT_SPEC, run, (MirrorError, FileError))
