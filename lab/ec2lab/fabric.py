"""Makes the kernel's network match the API: one network namespace per VPC and everything in it.

The kernel is the only record: its state is read, compared with the description, and changed where they differ. So a
second call has nothing to do, and the next daemon finds everything that a killed one made.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ec2lab import addresses, balancer, host, model, names, netns, routes, rules
from ec2lab.balancer import TargetHealth
from ec2lab.errors import LabError, Timeout
from ec2lab.routes import KernelRoute, KernelRule
from ec2lab.shell import run

# MTU inside the VPC; towards the internet or the host it is smaller, as on EC2.
VPC_MTU = 9001
OUTSIDE_MTU = 1500
SLIRP_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
# Metric of the host's route to the whole public range: one per VPC, all after the routes to single addresses.
RANGE_METRIC = 1000

SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # Proxy ARP: the VPC's router answers at once for all of a node's neighbours.
    "net/ipv4/conf/default/proxy_arp": "1",
    "net/ipv4/neigh/default/proxy_delay": "0",
    # The packet filter does the source/destination check instead, since it can be switched per node there.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/default/accept_redirects": "0",
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/netfilter/nf_conntrack_tcp_be_liberal": "1",
}


@dataclass(frozen=True)
class Seen:
    """What is in a VPC's namespace now."""

    links: frozenset[str]
    up: frozenset[str]
    local: frozenset[str]  # addresses on lo
    routes: frozenset[KernelRoute]
    rules: frozenset[KernelRule]


