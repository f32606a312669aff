"""The base image that nodes' disks are made from.

Made once by mmdebstrap from the host's own package archive (Debian's or Ubuntu's), or as the environment variable
EC2LAB_DISTRIBUTION says: another release from a Debian host's archive (debian-11, debian-12, debian-13), Ubuntu from
Ubuntu's archive (ubuntu, ubuntu-20.04, ubuntu-22.04, ubuntu-24.04), or `oldest`, the first of these that the host's
own distribution has. Its name in the cache is the hash of its recipe: the package list, the files in `recipe/node` and
the archive's addresses. A changed recipe makes a new image.

An image is a directory:

    usr/            shared by all nodes, each with a writable overlay of its own above it
    skeleton/       everything else of the root file system
    disk-<n>.ext4   an empty node's disk of n GiB with the skeleton on it, sparse; a node's disk is a copy
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from ec2lab.errors import LabError, Timeout
from ec2lab.shell import run

RECIPE = Path(__file__).parent / "recipe"
BUILD_TIMEOUT_S = 20 * 60
DISTRIBUTION_VARIABLE = "EC2LAB_DISTRIBUTION"
DEBIAN_RELEASES = {"debian-11": "bullseye", "debian-12": "bookworm", "debian-13": "trixie"}
UBUNTU_RELEASES = {"ubuntu-20.04": "focal", "ubuntu-22.04": "jammy", "ubuntu-24.04": "noble"}
UBUNTU_DEFAULT = "ubuntu-22.04"
# Debian has no package with Ubuntu's archive keys (790BC7277767219C42C86F933B4FE6ACC0B21F32,
# F6ECB3762474EDA9D21B7022871920D1991BC93C); this is Ubuntu's own, which holds them.
UBUNTU_KEYRING = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2021.03.26_all.deb"
UBUNTU_KEYRING_SHA256 = "0d0e7ed6b112f5d03eabf3c7eb01ebdacf9c57714b279e90495cfc58c8c4520f"
UBUNTU_TIMEOUT_S = 30
# The size of an instance's disk by default.
DISK_GIB = 8
# Raise this when this module treats the recipe's files differently.
FORMAT = 2
# Programs of the node. They are recognised by their place and not executable in the checkout, so that no tool that
# runs every executable of a directory starts a node's program on a host.
PROGRAMS = "usr/lib/ec2lab"

# Units that an idle node does not need.
MASKED = (
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-pstore.service",
    "systemd-journald-audit.socket",
    "systemd-networkd-wait-online.service",
    "dev-hugepages.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-kernel-config.mount",
    "sys-fs-fuse-connections.mount",
    "console-getty.service",
    "getty@.service",
    "serial-getty@.service",
    "container-getty@.service",
    "getty-static.service",
    "getty.target",
    "remote-cryptsetup.target",
    "nftables.service",
    "modprobe@.service",  # a node loads no modules
)
# What a cloud image does by itself: a node has it only if asked for at launch; machine/container.py masks it otherwise.
FIRST_BOOT = ("apt-daily.timer", "apt-daily-upgrade.timer", "unattended-upgrades.service")
# Ubuntu's systemd enables these; a node's address and name server are set from outside.
MASKED_ON_UBUNTU = (
    "motd-news.timer",
    "networkd-dispatcher.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
)
ENABLED = {
    "ec2lab-first-boot.service": "multi-user.target",
    "ec2lab-host.service": "sysinit.target",
    "ec2lab-ready.service": "multi-user.target",
    "ec2lab-user-data.service": "multi-user.target",
}


class Base(Protocol):
    """What a machine's disk is made from."""

    @property
    def key(self) -> str: ...

    @property
    def path(self) -> Path: ...

    def disk(self, gib: int) -> Path: ...


