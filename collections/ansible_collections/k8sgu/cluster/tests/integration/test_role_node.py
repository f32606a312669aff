# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role node on a booted node: what it restarts after changes of names, time servers or kernel settings."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import lab_node

NAME = "demo-worker-0"
# The image has no time service; this is one as far as systemd can tell.
TIME_SERVICE = """\
systemctl unmask systemd-timesyncd.service
printf '[Service]\\nExecStart=/bin/sleep infinity\\n' >/etc/systemd/system/systemd-timesyncd.service
systemctl daemon-reload
systemctl start systemd-timesyncd.service
"""
# A cloud image's network: netplan's file for the interface, here with the address that EC2 gave, and one that matches
# every interface, as `match: {name: "*"}` makes it. Then what a node has for its pods, and a rule of a user's own.
NETWORKD = """\
mkdir -p /run/systemd/network
address=$(ip -4 -o address show dev ens5 | awk '{print $4}')
router=$(ip route show default | awk '{print $3; exit}')
printf '[Match]\\nName=ens5\\n[Network]\\nIPv6AcceptRA=no\\nAddress=%s\\nGateway=%s\\n' "$address" "$router" \\
    >/run/systemd/network/10-netplan-ens5.network
printf '[Match]\\nName=*\\n[Network]\\nDHCP=no\\n' >/run/systemd/network/10-netplan-zz-all.network
systemctl start systemd-networkd
"""
PODS = """\
set -e
ip link add cni0 type bridge
ip link add flannel.1 type vxlan id 1 dstport 8472 dev ens5
ip link add veth1 type veth peer name peer1
ip link set veth1 master cni0
for link in cni0 flannel.1 veth1 peer1; do ip link set $link up; done
ip address add 10.200.1.1/24 dev cni0
ip address add 10.200.1.0/32 dev flannel.1
ip route add 10.200.2.0/24 via 10.200.2.0 dev flannel.1 onlink
ip route add 10.200.3.0/24 dev cni0
ip rule add fwmark 0x4000 table 77
"""
CONFIGURED = "for try in $(seq 300); do networkctl list ens5 | grep -q configured && exit; sleep 0.1; done; exit 1"
# What an update of systemd, `netplan apply` and a changed file do.
EVENTS = ("systemctl restart systemd-networkd", "networkctl reconfigure ens5", "networkctl reload")
# As unattended-upgrades reads it.
REBOOTS = """python3 -c "
import apt_pkg
apt_pkg.init()
print(apt_pkg.config.find_b('Unattended-Upgrade::Automatic-Reboot', False))"
"""
KERNEL, TIME = "k8sgu-kernel.service", "systemd-timesyncd.service"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab_node.Node]:
    reason = lab_node.missing()
    if reason:
        pytest.skip(reason)
    with lab_node.running(f"role-node-{os.getpid()}", tmp_path_factory.mktemp("lab")) as node:
        yield node


def play(node: lab_node.Node, directory: Path, *others: str, **variables: Any) -> int:
    """Runs the role on the node, whose cluster has `others` too; how many tasks changed something."""
    workers = {
        NAME: node.playbook_variables,
        **{name: {"ec2_private_ip": f"10.99.0.{20 + n}"} for n, name in enumerate(others)},
    }
    # The limit leaves it out; without one there would be no cluster.
    member = {"hosts": {"demo-control-plane-0": {"ec2_private_ip": "10.99.0.9"}}}
    groups = {"control_plane": member, "etcd": member, "worker": {"hosts": workers}}
    hosts = directory / "inventory.yml"
    hosts.write_text(json.dumps({"all": {"children": groups}}))
    status, output = ansible_program.run_playbook(
        "node",
        hosts,
        "--tags=node",
        f"--limit={NAME}",
        variables=variables,
        environment={"AWS_EC2_METADATA_DISABLED": "true"},
    )
    assert status == 0, output[-4000:]
    return int(re.findall(r"changed=(\d+)", output)[0])


def begun(node: lab_node.Node, unit: str) -> str:
    """When the unit was started last."""
    return node.run(f"systemctl show --value --property=ActiveEnterTimestampMonotonic {unit}").strip()


@pytest.mark.timeout(600)
def test_only_what_a_change_concerns_is_restarted(node: lab_node.Node, tmp_path: Path) -> None:
    node.run(TIME_SERVICE)
    # As an image may have it.
    node.run("echo 'Unattended-Upgrade::Automatic-Reboot \"true\";' >/etc/apt/apt.conf.d/52reboot")
    assert node.run(REBOOTS) == "True\n"
    before = begun(node, TIME)
    assert play(node, tmp_path) == 1
    kernel, time = begun(node, KERNEL), begun(node, TIME)
    assert kernel != "0"
    assert time != before
    after = node.run(f"systemctl show --value --property=After {KERNEL}").split()
    assert {"swap.target", "zramswap.service", "dphys-swapfile.service"} <= set(after)
    assert play(node, tmp_path) == 0
    assert node.run(REBOOTS) == "False\n"

    # Another worker is a name more, and nothing to be restarted for.
    assert play(node, tmp_path, "demo-worker-1") == 1
    assert "10.99.0.20 demo-worker-1" in node.run("cat /etc/hosts")
    assert (begun(node, KERNEL), begun(node, TIME)) == (kernel, time)

    servers = {"k8sgu_ntp_servers": ["192.0.2.1", "192.0.2.2"]}
    assert play(node, tmp_path, "demo-worker-1", **servers) == 1
    assert "NTP=192.0.2.1 192.0.2.2\n" in node.run("cat /etc/systemd/timesyncd.conf.d/90-k8sgu.conf")
    sources = node.run("cat /etc/chrony/sources.d/90-k8sgu.sources")
    assert sources == "server 192.0.2.1 iburst\nserver 192.0.2.2 iburst\n"
    assert begun(node, TIME) != time
    assert begun(node, KERNEL) == kernel

    assert play(node, tmp_path, "demo-worker-1", k8sgu_sysctls={"kernel.panic": 11}, **servers) == 1
    assert begun(node, KERNEL) != kernel


