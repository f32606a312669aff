# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A library that is missing or too old, in modules and plugins: which one, and what to install."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from ansible.errors import AnsibleFilterError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

from ansible_collections.k8sgu.cluster.plugins.filter.certificate_report import certificate_report
from ansible_collections.k8sgu.cluster.plugins.inventory.ec2 import InventoryModule
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import caller_identity
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import run as ec2_cluster
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig import credentials
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig import run as kubeconfig
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import yaml_text
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import release
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._options import libraries
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import BOTO3, CRYPTOGRAPHY, YAML, Library
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module, carry_out
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import (
    cfssl_cert,
    cfssl_cert_info,
    signing_key,
    ssh_key,
)

ALL = [BOTO3, CRYPTOGRAPHY, YAML]


def remove(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    # As Python itself marks a module that must not be imported.
    monkeypatch.setitem(sys.modules, library.module, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("library", ALL)
def test_one_that_is_there_and_new_enough(library: Library) -> None:
    assert libraries.usable(library) and libraries.fault(library) == ""


@pytest.mark.parametrize("library", ALL)
def test_one_that_is_missing_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, library: Library) -> None:
    remove(monkeypatch, library)
    assert not libraries.usable(library)
    text = libraries.fault(library)
    assert f"({library.needed})" in text and sys.executable in text


def test_one_that_is_too_old_is_named_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("cryptography")
    old.__version__ = "41.0.7"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cryptography", old)
    assert libraries.fault(CRYPTOGRAPHY) == "cryptography 41.0.7 is too old; install cryptography >= 42"


@pytest.mark.parametrize(
    ("module", "library"),
    [
        (caller_identity.MODULE, BOTO3),
        (cfssl_cert.MODULE, CRYPTOGRAPHY),
        (cfssl_cert_info.MODULE, CRYPTOGRAPHY),
        (ec2_cluster.MODULE, BOTO3),
        (kubeconfig.MODULE, YAML),
        (signing_key.MODULE, CRYPTOGRAPHY),
        (ssh_key.MODULE, CRYPTOGRAPHY),
    ],
)
def test_a_module_fails_with_it_before_it_does_anything(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: Module, library: Library
) -> None:
    remove(monkeypatch, library)
    result = carry_out(module, Call({"path": str(tmp_path / "a")}))
    assert result["failed"] and f"({library.needed})" in result["msg"] and not list(tmp_path.iterdir())


def test_a_filter_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    remove(monkeypatch, CRYPTOGRAPHY)
    with pytest.raises(AnsibleFilterError, match=r"certificate_report: .*cryptography >= 42"):
        certificate_report({})


def test_the_inventory_plugin_says_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(BaseInventoryPlugin, "parse", lambda *arguments, **options: None)
    remove(monkeypatch, BOTO3)
    with pytest.raises(AnsibleParserError, match=r"boto3 >= 1\.34"):
        InventoryModule().parse(None, None, str(tmp_path / "ec2.yml"))


def test_a_kubeconfig_needs_cryptography_for_a_pair_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    remove(monkeypatch, CRYPTOGRAPHY)
    pem = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    credentials.check_certificates(pem, "certificate_authority")
    with pytest.raises(libraries.LibraryMissing, match="cryptography >= 42"):
        credentials.check_pair(pem, b"", "users[0]")


def test_whoever_reads_yaml_says_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    remove(monkeypatch, YAML)
    with pytest.raises(KubernetesError, match="PyYAML"):
        yaml_text.documents("a: 1", "here")
    (tmp_path / "1.36.yml").write_text("{}")
    with pytest.raises(MirrorError, match="PyYAML"):
        release.find_release(str(tmp_path), "1.36.4")