@dataclass(frozen=True)
class Image:
    """A finished image in the cache."""

    key: str  # the hash of its recipe
    distribution: str  # "debian" or "ubuntu"
    release: str  # "bookworm"
    architecture: str  # as EC2 says it: "x86_64" or "arm64"
    path: Path

    @property
    def usr(self) -> Path:
        return self.path / "usr"

    def disk(self, gib: int) -> Path:
        """The disk template of this size, made when it is first used."""
        template = self.path / f"disk-{gib}.ext4"
        if not template.exists():
            with locked():
                if not template.exists():  # another launch may have made it meanwhile
                    _make_disk(self.path / "skeleton", template, gib)
        return template


@dataclass(frozen=True)
class Archive:
    """Where packages come from."""

    distribution: str
    release: str
    sources: tuple[tuple[str, str], ...]  # (file name, content), as in /etc/apt


def cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "ec2lab"


def cached_image() -> Image | None:
    """The image if it is in the cache, else None."""
    return _load(_path(_key(chosen_archive())))


def load(key: str) -> Image:
    """The image from which a machine was made, even if the recipe has changed since; LabError if it is gone."""
    image = _load(_path(key))
    if image is None:
        raise LabError(f"the image {key} is gone from {cache_directory()}, and machines made from it cannot start")
    return image


def ensure_image(progress: Callable[[str], None]) -> Image:
    """The image, made when first used (about a minute); `progress` gets each step's text. Safe to kill at any time."""
    archive = chosen_archive()
    key = _key(archive)
    image = _load(_path(key))
    if image is None:
        with locked(progress):
            image = _load(_path(key))  # another lab may have made it while this one waited
            if image is None:
                sweep()
                image = _build(archive, key, progress)
    image.disk(DISK_GIB)  # so that the first launch need not wait for it
    return image


def chosen_archive() -> Archive:
    """The host's archive, or the one that EC2LAB_DISTRIBUTION names; LabError when it names no known one."""
    chosen = os.environ.get(DISTRIBUTION_VARIABLE, "")
    if chosen == "oldest":
        chosen = next(iter(DEBIAN_RELEASES if host_archive().distribution == "debian" else UBUNTU_RELEASES))
    if chosen in ("", "debian", *DEBIAN_RELEASES):
        archive = host_archive()
        if chosen and archive.distribution != "debian":
            raise LabError(
                f"{DISTRIBUTION_VARIABLE}={chosen} needs a host with Debian; leave it unset for the host's own"
            )
        return of_release(archive, DEBIAN_RELEASES.get(chosen, archive.release))
    release = UBUNTU_RELEASES.get(UBUNTU_DEFAULT if chosen == "ubuntu" else chosen)
    if release is None:
        raise LabError(
            f"{DISTRIBUTION_VARIABLE}={chosen} names no image: use debian, ubuntu, oldest, "
            f"{', '.join((*DEBIAN_RELEASES, *UBUNTU_RELEASES))}, or leave it unset for the host's own distribution"
        )
    address = _ubuntu_archive()
    suites = (release, f"{release}-updates", f"{release}-security")
    lines = "".join(f"deb {address} {suite} main universe\n" for suite in suites)
    return Archive("ubuntu", release, (("sources.list", lines),))


def of_release(archive: Archive, release: str) -> Archive:
    """The same archive with another release: its suites are named after the release."""
    sources = tuple((name, content.replace(archive.release, release)) for name, content in archive.sources)
    return Archive(archive.distribution, release, sources)


def _ubuntu_archive() -> str:
    ports = platform.machine() != "x86_64"
    return "http://ports.ubuntu.com/ubuntu-ports" if ports else "http://archive.ubuntu.com/ubuntu"


def _ubuntu_keyring(directory: Path) -> Path:
    """Ubuntu's archive keys, fetched from the archive and compared with the pinned checksum."""
    address = f"{_ubuntu_archive()}/{UBUNTU_KEYRING}"
    try:
        with urllib.request.urlopen(address, timeout=UBUNTU_TIMEOUT_S) as answer:  # noqa: S310 - a constant
            content = answer.read()
    except OSError as error:
        raise LabError(
            f"Ubuntu's archive cannot be reached ({address}: {error}): "
            f"unset {DISTRIBUTION_VARIABLE} to use the host's own"
        ) from error
    if hashlib.sha256(content).hexdigest() != UBUNTU_KEYRING_SHA256:
        raise LabError(f"{address} is not the keyring package that the recipe names: its SHA-256 differs")
    package = directory / "keyring.deb"
    package.write_bytes(content)
    run(["dpkg-deb", "--extract", str(package), str(directory / "keyring")])
    package.unlink()
    return directory / "keyring/usr/share/keyrings/ubuntu-archive-keyring.gpg"