@pytest.mark.timeout(600)
def test_a_node_without_a_time_service_is_no_error(node: lab_node.Node, tmp_path: Path) -> None:
    node.run(f"systemctl stop {TIME}; rm /etc/systemd/system/{TIME}; systemctl daemon-reload")
    assert play(node, tmp_path, k8sgu_ntp_servers=["192.0.2.3"]) == 1


def kept(node: lab_node.Node) -> dict[str, bool]:
    """Which of the things that PODS made are there."""
    addresses, routes = node.run("ip -4 -br address"), node.run("ip route; ip rule")
    named = {
        "10.200.1.1/24": addresses, "10.200.1.0/32": addresses, "10.200.2.0/24 via": routes,
        "10.200.3.0/24 dev": routes, "fwmark 0x4000": routes,
    }  # fmt: skip
    return {text: text in shown for text, shown in named.items()}


@pytest.mark.timeout(600)
def test_networkd_leaves_alone_what_is_not_its_own(node: lab_node.Node, tmp_path: Path) -> None:
    """The role's two files, each taken away, show what they are for."""
    node.run(f"{NETWORKD}{CONFIGURED}")
    play(node, tmp_path, k8sgu_ntp_servers=["192.0.2.3"])
    node.run(PODS)
    pids = {node.run("systemctl show --value --property=MainPID systemd-networkd")}
    for event in EVENTS:
        node.run(f"{event} && {CONFIGURED}")
        assert all(kept(node).values()), (event, kept(node))
    states = node.run("networkctl list --no-legend | awk '{print $2, $5}'")
    assert {f"{name} unmanaged" for name in ("cni0", "flannel.1", "veth1")} <= set(states.splitlines()), states
    assert "ens5 configured" in states
    pids.add(node.run("systemctl show --value --property=MainPID systemd-networkd"))
    assert len(pids) == 2, "networkd was not restarted"
    assert play(node, tmp_path, k8sgu_ntp_servers=["192.0.2.3"]) == 0

    node.run(f"mv /etc/systemd/networkd.conf.d/90-k8sgu.conf /root; {EVENTS[0]}; {EVENTS[1]} && {CONFIGURED}")
    assert not kept(node)["fwmark 0x4000"]
    node.run(f"mv /etc/systemd/network/05-k8sgu.network /root; {EVENTS[2]} && {CONFIGURED}")
    assert not any(kept(node).values())


# The distribution's own, which must not touch the clock: it is the host's.
CHRONY = """\
set -e
mkdir -p /etc/systemd/system/chrony.service.d
printf '[Unit]\\nConditionCapability=\\n' >/etc/systemd/system/chrony.service.d/node.conf
echo 'DAEMON_OPTS="-F 1 -x"' >/etc/default/chrony
apt-get -qq update
apt-get -qq -o Dpkg::Options::=--force-confold install chrony systemd-resolved
systemctl is-active chrony systemd-resolved
"""


def resolver(node: lab_node.Node, directory: Path) -> list[str]:
    """What node_facts says: the file for pods, and the servers in it."""
    arguments, environment, result = ansible_program.one_task(
        directory, node.ansible_variables, {"k8sgu.cluster.node_facts": {}}, ""
    )
    done = ansible_program.run("ansible-playbook", *arguments, cwd=directory, environment=environment)
    assert result.exists(), done.stdout + done.stderr
    found = json.loads(result.read_text())["ansible_facts"]["k8sgu_node"]
    return [found["resolv_conf"], *found["name_servers"]]


@pytest.mark.timeout(600)
def test_chrony_takes_amazon_s_clock_and_pods_a_real_name_server(node: lab_node.Node, tmp_path: Path) -> None:
    server = node.run("awk '/^nameserver/ {print $2; exit}' /etc/resolv.conf").strip()
    node.run(f"{CHRONY} >/root/chrony 2>&1 || {{ cat /root/chrony; exit 1; }}")
    assert "169.254.169.123" not in node.run("chronyc -n sources")
    play(node, tmp_path)
    node.run("chronyc -n waitsync 60 0 0 1")
    assert "^* 169.254.169.123" in node.run("chronyc -n sources")

    node.run(f"printf '[Resolve]\\nDNS={server}\\n' >/etc/systemd/resolved.conf; systemctl restart systemd-resolved")
    assert "nameserver 127.0.0.53" in node.run("cat /etc/resolv.conf")
    assert resolver(node, tmp_path) == ["/run/systemd/resolve/resolv.conf", server]
    # What resolved leaves behind when it is switched off.
    node.run(f"systemctl stop systemd-resolved; rm /etc/resolv.conf; echo nameserver {server} >/etc/resolv.conf")
    node.run("echo nameserver 192.0.2.1 >/run/systemd/resolve/resolv.conf")
    assert resolver(node, tmp_path) == ["/etc/resolv.conf", server]
