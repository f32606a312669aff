# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OCI image layouts, https://github.com/opencontainers/image-spec: one directory holds the tags of one repository."""

# Paths come and go as text here.
# ruff: noqa: PTH103, PTH105, PTH108, PTH118, PTH120, PTH123
from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import struct
import tarfile
import threading
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import atomic_write, sha256_of, sync_directory
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError, storage_errors
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.files import (
    DATA_MODE,
    clear_strays,
    replacing,
    temporary_name,
)

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = (INDEX, DOCKER_LIST)
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
REF_NAME = "org.opencontainers.image.ref.name"
# containerd's importer takes an image's name from it: https://github.com/containerd/containerd/blob/main/images/annotations.go
CONTAINERD_NAME = "io.containerd.image.name"

_layouts = threading.Lock()


@dataclass
class Layer:
    """Files of one layer, by path in the image; a source is a path on this machine, or the bytes themselves."""

    files: dict[str, tuple[str | bytes, int]] = field(default_factory=dict)  # path -> (source, mode)
    links: dict[str, str] = field(default_factory=dict)
    directories: dict[str, int] = field(default_factory=dict)  # path -> mode
    owners: dict[str, tuple[int, int]] = field(default_factory=dict)
    bind_low_ports: set[str] = field(default_factory=set)


def blob_path(layout: str, digest: str) -> str:
    algorithm, _colon, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not all(letter in "0123456789abcdef" for letter in value):
        raise MirrorError(f"{layout}: '{digest}' is not a sha256 digest")
    return os.path.join(layout, "blobs", "sha256", value)


def put_blob(layout: str, data: bytes) -> str:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    path = blob_path(layout, digest)
    if not has_blob(layout, digest):
        with replacing(path, DATA_MODE) as stream:
            stream.write(data)
    return digest


def has_blob(layout: str, digest: str) -> bool:
    """Whether a blob exists and is undamaged."""
    try:
        return sha256_of(blob_path(layout, digest)) == digest.partition(":")[2]
    except OSError:
        return False


def put_json(layout: str, media_type: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Store a document and return its descriptor."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    return {"mediaType": media_type, "digest": put_blob(layout, text), "size": len(text)}


def read_json(layout: str, digest: str) -> dict[str, Any]:
    path = blob_path(layout, digest)
    try:
        with open(path, "rb") as stream:
            data = json.loads(stream.read())
    except (OSError, ValueError) as error:
        raise MirrorError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise MirrorError(f"{path}: is not a JSON object")
    return data


def tags(layout: str) -> dict[str, dict[str, Any]]:
    """{tag: descriptor} from index.json; empty when there is no layout."""
    try:
        with open(os.path.join(layout, "index.json"), "rb") as stream:
            manifests = json.loads(stream.read())["manifests"]
        return {entry["annotations"][REF_NAME]: entry for entry in manifests}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MirrorError(f"{layout}/index.json: is damaged ({error}); remove {layout} and run again") from error


def set_tag(layout: str, name: str, tag: str, descriptor: Mapping[str, Any]) -> None:
    """Make `tag` point to `descriptor`, whose blobs must be in the layout already."""
    with _layouts, storage_errors(layout):
        os.makedirs(layout, 0o755, exist_ok=True)
        known = tags(layout)
        annotations = {REF_NAME: tag, CONTAINERD_NAME: name}
        fields = {key: descriptor[key] for key in ("mediaType", "digest", "size")}
        known[tag] = {**fields, "annotations": annotations}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [known[key] for key in sorted(known)]}
        atomic_write(os.path.join(layout, "oci-layout"), b'{"imageLayoutVersion":"1.0.0"}\n', DATA_MODE)
        atomic_write(os.path.join(layout, "index.json"), json.dumps(index, indent=1).encode() + b"\n", DATA_MODE)


