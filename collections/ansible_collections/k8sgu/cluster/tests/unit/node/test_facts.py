from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._node import facts

ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "cni0\t0000C80A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    "wlan0\t00000000\t0100000A\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
    "ens5\t00000000\t0100F00A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
)
MEMINFO = "MemTotal:       16384 kB\nSwapTotal:          0 kB\n"


def make_root(tmp_path: Path, *, unified: bool, resolved: bool, capabilities: str) -> Path:
    for folder in ("etc", "proc/self", "proc/net", "sys/fs/cgroup", "sys/class/net/ens5", "run/systemd/resolve"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/os-release").write_text('ID=ubuntu\nVERSION_ID="20.04"\n# NAME="x"\n')
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    (tmp_path / "proc/self/status").write_text(f"Name:\tpython3\nCapEff:\t{capabilities}\n")
    (tmp_path / "proc/net/route").write_text(ROUTES)
    (tmp_path / "sys/class/net/ens5/mtu").write_text("9001\n")
    if unified:
        (tmp_path / "sys/fs/cgroup/cgroup.controllers").touch()
    if resolved:
        (tmp_path / "run/systemd/resolve/resolv.conf").write_text(RESOLVER)
        (tmp_path / "etc/resolv.conf").write_text("nameserver 127.0.0.53\n")
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
    found = facts.node_facts(root, lambda units: "active\nactivating\n")
    assert found["cgroup_version"] == version
    assert found["can_lower_oom_score"] is can_lower
    assert found["resolv_conf"] == resolv_conf
    assert found["name_servers"] == (["10.240.0.2"] if resolved else [])
    assert (found["distribution"], found["distribution_version"]) == ("ubuntu", "20.04")
    assert found["memory_bytes"] == 16 * 2**20
    assert found["swap_bytes"] == 0
    assert found["mtu"] == 9001
    assert found["active_units"] == ["etcd.service"]
    assert found["kube_proxy_mode"] == "iptables"


RESOLVER = "# made by hand\nsearch ec2.internal example.org\noptions edns0\nnameserver 10.240.0.2\nnameserver fe80::1\n"


def test_programs_are_those_of_each_version(tmp_path: Path) -> None:
    for name in ("kubelet/1/kubelet", "kubelet/2/kubelet", "etcd/1/etcd", "etcd/1/.etcdctl.partial"):
        path = tmp_path / "opt/k8sgu" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "opt/k8sgu/kubelet/current").symlink_to("2")
    assert facts.programs(tmp_path) == ["etcd/1/etcd", "kubelet/1/kubelet", "kubelet/2/kubelet"]
    assert facts.programs(tmp_path / "none") == []


def test_name_servers_are_those_that_another_machine_is() -> None:
    assert facts.name_servers(RESOLVER + "nameserver 127.0.0.53\nnameserver\nnameserver 192.0.2.53 # x\n") == [
        "10.240.0.2",
        "192.0.2.53",
    ]


@pytest.mark.parametrize(
    ("usual", "resolved", "expected"),
    [
        ("nameserver 127.0.0.53\n", RESOLVER, "run/systemd/resolve/resolv.conf"),
        (RESOLVER, RESOLVER, "etc/resolv.conf"),
        # resolved runs, but nobody told it a server.
        (RESOLVER, "# No DNS servers known.\n", "etc/resolv.conf"),
        ("nameserver 127.0.0.53\n", "# No DNS servers known.\n", "etc/resolv.conf"),
        (None, RESOLVER, "run/systemd/resolve/resolv.conf"),
        (None, None, "etc/resolv.conf"),
    ],
)
def test_pods_ask_a_server_that_is_not_the_node(
    tmp_path: Path, usual: str | None, resolved: str | None, expected: str
) -> None:
    for name, text in (("etc/resolv.conf", usual), ("run/systemd/resolve/resolv.conf", resolved)):
        (tmp_path / name).parent.mkdir(parents=True)
        if text is not None:
            (tmp_path / name).write_text(text)
    assert facts.resolver_path(tmp_path) == tmp_path / expected


@pytest.mark.parametrize(
    ("hostname", "resolver", "name"),
    [
        ("ip-10-240-0-10", RESOLVER, "ip-10-240-0-10.ec2.internal"),
        ("ip-10-240-0-10.ec2.internal", RESOLVER, "ip-10-240-0-10.ec2.internal"),
        ("node", "domain example.org.\n", "node.example.org"),
        ("node", "search .\nnameserver 10.0.0.2\n", ""),  # systemd-resolved without a domain
        ("node", "", ""),
    ],
)
def test_the_name_outside_is_the_host_name_in_the_first_domain_searched(hostname, resolver, name) -> None:
    assert facts.domain_name(hostname, resolver) == name


@pytest.mark.parametrize(
    ("kernel", "distribution", "version", "mode"),
    [
        ("6.1.0-18-cloud-amd64", "debian", "12", "nftables"),
        ("6.12.9-amd64", "debian", "", "nftables"),  # testing has no number
        ("5.15.0-1056-aws", "ubuntu", "22.04", "nftables"),
        ("5.13.0-1", "ubuntu", "22.04", "nftables"),
        ("5.12.19-custom", "debian", "12", "iptables"),
        ("4.19.0", "debian", "12", "iptables"),
        ("5.10.0-28-cloud-amd64", "debian", "11", "iptables"),
        ("5.15.0-1056-aws", "ubuntu", "20.04", "iptables"),  # a newer kernel, but nft 0.9.3
        ("6.18.44", "debian", "11", "iptables"),
    ],
)
def test_kube_proxy_has_the_newest_mode_that_the_node_can_run(kernel, distribution, version, mode):
    assert facts.kube_proxy_mode(kernel, distribution, version) == mode


@pytest.mark.parametrize("left", [None, "etc/kubernetes/encryption.yml", "etc/systemd/system/kube-apiserver.service"])
def test_a_node_that_has_keys_shows_it(tmp_path, left):
    root = make_root(tmp_path, unified=True, resolved=True, capabilities="0")
    if left:
        (root / left).parent.mkdir(parents=True)
        (root / left).touch()
    assert facts.node_facts(root, lambda units: "")["encrypts"] is bool(left)


def test_a_missing_field_is_zero():
    assert facts.memory_bytes(MEMINFO, "HugePages_Total") == 0


@pytest.mark.parametrize("routes", [ROUTES.splitlines()[0], "\n".join(ROUTES.splitlines()[:2])])
def test_without_a_default_route_the_mtu_is_ethernets(tmp_path, routes):
    root = make_root(tmp_path, unified=True, resolved=True, capabilities="0")
    (root / "proc/net/route").write_text(routes)
    assert facts.mtu(root) == 1500
