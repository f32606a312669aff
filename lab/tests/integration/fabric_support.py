"""A lab without an API: descriptions by hand, real machines and a real network."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ec2lab import host, model, names
from ec2lab.fabric import Fabric
from ec2lab.machine import Machines, MachineSpec
from ec2lab.shell import run

EVERYWHERE = ("0.0.0.0/0",)
SSH = model.Rule("tcp", 22, 22, cidrs=EVERYWHERE)
PING = model.Rule("icmp", 8, -1, cidrs=EVERYWHERE)
ALL_OUT = model.Rule("-1", None, None, cidrs=EVERYWHERE)
VPC, SUBNET = "vpc-1", "subnet-1"
# The host is shared and may be busy: what should happen gets this long, what should not is watched for this long.
PATIENCE_S, WATCH_S = 60.0, 2


def instance_id(number: int) -> str:
    return f"i-{number:017x}"


def eventually(question: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not question():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.1)


class HandMadeLab:
    """One VPC with one public subnet; `vpc` is what should be, `apply` makes it so."""

    def __init__(self, name: str, public_range: str, directory: Path, cidr: str = "10.9.0.0/16") -> None:
        self.name, self.directory = name, directory
        self.fabric = Fabric(name, public_range)
        self.machines = Machines(name, directory)
        self.public = self.fabric.public_addresses()
        self.key = directory / "key"
        directory.mkdir(parents=True, exist_ok=True)
        if not self.key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        first = str(next(ipaddress.IPv4Network(cidr).subnets(new_prefix=24)))
        routes = (model.Route(cidr, "local"), model.Route("0.0.0.0/0", "internet"))
        self.vpc = model.Vpc(
            VPC,
            (cidr,),
            subnets=(model.Subnet(SUBNET, first, routes),),
            security_groups=(model.SecurityGroup("sg-base", (SSH,), (ALL_OUT,)),),
            internet_gateway=True,
        )

    def add_nodes(self, count: int) -> list[model.Node]:
        network = ipaddress.IPv4Network(self.vpc.subnets[0].cidr)
        made = []
        for number in range(len(self.vpc.nodes), len(self.vpc.nodes) + count):
            address = str(network[10 + number])
            made.append(
                model.Node(
                    instance_id(number),
                    SUBNET,
                    address,
                    f"02:00:00:00:00:{number:02x}",
                    f"ip-{address.replace('.', '-')}",
                    ("sg-base",),
                    public_ip=self.public[number],
                )
            )
        self.change(nodes=(*self.vpc.nodes, *made))
        return made

    def spec(self, node: model.Node, user_data: bytes | None = None) -> MachineSpec:
        return MachineSpec(
            node.id,
            VPC,
            node.private_ip,
            self.vpc.subnets[0].cidr,
            node.mac,
            node.hostname,
            authorized_keys=(self.key.with_suffix(".pub").read_text(),),
            user_data=user_data,
        )

    def boot(self, *nodes: model.Node, user_data: bytes | None = None) -> None:
        def one(node: model.Node) -> None:
            self.machines.create(self.spec(node, user_data))
            self.machines.start(node.id)
            self.machines.wait_ready(node.id, PATIENCE_S)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, nodes))

    def change(self, **fields: object) -> None:
        """Changes the description and makes it so."""
        self.vpc = dataclasses.replace(self.vpc, **fields)  # type: ignore[arg-type]
        self.apply()

    def change_node(self, node: model.Node, **fields: object) -> None:
        self.change(
            nodes=tuple(dataclasses.replace(n, **fields) if n.id == node.id else n for n in self.vpc.nodes)  # type: ignore[arg-type]
        )

    def permit(self, *ingress: model.Rule, egress: tuple[model.Rule, ...] = (ALL_OUT,)) -> None:
        """The rules of the group that every node wears; SSH is always among them."""
        self.change(security_groups=(model.SecurityGroup("sg-base", (SSH, *ingress), egress),))

    def route(self, *routes: model.Route) -> None:
        """Sets the subnet's routes in addition to the local one and the internet's."""
        subnet = self.vpc.subnets[0]
        self.change(subnets=(dataclasses.replace(subnet, routes=(*subnet.routes[:2], *routes)),))

    def apply(self) -> None:
        self.fabric.reconcile(model.Desired(self.name, self.fabric.public_range, (self.vpc,)))

    def ssh(self, node: model.Node, command: str) -> subprocess.CompletedProcess[str]:
        """Over the node's public address, as a user of the lab does it."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "ConnectTimeout=10", "BatchMode=yes")
        return subprocess.run(
            [
                *("ssh", "-q", "-i", str(self.key), *(f"-o{option}" for option in options)),
                *(f"ubuntu@{node.public_ip}", command),
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def on(self, node: model.Node, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command as root on the node without using its network."""
        init = self.machines.init_pid(node.id)
        assert init is not None, f"{node.id} is not running"
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd")
        done = subprocess.run(
            ["nsenter", "-t", str(init), *namespaces, "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command!r} on {node.id}: {done.stdout}{done.stderr}"
        return done

    def pings(self, source: model.Node, address: str, *, interface: str = "") -> bool:
        """Whether one of a few pings is answered; a first one may be lost to address resolution."""
        bound = f"-I {interface}" if interface else ""
        return self.on(source, f"ping -n -q -c 2 -i 0.3 -W {WATCH_S} {bound} {address}", check=False).returncode == 0

    def serve(self, node: model.Node, port: int, text: str) -> None:
        """A web server on the node that answers with `text`."""
        self.on(
            node,
            f"mkdir -p /srv/{port} && printf '%s' {text} >/srv/{port}/index.html && "
            f"systemd-run --quiet --unit=web-{port} python3 -m http.server --directory /srv/{port} {port}",
        )
        eventually(
            lambda: self.on(node, f"curl -sf http://127.0.0.1:{port}/", check=False).stdout == text,
            f"the web server on {node.id}",
        )

    def fetch(self, node: model.Node, address: str, port: int) -> str | None:
        """The answer of a web server to a node; None if it does not answer."""
        done = self.on(node, f"curl -s --connect-timeout {WATCH_S} http://{address}:{port}/", check=False)
        return done.stdout if done.returncode == 0 else None

    def namespace_of(self, vpc_id: str = VPC) -> str:
        return names.namespace(self.name, vpc_id)

    def destroy(self) -> None:
        self.machines.destroy()
        self.fabric.destroy()


def ranges_in_use() -> list[str]:
    """Every IPv4 network that the host has an address in or a route to, without the default route."""
    found = set()
    for interface in host.interfaces():
        for address in interface.get("addr_info", ()):
            if address.get("family") == "inet":
                text = f"{address['local']}/{address['prefixlen']}"
                found.add(str(ipaddress.ip_network(text, strict=False)))
    for route in json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]"):
        if route.get("dst", "default") != "default":
            with contextlib.suppress(ValueError):
                found.add(str(ipaddress.ip_network(route["dst"], strict=False)))
    return sorted(found)
