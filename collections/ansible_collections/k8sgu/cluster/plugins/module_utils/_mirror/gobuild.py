# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds programs from their Go modules, reproducibly.

A recipe's directory below releases/build has the go.mod and go.sum that pin every source. Programs are kept in the
user's cache, under a key made from everything that goes into them, so that a second mirror costs only a hard link.
"""

# Paths come and go as text here.
# ruff: noqa: PTH101, PTH103, PTH108, PTH110, PTH118, PTH123, PTH208
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field, replace
from typing import Callable, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import three
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import sha256_of
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError, storage_errors
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.files import place
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import Recipe, program_name

# Part of the key: a change here changes the programs.
_FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
_LINKER = "-s -w -buildid="
# Settings that change the result. The user's own must not, whether from the environment or from `go env -w` (GOENV).
_FIXED = {
    "GOENV": "off",
    "CGO_ENABLED": "0",
    "GOOS": "linux",
    "GOAMD64": "v1",
    "GOARM64": "v8.0",
    "GOFLAGS": "",
    "GOWORK": "off",
    "GOEXPERIMENT": "",
    "GOTOOLCHAIN": "local",
    "GO111MODULE": "on",
}
# Settings that only make it faster, used if memory is plenty and the user has set none: compilers live for seconds, and
# with Go's default of 100 a quarter of a build's time goes to garbage collection. With a lower limit, which one package
# comes near to (kube-router's EC2 client), a compiler would do nothing but collect garbage.
# https://pkg.go.dev/runtime#hdr-Environment_Variables
_PACE = {"GOGC": "400", "GOMEMLIMIT": "4GiB"}
_PACE_FROM_BYTES = 15 << 30  # what a machine sold with 16 GiB has
# Settings of the user's that are kept: where sources come from, how they are verified, where they are cached.
_USERS = ("GOPROXY", "GOPRIVATE", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOCACHE", "GOMODCACHE")
INSTALL_GO = (
    "install it from https://go.dev/dl/ (or the distribution's golang package where that is new enough) and put it on "
    "PATH, or choose "
)
# The kernel ends the builds of a killed run, since their parent can no longer do so.
_LEASH = ("setpriv", "--pdeathsig", "KILL", "--")
_BUILD_TIMEOUT_S = 2 * 3600
_FETCH_TIMEOUT_S = 600


@dataclass(frozen=True)
class Toolchain:
    path: str
    version: str  # "1.26.8"
    # The settings of _USERS. Not shown: the address of a proxy may contain a password.
    settings: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of the go command: the user's settings, and those that the recipes fix."""
        users = {name: os.environ.get(name) or value for name, value in self.settings}
        return {**pace(_memory()), **os.environ, **users, **_FIXED, **changes}


@dataclass(frozen=True)
class Order:
    """One `go build`: recipes of one module with the same flags share it, and with it their compiled packages."""

    module: str
    tags: tuple[str, ...]
    stamp: tuple[tuple[str, str], ...]
    arch: str
    tree: str
    instead: tuple[tuple[str, str], ...]
    packages: tuple[tuple[str, str], ...]  # (program, package)

    @property
    def flags(self) -> Order:
        """The order without its programs: two recipes that agree in this are built together."""
        return replace(self, packages=())


def orders(recipes: Iterable[tuple[Recipe, str]]) -> list[Order]:
    """The builds for (recipe, architecture) pairs, merged where possible."""
    merged: dict[Order, dict[str, str]] = {}
    for recipe, arch in recipes:
        flags = Order(recipe.module, recipe.tags, recipe.stamp, arch, recipe.tree, recipe.instead, ())
        merged.setdefault(flags, {}).update(recipe.packages)
    return [replace(flags, packages=tuple(packages.items())) for flags, packages in merged.items()]


