"""molecule/resources/publishers.py: what is where, and that the mirror module takes it with the releases' copy."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tarfile
from pathlib import Path

import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.archive import extract
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.checksums import published_sum
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import find_release

ROOT = Path(__file__).resolve().parents[3]
RELEASES = ROOT / "collections/ansible_collections/k8sgu/cluster/releases"
# Not by its name: molecule is also a package that is installed.
_SPEC = importlib.util.spec_from_file_location("publishers", ROOT / "molecule/resources/publishers.py")
assert _SPEC is not None
assert _SPEC.loader is not None
publishers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(publishers)


def filled_mirror(directory: Path) -> Path:
    """A mirror with a small file for each program of 1.36, and each image."""
    release = yaml.safe_load((RELEASES / "1.36.yml").read_text())
    files, images = [], []
    for name, component in release["components"].items():
        members = [Path(member).name for member in component["upstream"].get("files", [name])]
        for program in members:
            path = Path("files", name, component["version"], publishers.ARCH, program)
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(f"the program {program}")
            entry = {"component": name, "name": program, "version": component["version"], "arch": publishers.ARCH}
            files.append({**entry, "path": str(path)})
    for image in release["images"].values():
        path = Path("images", image["name"].rpartition(":")[0])
        (directory / path).mkdir(parents=True, exist_ok=True)
        (directory / path / "index.json").write_text("{}")
        images.append({"name": image["name"], "path": str(path)})
    (directory / "manifest.json").write_text(json.dumps({"files": files, "images": images}))
    return directory


def test_every_program_is_at_its_publisher_with_the_sum_that_the_copy_or_the_publisher_gives(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert publishers.main(filled_mirror(tmp_path / "mirror"), RELEASES, out) == 0
    release = find_release(str(out / "releases"), "1.36.4")
    hosts = out / "internet" / "hosts"
    seen = 0
    for component in release.components:
        name, upstream = component.name, component.upstream
        assert upstream is not None
        url = upstream.url.format(version=component.version, arch=publishers.ARCH)
        file = publishers.internet_path(out / "internet", url)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        given = upstream.sha256.get(publishers.ARCH)
        if given is None:
            address = upstream.checksums.format(version=component.version, arch=publishers.ARCH)
            given = published_sum(publishers.internet_path(out / "internet", address).read_text(), file.name)
        assert given == digest, url
        if upstream.files:
            placed = extract(str(file), upstream.files, str(tmp_path / "placed" / name))
            assert {Path(path).read_text() for path in placed.values()} == {f"the program {each}" for each in placed}
            with tarfile.open(file) as archive:
                assert len(archive.getnames()) == len(upstream.files) + 1
        else:
            assert file.read_text() == f"the program {name}"
        seen += 1
    assert seen == len(release.components) > 10
    assert {entry.name for entry in hosts.iterdir()} == {"api.github.com", "dl.k8s.io", "github.com"}


def test_no_registry_has_an_image_that_is_not_published(tmp_path: Path) -> None:
    mirror, out = filled_mirror(tmp_path / "mirror"), tmp_path / "out"
    releases = tmp_path / "releases"
    releases.mkdir()
    release = yaml.safe_load((RELEASES / "1.36.yml").read_text())
    release["images"]["pause"]["published"] = False
    (releases / "1.36.yml").write_text(yaml.safe_dump(release))
    publishers.main(mirror, releases, out)
    images = out / "internet" / "images"
    there = {str(path.parent.relative_to(images)) for path in images.rglob("index.json")}
    wanted = {image["name"].rpartition(":")[0] for image in release["images"].values() if image.get("published", True)}
    assert there == wanted
    assert "registry.k8s.io/pause" not in there


def test_it_is_made_again_when_the_mirror_changes_and_only_then(tmp_path: Path) -> None:
    mirror, out = filled_mirror(tmp_path / "mirror"), tmp_path / "out"
    publishers.main(mirror, RELEASES, out)
    (out / "internet" / "mark").touch()
    publishers.main(mirror, RELEASES, out)
    assert (out / "internet" / "mark").exists()
    manifest = json.loads((mirror / "manifest.json").read_text())
    manifest["schema"] = 1
    (mirror / "manifest.json").write_text(json.dumps(manifest))
    publishers.main(mirror, RELEASES, out)
    assert not (out / "internet" / "mark").exists()
