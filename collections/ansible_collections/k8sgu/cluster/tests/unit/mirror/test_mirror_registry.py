# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images from a registry that wants a token and is not always right."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import sha256_of
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import oci
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.registry import Registry, base_url, pull, resolve
from ansible_collections.k8sgu.cluster.tests.unit.mirror.mirror_support import (
    PROGRAM,
    QUICK,
    Publisher,
    serve_image,
)

NAME = "example.org/team/tool:v1"


def bring(publisher: Publisher, layout: Path, arches: tuple[str, ...], pinned: str | None = None) -> str:
    """Registry's code path against the test server: its address is fixed up, since loopback means plain HTTP there."""
    registry = Registry(publisher.host, "team/tool", QUICK, threading.Event())
    registry._base = publisher.url
    resolved = resolve(registry, NAME, "v1", pinned)
    return pull(registry, str(layout), NAME, "v1", arches, resolved, lambda _done, _total: None)


def test_addresses() -> None:
    assert base_url("registry.k8s.io") == "https://registry.k8s.io"
    assert base_url("docker.io") == "https://registry-1.docker.io"
    assert base_url("127.0.0.1:5000") == "http://127.0.0.1:5000"


def test_chosen_architectures_with_a_token(publisher: Publisher, tmp_path: Path) -> None:
    publisher.token = "secret"
    digest = serve_image(publisher, "team/tool", "v1", ("amd64", "arm64", "s390x"))
    layout = tmp_path / "layout"
    assert bring(publisher, layout, ("amd64", "arm64")) == digest
    descriptor = oci.tags(str(layout))["v1"]
    assert (descriptor["digest"], descriptor["annotations"]["io.containerd.image.name"]) == (digest, NAME)
    needed, found = oci.blobs(str(layout), descriptor, ("amd64", "arm64"))
    assert found == {"amd64", "arm64"}
    assert len(needed) == 1 + 2 * 3
    for blob, size in needed:
        path = Path(oci.blob_path(str(layout), blob))
        assert ("sha256:" + sha256_of(str(path)), path.stat().st_size) == (blob, size)
    assert publisher.tokens_given == 1
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_second_pull_fetches_no_blob(publisher: Publisher, tmp_path: Path) -> None:
    serve_image(publisher, "team/tool", "v1", ("amd64",))
    bring(publisher, tmp_path, ("amd64",))
    publisher.requests.clear()
    bring(publisher, tmp_path, ("amd64",))
    assert not [path for _method, path, _range in publisher.requests if "/blobs/" in path]


def test_damage_is_repaired(publisher: Publisher, tmp_path: Path) -> None:
    """Manifests, configurations and layers, changed and cut off."""
    serve_image(publisher, "team/tool", "v1", ("amd64",))
    bring(publisher, tmp_path, ("amd64",))
    blobs = [path for path in (tmp_path / "blobs" / "sha256").iterdir() if path.is_file()]
    assert len(blobs) == 4
    for number, path in enumerate(blobs):
        path.write_bytes(path.read_bytes()[:-1] + (b"" if number % 2 else b"x"))
    bring(publisher, tmp_path, ("amd64",))
    assert [path.name for path in blobs if sha256_of(str(path)) != path.name] == []


def test_broken_off_blob_is_continued(publisher: Publisher, tmp_path: Path) -> None:
    serve_image(publisher, "team/tool", "v1", ("amd64",))
    blob = max((path for path in publisher.files if "/blobs/" in path), key=lambda path: len(publisher.files[path]))
    publisher.cut[blob] = [20]
    bring(publisher, tmp_path, ("amd64",))
    assert [wanted for _method, path, wanted in publisher.requests if path == blob] == ["", "bytes=20-"]


def test_wrong_blob(publisher: Publisher, tmp_path: Path) -> None:
    serve_image(publisher, "team/tool", "v1", ("amd64",))
    blob = next(path for path in publisher.files if "/blobs/" in path)
    publisher.files[blob] = PROGRAM
    with pytest.raises(MirrorError, match="is pinned; the file was removed"):
        bring(publisher, tmp_path, ("amd64",))
    assert oci.tags(str(tmp_path)) == {}


def test_wrong_manifest(publisher: Publisher, tmp_path: Path) -> None:
    serve_image(publisher, "team/tool", "v1", ("amd64",))
    inner = next(path for path in publisher.files if "/manifests/sha256:" in path)
    publisher.files[inner] += b" "
    with pytest.raises(MirrorError, match=r"has the digest sha256:.*it was not used"):
        bring(publisher, tmp_path, ("amd64",))


def test_moved_tag(publisher: Publisher, tmp_path: Path) -> None:
    serve_image(publisher, "team/tool", "v1", ("amd64",))
    with pytest.raises(MirrorError, match=f"its tag now names sha256:.*, but sha256:{'0' * 64} is pinned"):
        bring(publisher, tmp_path, ("amd64",), pinned="0" * 64)


def test_architecture_that_is_not_there(publisher: Publisher, tmp_path: Path) -> None:
    serve_image(publisher, "team/tool", "v1", ("amd64",))
    with pytest.raises(MirrorError, match=r"tool:v1: has no arm64; it has amd64"):
        bring(publisher, tmp_path, ("amd64", "arm64"))


def test_image_that_is_not_there(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match="404"):
        bring(publisher, tmp_path, ("amd64",))
