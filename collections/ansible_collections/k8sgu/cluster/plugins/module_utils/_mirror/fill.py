# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fills the mirror: the only part with side effects. Every item is placed atomically, then recorded."""

# Paths come and go as text here.
# ruff: noqa: PTH103, PTH110, PTH116, PTH118, PTH119
from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Iterable, Iterator, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import sha256_of
from ansible_collections.k8sgu.cluster.plugins.module_utils._files.present import present
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import oci, userland
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.archive import extract
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.checksums import Lock, published_sum
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import (
    MirrorError,
    Unavailable,
    storage_errors,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.files import (
    DATA_MODE,
    PROGRAM_MODE,
    place,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import Builder, Order, Sources, orders
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.plan import Step, fallback, fill, image_key
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.progress import Progress, megabytes
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.registry import Registry, pull, resolve
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import Component, Image, ImageBuild, Recipe
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.store import Store, file_path, image_path
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.transport import Limits, download, read_small

# One build uses every core while it compiles; a second one uses the cores that linking (one core) leaves idle.
_BUILDS_AT_ONCE = 2
_LOCK_TIMEOUT_S = 3600
_USERLAND_MAX_AGE_S = 7 * 86400
_PASSWD = b"".join(
    b"%s:x:%d:%d::/:/sbin/nologin\n" % user
    for user in ((b"root", 0, 0), (b"nobody", 65534, 65534), (b"nonroot", 65532, 65532))
)
_GROUP = b"root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n"


@contextlib.contextmanager
def cache_lock(cache_dir: str, progress: Progress) -> Iterator[None]:
    """Lets one run of a user fill at a time: a second one would only slow the first down."""
    with storage_errors(cache_dir):
        os.makedirs(cache_dir, exist_ok=True)
        handle = os.open(os.path.join(cache_dir, "lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait_for(handle, f"cache_dir: another run has been filling from {cache_dir}", "from the same cache", progress)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def mirror_lock(root: str, progress: Progress) -> Iterator[None]:
    """Lets one run fill a mirror at a time, since each writes the whole manifest. The directory is the lock."""
    with storage_errors(root):
        os.makedirs(root, 0o755, exist_ok=True)
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _wait_for(handle, f"mirror_dir: another run has been filling {root}", "in the same place", progress)
        yield
    finally:
        os.close(handle)


def _wait_for(handle: int, busy: str, where: str, progress: Progress) -> None:
    """Lock an open file or directory; the lock ends with the process."""
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    told = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise MirrorError(f"{busy} for {_LOCK_TIMEOUT_S} s; end it and try again") from None
            if not told:
                progress.say_now(f"another run is filling a mirror {where}; waiting for it")
                told = True
            time.sleep(0.2)
        except OSError:
            return  # the file system has no locks: go on without


class Filler:
    def __init__(
        self,
        store: Store,
        sources: Sources,
        builder: Builder | None,
        lock: Lock,
        cache_dir: str,
        limits: Limits,
        parallel: int,
        progress: Progress,
        directory: Store | None,
    ) -> None:
        self._store = store
        self._sources = sources
        self._builder = builder
        self._lock = lock
        self._cache = cache_dir
        self._limits = limits
        self._parallel = parallel
        self._progress = progress
        self._directory = directory
        self._yielding = False
        self._yielded: list[Step] = []

    def fill(self, steps: Iterable[Step], yielding: bool) -> list[Step]:
        """Carry the steps out. Raises MirrorError when one fails; what was finished by then is recorded.

        yielding: when a publisher does not serve an item that another source has, do not fail. Return steps that use
        the other source, to be carried out next.
        """
        steps = list(steps)
        self._yielding = yielding
        self._yielded = []
        built = [step for step in steps if step.source == "build"]
        plan = builds_of(built)
        images = [step for step in built if step.want.image]
        others = [step for step in steps if step.source != "build"]
        self._progress.expect(len(plan) + len(images) + len(others))
        # Programs that images need are only in the cache; the second round finds them there.
        self._round(
            [(self._build, (order, built)) for order in _longest_first(plan)],
            [(self._other, (step,)) for step in others],
        )
        self._round([], [(self._assemble, (step,)) for step in images])
        return self._yielded

    def _round(self, builds: list[tuple[Any, tuple[Any, ...]]], transfers: list[tuple[Any, tuple[Any, ...]]]) -> None:
        with ThreadPoolExecutor(_BUILDS_AT_ONCE) as compiling, ThreadPoolExecutor(self._parallel) as transferring:
            futures: list[Future[None]] = [compiling.submit(job, *arguments) for job, arguments in builds]
            futures += [transferring.submit(job, *arguments) for job, arguments in transfers]
            self._progress.follow(futures)

    def _build(self, order: Order, steps: list[Step]) -> None:
        builder = present(self._builder, "the preflight made it")
        names = [program for program, _package in order.packages]
        title = f"{order.module} {order.arch}"
        started = time.monotonic()
        self._progress.start(title)
        kept = builder.build(order, lambda state: self._progress.update(title, state))
        for step in steps:
            component = step.want.component
            if component is not None and step.want.arches == (order.arch,):
                ours = [recipe for recipe in component.builds if orders([(recipe, order.arch)])[0].flags == order.flags]
                programs = [name for recipe in ours for name, _package in recipe.packages]
                self._place(component, order, {name: kept[name] for name in programs})
        size = sum(os.stat(path).st_size for path in kept.values())
        took = time.monotonic() - started
        shown = ", ".join(names) if len(names) <= 8 else f"{len(names)} programs"
        self._progress.finish(title, f"{title}: built {shown} ({megabytes(size)}, {took:.0f} s)")

    def _place(self, component: Component, order: Order, made: Mapping[str, str]) -> None:
        entries = []
        for name, source in made.items():
            relative = file_path(component.name, component.version, order.arch, name)
            place(source, self._store.path(relative), PROGRAM_MODE)
            package = dict(order.packages)[name]
            extra = {"key": self._sources.key(order, package, order.arch), "origin": package}
            entries.append(self._entry(component, order.arch, name, relative, "build", extra))
        self._store.add_files(entries)

    def _entry(
        self, component: Component, arch: str, name: str, relative: str, source: str, extra: Mapping[str, str]
    ) -> dict[str, Any]:
        path = self._store.path(relative)
        return {
            "component": component.name,
            "name": name,
            "version": component.version,
            "arch": arch,
            "source": source,
            "path": relative,
            "sha256": sha256_of(path),
            "size": os.stat(path).st_size,
            **extra,
        }

    def _other(self, step: Step) -> None:
        title = step.want.title
        started = time.monotonic()
        self._progress.start(title)
        if step.source == "distribution":
            told = self._distribution(step)
        elif step.source == "directory":
            told = self._copy(step)
        else:
            told = self._fetch(step, title)
        self._progress.finish(title, f"{title}: {told} ({time.monotonic() - started:.0f} s)")

    def _fetch(self, step: Step, title: str) -> str:
        try:
            if step.want.component is not None:
                return self._download(step.want.component, step.want.arches[0], title)
            return self._pull(step, title)
        except Unavailable as problem:
            other = fallback(step, str(problem)) if self._yielding else None
            if other is None:
                raise
            self._yielded.append(other)
            return f"{problem}; source: {other.source} instead"

    def _distribution(self, step: Step) -> str:
        component = present(step.want.component, "images do not come from the distribution")
        self._store.add_package(
            {
                "component": component.name,
                "version": component.version,
                "arch": step.want.arches[0],
                "package": component.distribution,
                "source": "distribution",
            }
        )
        return f"the nodes' distribution serves with its package {component.distribution}"

    def _download(self, component: Component, arch: str, title: str) -> str:
        upstream = present(component.upstream, "its address was found when the source was decided")
        url = fill(upstream.url, component.version, arch)
        digest, origin = self._sum(component, arch, url)
        kept = os.path.join(self._cache, "download", digest, os.path.basename(url))
        if not (os.path.exists(kept) and sha256_of(kept) == digest):
            download(url, kept, digest, self._limits, self._progress.stop, self._share_of(title))
        if origin:
            self._lock.pin("files", url, digest)
        base = file_path(component.name, component.version, arch, "")
        if upstream.files:
            placed = extract(kept, upstream.files, self._store.path(base))
        else:
            placed = {component.name: self._store.path(base + component.name)}
            place(kept, placed[component.name], PROGRAM_MODE)
        self._store.add_files(
            self._entry(component, arch, name, base + name, "upstream", {"origin": url}) for name in sorted(placed)
        )
        return f"downloaded from {url} ({megabytes(os.stat(kept).st_size)})"

    def _sum(self, component: Component, arch: str, url: str) -> tuple[str, str]:
        """(SHA-256 of a published file, address from which it was read; empty when it was pinned before)."""
        upstream = present(component.upstream, "its address was found when the source was decided")
        pinned = upstream.sha256.get(arch) or self._lock.get("files", url)
        if pinned:
            return pinned, ""
        if not upstream.checksums:
            raise MirrorError(f"{component.name}: no checksum is known for {arch}, nor an address to read one from")
        address = fill(upstream.checksums, component.version, arch)
        body = read_small(address, self._limits, self._progress.stop)
        digest = published_sum(body.decode("utf-8", "replace"), os.path.basename(url))
        if digest is None:
            raise MirrorError(f"{address}: gives no SHA-256 for {os.path.basename(url)}; unverified files are not used")
        return digest, address

    def _pull(self, step: Step, title: str) -> str:
        image = present(step.want.image, "what is no component is an image")
        registry = Registry(image.registry, image.repository, self._limits, self._progress.stop)
        relative = image_path(image.registry, image.repository)
        layout = self._store.path(relative)
        resolved = resolve(registry, image.name, image.tag, self._lock.get("images", image.name))
        digest = pull(registry, layout, image.name, image.tag, step.want.arches, resolved, self._share_of(title))
        self._lock.pin("images", image.name, digest.partition(":")[2])
        self._store.add_image(_image_entry(image, relative, step.want.arches, digest, "upstream", {}))
        return f"pulled {digest[:19]}"

    def _share_of(self, title: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress.update(title, _share(done, total))

    def _copy(self, step: Step) -> str:
        source = present(self._directory, "the preflight opened it")
        component, image = step.want.component, step.want.image
        if component is not None:
            arch = step.want.arches[0]
            package = source.package(component.name, component.version, arch)
            if package is not None:
                self._store.add_package(package)
                return "recorded as the distribution's"
            paths = [file_path(component.name, component.version, arch, name) for name in component.files]
            for path in paths:
                place(source.path(path), self._store.path(path), PROGRAM_MODE)
                problem = self._store.intact(path, str(source.files[path]["sha256"]), int(source.files[path]["size"]))
                if problem:
                    raise MirrorError(f"{source.path(path)}: {problem} once copied; copy the directory again")
            self._store.add_files(source.files[path] for path in paths)
        elif image is not None:
            relative = image_path(image.registry, image.repository)
            arches = source.images[image.name]["arches"]
            _copy_image(source.path(relative), self._store.path(relative), image, arches)
            self._store.add_image(source.images[image.name])
        return f"taken from {source.root}"

    def _assemble(self, step: Step) -> None:
        image = present(step.want.image, "only images are assembled")
        build = present(image.build, "only an image with a recipe is built")
        title = image.name
        arches = step.want.arches
        started = time.monotonic()
        self._progress.start(title)
        key = image_key(image, arches, self._sources)
        kept = os.path.join(self._cache, "image", key)
        if not _fresh(kept, image, arches):
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.ExitStack() as stack:
                parts = {}
                for arch in arches:
                    layer, labels = self._layer(image, build, arch, stack)
                    labels["org.opencontainers.image.ref.name"] = image.name
                    parts[arch] = (layer, _config(build, labels))
                oci.write_image(kept, image.name, image.tag, parts)
        relative = image_path(image.registry, image.repository)
        digest = _copy_image(kept, self._store.path(relative), image, arches)
        self._store.add_image(_image_entry(image, relative, arches, digest, "build", {"key": key}))
        self._progress.finish(title, f"{title}: assembled ({time.monotonic() - started:.0f} s)")

    def _layer(
        self, image: Image, build: ImageBuild, arch: str, stack: contextlib.ExitStack
    ) -> tuple[oci.Layer, dict[str, str]]:
        labels: dict[str, str] = {}
        layer = oci.Layer()
        if build.userland is not None:
            clean_work(self._cache)
            work = stack.enter_context(tempfile.TemporaryDirectory(prefix=f"userland-{os.getpid()}-", dir=self._cache))
            made = userland.assemble(build.userland, work)
            layer = made.layer
            self._progress.notes(_other_version(image, build, made.versions))
            labels["io.k8sgu.packages"] = ", ".join(
                f"{name} {version}" for name, version in sorted(made.versions.items())
            )
        layer.files["/etc/passwd"] = (_PASSWD, 0o644)
        layer.files["/etc/group"] = (_GROUP, 0o644)
        layer.directories["/tmp"] = 0o1777  # noqa: S108 - the image's own
        for path in build.directories:
            layer.directories[path] = 0o755
        if build.recipe is not None:
            builder = present(self._builder, "the preflight made it")
            for order in orders([(build.recipe, arch)]):
                kept = builder.build(order, lambda _state: None)
                layer.files.update({path: (kept[program], 0o755) for path, program in build.layout})
        layer.links.update(dict(build.links))
        for path, owner in build.owner:
            user, _colon, group = owner.partition(":")
            layer.owners[path] = (int(user), int(group or user))
        layer.bind_low_ports |= set(build.bind_low_ports)
        return layer, labels


def clean_work(cache_dir: str) -> None:
    """Remove working directories of killed runs."""
    for entry in os.scandir(cache_dir):
        match = re.fullmatch(r"userland-(\d+)-.*", entry.name)
        if match and not os.path.exists(f"/proc/{match.group(1)}"):
            shutil.rmtree(entry.path, ignore_errors=True)


def _copy_image(source: str, layout: str, image: Image, arches: Iterable[str]) -> str:
    """Copy a tag's blobs into another layout, then set the tag there; returns the digest."""
    descriptor = oci.tags(source)[image.tag]
    needed, _found = oci.blobs(source, descriptor, arches)
    for digest, _size in needed:
        place(oci.blob_path(source, digest), oci.blob_path(layout, digest), DATA_MODE)
    oci.set_tag(layout, image.name, image.tag, descriptor)
    return str(descriptor["digest"])


def _other_version(image: Image, build: ImageBuild, versions: Mapping[str, str]) -> list[str]:
    """A warning if an image made only of packages has a version (its first package's) that is not its tag's."""
    if build.recipe is not None or build.userland is None:
        return []
    package = build.userland.packages[0]
    found = upstream_version(versions.get(package, ""))
    if found == image.tag.removeprefix("v"):
        return []
    return [
        f"{image.name}: this distribution's {package} is {found}, and that is what the image has under the tag "
        f"{image.tag}; use source: upstream for {image.tag} itself"
    ]


def upstream_version(version: str) -> str:
    """A package's version without the distribution's epoch and revision: 5:7.0.15-1~deb12u1 gives 7.0.15."""
    return re.sub(r"[-+~].*", "", version.rpartition(":")[2])


def _fresh(layout: str, image: Image, arches: Iterable[str]) -> bool:
    """Whether an assembled image is complete, and recent enough that its packages lack no security fix for long."""
    try:
        descriptor = oci.tags(layout)[image.tag]
        needed, found = oci.blobs(layout, descriptor, arches)
        age = time.time() - os.stat(os.path.join(layout, "index.json")).st_mtime
        whole = all(sha256_of(oci.blob_path(layout, digest)) == digest.partition(":")[2] for digest, _size in needed)
    except (MirrorError, OSError, KeyError, TypeError):
        return False
    userland_is_old = image.build is not None and image.build.userland is not None and age > _USERLAND_MAX_AGE_S
    return whole and found == set(arches) and not userland_is_old


def builds_of(steps: Iterable[Step]) -> list[Order]:
    """The builds that the steps need."""
    return orders(_recipes(step for step in steps if step.source == "build"))


def _recipes(steps: Iterable[Step]) -> list[tuple[Recipe, str]]:
    pairs = []
    for step in steps:
        component, image = step.want.component, step.want.image
        for arch in step.want.arches:
            if component is not None:
                pairs += [(recipe, arch) for recipe in component.builds]
            elif image is not None and image.build is not None and image.build.recipe is not None:
                pairs.append((image.build.recipe, arch))
    return pairs


def _longest_first(plan: list[Order]) -> list[Order]:
    """Puts Kubernetes first: it takes as long as all the others together, which run beside it."""
    return sorted(plan, key=lambda order: -len(order.packages) if order.module.startswith("kubernetes/") else 0)


def _config(build: ImageBuild, labels: Mapping[str, str]) -> dict[str, Any]:
    return oci.config_of(
        build.entrypoint, build.command, build.user, build.workdir, build.ports, build.environment, labels
    )


def _image_entry(
    image: Image, path: str, arches: Iterable[str], digest: str, source: str, extra: Mapping[str, str]
) -> dict[str, Any]:
    return {"name": image.name, "path": path, "arches": list(arches), "digest": digest, "source": source, **extra}


def _share(done: int, total: int) -> str:
    return f"{megabytes(done)} of {megabytes(total)}, {100 * done // total}%" if total else megabytes(done)
