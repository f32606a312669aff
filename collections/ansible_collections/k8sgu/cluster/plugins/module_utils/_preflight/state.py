# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the controller's state directory can be used, and for this cluster: keys of two clusters must never mix."""

from __future__ import annotations

import json
import os
import shlex
import stat
from pathlib import Path
from typing import Any, Mapping

from ansible.module_utils.common.yaml import yaml_load

from ansible_collections.k8sgu.cluster.plugins.module_utils._options import libraries

OPTION = "k8sgu_state_dir"
PLACE = "place.json"
KUBECONFIG = "admin.kubeconfig"
AUTHORITY = "pki/kubernetes-ca.pem"
# The keys of what is encrypted at rest.
SECRETS = "secrets"


def check_state(directory: Path, cluster: str) -> list[str]:
    """What is wrong with the directory, which need not be there yet; only the first, since the rest follows from it."""
    problem = _unusable(directory) or _open_to_others(directory / SECRETS) or _foreign(directory, cluster)
    return [f"{OPTION}: {problem}"] if problem else []


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _unusable(directory: Path) -> str:
    try:
        there = directory.exists()
    except OSError as error:  # a directory above it lets nobody pass
        return f"{directory} cannot be looked at ({error.strerror}); choose another, or run as its owner"
    if there:
        if not directory.is_dir():
            return f"{directory} is a file, and keys and certificates need a directory; move it away, or choose another"
        if not _may(directory, os.R_OK | os.W_OK | os.X_OK):
            return (
                f"{directory} cannot be read and written by this user (mode {_mode(directory)}, owner "
                f"{directory.stat().st_uid}); run as its owner, or mend it: chmod u+rwx {shlex.quote(str(directory))}"
            )
        return ""
    above = next(parent for parent in directory.parents if parent.exists())
    if not above.is_dir():
        return f"{directory} cannot be made, since {above} is a file; choose another"
    if not _may(above, os.W_OK | os.X_OK):
        return f"{directory} cannot be made, since this user may not write to {above}; choose another, or make it first"
    return ""


def _mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def _open_to_others(secrets: Path) -> str:
    if secrets.is_dir() and stat.S_IMODE(secrets.stat().st_mode) & 0o077:
        return (
            f"{secrets} is open to other users (mode {_mode(secrets)}), and holds the keys of what is encrypted at "
            f"rest; chmod 0700 {shlex.quote(str(secrets))}, and if somebody may have read them, "
            "playbooks/rotate_encryption_key.yml makes others"
        )
    return ""


def _foreign(directory: Path, cluster: str) -> str:
    for file, names in ((PLACE, _of_place), (KUBECONFIG, _of_kubeconfig), (AUTHORITY, _of_authority)):
        found = names(directory / file)
        # The first that tells: the others are made from it.
        if found:
            if cluster in found:
                return ""
            return (
                f"{directory} holds the cluster {', '.join(sorted(found))} ({file}), and this is {cluster}: their keys "
                f"would mix. Put back k8sgu_cluster_name, or choose another {OPTION}. If that cluster is gone, so is "
                f"the use of its keys: rm -r -- {shlex.quote(str(directory))}"
            )
    return ""


def _of_place(file: Path) -> set[str]:
    return {str(name) for name in [_mapping(file, json.loads).get("cluster")] if name}


def _of_kubeconfig(file: Path) -> set[str]:
    clusters = _mapping(file, yaml_load).get("clusters")
    return {str(one["name"]) for one in clusters or [] if isinstance(one, Mapping) and one.get("name")}


def _of_authority(file: Path) -> set[str]:
    """The CA's organization is the cluster's name."""
    if not libraries.usable(libraries.CRYPTOGRAPHY) or not file.is_file():
        return set()
    from cryptography import x509

    try:
        subject = x509.load_pem_x509_certificate(file.read_bytes()).subject
    except (OSError, ValueError):
        return set()
    return {str(name.value) for name in subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)}


def _mapping(file: Path, read: Any) -> Mapping[str, Any]:
    """The document, or nothing where there is none or it is broken, which is the business of whoever needs it."""
    try:
        found = read(file.read_text())
    except Exception:  # each reader has errors of its own
        return {}
    return found if isinstance(found, Mapping) else {}
