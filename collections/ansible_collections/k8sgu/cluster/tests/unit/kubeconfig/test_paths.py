# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths of files, which an option gives from the working directory and a kubeconfig from its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.document import ConfigError, find, load
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.options import ARGUMENT_SPEC, written_path
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.run import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

from .pairs import pair


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("conf/pki/ca.pem", "pki/ca.pem"),
        ("/work/conf/pki/ca.pem", "pki/ca.pem"),
        ("conf/../conf/ca.pem", "ca.pem"),
        ("pki/ca.pem", "/work/pki/ca.pem"),
        ("/etc/ca.pem", "/etc/ca.pem"),
        ("conf/..ca.pem", "..ca.pem"),
    ],
)
def test_a_path_is_written_as_kubectl_writes_it(monkeypatch: pytest.MonkeyPatch, given: str, written: str) -> None:
    monkeypatch.setattr("os.getcwd", lambda: "/work")
    assert written_path(given, "/work/conf") == written


def call(path: Path, **given: Any) -> dict[str, Any]:
    def fill(spec: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        return {name: values.get(name, option.get("default")) for name, option in spec.items()}

    spec = ARGUMENT_SPEC
    for section in ("clusters", "users", "contexts"):
        if section in given:
            given[section] = [fill(spec[section]["options"], item) for item in given[section]]
    return run(Call(fill(spec, {"path": str(path), **given})))


def test_files_are_found_and_another_spelling_is_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key, _encrypted = pair("u")
    (tmp_path / "conf" / "pki").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "conf" / "pki" / "a.pem").write_bytes(certificate)
    (tmp_path / "other" / "a-key.pem").write_bytes(key)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "conf" / "config"
    users = [{"name": "u", "client_certificate": "conf/pki/a.pem", "client_key": "other/a-key.pem"}]
    clusters = [{"name": "c", "server": "https://a", "certificate_authority": "conf/pki/a.pem"}]
    assert call(file, clusters=clusters, users=users)["changed"]
    document = load(file.read_bytes(), str(file))
    assert find(document, "clusters", "c") == {"server": "https://a", "certificate-authority": "pki/a.pem"}
    # The pair is looked at where clients will find it: a key that does not belong to the certificate is refused.
    assert find(document, "users", "u") == {
        "client-certificate": "pki/a.pem",
        "client-key": str(tmp_path / "other" / "a-key.pem"),
    }
    assert not call(file, clusters=clusters, users=users)["changed"]
    clusters[0]["certificate_authority"] = str(tmp_path / "conf" / "pki" / "a.pem")
    assert not call(file, clusters=clusters)["changed"]
    text = file.read_text().replace(
        "certificate-authority: pki/a.pem", f"certificate-authority: {tmp_path}/conf/pki/a.pem"
    )
    file.write_text(text)
    assert not call(file, clusters=clusters, users=users)["changed"]
    assert file.read_text() == text
    clusters[0]["certificate_authority"] = "other/ca.pem"
    assert call(file, clusters=clusters)["changes"] == [f"{file}: cluster 'c': certificate-authority differed"]


def test_a_program_s_path_is_unchanged_and_one_from_the_home_refused(tmp_path: Path) -> None:
    file = tmp_path / "config"

    def execution(command: str) -> dict[str, Any]:
        version = "client.authentication.k8s.io/v1"
        return {"name": "u", "exec": {"api_version": version, "command": command, "interactive_mode": "Never"}}

    for command in ("helper", "./helper", "bin/helper", "/opt/helper"):
        call(file, users=[execution(command)])
        user = find(load(file.read_bytes(), str(file)), "users", "u") or {}
        assert user["exec"]["command"] == command
    with pytest.raises(ConfigError, match=r"^users\[0\]\.exec\.command: begins with ~"):
        call(file, users=[execution("~/bin/helper")])


def test_an_address_that_is_there_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "config"
    first = {"name": "c", "server": "https://a", "keep_server": True}
    assert call(file, clusters=[first])["changed"]
    moved = {"name": "c", "server": "https://b", "keep_server": True, "tls_server_name": "kubernetes"}
    assert call(file, clusters=[moved])["changes"] == [f"{file}: cluster 'c': tls-server-name differed"]
    assert find(load(file.read_bytes(), str(file)), "clusters", "c") == {
        "server": "https://a",
        "tls-server-name": "kubernetes",
    }
    assert not call(file, clusters=[moved])["changed"]
    assert call(file, clusters=[{**moved, "keep_server": False}])["changed"]
    assert (find(load(file.read_bytes(), str(file)), "clusters", "c") or {})["server"] == "https://b"
