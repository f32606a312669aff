"""Machines and networks at the level below the API: booted nodes, real packets."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import outside
import pytest
from fabric_support import (
    ALL_OUT,
    EVERYWHERE,
    PATIENCE_S,
    PING,
    SSH,
    SUBNET,
    WATCH_S,
    HandMadeLab,
    eventually,
    instance_id,
    ranges_in_use,
)

from ec2lab import addresses, cgroups, doctor, faults, host, image, model, residue
from ec2lab.errors import LabError, Timeout
from ec2lab.machine import Machines

pytestmark = pytest.mark.timeout(600)
IDLE_NODE_MIB = 60


@pytest.fixture(scope="session", autouse=True)
def base_image(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("doctor")
    missing = doctor.missing(directory)
    assert not missing, "this host cannot run the lab: " + "; ".join(f"{c.name}: {c.remedy}" for c in missing)
    image.ensure_image(print)


def new_lab(tmp_path: Path, name: str, cidr: str = "10.9.0.0/16") -> HandMadeLab:
    # Names with this process's id, so that killed or parallel runs cannot interfere.
    return HandMadeLab(f"m-{name}-{os.getpid()}", free_range(), tmp_path, cidr)


def free_range() -> str:
    """A range from the upper half of the pool, which labs use only when the lower half is full."""
    return addresses.free_range([*ranges_in_use(), "198.18.0.0/16"])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HandMadeLab]:
    """Two nodes of one subnet, shared by the tests of this file."""
    made = new_lab(tmp_path_factory.mktemp("lab"), "shared")
    try:
        nodes = made.add_nodes(2)
        made.boot(*nodes, user_data=b"#!/bin/sh\necho run >>/root/user-data-ran\n")
        yield made
    finally:
        made.destroy()


@pytest.fixture
def two(lab: HandMadeLab) -> Iterator[tuple[HandMadeLab, model.Node, model.Node]]:
    """The shared lab in its first state; what a test changes is restored."""
    before = lab.vpc
    first, second = lab.vpc.nodes
    yield lab, first, second
    lab.vpc = before
    lab.apply()


Two = tuple[HandMadeLab, model.Node, model.Node]


# Nodes


def test_a_node_is_the_machine_that_the_api_describes(two: Two) -> None:
    lab, first, second = two
    assert lab.ssh(first, "hostname").stdout.strip() == first.hostname
    assert lab.ssh(first, "sudo -n id -u").stdout.strip() == "0"
    assert lab.ssh(first, "cat /sys/class/net/ens5/address").stdout.strip() == first.mac
    assert f" {first.private_ip}/24 " in lab.ssh(first, "ip -4 address show ens5").stdout
    assert lab.ssh(first, "systemctl is-system-running --wait").stdout.strip() == "running"
    identities = {lab.ssh(node, "cat /etc/machine-id; cat /etc/ssh/*.pub").stdout for node in (first, second)}
    assert len(identities) == 2, "machine ids and host keys differ from node to node"


def test_the_console_shows_the_boot_and_the_host_keys(two: Two) -> None:
    lab, first, _ = two
    console = lab.machines.console_path(first.id).read_text(errors="replace")
    assert "OpenBSD Secure Shell server" in console
    assert lab.on(first, "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub").stdout.strip() in console


def test_user_data_runs_once(two: Two) -> None:
    lab, first, _ = two
    eventually(
        lambda: lab.on(first, "test -e /var/lib/cloud/instance/boot-finished", check=False).returncode == 0,
        "the user-data script's end",
    )
    lab.machines.reboot(first.id)
    lab.machines.wait_ready(first.id, PATIENCE_S)
    lab.on(first, "systemctl is-system-running --wait || true")
    assert lab.on(first, "cat /root/user-data-ran").stdout == "run\n"


def test_containers_can_be_confined_on_a_node(two: Two) -> None:
    """Cgroups, kernel settings, modules and mounts as container runtimes and kubelet use them."""
    lab, first, _ = two
    lab.on(
        first,
        """set -e
        modprobe -a overlay br_netfilter nf_conntrack
        ! modprobe no_such_module 2>/dev/null
        sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 vm.overcommit_memory=1 kernel.panic=10
        head -c 1 /dev/kmsg >/dev/null || [ $? = 1 ]
        nft add table inet probe && nft delete table inet probe
        iptables -t nat -A POSTROUTING -j MASQUERADE && iptables -t nat -D POSTROUTING -j MASQUERADE
        mkdir -p /var/lib/containerd/probe && cd /var/lib/containerd/probe && mkdir -p a b c d
        mount -t overlay -o lowerdir=a,upperdir=b,workdir=c none d && umount d
        mkdir -p bundle/rootfs && cd bundle && cp -a --parents /usr/bin/dash /lib64 rootfs/ 2>/dev/null || true
        """,
    )
    # runc with a memory limit: its own cgroup below the node's, in every controller.
    lab.on(
        first,
        r"""set -e
        cd /var/lib/containerd/probe/bundle
        mkdir -p rootfs/usr rootfs/proc && ln -sfn usr/lib rootfs/lib && ln -sfn usr/lib64 rootfs/lib64
        ln -sfn usr/bin rootfs/bin
        rm -f config.json && runc spec --bundle .
        python3 - <<'END'