def host_archive() -> Archive:
    """The host's own distribution and apt sources."""
    facts: dict[str, str] = {}
    for line in Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        facts[name] = value.strip('"')
    distribution, release = facts.get("ID", ""), facts.get("VERSION_CODENAME", "")
    if distribution not in ("debian", "ubuntu"):
        raise LabError(
            f"the nodes' image is made from the host's own package archive, and that must be Debian's or Ubuntu's, "
            f"not {facts.get('PRETTY_NAME', distribution)}'s"
        )
    candidates = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.list"))]
    candidates += sorted(Path("/etc/apt/sources.list.d").glob("*.sources"))
    sources = []
    for path in candidates:
        # Nodes use no other vendors' archives; only the distribution's own have its release as a suite.
        content = path.read_text() if path.is_file() else ""
        if any(release in line for line in content.splitlines() if not line.startswith("#")) and _is_own(content):
            sources.append((path.name, content))
    if not sources:
        raise LabError(f"no apt source for {distribution} {release} in /etc/apt: the nodes' image is made from it")
    return Archive(distribution, release, tuple(sources))


def _is_own(content: str) -> bool:
    """Whether a source is the distribution's own archive: it has a component `main` and no vendor's key."""
    keys = [line.split(":", 1)[1] for line in content.splitlines() if line.lower().startswith("signed-by:")]
    words = content.replace("]", " ").split()
    return "main" in words and all("debian-archive" in key or "ubuntu-archive" in key for key in keys)


def _packages() -> list[str]:
    return listed(RECIPE / "packages.txt")


def listed(path: Path) -> list[str]:
    """The packages that a list of the recipe names."""
    lines = path.read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def settings() -> list[str]:
    """The kernel settings below /proc/sys that a node has copies of, since the real ones belong to the host."""
    return (RECIPE / "node/usr/share/ec2lab/settings").read_text().split()


def _masked(archive: Archive) -> tuple[str, ...]:
    return MASKED + (MASKED_ON_UBUNTU if archive.distribution == "ubuntu" else ())


def _key(archive: Archive) -> str:
    digest = hashlib.sha256()
    digest.update(
        json.dumps([FORMAT, asdict(archive), _packages(), _masked(archive), ENABLED, platform.machine()]).encode()
    )
    digest_files(digest, RECIPE / "node")
    return digest.hexdigest()[:16]