class Fabric:
    """The network of one lab.

    Call `reconcile` after every change and before a machine starts (its node must be in `desired`, so that it gets
    its link). Safe to call from any thread.
    """

    def __init__(self, lab_name: str, public_range: str) -> None:
        self.lab = names.check_lab_name(lab_name)
        self.public_range = public_range
        self._lock = threading.RLock()
        self._vpcs: dict[str, model.Vpc] = {}
        self._range_ended = False
        self._loaded: dict[str, str] = {}  # the rules last given to the kernel, by VPC
        self._checks = balancer.HealthChecks(self._health_changed)

    def reconcile(self, desired: model.Desired) -> None:
        """Makes the kernel match the description. Idempotent; a call with nothing to do takes a few ms."""
        with self._lock:
            self._end_range()
            wanted = {vpc.id: vpc for vpc in desired.vpcs}
            for vpc_id in self._existing() - wanted.keys():
                self._remove_vpc(vpc_id)
            self._vpcs = wanted
            self._make_outside()
            for vpc in desired.vpcs:
                self._reconcile_vpc(vpc)
            self._route_from_outside(desired.vpcs)
            self._checks.update(desired.vpcs, self.namespace)

    def destroy(self) -> None:
        """Removes everything of the lab from the kernel's network; finds it by name, so also after a crash."""
        self._checks.close()
        with self._lock:
            self._vpcs = {}
            for vpc_id in self._existing():
                self._remove_vpc(vpc_id)
            if names.outside_path(self.lab).exists():
                run(["ip", "netns", "delete", names.outside(self.lab)], check=False)
            for name, alias in host.aliases().items():
                if alias.startswith(names.prefix(self.lab)):
                    run(["ip", "link", "delete", "dev", name], check=False)
            metric = str(names.range_metric(self.lab))
            for ended in host.unreachable_ranges(self.lab):
                run(["ip", "route", "delete", "unreachable", ended, "metric", metric], check=False)
            self._range_ended = False
            host.release_netns_directory()

    def close(self) -> None:
        """Ends this object's threads and leaves the network in place."""
        self._checks.close()

    def namespace(self, vpc_id: str) -> Path:
        """The network namespace of a VPC, as `nsenter --net=` takes it."""
        return names.namespace_path(self.lab, vpc_id)

    def open_socket(
        self, vpc_id: str, family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int
    ) -> socket.socket:
        """A bound socket that lives in the VPC's namespace; `address` is one of `addresses.SERVICES`."""
        return netns.open_socket(self.namespace(vpc_id), family, kind, address, port)

    def open_outside(self, port: int) -> socket.socket:
        """A bound TCP socket at the public address of the lab's own internet."""
        with self._lock:
            self._make_outside()
        path = names.outside_path(self.lab)
        return netns.open_socket(path, socket.AF_INET, socket.SOCK_STREAM, addresses.OUTSIDE, port)

    def connect_outside(self, port: int) -> socket.socket:
        """A connection to that address, from its own namespace."""

        def work() -> socket.socket:
            return socket.create_connection((addresses.OUTSIDE, port), timeout=CONNECT_TIMEOUT_S)

        return netns.inside(names.outside_path(self.lab), work)

    def health(self, target_group_arn: str, instance_id: str, port: int) -> TargetHealth:
        """The health of a target, for DescribeTargetHealth."""
        return self._checks.health((target_group_arn, instance_id, port))

    def public_addresses(self) -> list[str]:
        """Every address that can be a public or Elastic IP, in ascending order."""
        return list(addresses.public_addresses(self.public_range))

    # VPCs

    def _existing(self) -> set[str]:
        prefix = names.prefix(self.lab)
        if not names.NETNS_DIR.is_dir():
            return set()
        found = {path.name.removeprefix(prefix) for path in names.NETNS_DIR.iterdir() if path.name.startswith(prefix)}
        return found - {names.OUTSIDE_DEVICE}

    def _end_range(self) -> None:
        """Makes the host reject connections to addresses of the range that no VPC has, so that none leaves the host."""
        if not self._range_ended:
            metric = str(names.range_metric(self.lab))
            run(["ip", "route", "replace", "unreachable", self.public_range, "metric", metric])
            self._range_ended = True

    def _remove_vpc(self, vpc_id: str) -> None:
        namespace = names.namespace(self.lab, vpc_id)
        for pid in _slirps(self.namespace(vpc_id)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            _await_end(pid)
        # The kernel removes a namespace later; the link to the host must be gone when this returns.
        run(["ip", "link", "delete", "dev", names.uplink(self.lab, vpc_id)], check=False)
        run(["ip", "-netns", namespace, "link", "delete", "dev", names.OUTSIDE_DEVICE], check=False)
        run(["ip", "netns", "delete", namespace], check=False)
        if self.namespace(vpc_id).exists():
            raise LabError(f"cannot remove the network namespace {namespace}")
        self._loaded.pop(vpc_id, None)

    def _reconcile_vpc(self, vpc: model.Vpc) -> None:
        for attempt in range(3):
            try:
                self._apply(vpc)
                return
            except LabError:
                # A machine that ends between reading and changing takes its link along.
                if attempt == 2:
                    raise

    def _apply(self, vpc: model.Vpc) -> None:
        namespace = names.namespace(self.lab, vpc.id)
        if not self.namespace(vpc.id).exists():
            host.hold_netns_directory()
            run(["ip", "netns", "add", namespace])
            self._loaded.pop(vpc.id, None)
        seen = _read(namespace)
        if not {names.HOST_DEVICE, names.OUTSIDE_DEVICE} <= seen.links or "lo" not in seen.up:
            self._prepare(vpc.id, namespace)
            seen = _read(namespace)
        # Load the filter first, so that new nodes are filtered from their first packet on.
        self._load_rules(vpc)
        internet = vpc.internet_gateway and host.has_default_route()
        if internet and names.INTERNET_DEVICE not in seen.up:
            self._start_slirp(vpc.id, namespace)
        if not vpc.internet_gateway:
            for pid in _slirps(self.namespace(vpc.id)) if names.INTERNET_DEVICE in seen.links else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
                _await_end(pid)
        _batch(namespace, ip_commands(vpc, seen, internet))
        self._route_from_host(vpc)

    def _prepare(self, vpc_id: str, namespace: str) -> None:
        """Sets up what every VPC has: forwarding, the services' addresses, the link to the host."""
        netns.inside(self.namespace(vpc_id), _write_sysctls)
        indexes = self._link_indexes()
        if vpc_id not in indexes:
            self._refuse_strangers()
            free = (n for n in range(addresses.link_count(self.public_range)) if n not in indexes.values())
            index = next(free, addresses.link_count(self.public_range))
            ends = addresses.link(self.public_range, index)
            uplink = names.uplink(self.lab, vpc_id)
            run(["ip", "link", "delete", "dev", uplink], check=False)  # a killed call may have left it half-made
            commands = [
                f"link add name {uplink} mtu {OUTSIDE_MTU} type veth peer name {names.HOST_DEVICE} "
                f"mtu {OUTSIDE_MTU} netns {namespace}",
                f"link set dev {uplink} alias {namespace}",
                f"link set dev {uplink} up",
                f"address add {ends.host}/31 dev {uplink}",
            ]
            run(["ip", "-batch", "-"], stdin="\n".join(commands) + "\n")
        ends = addresses.link(self.public_range, self._link_indexes()[vpc_id])
        _batch(
            namespace,
            [
                f"address replace {ends.vpc}/31 dev {names.HOST_DEVICE}",
                f"link set dev {names.HOST_DEVICE} up",
                "link set dev lo up",
            ],
        )
        self._link_outside(vpc_id, namespace)

    # The lab's own internet: a namespace beside the VPCs', to which only their gateways lead

    def _make_outside(self) -> None:
        path = names.outside_path(self.lab)
        if not path.exists():
            host.hold_netns_directory()
            run(["ip", "netns", "add", names.outside(self.lab)])
        if not netns.inside(path, _is_ready):
            netns.inside(path, _write_sysctls)
            _batch(names.outside(self.lab), [f"address replace {addresses.OUTSIDE}/32 dev lo", "link set dev lo up"])

    def _link_outside(self, vpc_id: str, namespace: str) -> None:
        here, there = names.outside_link(vpc_id), names.OUTSIDE_DEVICE
        if there not in _read(namespace).links:
            _batch(
                names.outside(self.lab),
                [
                    f"link add name {here} mtu {OUTSIDE_MTU} type veth "
                    f"peer name {there} mtu {OUTSIDE_MTU} netns {namespace}"
                ],
            )
        _batch(
            names.outside(self.lab),
            [f"address replace {addresses.OUTSIDE_GATEWAY}/32 dev {here}", f"link set dev {here} up"],
        )
        _batch(
            namespace,
            [f"address replace {addresses.OUTSIDE_ADDRESS}/32 dev {there}", f"link set dev {there} up"],
        )

    def _route_from_outside(self, vpcs: Iterable[model.Vpc]) -> None:
        """The way back: to the public addresses with which nodes come, over the links of their VPCs."""
        wanted = {
            (public, names.outside_link(vpc.id)) for vpc in vpcs for public in routes.public_sources(vpc).values()
        }
        listed = json.loads(run(["ip", "-netns", names.outside(self.lab), "-json", "route", "show"]) or "[]")
        present = {(route["dst"], route["dev"]) for route in listed if "gateway" in route}
        _batch(
            names.outside(self.lab),
            [
                *(f"route delete {public} dev {link}" for public, link in sorted(present - wanted)),
                *(
                    f"route add {public} via {addresses.OUTSIDE_ADDRESS} dev {link} onlink"
                    for public, link in sorted(wanted - present)
                ),
            ],
        )

    def _link_indexes(self) -> dict[str, int]:
        """The index of each VPC's link, read from the addresses on the host."""
        hosts = {addresses.link(self.public_range, n).host: n for n in range(addresses.link_count(self.public_range))}
        found = {}
        prefix = names.prefix(self.lab)
        for interface in host.interfaces():
            alias = interface.get("ifalias", "")
            for address in interface.get("addr_info", ()):
                if alias.startswith(prefix) and address.get("local") in hosts:
                    found[alias.removeprefix(prefix)] = hosts[address["local"]]
        return found

    def _refuse_strangers(self) -> None:
        """LabError if something else uses the public range: another lab may have taken it at the same moment."""
        for interface in host.interfaces():
            if not interface.get("ifalias", "").startswith(names.prefix(self.lab)):
                for address in interface.get("addr_info", ()):
                    if address["family"] == "inet" and addresses.first_overlap(
                        self.public_range, [f"{address['local']}/32"]
                    ):
                        raise LabError(
                            f"the public range {self.public_range} is in use on the host: {interface['ifname']} has "
                            f"{address['local']}. Take this lab down and up again: it then chooses another range"
                        )

    def _route_from_host(self, vpc: model.Vpc) -> None:
        uplink = names.uplink(self.lab, vpc.id)
        index = self._link_indexes()[vpc.id]
        ends = addresses.link(self.public_range, index)
        present = {
            route["dst"]
            for route in json.loads(run(["ip", "-json", "route", "show", "dev", uplink]) or "[]")
            if route.get("gateway") == ends.vpc
        }
        # Route the whole range too, so that packets to unused addresses end here and do not leave the host.
        wanted = {*routes.public_addresses(vpc), self.public_range}
        commands = [f"route delete {destination} dev {uplink}" for destination in sorted(present - wanted)]
        for destination in sorted(wanted - present):
            metric = f" metric {RANGE_METRIC + index}" if destination == self.public_range else ""
            commands.append(f"route replace {destination} via {ends.vpc} dev {uplink}{metric}")
        if commands:
            run(["ip", "-batch", "-"], stdin="\n".join(commands) + "\n")

    # Access to the internet

    def _start_slirp(self, vpc_id: str, namespace: str) -> None:
        path = self.namespace(vpc_id)
        if names.INTERNET_DEVICE not in _read(namespace).links:
            for pid in _slirps(path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                _await_end(pid)
            # A session of its own, so that it outlives this daemon like the nodes.
            process = subprocess.Popen(
                [
                    *("slirp4netns", "--netns-type=path", f"--cidr={addresses.SLIRP_RANGE}", f"--mtu={OUTSIDE_MTU}"),
                    *("--disable-host-loopback", "--disable-dns", str(path), names.INTERNET_DEVICE),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
            deadline = time.monotonic() + SLIRP_TIMEOUT_S
            while names.INTERNET_DEVICE not in _read(namespace).links:
                if process.poll() is not None:
                    raise LabError(
                        f"slirp4netns ended with status {process.returncode}: the VPC cannot reach the internet"
                    )
                if time.monotonic() > deadline:
                    raise Timeout(f"slirp4netns made no interface within {SLIRP_TIMEOUT_S:.0f} s")
                time.sleep(0.005)
        _batch(
            namespace,
            [
                f"address replace {addresses.SLIRP_ADDRESS}/24 dev {names.INTERNET_DEVICE}",
                f"link set dev {names.INTERNET_DEVICE} up",
            ],
        )

    # The packet filter

    def _load_rules(self, vpc: model.Vpc) -> None:
        text = rules.ruleset(vpc, rules.Surroundings(tuple(host.networks()), self._checks.healthy()))
        if self._loaded.get(vpc.id) == text:
            return
        run(["nsenter", f"--net={self.namespace(vpc.id)}", "nft", "-f", "-"], stdin=text)
        self._loaded[vpc.id] = text

    def _health_changed(self, key: balancer.Key) -> None:
        with self._lock:
            for vpc in self._vpcs.values():
                for group in vpc.target_groups:
                    if group.arn == key[0] and self.namespace(vpc.id).exists():
                        with contextlib.suppress(LabError):  # the next reconcile reports the error
                            self._load_rules(vpc)
                            if self.health(*key).state == "unhealthy":
                                self._drop_connections(vpc, key)

    def _drop_connections(self, vpc: model.Vpc, key: balancer.Key) -> None:
        """Drops an unhealthy target's connections, so that clients connect to another one."""
        for group in vpc.target_groups:
            for target in group.targets:
                if (group.arn, target.instance_id, target.port) == key:
                    for entry in vpc.load_balancers:
                        for _, private, public in entry.addresses:
                            for address in filter(None, (private, public)):
                                run(
                                    [
                                        *("nsenter", f"--net={self.namespace(vpc.id)}", "conntrack", "-D"),
                                        *("-p", "tcp", "-d", address, "--reply-src", target.ip),
                                        *("--reply-port-src", str(target.port)),
                                    ],
                                    check=False,
                                )


def ip_commands(vpc: model.Vpc, seen: Seen, internet: bool) -> list[str]:
    """The `ip -batch` commands that make a VPC's links, addresses and routes match the description. Pure."""
    commands = []
    links = {names.node_link(node.id): node for node in vpc.nodes}
    if len(links) != len(vpc.nodes):
        raise LabError(
            f"two instances of {vpc.id} have ids with the same ending: {', '.join(sorted(n.id for n in vpc.nodes))}"
        )
    gone = {link for link in seen.links if link.startswith("n")} - links.keys()
    commands += [f"link delete dev {link}" for link in sorted(gone)]
    for link, node in sorted(links.items()):
        if link not in seen.links and node.tap:
            # It outlives QEMU: the guest's network card is plugged into it whenever the guest runs.
            commands += [f"tuntap add dev {link} mode tap vnet_hdr", f"link set dev {link} mtu {VPC_MTU}"]
        elif link not in seen.links:
            commands.append(
                f"link add name {link} mtu {VPC_MTU} type veth "
                f"peer name {names.node_plug(node.id)} mtu {VPC_MTU} address {node.mac}"
            )
        if link not in seen.up:
            commands.append(f"link set dev {link} up")
    local = routes.local_addresses(vpc)
    commands += [f"address delete {address}/32 dev lo" for address in sorted(seen.local - local)]
    commands += [f"address add {address}/32 dev lo" for address in sorted(local - seen.local)]
    wanted_rules, wanted_routes = routes.kernel_rules(vpc), routes.kernel_routes(vpc, internet)
    commands += [f"rule delete {_rule(rule)}" for rule in sorted(seen.rules - wanted_rules)]
    # Routes of a link that was just deleted are gone already.
    stale = {route for route in seen.routes - wanted_routes if route.device not in gone}
    replaced = {(route.table, route.destination) for route in wanted_routes - seen.routes}
    commands += [
        f"route delete {_route(route)}" for route in sorted(stale) if (route.table, route.destination) not in replaced
    ]
    # Routes to nodes come before the routes that lead through them.
    new = sorted(wanted_routes - seen.routes, key=lambda route: (route.table != routes.MAIN, route))
    commands += [f"route replace {_route(route)}" for route in new]
    commands += [f"rule add {_rule(rule)}" for rule in sorted(wanted_rules - seen.rules)]
    return commands


def _rule(rule: KernelRule) -> str:
    mark = f" fwmark {rule.mark}" if rule.mark else ""
    return f"priority {rule.priority}{mark} table {rule.table}"


def _route(route: KernelRoute) -> str:
    kind = "" if route.kind == "unicast" else f"{route.kind} "
    via = f" via {route.via}" if route.via else ""
    device = f" dev {route.device}" if route.device else ""
    onlink = " onlink" if route.via else ""
    return f"{kind}{route.destination}{via}{device}{onlink} table {route.table}"


def _batch(namespace: str, commands: Iterable[str]) -> None:
    text = "".join(f"{command}\n" for command in commands)
    if text:
        run(["ip", "-netns", namespace, "-batch", "-"], stdin=text)


def _read(namespace: str) -> Seen:
    """Reads the state of a namespace with one call of `ip`."""
    questions = "address show\nroute show table all type unicast\nroute show table all type blackhole\n"
    questions += "route show table all type unreachable\nrule show\n"
    text = run(["ip", "-netns", namespace, "-json", "-details", "-batch", "-"], stdin=questions)
    answers: list[list[dict[str, Any]]] = []
    decoder = json.JSONDecoder()
    position = 0
    while position < len(text):
        answer, position = decoder.raw_decode(text, position)
        answers.append(answer)
        while position < len(text) and text[position].isspace():
            position += 1
    interfaces, *route_lists, rule_list = answers
    return Seen(
        links=frozenset(interface["ifname"] for interface in interfaces),
        up=frozenset(interface["ifname"] for interface in interfaces if "UP" in interface["flags"]),
        local=frozenset(
            address["local"]
            for interface in interfaces
            if interface["ifname"] == "lo"
            for address in interface["addr_info"]
            if address["family"] == "inet" and not address["local"].startswith("127.")
        ),
        routes=frozenset(
            seen
            for kind, listed in zip(("unicast", "blackhole", "unreachable"), route_lists, strict=True)
            for route in listed
            if (seen := _seen_route(kind, route)) is not None
        ),
        rules=frozenset(
            KernelRule(rule["priority"], int(str(rule.get("fwmark", "0")), 0), _table(rule["table"]))
            for rule in rule_list
            if 0 < rule["priority"] < 32766
        ),
    )


def _table(name: str | int) -> int:
    return {"main": routes.MAIN, "default": 253, "local": 255}.get(str(name)) or int(name)


def _seen_route(kind: str, route: dict[str, Any]) -> KernelRoute | None:
    """The route as a KernelRoute; None for one that the kernel added itself."""
    if route.get("protocol") == "kernel" or ":" in route["dst"]:
        return None
    return KernelRoute(
        table=_table(route.get("table", "main")),
        destination=route["dst"],
        kind=kind,
        device="" if kind != "unicast" else route.get("dev", ""),
        via=route.get("gateway", ""),
    )


def _is_ready() -> bool:
    """Whether the thread's namespace has the address of the lab's own internet, and its loopback is up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((addresses.OUTSIDE, 0))
            probe.connect((addresses.OUTSIDE, 9))
        except OSError:
            return False
    return True


def _write_sysctls() -> None:
    for name, value in SYSCTLS.items():
        path = Path("/proc/sys") / name
        if path.exists():
            path.write_text(value)


def _slirps(namespace: Path) -> list[int]:
    """The slirp4netns processes of a namespace, found by their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if arguments[0].endswith(b"slirp4netns") and str(namespace).encode() in arguments:
                    found.append(int(entry.name))
    return found


def _await_end(pid: int, timeout: float = 5.0) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