def write_image(layout: str, name: str, tag: str, images: Mapping[str, tuple[Layer, Mapping[str, Any]]]) -> str:
    """Assemble one image from a layer and a configuration for each architecture; returns the tag's digest.

    The same files give the same digest, at any time and on any machine.
    """
    manifests = []
    for arch, (layer, config) in sorted(images.items()):
        descriptor = _put_layer(layout, layer)
        document = {
            "architecture": arch,
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [descriptor["digest"]]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": put_json(layout, CONFIG, document),
            "layers": [descriptor],
        }
        manifests.append({**put_json(layout, MANIFEST, manifest), "platform": {"architecture": arch, "os": "linux"}})
    index = put_json(layout, INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    set_tag(layout, name, tag, index)
    return str(index["digest"])


def _put_layer(layout: str, layer: Layer) -> dict[str, Any]:
    """Store an uncompressed layer: in the same network, compression would only cost the nodes time."""
    directory = os.path.join(layout, "blobs", "sha256")
    with storage_errors(layout):
        os.makedirs(directory, 0o755, exist_ok=True)
        clear_strays(os.path.join(directory, "layer"))
        draft = temporary_name(os.path.join(directory, "layer"))
        try:
            with open(draft, "wb") as stream:
                with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    _fill(tar, layer)
                stream.flush()
                os.fchmod(stream.fileno(), DATA_MODE)
                os.fsync(stream.fileno())
                size = stream.tell()
            digest = "sha256:" + sha256_of(draft)
            os.replace(draft, blob_path(layout, digest))
            sync_directory(directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
    return {"mediaType": LAYER, "digest": digest, "size": size}


def _fill(tar: tarfile.TarFile, layer: Layer) -> None:
    directories = dict(layer.directories)
    for path in [*layer.files, *layer.links, *layer.directories]:
        parent = os.path.dirname(path)
        while parent not in ("", "/"):
            directories.setdefault(parent, 0o755)
            parent = os.path.dirname(parent)
    for path in sorted({*directories, *layer.files, *layer.links}):
        info = tarfile.TarInfo(path.lstrip("/"))
        info.uid, info.gid = layer.owners.get(path, (0, 0))
        info.mtime = 0
        if path in layer.links:
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, layer.links[path], 0o777
            tar.addfile(info)
        elif path in layer.files:
            source, info.mode = layer.files[path]
            if path in layer.bind_low_ports:
                info.pax_headers = {"SCHILY.xattr.security.capability": _bind_capability()}
            _add(tar, info, source)
        else:
            info.type, info.mode = tarfile.DIRTYPE, directories[path]
            tar.addfile(info)


def _add(tar: tarfile.TarFile, info: tarfile.TarInfo, source: str | bytes) -> None:
    if isinstance(source, bytes):
        info.size = len(source)
        tar.addfile(info, io.BytesIO(source))
        return
    with open(source, "rb") as stream:
        info.size = os.fstat(stream.fileno()).st_size
        tar.addfile(info, stream)


def _bind_capability() -> str:
    """cap_net_bind_service=ep in the kernel's form: struct vfs_cap_data, revision 2, of linux/capability.h."""
    revision_2, effective, net_bind_service = 0x02000000, 1, 1 << 10
    return struct.pack("<5I", revision_2 | effective, net_bind_service, 0, 0, 0).decode("ascii")


def config_of(
    entrypoint: Iterable[str],
    command: Iterable[str],
    user: str,
    workdir: str,
    ports: Iterable[str],
    environment: Iterable[tuple[str, str]],
    labels: Mapping[str, str],
) -> dict[str, Any]:
    """The run configuration: https://github.com/opencontainers/image-spec/blob/main/config.md."""
    variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **dict(environment)}
    config: dict[str, Any] = {
        "Env": [f"{name}={value}" for name, value in variables.items()],
        "WorkingDir": workdir or "/",
    }
    for field_name, value in (("Entrypoint", list(entrypoint)), ("Cmd", list(command)), ("User", user)):
        if value:
            config[field_name] = value
    if list(ports):
        config["ExposedPorts"] = {port: {} for port in ports}
    if labels:
        config["Labels"] = dict(labels)
    return config


def blobs(layout: str, descriptor: Mapping[str, Any], arches: Iterable[str]) -> tuple[list[tuple[str, int]], set[str]]:
    """(digest, size) of every blob below a tag's descriptor that the architectures need, and the architectures found.

    Raises MirrorError when a document among them is missing.
    """
    wanted = set(arches)
    needed = [(str(descriptor["digest"]), int(descriptor["size"]))]
    document = read_json(layout, str(descriptor["digest"]))
    if "manifests" not in document:
        config = read_json(layout, str(document["config"]["digest"]))
        return needed + _parts(document), {str(config.get("architecture", ""))} & wanted
    found = set()
    for entry in document["manifests"]:
        platform = entry.get("platform", {})
        if platform.get("os") == "linux" and platform.get("architecture") in wanted:
            found.add(str(platform["architecture"]))
            needed.append((str(entry["digest"]), int(entry["size"])))
            needed += _parts(read_json(layout, str(entry["digest"])))
    return needed, found


def _parts(manifest: Mapping[str, Any]) -> list[tuple[str, int]]:
    return [(str(part["digest"]), int(part["size"])) for part in [manifest["config"], *manifest["layers"]]]