def digest_files(digest: hashlib._Hash, directory: Path) -> None:
    """Adds the names and contents of a directory of the recipe."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(RECIPE)}\n".encode())
            digest.update(path.read_bytes())


def _path(key: str) -> Path:
    return cache_directory() / "images" / key


def _load(path: Path) -> Image | None:
    try:
        facts = json.loads((path / "image.json").read_text())
    except FileNotFoundError:
        return None
    return Image(**facts, path=path)


@contextmanager
def locked(progress: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    directory = cache_directory() / "images"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another lab that is making the image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep() -> None:
    """Removes what killed builds left. Call it under the lock, when nobody else is building."""
    for leftover in (cache_directory() / "images").glob(".building-*"):
        shutil.rmtree(leftover)


def _build(archive: Archive, key: str, progress: Callable[[str], None]) -> Image:
    directory = cache_directory() / "images"
    free = shutil.disk_usage(directory).free
    if free < 2 << 30:
        raise LabError(f"{directory} has {free >> 20} MiB free; making the nodes' image takes 2 GiB")
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=directory))
    try:
        progress(f"making the nodes' image from {archive.distribution} {archive.release} (about a minute, once)")
        root = building / "root"
        bootstrap(archive, _packages(), building, root)
        progress("preparing the image for nodes")
        _prepare(root, archive)
        (root / "usr").rename(building / "usr")
        (root / "usr").mkdir()
        root.rename(building / "skeleton")
        facts = {
            "key": key,
            "distribution": archive.distribution,
            "release": archive.release,
            "architecture": {"aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        }
        building.chmod(0o755)
        (building / "image.json").write_text(json.dumps(facts))
        os.sync()
        building.rename(_path(key))
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    image = _load(_path(key))
    assert image is not None  # noqa: S101 - written above
    return image


def bootstrap(archive: Archive, packages: list[str], building: Path, root: Path) -> None:
    """Fills `root` with the packages, and the user that Ubuntu's own images have."""
    sources = []
    for name, content in archive.sources:
        path = building / name
        path.write_text(content)
        sources.append(str(path))
    log = building / "build.log"
    keyring = []
    if archive.distribution == "ubuntu" and not Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg").exists():
        keyring = [f"--keyring={_ubuntu_keyring(building)}"]
    excluded = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/doc/*")
    argv = [
        # It runs in namespaces that end with this process, so that no mount and no process is left behind.
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("mmdebstrap", "--mode=root", "--variant=apt", "--format=directory", f"--include={','.join(packages)}"),
        *keyring,
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in excluded),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        # Ubuntu's own images have this user, so the lab's have it too.
        '--customize-hook=chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 --groups sudo,adm ubuntu',
        *(archive.release, str(root), *sources),
    ]
    environment = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    environment |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TMPDIR": str(building)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
        try:
            status = process.wait(timeout=BUILD_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise Timeout(f"mmdebstrap did not finish the image within {BUILD_TIMEOUT_S // 60} min") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise LabError(f"mmdebstrap could not make the nodes' image (status {status}):\n{end}")
    for path in (log, *(Path(source) for source in sources)):
        path.unlink()
    shutil.rmtree(building / "keyring", ignore_errors=True)


def _prepare(root: Path, archive: Archive) -> None:
    copy_recipe(RECIPE / "node", root)
    units = root / "etc/systemd/system"
    for unit in _masked(archive):
        link(units / unit, "/dev/null")
    for unit, target_unit in ENABLED.items():
        link(units / f"{target_unit}.wants" / unit, f"../{unit}")
    (root / "etc/fstab").write_text("")
    settle(root)


def copy_recipe(recipe: Path, root: Path) -> None:
    """Copies the recipe's files onto the root. Their modes come from the checkout; on a node everything but programs
    is read-only text owned by root."""
    shutil.copytree(recipe, root, dirs_exist_ok=True, symlinks=True)
    for source in recipe.rglob("*"):
        place = source.relative_to(recipe)
        (root / place).chmod(0o755 if source.is_dir() else _mode(place))


def settle(root: Path) -> None:
    """What every image ends with: no identity of its own, UTC, nothing that the installation left."""
    link(root / "etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target")
    link(root / "etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
    (root / "etc/default/locale").write_text("LANG=C.UTF-8\n")
    (root / "etc/machine-id").unlink(missing_ok=True)
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for directory in ("var/cache/apt", "var/lib/apt/lists", "var/log"):
        for path in (root / directory).rglob("*"):
            if path.is_file():
                path.unlink()


def _mode(place: Path) -> int:
    """The mode that a file of the recipe gets on a node."""
    if place.parent == Path(PROGRAMS):
        return 0o755
    return 0o440 if "sudoers.d" in place.parts else 0o644


def link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _make_disk(skeleton: Path, template: Path, gib: int) -> None:
    made = template.with_name(f".{template.name}")  # always the same name, so what a kill left is overwritten
    made.unlink(missing_ok=True)
    made.touch(0o600)
    try:
        os.truncate(made, gib << 30)
        features = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
        run(["mke2fs", "-q", "-t", "ext4", "-E", features, "-J", "size=32", "-m", "1", "-d", str(skeleton), str(made)])
        made.rename(template)
    finally:
        made.unlink(missing_ok=True)
