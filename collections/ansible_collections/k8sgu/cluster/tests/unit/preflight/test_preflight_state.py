# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""State directories that cannot be used, and those of another cluster."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.k8sgu.cluster.plugins.filter.state_problems import state_problems
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.state import check_state

NOBODY = 65534


@contextmanager
def somebody_else() -> Iterator[None]:
    """Root may do everything, so what is refused to others is shown as one of them."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def base() -> Iterator[Path]:
    """A directory that others reach: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_what_is_there_and_what_is_yet_to_be_made_are_fine(tmp_path: Path) -> None:
    assert check_state(tmp_path, "demo") == check_state(tmp_path / "a" / "b", "demo") == []
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "place.json").write_text(json.dumps({"cluster": "demo", "account": "1"}))
    assert state_problems(str(tmp_path), "demo") == []


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.write_text("")
    [said] = check_state(file, "demo")
    assert said.startswith(f"k8sgu_state_dir: {file} is a file, ") and "choose another" in said
    [said] = check_state(file / "demo", "demo")
    assert said == f"k8sgu_state_dir: {file}/demo cannot be made, since {file} is a file; choose another"


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o600], ids=["closed", "read-only", "no way in"])
def test_a_directory_that_is_not_ours(base: Path, mode: int) -> None:
    state = base / "state"
    state.mkdir()
    state.chmod(mode)
    with somebody_else():
        [said] = check_state(state, "demo")
        assert said.startswith(f"k8sgu_state_dir: {state} cannot be read and written by this user (mode {mode:04o}, ")
        assert f"chmod u+rwx {state}" in said
    state.chmod(0o755)


def test_a_directory_that_cannot_be_made(base: Path) -> None:
    above = base / "above"
    above.mkdir()
    above.chmod(0o555)
    with somebody_else():
        [said] = check_state(above / "state" / "demo", "demo")
        assert f"cannot be made, since this user may not write to {above}; " in said
    above.chmod(0o000)
    with somebody_else():
        [said] = check_state(above / "state", "demo")
        assert f"{above}/state cannot be looked at (Permission denied); " in said
    above.chmod(0o755)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o711, 0o704])
def test_secrets_that_are_open_to_others(tmp_path: Path, mode: int) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    secrets.chmod(mode)
    [said] = check_state(tmp_path, "demo")
    assert said.startswith(f"k8sgu_state_dir: {secrets} is open to other users (mode {mode:04o}), ")
    assert f"chmod 0700 {secrets}" in said and "rotate_encryption_key.yml" in said


def authority(organization: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_the_state_of_another_cluster(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "kubernetes-ca.pem").write_bytes(authority("prod"))
    kubeconfig = tmp_path / "admin.kubeconfig"
    for file in ("pki/kubernetes-ca.pem", "admin.kubeconfig", "place.json"):
        if file == "admin.kubeconfig":
            kubeconfig.write_text("{clusters: [{name: prod}], current-context: elsewhere}")
        elif file == "place.json":
            (tmp_path / file).write_text(json.dumps({"cluster": "prod", "account": "1"}))
        assert check_state(tmp_path, "prod") == []
        [said] = check_state(tmp_path, "demo")
        assert said.startswith(f"k8sgu_state_dir: {tmp_path} holds the cluster prod ({file}), and this is demo: "), said
        assert "Put back k8sgu_cluster_name" in said and f"rm -r -- {tmp_path}" in said
    # Who has the kubeconfig's other clusters in it still has this one.
    (tmp_path / "place.json").unlink()
    kubeconfig.write_text("{clusters: [{name: other}, {name: demo}]}")
    assert check_state(tmp_path, "demo") == []


def test_what_is_broken_is_left_to_who_reads_it(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "kubernetes-ca.pem").write_text("no certificate")
    (tmp_path / "admin.kubeconfig").write_text("clusters: [")
    (tmp_path / "place.json").write_text("[]")
    assert check_state(tmp_path, "demo") == []
