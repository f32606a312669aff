"""What the lab needs from its host: each program and kernel feature, what it is for and how to get it.

Features are tried rather than guessed from versions, in namespaces that end with the trial, so the host is unchanged.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ec2lab import cgroups, host, image, model, rules
from ec2lab.errors import LabError
from ec2lab.machine import kvm, memory, vm

TRIAL_TIMEOUT_S = 20.0
FREE_BYTES = 2 << 30
CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 12, 21, 24


@dataclass(frozen=True)
class Check:
    """One requirement. `needed` is False if only some features use it."""

    name: str
    purpose: str
    remedy: str
    ok: bool
    needed: bool = True
    detail: str = ""


@dataclass(frozen=True)
class _Program:
    name: str
    package: str
    purpose: str


PROGRAMS = (
    _Program("systemd-nspawn", "systemd-container", "boots the nodes"),
    _Program("mmdebstrap", "mmdebstrap", "makes the nodes' image"),
    _Program("ip", "iproute2", "namespaces, links and routes of the VPCs"),
    _Program("nft", "nftables", "security groups, public addresses, load balancers"),
    _Program("conntrack", "conntrack", "ends the connections of an unhealthy load balancer target"),
    _Program("slirp4netns", "slirp4netns", "connects internet and NAT gateways to the internet through the host"),
    _Program("ssh-keygen", "openssh-client", "the nodes' host keys"),
    _Program("openssl", "openssl", "the nodes' trust in the lab's own internet"),
    _Program("mke2fs", "e2fsprogs", "the nodes' disks"),
    _Program("nsenter", "util-linux", "starts nodes in their VPC"),
    _Program("unshare", "util-linux", "starts nodes in namespaces of their own"),
    _Program("setpriv", "util-linux", "cleans up when making the image is interrupted"),
    _Program("mount", "mount", "the nodes' disks"),
    _Program("losetup", "mount", "the nodes' volumes"),
)


def checks(state_dir: Path) -> list[Check]:
    """Every requirement, tried without changing anything on the host."""
    found = [_root()]
    found += [_program(program) for program in PROGRAMS]
    if not found[0].ok:
        return found  # the other trials need root too
    found += [_capabilities(), _cgroups(), *_devices(), _raised_limits()]
    if all(check.ok for check in found if check.name in ("ip", "nft", "unshare", "mount")):
        found += _trials(state_dir)
    remedy = "or mount a larger file system there"
    found.append(_space("state", state_dir, remedy))
    if not _image_is_cached():
        found.append(_space("image", image.cache_directory(), "or set XDG_CACHE_HOME to a directory that has it"))
    return [*found, _archive(), _default_route(), *_virtual_machines()]


def missing(state_dir: Path) -> list[Check]:
    """The needed requirements that are not met; `up` refuses to start when there are any."""
    return [check for check in checks(state_dir) if check.needed and not check.ok]


def _root() -> Check:
    return Check("root", "namespaces, mounts and cgroups", "run it with sudo", os.geteuid() == 0)


def _program(program: _Program) -> Check:
    path = shutil.which(program.name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return Check(
        program.name,
        program.purpose,
        f"apt-get install {program.package}",
        path is not None,
        detail=path or "not found",
    )


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def _capabilities() -> Check:
    held = _effective_capabilities()
    lacking = [
        n for n, bit in (("CAP_SYS_ADMIN", CAP_SYS_ADMIN), ("CAP_NET_ADMIN", CAP_NET_ADMIN)) if not held >> bit & 1
    ]
    return Check(
        "capabilities",
        "mounts and networks of the nodes",
        "run on a machine or in a container with these capabilities (docker run --privileged)",
        not lacking,
        detail=f"without {', '.join(lacking)}" if lacking else "",
    )


def _raised_limits() -> Check:
    return Check(
        "CAP_SYS_RESOURCE",
        "lower OOM scores and higher limits for programs on nodes; without it container runtimes cannot set them",
        "run on a machine that grants root this capability",
        bool(_effective_capabilities() >> CAP_SYS_RESOURCE & 1),
        needed=False,
    )


def _cgroups() -> Check:
    hierarchies = cgroups.hierarchies()
    offered = {controller for hierarchy in hierarchies for controller in hierarchy.controllers}
    lacking = sorted({"cpu", "cpuset", "memory", "pids"} - offered)
    closed = [str(h.mountpoint) for h in hierarchies if not os.access(h.mountpoint, os.W_OK)]
    ok = bool(hierarchies) and not lacking and not closed
    detail = (
        f"cgroup v{' and v'.join(sorted({str(h.version) for h in hierarchies}))}" if hierarchies else "none mounted"
    )
    if lacking:
        detail = f"no controller {', '.join(lacking)}"
    elif closed:
        detail = f"read-only: {', '.join(closed)}"
    remedy = "mount -t cgroup2 none /sys/fs/cgroup, or boot with cgroup_enable=memory if that controller is off"
    return Check("control groups", "one group per node, writable inside", remedy, ok, detail=detail)


def _devices() -> list[Check]:
    wanted = (
        ("/dev/loop-control", "a disk of its own for each node", "modprobe loop"),
        ("/dev/net/tun", "the way out", "modprobe tun"),
        ("/dev/kmsg", "kubelet and others read the kernel's log", "mknod /dev/kmsg c 1 11"),
    )
    return [Check(path, purpose, remedy, Path(path).exists()) for path, purpose, remedy in wanted]


def _trials(state_dir: Path) -> list[Check]:
    everything = rules.ruleset(_sample(), rules.Surroundings(forbidden=("127.0.0.0/8",)))
    network = (
        ("veth", "cables of the nodes", "modprobe veth", True, "ip link add name a type veth peer name b", ""),
        (
            "packet filter",
            "security groups",
            "modprobe -a nf_tables nf_conntrack nft_nat",
            True,
            "nft -f -",
            everything,
        ),
        (
            "br_netfilter",
            "bridges of container runtimes on nodes",
            "modprobe br_netfilter",
            True,
            "test -e /proc/sys/net/bridge/bridge-nf-call-iptables",
            "",
        ),
        (
            "vxlan",
            "overlay networks between nodes",
            "modprobe vxlan",
            False,
            "ip link add name v type vxlan id 1 dstport 8472 dev lo",
            "",
        ),
    )
    found = [
        _trial(name, purpose, remedy, needed, ["unshare", "--net", "sh", "-c", command], stdin)
        for name, purpose, remedy, needed, command, stdin in network
    ]
    directory = _existing(state_dir)
    # A disk's file system and the overlay on it, as on a node; the file is in memory and vanishes with the trial.
    script = (
        "mount -t tmpfs none /mnt && cd /mnt && mkdir disk usr && truncate -s 16M file && mke2fs -q -t ext4 file && "
        "mount -o loop,barrier=0 file disk && mkdir disk/upper disk/work disk/merged && "
        "mount -t overlay -o lowerdir=usr,upperdir=disk/upper,workdir=disk/work none disk/merged && "
        "umount disk/merged disk"
    )
    found.append(
        _trial(
            "disks",
            "ext4 on a loop device and overlayfs: the nodes' file systems",
            "modprobe -a loop ext4 overlay",
            True,
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            "",
        )
    )
    script = 'f=$(mktemp -p "$1") && trap \'rm -f "$f"\' EXIT && truncate -s 1T "$f"'
    found.append(
        _trial(
            "sparse files",
            f"disk images in {directory} use only the space that is written",
            "keep the lab's state on a file system with sparse files, such as ext4, XFS or btrfs",
            True,
            ["sh", "-c", script, "sh", str(directory)],
            "",
        )
    )
    return found


def _trial(name: str, purpose: str, remedy: str, needed: bool, argv: list[str], stdin: str) -> Check:
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=TRIAL_TIMEOUT_S, check=False, cwd="/"
        )
    except subprocess.TimeoutExpired:
        return Check(name, purpose, remedy, False, needed, f"the trial did not end within {TRIAL_TIMEOUT_S:.0f} s")
    said = done.stderr.strip().splitlines()
    detail = "" if done.returncode == 0 else (said[0] if said else f"status {done.returncode}")
    return Check(name, purpose, remedy, done.returncode == 0, needed, detail)


def _sample() -> model.Vpc:
    """A VPC that uses every kind of rule."""
    group = model.SecurityGroup(
        "sg-1",
        ingress=(
            model.Rule("tcp", 1, 2, cidrs=("10.0.0.0/8",), groups=("sg-1",)),
            model.Rule("icmp", 8, -1, ("0.0.0.0/0",)),
        ),
        egress=(model.Rule("-1", None, None, cidrs=("0.0.0.0/0",)),),
    )
    nodes = tuple(
        model.Node(
            f"i-{n}", "subnet-1", f"10.0.0.{n}", f"02:00:00:00:00:0{n}", f"n{n}", ("sg-1",), public_ip=f"198.18.0.{n}"
        )
        for n in (4, 5)
    )
    subnet = model.Subnet("subnet-1", "10.0.0.0/24", (model.Route("0.0.0.0/0", "internet"),))
    targets = tuple(model.Target(node.id, node.private_ip, 80) for node in nodes)
    return model.Vpc(
        "vpc-1",
        ("10.0.0.0/16",),
        (subnet,),
        (group,),
        nodes,
        load_balancers=(
            model.LoadBalancer(
                "lb", "lb", ("sg-1",), (("subnet-1", "10.0.0.6", "198.18.0.6"),), (model.Listener(80, "tg"),)
            ),
        ),
        target_groups=(model.TargetGroup("tg", targets, model.HealthCheck()),),
        internet_gateway=True,
    )


def _existing(directory: Path) -> Path:
    """The directory, or its nearest parent that exists."""
    return next(path for path in (directory, *directory.absolute().parents) if path.is_dir())


def _space(what: str, directory: Path, otherwise: str) -> Check:
    free = shutil.disk_usage(_existing(directory)).free
    return Check(
        f"space for the lab's {what}",
        f"{directory}",
        f"free {FREE_BYTES >> 30} GiB there, {otherwise}",
        free >= FREE_BYTES,
        detail=f"{free / (1 << 30):.1f} GiB free",
    )


def _image_is_cached() -> bool:
    with contextlib.suppress(LabError):  # the check of the archive reports it
        return image.cached_image() is not None
    return False


def _archive() -> Check:
    purpose = "the nodes' image is made from the host's own Debian or Ubuntu archive"
    remedy = "run on Debian or Ubuntu, with its archive in /etc/apt"
    return _check_by("package archive", purpose, remedy, lambda: image.cached_image() or image.chosen_archive())


def _check_by(name: str, purpose: str, remedy: str, question: Callable[[], object]) -> Check:
    try:
        question()
    except LabError as error:
        return Check(name, purpose, remedy, False, detail=str(error))
    return Check(name, purpose, remedy, True)


def _virtual_machines() -> list[Check]:
    lacking = vm.lacking()
    programs = Check(
        "virtual machines",
        "nodes with a kernel of their own (`--machine vm`, or a launch's tag)",
        lacking or "",
        lacking is None,
        needed=False,
    )
    if lacking is not None:
        return [programs]
    verdict = kvm.verdict()
    speed = Check(
        "KVM",
        "their processors; without it QEMU emulates them, which is 10 to 20 times slower",
        "use a machine whose processor has svm or vmx, or whose hypervisor passes them on",
        verdict.serves,
        needed=False,
        detail=verdict.reason,
    )
    room = memory.available_mib()
    return [
        programs,
        speed,
        Check(
            "memory for virtual machines",
            f"each takes up to {memory.DEFAULT_CAP_MIB} MiB",
            "end other programs, or launch virtual machines with the tag ec2lab:memory-mib",
            room >= memory.DEFAULT_CAP_MIB,
            needed=False,
            detail=f"{max(0, room)} MiB",
        ),
    ]


def _default_route() -> Check:
    return Check(
        "default route",
        "nodes reach the internet through the host; without it they do not",
        "connect the host to a network",
        host.has_default_route(),
        needed=False,
    )