class Sources:
    """The directory releases/build: the keys of its recipes, read once."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._digests: dict[str, str] = {}
        self._lock = threading.Lock()

    def directory(self, module: str) -> str:
        return os.path.join(self.root, module)

    def key(self, recipe: Recipe | Order, package: str, arch: str) -> str:
        """A hash of what a program is made from: sources and their pins, flags, architecture; not the Go version."""
        flags = [recipe.tags, recipe.stamp, recipe.tree, recipe.instead, _FLAGS, _LINKER, _FIXED]
        parts = [self._digest(recipe.module), package, arch, *flags]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _digest(self, module: str) -> str:
        with self._lock:
            if module not in self._digests:
                self._digests[module] = self._read(module)
            return self._digests[module]

    def _read(self, module: str) -> str:
        directory = self.directory(module)
        digest = hashlib.sha256()
        try:
            names = sorted(entry.name for entry in os.scandir(directory) if entry.is_file())
            for name in names:
                if not name.startswith(".") and not name.endswith("_test.go"):
                    with open(os.path.join(directory, name), "rb") as stream:
                        digest.update(f"{name}\0".encode() + hashlib.sha256(stream.read()).digest())
        except OSError as error:
            raise MirrorError(f"{directory}: {error.strerror}; the recipe of the build cannot be read") from error
        if "go.mod" not in names:
            raise MirrorError(f"{directory}/go.mod is missing; nothing is built without its pins")
        return digest.hexdigest()

    def required_go(self, module: str) -> str:
        """The lowest Go version that builds the module, from the go line of its go.mod."""
        path = os.path.join(self.directory(module), "go.mod")
        with open(path, encoding="utf-8") as stream:
            match = re.search(r"^go (\d+\.\d+(?:\.\d+)?)\s*$", stream.read(), re.MULTILINE)
        if not match:
            raise MirrorError(f"{path}: has no go line")
        return match.group(1)


def find_toolchain() -> Toolchain | None:
    """The Go toolchain on PATH, or where https://go.dev/doc/install puts it; None when there is none."""
    path = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if path is None:
        return None
    try:
        answer = subprocess.run(
            [path, "env", "-json", "GOVERSION", *_USERS],
            env={**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": ""},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found: dict[str, str] = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    match = re.match(r"go(\d+(?:\.\d+)*)", found.pop("GOVERSION", ""))
    return Toolchain(path, match.group(1), tuple(found.items())) if match else None


def check_toolchain(
    toolchain: Toolchain | None, sources: Sources, modules: Iterable[str], why: str, otherwise: str
) -> Toolchain:
    """Raises MirrorError if Go is missing, or too old for one of the modules.

    The message begins with `why` (something is built) and ends with `otherwise` (what to choose instead).
    """
    needed = {module: sources.required_go(module) for module in modules}
    if not needed:
        raise AssertionError("nothing to build")
    module, newest = max(needed.items(), key=lambda item: three(item[1]))
    needs = f"{why} needs Go {newest} or newer"
    if toolchain is None:
        raise MirrorError(f"{needs}, and there is no `go` on PATH; {INSTALL_GO}{otherwise}")
    if three(toolchain.version) < three(newest):
        raise MirrorError(
            f"{needs} (for {module}), and {toolchain.path} is {toolchain.version}; {INSTALL_GO}{otherwise}"
        )
    return toolchain


def pace(memory: int) -> Mapping[str, str]:
    """The garbage collector's settings for a machine with `memory` bytes."""
    return _PACE if memory >= _PACE_FROM_BYTES else {}


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Builder:
    """Runs `go build` and keeps what it made."""

    def __init__(self, toolchain: Toolchain, sources: Sources, cache_dir: str, stop: threading.Event) -> None:
        self._toolchain = toolchain
        self._sources = sources
        self._cache = os.path.join(cache_dir, "build")
        self._stop = stop

    def cached(self, order: Order, package: str) -> str:
        """The path of `package`'s program in the cache."""
        key = f"{self._sources.key(order, package, order.arch)} {self._toolchain.version}"
        name = next(program for program, offered in order.packages if offered == package)
        return os.path.join(self._cache, hashlib.sha256(key.encode()).hexdigest(), name)

    def unbuilt(self, plan: Iterable[Order]) -> list[Order]:
        """The orders with a program that is not in the cache. Does not check whether cached ones are intact."""
        return [
            order
            for order in plan
            if not all(os.path.exists(self.cached(order, package) + ".sha256") for _program, package in order.packages)
        ]

    def build(self, order: Order, on_progress: Callable[[str], None]) -> dict[str, str]:
        """{program: path in the cache}, after building those that are missing. Raises MirrorError."""
        kept = {program: self.cached(order, package) for program, package in order.packages}
        missing = [(program, package) for program, package in order.packages if not self._complete(kept[program])]
        if missing:
            with storage_errors(self._cache):
                os.makedirs(self._cache, 0o755, exist_ok=True)
                self._clean()
                with tempfile.TemporaryDirectory(prefix=f"building-{os.getpid()}-", dir=self._cache) as work:
                    self._go_build(order, [package for _program, package in missing], work, on_progress)
                    for program, package in missing:
                        self._keep(os.path.join(work, _output_name(order.module, package)), kept[program])
        return kept

    def _complete(self, path: str) -> bool:
        try:
            with open(path + ".sha256", encoding="ascii") as stream:
                return stream.read() == sha256_of(path)
        except OSError:
            return False

    def _keep(self, made: str, path: str) -> None:
        with open(made, "rb") as stream:
            os.fsync(stream.fileno())
        place(made, path, 0o755)
        # Write the checksum last: a program without one counts as unfinished.
        with open(path + ".sha256", "w", encoding="ascii") as stream:
            stream.write(sha256_of(path))

    def _clean(self) -> None:
        """Remove working directories of killed runs."""
        for entry in os.scandir(self._cache):
            match = re.fullmatch(r"building-(\d+)-.*", entry.name)
            if match and not os.path.exists(f"/proc/{match.group(1)}"):
                shutil.rmtree(entry.path, ignore_errors=True)

    def _go_build(self, order: Order, packages: list[str], work: str, on_progress: Callable[[str], None]) -> None:
        linker = " ".join([_LINKER, *(f"-X {name}={value}" for name, value in order.stamp)])
        argv = [self._toolchain.path, "build", "-v", *_FLAGS, "-ldflags", linker, "-o", work + os.sep]
        if order.tags:
            argv += ["-tags", ",".join(order.tags)]
        argv += packages
        environment = self._toolchain.environment(GOARCH=order.arch, TMPDIR=work)
        lines: list[str] = []
        directory = self._sources.directory(order.module)
        if order.tree:
            directory = self._tree(order, directory, os.path.join(work, "tree"), environment)
        with subprocess.Popen(
            [*_leash(), *argv],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            watch = threading.Thread(target=self._watch, args=(process,), daemon=True)
            watch.start()
            compiled = fetched = 0
            for line in process.stderr or ():
                if line.startswith("go: downloading "):
                    fetched += 1
                    on_progress(f"{fetched} modules fetched")
                elif re.fullmatch(r"[A-Za-z0-9._~/+-]+\n?", line):
                    compiled += 1
                    on_progress(f"{compiled} packages compiled")
                else:
                    lines.append(line.rstrip())
            status = process.wait()
        if self._stop.is_set():
            raise MirrorError("stopped, since another part failed")
        if status != 0:
            raise MirrorError(_explain(order, status, lines))

    def _tree(self, order: Order, directory: str, copy: str, environment: Mapping[str, str]) -> str:
        """A copy of a module's published sources, verified by the recipe's go.sum, without some packages."""
        argv = [self._toolchain.path, "mod", "download", "-json", order.tree]
        try:
            answer = subprocess.run(
                [*_leash(), *argv],
                cwd=directory,
                env=dict(environment),
                capture_output=True,
                text=True,
                timeout=_FETCH_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MirrorError(f"{order.tree}: its sources did not arrive within {_FETCH_TIMEOUT_S} s") from error
        if answer.returncode != 0:
            raise MirrorError(
                _explain(order, answer.returncode, [*answer.stdout.splitlines(), *answer.stderr.splitlines()])
            )
        shutil.copytree(json.loads(answer.stdout)["Dir"], copy, copy_function=shutil.copyfile)
        for path, _directories, _files in os.walk(copy):
            os.chmod(path, 0o700)  # the module cache is read-only
        for package, file_name in order.instead:
            target = os.path.join(copy, package)
            for name in os.listdir(target):
                os.unlink(os.path.join(target, name))
            shutil.copyfile(os.path.join(directory, file_name), os.path.join(target, "left_out.go"))
        return copy

    def _watch(self, process: subprocess.Popen[str]) -> None:
        """End the build when another part failed, or when it takes longer than any build should."""
        waited = 0.0
        while process.poll() is None:
            if self._stop.wait(0.5) or waited > _BUILD_TIMEOUT_S:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                return
            waited += 0.5


def _leash() -> tuple[str, ...]:
    """The prefix of a command that must not outlive this process; empty if the machine has no such program."""
    return _LEASH if shutil.which(_LEASH[0]) else ()


def _output_name(module: str, package: str) -> str:
    """The name that `go build -o DIR/` gives a program: `.` is named after its module, k8sgu.io/build/<module>."""
    return module.split("/")[0] if package == "." else program_name(package)


def _explain(order: Order, status: int, lines: list[str]) -> str:
    tail = "\n".join(lines[-12:])
    names = ", ".join(program for program, _package in order.packages)
    hint = ""
    if re.search(r"no such host|dial tcp|i/o timeout|connection refused|proxyconnect", tail):
        hint = (
            " Go could not fetch sources: let it reach a module proxy (GOPROXY), or choose source: directory with a "
            "mirror that was filled elsewhere."
        )
    elif "checksum mismatch" in tail or "missing go.sum entry" in tail:
        hint = " A source does not match the committed go.sum; it was not used."
    elif "no space left" in tail:
        hint = " The disk is full: free some, or point TMPDIR, GOCACHE and GOMODCACHE elsewhere."
    return f"go build of {names} ({order.module}, {order.arch}) ended with status {status}.{hint}\n{tail}"
