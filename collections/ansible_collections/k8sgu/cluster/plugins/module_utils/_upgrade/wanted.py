# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a release brings, with checksums and sizes: from its release file and the mirror. Runs on the controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.prepare import Mirror
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import Release, find_release
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import flags

NOTHING: dict[str, Any] = {"files": [], "images": [], "versions": {}, "gates": {}}


def prepare(options: Mapping[str, Any]) -> dict[str, Any]:
    """`files`, `images`, `versions` of components and `gates` to ask about; nothing for a release that is not there.

    Raises ComponentError for a mirror that cannot be read.
    """
    try:
        release = find_release(options["releases_dir"], options["kubernetes_version"])
    except MirrorError:
        return NOTHING  # upgrade_gates tells it
    path = Path(options["mirror_dir"], "manifest.json")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        manifest = {"files": [], "images": []}
    except (OSError, ValueError) as error:
        raise ComponentError(f"mirror_dir: {path} cannot be read ({error}); fill the mirror again") from error
    return wanted(release, manifest, options, Mirror(options["mirror_dir"]))


def wanted(release: Release, manifest: Mapping[str, Any], options: Mapping[str, Any], mirror: Mirror) -> dict[str, Any]:
    """`architecture` and `images` of the options say which of the manifest's entries count."""
    architecture = options["architecture"]
    packaged = {entry["component"] for entry in manifest.get("packages") or () if entry["arch"] == architecture}
    versions = {each.name: each.version for each in release.components if each.name not in packaged}
    files = [
        {key: entry[key] for key in ("component", "name", "version", "sha256", "size")}
        for entry in manifest["files"]
        if versions.get(entry["component"]) == entry["version"] and entry["arch"] == architecture
    ]
    mirrored = {image["name"]: image for image in manifest.get("images") or () if architecture in image["arches"]}
    images = []
    for name in options["images"]:
        if name in mirrored:
            _descriptor, blobs = mirror.image(name)
            size = sum(bytes_ for _path, _digest, bytes_ in blobs)
            images.append({"name": name, "digest": mirrored[name]["digest"], "size": size})
        else:
            images.append({"name": name, "digest": "", "size": 0})
    return {"files": files, "images": images, "versions": versions, "gates": flags.feature_gates(options["flags"])}