import json
spec = json.load(open("config.json"))
spec["process"].update(terminal=False, args=["/bin/true"], noNewPrivileges=True)
spec["mounts"].append({"destination": "/usr", "source": "/usr", "type": "bind", "options": ["rbind", "ro"]})
spec["linux"]["resources"]["memory"] = {"limit": 67108864}
spec["linux"]["cgroupsPath"] = "/kubepods/probe"
json.dump(spec, open("config.json", "w"))
END
        runc run probe
        """,
    )


def test_systemd_has_its_controllers_from_the_start(two: Two) -> None:
    """A unit has its limit, and a re-exec moves no process out of a group that a container runtime has made."""
    lab, first, _ = two
    said = lab.on(
        first,
        r"""set -e
        d=/sys/fs/cgroup
        [ ! -d $d/memory ] || d=$d/memory
        systemd-run --quiet --unit=limited -p MemoryMax=32M sleep infinity
        cat $d/system.slice/limited.service/memory.limit_in_bytes 2>/dev/null ||
            cat $d/system.slice/limited.service/memory.max
        sleep infinity >/dev/null 2>&1 &
        for top in $(findmnt -rno TARGET -t cgroup,cgroup2); do
            mkdir $top/pods
            for name in cpuset.cpus cpuset.mems; do
                [ ! -e $top/tasks ] || [ ! -e $top/$name ] || cat $top/$name >$top/pods/$name
            done
            echo $! >$top/pods/cgroup.procs
        done
        cat /proc/$!/cgroup >before
        systemctl daemon-reexec
        systemd-run --quiet --unit=another -p MemoryMax=32M sleep infinity
        diff before /proc/$!/cgroup
        kill $!
        systemctl stop limited another
        """,
    ).stdout
    assert said.split() == [str(32 << 20)]


def test_a_nodes_settings_stay_its_own(two: Two) -> None:
    lab, first, _ = two
    there = [name for name in image.settings() if Path("/proc/sys", name).exists()]

    def on_the_host() -> dict[str, str]:
        return {name: Path("/proc/sys", name).read_text() for name in there}

    def on_the_node() -> dict[str, str]:
        listed = lab.on(first, f"cd /proc/sys && head -v {' '.join(there)}").stdout
        parts = re.split(r"==> (.*) <==\n", f"\n{listed}\n")[1:]
        return {name: value.removesuffix("\n") for name, value in zip(parts[::2], parts[1::2], strict=True)}

    # First check that each is a mount of the node's own, so that the writes below do not change the host.
    mounted = lab.on(first, "cut -d' ' -f5 /proc/self/mountinfo").stdout.split()
    assert {f"/proc/sys/{name}" for name in there} <= set(mounted)
    assert set(lab.on(first, "findmnt -n -o FSTYPE /proc/sys/vm/max_map_count").stdout.split()) == {"tmpfs"}
    before = on_the_host()
    # The distribution sets some; the rest are the kernel's defaults.
    real = [name for name in there if re.match(r"fs/(file|inotify|nr)|vm/max|kernel/threads", name)]
    assert len(real) == 7
    assert {name: on_the_node()[name] for name in real} == {name: before[name] for name in real}
    lab.on(first, f"cd /proc/sys && for name in {' '.join(there)}; do echo 4711 >$name; done")
    assert set(on_the_node().values()) == {"4711\n"}
    assert on_the_host() == before
    lab.machines.reboot(first.id)
    lab.machines.wait_ready(first.id, PATIENCE_S)
    assert {name: on_the_node()[name] for name in real} == {name: before[name] for name in real}


def test_an_idle_node_is_small(two: Two) -> None:
    lab, _, second = two
    resident = sum(_resident_kib(pid) for pid in cgroups.processes(lab.name, second.id)) / 1024
    assert resident <= IDLE_NODE_MIB, f"an idle node has {resident:.0f} MiB resident"


def _resident_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


# Security groups


def test_ping_is_refused_by_a_security_group_and_then_allowed(two: Two) -> None:
    lab, first, second = two
    assert not lab.pings(first, second.private_ip)
    lab.permit(PING)
    assert lab.pings(first, second.private_ip)
    lab.permit()
    assert not lab.pings(first, second.private_ip)


def test_a_rule_names_a_group_and_means_its_members(two: Two) -> None:
    lab, first, second = two
    lab.change(
        security_groups=(
            *lab.vpc.security_groups,
            model.SecurityGroup("sg-callers"),
            model.SecurityGroup("sg-web", (model.Rule("tcp", 8080, 8080, groups=("sg-callers",)),)),
        )
    )
    lab.change_node(second, security_groups=("sg-base", "sg-web"))
    lab.serve(second, 8080, "by-group")
    assert lab.fetch(first, second.private_ip, 8080) is None
    lab.change_node(first, security_groups=("sg-base", "sg-callers"))
    assert lab.fetch(first, second.private_ip, 8080) == "by-group"
    # Its other port and the world outside stay shut.
    assert not _connects((str(second.public_ip), 8080))


def test_egress_is_enforced_and_answers_still_leave(two: Two) -> None:
    lab, first, second = two
    lab.permit(PING, egress=())
    assert not lab.pings(first, second.private_ip)
    assert lab.ssh(first, "hostname").stdout.strip() == first.hostname  # the answers of a connection from outside
    lab.permit(PING, egress=(model.Rule("icmp", -1, -1, cidrs=(f"{second.private_ip}/32",)),))
    assert lab.pings(first, second.private_ip)


def _connects(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, timeout=WATCH_S):
            return True
    except OSError:
        return False


# Routes and the source/destination check


def test_a_routed_range_needs_the_route_and_the_check_switched_off(two: Two) -> None:
    lab, first, second = two
    lab.permit(PING)
    lab.on(second, "ip address replace 10.200.1.1/32 dev lo")
    lab.on(first, "ip address replace 10.200.2.1/32 dev lo")
    pods = (model.Route("10.200.1.0/24", "instance", second.id), model.Route("10.200.2.0/24", "instance", first.id))

    assert not lab.pings(first, "10.200.1.1")  # neither
    lab.route(*pods)
    assert not lab.pings(first, "10.200.1.1")  # the route alone
    lab.change_node(second, source_dest_check=False)
    assert lab.pings(first, "10.200.1.1")
    assert not lab.pings(first, "10.200.1.1", interface="10.200.2.1")  # the sender's own check
    lab.change_node(first, source_dest_check=False)
    assert lab.pings(first, "10.200.1.1", interface="10.200.2.1")
    lab.route()
    assert not lab.pings(first, "10.200.1.1")  # the check alone


def test_a_route_to_a_node_comes_back_with_it(two: Two) -> None:
    lab, first, second = two
    lab.permit(PING)
    lab.route(model.Route("10.200.1.0/24", "instance", second.id))
    lab.change_node(second, source_dest_check=False)
    lab.machines.reboot(second.id)
    lab.machines.wait_ready(second.id, PATIENCE_S)
    lab.apply()
    assert lab.on(second, "ip address show").stdout.count("10.200.1.1") == 0, "a reboot forgets what was set by hand"
    lab.on(second, "ip address replace 10.200.1.1/32 dev lo")
    assert lab.pings(first, "10.200.1.1")


# Services and the world outside


def test_services_of_the_lab_answer_whatever_the_groups_say(two: Two) -> None:
    lab, first, _ = two
    lab.permit(egress=())
    listening = lab.fabric.open_socket("vpc-1", socket.AF_INET, socket.SOCK_STREAM, addresses.IMDS, 80)
    with _answering(listening, "metadata"):
        assert lab.fetch(first, addresses.IMDS, 80) == "metadata"


def test_a_node_does_not_reach_the_hosts_services(two: Two) -> None:
    lab, first, _ = two
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        port = everywhere.getsockname()[1]
        own = [network.partition("/")[0] for network in host.networks() if network.endswith("/32")]
        reachable = {*own, addresses.SLIRP_GATEWAY} - {"127.0.0.1"}
        assert len(reachable) >= 3
        with _answering(everywhere, "host"):
            assert _connects(("127.0.0.1", port))
            for address in sorted(reachable):
                assert lab.fetch(first, address, port) is None, f"a node reached the host at {address}"


@contextlib.contextmanager
def _answering(listening: socket.socket, text: str) -> Iterator[None]:
    """Answers HTTP on a bound socket."""
    listening.listen()
    listening.settimeout(0.2)
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(WATCH_S)
                    connection.recv(4096)
                    connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        listening.close()


@pytest.fixture
def internet(lab: HandMadeLab) -> Iterator[str]:
    with outside.internet(lab.directory / "web") as address:
        yield address


def test_the_internet_is_reached_through_a_gateway_only(two: Two, internet: str) -> None:
    if not host.has_default_route():
        pytest.skip("the host has no default route, so its nodes have no way out")
    lab, first, second = two
    assert lab.fetch(first, internet, 80) is not None
    lab.change_node(first, public_ip=None)
    assert lab.fetch(first, internet, 80) is None  # an internet gateway serves public addresses only
    subnet = lab.vpc.subnets[0]
    private = model.Subnet("subnet-2", "10.9.1.0/24", (model.Route("0.0.0.0/0", "nat", "nat-1"),))
    lab.change(
        subnets=(subnet, private),
        nat_gateways=(model.NatGateway("nat-1", SUBNET, "10.9.0.200", lab.public[50]),),
    )
    lab.change_node(first, public_ip=None, subnet_id="subnet-2")
    assert lab.fetch(first, internet, 80) is not None
    lab.change(nat_gateways=())
    assert lab.fetch(first, internet, 80) is None
    lab.change(internet_gateway=False)
    assert lab.fetch(second, internet, 80) is None
    assert not _connects((str(second.public_ip), 22))


def test_a_public_address_works_from_within_the_vpc(two: Two) -> None:
    lab, first, second = two
    # The receiver sees the sender's public address, as on EC2.
    lab.change(
        security_groups=(
            model.SecurityGroup("sg-base", (model.Rule("tcp", 22, 22, cidrs=(f"{first.public_ip}/32",)),), (ALL_OUT,)),
        )
    )
    answer = lab.on(first, f"nc -w {WATCH_S} {second.public_ip} 22 </dev/null", check=False).stdout
    assert answer.startswith("SSH-")
    assert not lab.on(first, f"nc -w {WATCH_S} {second.private_ip} 22 </dev/null", check=False).stdout


# Load balancers


def test_a_load_balancer_leaves_out_a_target_that_fails(two: Two) -> None:
    lab, first, second = two
    check = model.HealthCheck("HTTP", interval_s=0.5, timeout_s=2, healthy_threshold=2, unhealthy_threshold=2)
    targets = tuple(model.Target(node.id, node.private_ip, 8000) for node in (first, second))
    for node in (first, second):
        lab.serve(node, 8000, node.hostname)
    # Only the balancer itself may reach the targets: connections come from its address.
    lab.change(
        security_groups=(
            model.SecurityGroup("sg-base", (SSH, model.Rule("tcp", 8000, 8000, groups=("sg-lb",))), (ALL_OUT,)),
            model.SecurityGroup("sg-lb", (model.Rule("tcp", 80, 80, cidrs=EVERYWHERE),), (ALL_OUT,)),
        ),
        load_balancers=(
            model.LoadBalancer(
                "lb", "lb", ("sg-lb",), ((SUBNET, "10.9.0.100", lab.public[100]),), (model.Listener(80, "tg"),)
            ),
        ),
        target_groups=(model.TargetGroup("tg", targets, check),),
    )

    def states() -> list[str]:
        return [lab.fabric.health("tg", target.instance_id, target.port).state for target in targets]

    def answers(count: int = 12) -> set[str | None]:
        return {lab.fetch(first, "10.9.0.100", 80) for _ in range(count)}

    eventually(lambda: states() == ["healthy", "healthy"], "both targets healthy")
    eventually(lambda: answers() == {first.hostname, second.hostname}, "answers of both targets")
    assert _fetch_from_host(lab.public[100]) in (first.hostname, second.hostname)
    lab.on(second, "systemctl stop web-8000")
    eventually(lambda: states() == ["healthy", "unhealthy"], "the stopped target unhealthy")
    assert lab.fabric.health("tg", second.id, 8000).reason == "Target.FailedHealthChecks"
    assert answers() == {first.hostname}
    # One that was registered this moment gets nothing before its first check.
    also = (*targets, model.Target(second.id, second.private_ip, 8001))
    lab.change(target_groups=(model.TargetGroup("tg", also, check),))
    assert answers() == {first.hostname}
    lab.change(target_groups=(model.TargetGroup("tg", targets, check),))
    lab.serve(second, 8000, second.hostname)
    eventually(lambda: states() == ["healthy", "healthy"], "the target back")
    eventually(lambda: answers() == {first.hostname, second.hostname}, "answers of both targets again")
    assert lab.fabric.health("tg", "i-unknown", 8000).state == "unused"


def _fetch_from_host(address: str) -> str:
    with socket.create_connection((address, 80), timeout=PATIENCE_S) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        received = b""
        while chunk := connection.recv(4096):
            received += chunk
    return received.decode().partition("\r\n\r\n")[2]


# Faults


def test_a_node_is_cut_off_and_comes_back(two: Two) -> None:
    lab, first, second = two
    lab.permit(PING)
    assert lab.pings(first, second.private_ip)
    lab.change_node(second, cut=True)
    assert not lab.pings(first, second.private_ip)
    assert not lab.pings(second, first.private_ip)
    assert not _connects((str(second.public_ip), 22))
    lab.change_node(second, cut=False)
    assert lab.pings(first, second.private_ip)
    assert _connects((str(second.public_ip), 22))


def test_a_disk_is_filled_and_freed(two: Two) -> None:
    lab, first, _ = two
    free_on_host = shutil.disk_usage(lab.directory).free
    faults.fill_disk(lab.machines, first.id)
    done = lab.on(first, "head -c 1000000 /dev/zero >/var/tmp/more", check=False)
    assert "No space left on device" in done.stderr
    assert shutil.disk_usage(lab.directory).free > free_on_host - (2 << 30), "the host's disk must not fill up"
    faults.free_disk(lab.machines, first.id)
    lab.on(first, "head -c 1000000 /dev/zero >/var/tmp/more && rm /var/tmp/more")
    faults.free_disk(lab.machines, first.id)


def test_a_clock_jump_says_why_it_cannot_be(two: Two) -> None:
    lab, first, _ = two
    with pytest.raises(LabError, match="time namespaces cover the monotonic and boot clocks only"):
        faults.jump_clock(lab.machines, first.id, 3600)
    with pytest.raises(LabError, match="not running"):
        faults.fill_disk(lab.machines, instance_id(99))


# Lives


def test_a_stopped_nodes_disk_stays_and_a_terminated_nodes_disk_is_removed(tmp_path: Path) -> None:
    lab = new_lab(tmp_path, "life")
    try:
        (node,) = lab.add_nodes(1)
        with pytest.raises(LabError, match="there is no machine"):
            lab.machines.start(node.id)
        lab.boot(node)
        lab.on(node, "echo kept >/root/file && echo kept >/usr/local/file")
        lab.machines.stop(node.id)
        assert lab.machines.state(node.id) == "stopped"
        lab.apply()
        # The next daemon's view: another object, the same directory.
        later = Machines(lab.name, lab.directory)
        assert list(later.known()) == [node.id]
        later.start(node.id)
        later.wait_ready(node.id, PATIENCE_S)
        assert lab.machines.state(node.id) == "running"
        assert lab.on(node, "cat /root/file /usr/local/file").stdout == "kept\nkept\n"

        later.power_off(node.id)
        assert lab.machines.state(node.id) == "stopped"
        lab.apply()
        lab.machines.start(node.id)
        lab.machines.wait_ready(node.id, PATIENCE_S)

        lab.on(node, "systemctl poweroff --no-block")
        eventually(lambda: lab.machines.state(node.id) == "stopped", "a node that powers itself off is stopped")

        lab.machines.delete(node.id)
        assert lab.machines.state(node.id) is None
        assert not lab.machines.console_path(node.id).parent.exists()
        lab.machines.delete(node.id)
    finally:
        lab.destroy()


def test_a_machine_that_cannot_boot_shows_its_console(tmp_path: Path) -> None:
    lab = new_lab(tmp_path, "broken")
    try:
        (node,) = lab.add_nodes(1)
        lab.machines.create(lab.spec(node))
        lab.change(nodes=())  # no cable
        lab.machines.start(node.id)
        with pytest.raises(LabError, match="Its console's end"):
            lab.machines.wait_ready(node.id, PATIENCE_S)
        lab.add_nodes(1)
        lab.machines.start(node.id)
        with pytest.raises(Timeout, match="did not answer by SSH within 0 s"):
            lab.machines.wait_ready(node.id, 0)
    finally:
        lab.destroy()


def test_a_killed_making_of_the_image_leaves_nothing_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-c", "from ec2lab import image; image.ensure_image(print)"]
    making = subprocess.Popen(command, cwd=Path(image.__file__).parent.parent, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: any(tmp_path.glob("ec2lab/images/.building-*/root/*")), "mmdebstrap at work")
    finally:
        making.kill()
        making.wait()

    def left() -> list[str]:
        seen = residue.snapshot()
        return [line for kind in ("process", "mount") for line in seen[kind] if str(tmp_path) in line]

    eventually(lambda: not left(), "the end of everything that the making started")
    assert image.cached_image() is None
    image.sweep()  # what the next making begins with
    assert [path.name for path in (tmp_path / "ec2lab" / "images").iterdir()] == [".lock"]


def test_two_labs_with_the_same_private_range_do_not_meet(tmp_path: Path, two: Two) -> None:
    shared, neighbour, _ = two
    shared.permit(PING)
    lab = new_lab(tmp_path, "twin")
    try:
        (node,) = lab.add_nodes(1)
        assert node.private_ip == neighbour.private_ip
        assert node.public_ip != neighbour.public_ip
        lab.permit(PING)
        lab.boot(node)
        lab.on(node, "echo twin >/etc/motd.twin")
        assert lab.ssh(node, "cat /etc/motd.twin").stdout == "twin\n"
        assert shared.ssh(neighbour, "cat /etc/motd.twin").returncode != 0
        # The other lab's second node answers its own lab only.
        other = shared.vpc.nodes[1].private_ip
        assert shared.pings(neighbour, other)
        assert not lab.pings(node, other)
        assert not lab.pings(node, str(neighbour.public_ip))
    finally:
        lab.destroy()
    assert shared.ssh(neighbour, "hostname").stdout.strip() == neighbour.hostname


@pytest.mark.parametrize("crash", [False, True], ids=["in order", "after a crash"])
def test_nothing_is_left(tmp_path: Path, crash: bool) -> None:
    lab = new_lab(tmp_path, "crash" if crash else "order")
    before = residue.snapshot([lab.directory], lab=lab.name)
    nodes = lab.add_nodes(2)
    lab.boot(nodes[0])
    lab.machines.create(lab.spec(nodes[1]))
    during = residue.difference(before, residue.snapshot([lab.directory], lab=lab.name))
    for kind in ("process", "namespace", "interface", "route", "cgroup", "loop device", "file"):
        assert any(line.startswith(f"new {kind}") for line in during), f"the snapshot must see a lab's {kind}"
    if crash:
        # The launcher dies first, with the machine's record; the rest is found by name.
        init = lab.machines.init_pid(nodes[0].id)
        assert init is not None
        launcher = int((lab.directory / "machines" / nodes[0].id / "pid").read_text().split()[0])
        os.kill(launcher, signal.SIGKILL)
        shutil.rmtree(lab.directory / "machines")
    lab.fabric.close()
    fresh = HandMadeLab(lab.name, lab.fabric.public_range, lab.directory)
    fresh.destroy()
    deadline = time.monotonic() + PATIENCE_S
    while left := residue.difference(before, residue.snapshot([lab.directory], lab=lab.name)):
        assert time.monotonic() < deadline, "\n".join(left)
        time.sleep(0.2)
    fresh.destroy()  # with nothing there: nothing to do, nothing to say


def test_a_lab_without_a_vpc_keeps_its_range_on_the_host(tmp_path: Path) -> None:
    lab = new_lab(tmp_path, "empty")
    before = residue.snapshot(lab=lab.name)["route"]
    nothing = model.Desired(lab.name, lab.fabric.public_range, ())
    try:
        lab.fabric.reconcile(nothing)
        lab.fabric.reconcile(nothing)
        with pytest.raises(OSError) as failed, socket.create_connection((lab.public[0], 22), timeout=WATCH_S):
            pass
        assert failed.value.errno == errno.EHOSTUNREACH, failed.value
        assert len(residue.snapshot(lab=lab.name)["route"] - before) == 1
    finally:
        lab.destroy()
    assert residue.snapshot(lab=lab.name)["route"] == before


def test_a_range_outside_the_pool_is_closed_to_every_labs_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = HandMadeLab(f"m-other-{os.getpid()}", "192.0.2.0/24", tmp_path)

    def closed() -> bool:
        monkeypatch.setattr(host, "_networks", (0.0, []))
        return "192.0.2.0/24" in host.networks()

    try:
        assert not closed()
        lab.fabric.reconcile(model.Desired(lab.name, lab.fabric.public_range, ()))
        assert closed()
    finally:
        lab.destroy()


def test_a_public_range_in_use_is_refused(two: Two, tmp_path: Path) -> None:
    lab, first, _ = two
    other = HandMadeLab(f"m-stranger-{os.getpid()}", lab.fabric.public_range, tmp_path)
    try:
        with pytest.raises(LabError, match="is in use on the host"):
            other.apply()
    finally:
        other.destroy()
    assert lab.ssh(first, "hostname").stdout.strip() == first.hostname


def test_a_second_reconcile_changes_nothing_and_a_disturbed_kernel_is_repaired(two: Two) -> None:
    lab, first, second = two
    lab.permit(PING)
    listing = ["ip", "-n", lab.namespace_of(), "-d", "-4", "route", "show", "table", "all"]
    routes = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    lab.apply()
    assert subprocess.run(listing, capture_output=True, text=True, check=True).stdout == routes
    subprocess.run(["ip", "-n", lab.namespace_of(), "route", "delete", f"{second.private_ip}/32"], check=True)
    assert not lab.pings(first, second.private_ip)
    lab.apply()
    assert lab.pings(first, second.private_ip)
