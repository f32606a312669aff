from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._node import facts

MEMINFO = "MemTotal:       16384 kB\nSwapTotal:          0 kB\n"


def make_root(tmp_path: Path, *, unified: bool, resolved: bool, capabilities: str) -> Path:
    for folder in ("etc", "proc/self", "sys/fs/cgroup", "run/systemd/resolve"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('ID=ubuntu\nVERSION_ID="20.04"\n# NAME="x"\n')
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "proc/self/status").write_text(f"Name:\tpython3\nCapEff:\t{capabilities}\n")
    if unified:
        (tmp_path / "sys/fs/cgroup/cgroup.controllers").touch()
    if resolved:
        (tmp_path / "run/systemd/resolve/resolv.conf").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("unified", "resolved", "capabilities", "version", "can_lower", "resolv_conf"),
    [
        (True, True, "000001ffffffffff", 2, True, "/run/systemd/resolve/resolv.conf"),
        (False, False, "000001fffeffffff", 1, False, "/etc/resolv.conf"),
    ],
)
def test_node_facts(tmp_path, unified, resolved, capabilities, version, can_lower, resolv_conf):
    root = make_root(tmp_path, unified=unified, resolved=resolved, capabilities=capabilities)
    found = facts.node_facts(root)
    assert found["cgroup_version"] == version
    assert found["can_lower_oom_score"] is can_lower
    assert found["resolv_conf"] == resolv_conf
    assert (found["distribution"], found["distribution_version"]) == ("ubuntu", "20.04")
    assert found["memory_bytes"] == 16 * 2**20
    assert found["swap_bytes"] == 0


def test_a_missing_field_is_zero():
    assert facts.memory_bytes(MEMINFO, "HugePages_Total") == 0
