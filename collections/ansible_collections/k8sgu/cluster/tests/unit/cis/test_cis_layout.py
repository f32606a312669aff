# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key files on nodes are owned by root and copied for programs that are not root; what scanners are given exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

COLLECTION = Path(__file__).parents[3]
ROLES = COLLECTION / "roles"
PROGRAMS = {
    "etcd": "etcd",
    "kube-apiserver": "control_plane",
    "kube-controller-manager": "control_plane",
    "kube-scheduler": "control_plane",
}
PLACES = ("/etc/kubernetes/pki/", "/etc/etcd/pki/")


def files(role):
    """Every file that the role has on a node, by its path."""
    entries = []

    def look(value):
        if isinstance(value, dict):
            entries.extend([value] if str(value.get("dest", "")).startswith("/") else [])
            value = list(value.values())
        for one in value if isinstance(value, list) else []:
            look(one)

    look(yaml.safe_load((ROLES / role / "vars" / "main.yml").read_text()))
    return {entry["dest"]: entry for entry in entries if entry.get("state") != "absent"}


@pytest.mark.parametrize("role", ["etcd", "control_plane", "worker"])
def test_keys_certificates_and_kubeconfigs_are_roots(role):
    found = {path: entry for path, entry in files(role).items() if path.startswith(PLACES) or path.endswith(".conf")}
    assert found
    for path, entry in found.items():
        assert {"owner", "group"}.isdisjoint(entry), path
        public = path.endswith((".crt", ".pub"))
        assert public or path.endswith((".key", ".conf")), path
        assert (entry["mode"], entry.get("secret", False)) == (("0644", False) if public else ("0600", True)), path


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_reads_copies_that_its_unit_makes(program):
    role = ROLES / PROGRAMS[program]
    unit = (role / "templates" / f"{program}.service.j2").read_text()
    named = re.search(r"{% set copied %}\n((?:  .*\\\n)*  .*)\n{% endset %}\n", unit)
    unit = unit.replace("{{ copied | trim }}", named[1].strip()) if named else unit
    copied = re.search(r"ExecStartPre=\+/usr/bin/install .* -t /run/(\S+) \\\n((?:  .*\\\n)*  .*)\n", unit)
    assert copied
    assert copied[1] == program
    sources = copied[2].replace("\\\n", " ").split()
    assert set(sources) <= set(files(PROGRAMS[program]))
    texts = [(role / "vars" / "main.yml").read_text()]
    texts += [path.read_text() for path in (role / "templates").glob("*.yml.j2")]
    read = {name for text in texts for name in re.findall(rf"/run/{program}/(\S+)", text)}
    assert read == {source.rpartition("/")[2] for source in sources}


def test_a_scanner_is_given_files_that_exist():
    told = (COLLECTION.parents[3] / "examples" / "kube-bench" / "config.yaml").read_text()
    paths = set(re.findall(r"(/(?:etc|var)/[^\s,\]]+)", told))
    installed = {path for role in ("etcd", "control_plane", "worker") for path in files(role)}
    units = {f"/etc/systemd/system/{name}.service" for name in (*PROGRAMS, "kubelet", "kube-proxy")}
    assert paths - {"/var/lib/etcd"} <= installed | units
