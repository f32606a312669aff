"""Makes an internet for the lab in which the publishers of a release offer what the builds made.

    publishers.py MIRROR RELEASES OUT

MIRROR is a filled mirror, RELEASES the collection's directory of releases. Makes in OUT:

    internet/       for `ec2lab up --internet-dir`: each file at its publisher's address, in its archive and under its
                    names, the files of checksums, and the images in their registries, but none that is not published
    releases/       the releases with these files' checksums instead of upstream's, for k8sgu_releases_dir

What is there already is kept when mirror and releases are the same as then.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

# This machine's, for which the mirror is filled, by its Go name.
ARCH = {"aarch64": "arm64"}.get(platform.machine(), "amd64")
STAMP = "made-from"
README = b"Made of what the project's own builds made.\n"
# Archives whose members are below a directory that the release does not name.
TOP = {"etcd": "etcd-v{version}-linux-{arch}"}


def main(mirror: Path, releases: Path, out: Path) -> int:
    manifest = json.loads((mirror / "manifest.json").read_bytes())
    known = fingerprint(mirror, releases)
    if (out / STAMP).exists() and (out / STAMP).read_text() == known:
        print(f"publishers: {out} is up to date")
        return 0
    shutil.rmtree(out, ignore_errors=True)
    (out / "internet").mkdir(parents=True)
    shutil.copytree(releases, out / "releases", ignore=shutil.ignore_patterns("*.lock.yml"))
    for path in sorted((out / "releases").glob("*.yml")):
        publish(yaml.safe_load(path.read_text()), manifest, mirror, out / "internet", path)
    (out / STAMP).write_text(known)
    return 0


def fingerprint(mirror: Path, releases: Path) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in (mirror / "manifest.json", *sorted(releases.glob("*.yml"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def publish(release: dict[str, Any], manifest: dict[str, Any], mirror: Path, internet: Path, path: Path) -> None:
    """One release: what the mirror has of it, and the checksums in the release's copy at `path`."""
    text = path.read_text()
    assets: dict[str, dict[str, str]] = {}
    for name, component in release["components"].items():
        upstream, version = component.get("upstream"), component["version"]
        programs = {
            entry["name"]: mirror / entry["path"]
            for entry in manifest["files"]
            if (entry["component"], entry["version"], entry["arch"]) == (name, version, ARCH)
        }
        if name == "runc" and not programs:
            programs = {"runc": distribution_runc(internet.parent)}
        if upstream is None or not programs:
            continue  # of another Kubernetes version, which the mirror does not have
        url = upstream["url"].format(version=version, arch=ARCH)
        place = internet_path(internet, url)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            pass  # another release has it too
        elif upstream.get("files"):
            top = TOP.get(name, "").format(version=version, arch=ARCH)
            named = {member: programs[Path(member).name] for member in upstream["files"]}
            write_archive(place, {f"{top}/{member}" if top else member: file for member, file in named.items()})
        else:
            link(programs[name], place)
        made = sha256(place)
        if pinned := upstream.get("sha256", {}).get(ARCH):
            text = text.replace(pinned, made)
        else:
            address = upstream["checksums"].format(version=version, arch=ARCH)
            assets.setdefault(address, {})[place.name] = made
        print(f"publishers: {url}")
    for address, sums in assets.items():
        place = internet_path(internet, address)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(checksums(address, sums))
    for image in release["images"].values():
        publish_image(image, manifest, mirror, internet)
    path.write_text(text)


def publish_image(image: dict[str, Any], manifest: dict[str, Any], mirror: Path, internet: Path) -> None:
    there = {entry["name"]: entry["path"] for entry in manifest["images"]}
    if image.get("published", True) and image["name"] in there:
        relative = there[image["name"]]
        shutil.copytree(mirror / relative, internet / relative, copy_function=link, dirs_exist_ok=True)
        print(f"publishers: {image['name']}")


def internet_path(internet: Path, url: str) -> Path:
    address = urlsplit(url)
    return internet / "hosts" / str(address.hostname) / address.path.lstrip("/")


def checksums(address: str, sums: dict[str, str]) -> str:
    """A publisher's file of checksums, in the form that its address has."""
    if urlsplit(address).hostname == "api.github.com":
        return json.dumps({"assets": [{"name": name, "digest": f"sha256:{made}"} for name, made in sums.items()]})
    if address.endswith(".sha256"):
        return next(iter(sums.values()))
    return "".join(f"{made}  {name}\n" for name, made in sums.items())


def write_archive(path: Path, members: dict[str, Path]) -> None:
    """The same bytes for the same members, so that their checksum stays. Archives have more in them than is needed."""
    with path.open("wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
        tar = tarfile.open(fileobj=packed, mode="w")  # noqa: SIM115 - closed below, before what it writes to
        for name, source in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = source.stat().st_size, 0o755
            with source.open("rb") as stream:
                tar.addfile(info, stream)
        readme = tarfile.TarInfo(str(Path(min(members)).with_name("README.md")))
        readme.size = len(README)
        tar.addfile(readme, io.BytesIO(README))
        tar.close()


def link(source: str | Path, place: str | Path) -> None:
    """A hard link, or a copy on another file system."""
    Path(place).unlink(missing_ok=True)
    try:
        os.link(source, place)
    except OSError:
        shutil.copyfile(source, place)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def distribution_runc(directory: Path) -> Path:
    """runc is not built from source; the host's distribution has a package."""
    made = directory / "runc"
    if not made.exists():
        with tempfile.TemporaryDirectory() as work:
            # apt's own user may not write there.
            command = ["apt-get", "download", "-o", "APT::Sandbox::User=root", "runc"]
            subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL)
            (package,) = Path(work).glob("runc_*.deb")
            subprocess.run(["dpkg-deb", "--extract", package.name, "root"], cwd=work, check=True)
            shutil.copyfile(Path(work, "root/usr/sbin/runc"), made)
            made.chmod(0o755)
    return made


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))
