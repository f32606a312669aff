# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""etcdctl speaks to the members, whatever proxy the machine has for its programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl


def test_a_machines_proxy_is_not_etcdctls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, settings = tmp_path / "etcdctl", tmp_path / "etcdctl.env"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    settings.write_text("# how it is used\nETCDCTL_ENDPOINTS=https://10.240.0.10:2379\n")
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    said = etcdctl.run("endpoint", "health", program=str(program), environment=str(settings)).decode()
    seen = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert seen["ETCDCTL_ENDPOINTS"] == "https://10.240.0.10:2379"
    assert "PATH" in seen
    assert [name for name in seen if "PROXY" in name.upper()] == []
