"""Network load balancers: checks the health of targets, from the balancer's own addresses inside the VPC.

The data path is nftables (see `rules`); the checks decide which targets get connections. One thread keeps the
schedule and a few workers run the checks, so that a target that does not answer delays no other.

https://docs.aws.amazon.com/elasticloadbalancing/latest/network/target-group-health-checks.html
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ec2lab import model, netns
from ec2lab.errors import LabError

WORKERS = 8
# How soon a new target is checked again while its health is unknown; EC2 does not specify this.
INITIAL_INTERVAL_S = 1.0

HealthState = Literal["initial", "healthy", "unhealthy", "unused"]
Key = tuple[str, str, int]  # target group, instance, port


@dataclass(frozen=True)
class TargetHealth:
    """As in DescribeTargetHealth; `reason` is one of its codes, such as Target.FailedHealthChecks, or empty."""

    state: HealthState
    reason: str = ""
    description: str = ""


UNUSED = TargetHealth("unused", "Target.NotRegistered", "Target is not registered to the target group")
_INVALID = TargetHealth("unused", "Target.InvalidState", "Target is in the stopped or terminated state")
_NOT_IN_USE = TargetHealth("unused", "Target.NotInUse", "Target group is not configured to receive traffic")
_INITIAL = TargetHealth("initial", "Elb.InitialHealthChecking", "Initial health checks in progress")
_FAILED = "Target.FailedHealthChecks"


@dataclass(frozen=True)
class Probe:
    """One target to check: from which address, to which address, and how."""

    namespace: Path
    source: str
    address: str
    port: int
    check: model.HealthCheck


@dataclass
class _Record:
    probe: Probe
    due: float = 0.0
    busy: bool = False
    successes: int = 0
    failures: int = 0
    health: TargetHealth = field(default=_INITIAL)


class HealthChecks:
    """The health of every target. A worker calls `changed` when a target becomes healthy or unhealthy."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._lock = threading.Condition()
        self._records: dict[Key, _Record] = {}
        self._idle: dict[Key, TargetHealth] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def update(self, vpcs: tuple[model.Vpc, ...], namespace: Callable[[str], Path]) -> None:
        """Checks the targets of these VPCs from now on; targets that were checked before keep their health."""
        probes: dict[Key, Probe] = {}
        idle: dict[Key, TargetHealth] = {}
        for vpc in vpcs:
            vpc_probes, vpc_idle = plan(vpc, namespace(vpc.id))
            probes |= vpc_probes
            idle |= vpc_idle
        with self._lock:
            self._idle = idle
            for key in self._records.keys() - probes.keys():
                del self._records[key]
            for key, probe in probes.items():
                if key not in self._records or self._records[key].probe != probe:
                    self._records[key] = _Record(probe)
            if self._records and self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="health checks", daemon=True)
                self._thread.start()
            self._lock.notify()

    def health(self, key: Key) -> TargetHealth:
        with self._lock:
            record = self._records.get(key)
            return record.health if record else self._idle.get(key, UNUSED)

    def healthy(self) -> frozenset[Key]:
        """The healthy targets, which alone get new connections while there are any."""
        with self._lock:
            return frozenset(key for key, record in self._records.items() if record.health.state == "healthy")

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="health check") as workers:
            while True:
                with self._lock:
                    if self._closed:
                        workers.shutdown(wait=False, cancel_futures=True)
                        return
                    now = time.monotonic()
                    for key, record in self._records.items():
                        if not record.busy and record.due <= now:
                            record.busy = True
                            workers.submit(self._check, key, record)
                    waiting = [record.due - now for record in self._records.values() if not record.busy]
                    self._lock.wait(timeout=max(0.01, min(waiting, default=60.0)))

    def _check(self, key: Key, record: _Record) -> None:
        began = time.monotonic()
        failure = check_target(record.probe)
        with self._lock:
            before = record.health.state
            assess(record, failure)
            settled = record.health.state != "initial"
            interval = record.probe.check.interval_s
            record.due = began + (interval if settled else min(interval, INITIAL_INTERVAL_S))
            record.busy = False
            current = self._records.get(key) is record
            self._lock.notify()
        if current and record.health.state != before:
            self._changed(key)


def plan(vpc: model.Vpc, namespace: Path) -> tuple[dict[Key, Probe], dict[Key, TargetHealth]]:
    """The targets of a VPC to check, and the health of those that need no check."""
    subnets = {subnet.id: ipaddress.IPv4Network(subnet.cidr) for subnet in vpc.subnets}
    running = {node.id for node in vpc.nodes}
    serving: dict[str, model.LoadBalancer] = {}
    for balancer in vpc.load_balancers:
        for listener in balancer.listeners:
            serving.setdefault(listener.target_group_arn, balancer)
    probes: dict[Key, Probe] = {}
    idle: dict[Key, TargetHealth] = {}
    for group in vpc.target_groups:
        for target in group.targets:
            key = (group.arn, target.instance_id, target.port)
            if target.instance_id not in running:
                idle[key] = _INVALID
            elif group.arn not in serving or not serving[group.arn].addresses:
                idle[key] = _NOT_IN_USE
            else:
                own = serving[group.arn].addresses
                address = ipaddress.IPv4Address(target.ip)
                near = [private for subnet, private, _ in own if subnet in subnets and address in subnets[subnet]]
                source = near[0] if near else own[0][1]
                port = group.health_check.port or target.port
                probes[key] = Probe(namespace, source, target.ip, port, group.health_check)
    return probes, idle


def assess(record: _Record, failure: str | None) -> None:
    """Updates the record with the outcome of one check; `failure` is None for a success.

    A new target is healthy after its first success; from then on both thresholds apply.
    """
    check = record.probe.check
    if failure is None:
        record.successes, record.failures = record.successes + 1, 0
        if record.health.state == "initial" or record.successes >= check.healthy_threshold:
            record.health = TargetHealth("healthy")
    else:
        record.successes, record.failures = 0, record.failures + 1
        if record.failures >= check.unhealthy_threshold:
            record.health = TargetHealth("unhealthy", _FAILED, f"Health checks failed: {failure}")


def check_target(probe: Probe) -> str | None:
    """Runs one health check; returns None, or why it failed."""
    check = probe.check
    try:
        opened = netns.open_socket(probe.namespace, socket.AF_INET, socket.SOCK_STREAM, probe.source, 0)
    except (OSError, LabError) as error:
        return str(error)
    with opened:
        try:
            opened.settimeout(check.timeout_s)
            opened.connect((probe.address, probe.port))
            if check.protocol == "TCP":
                return None
            return _ask(opened, probe)
        except TimeoutError:
            return f"no answer within {check.timeout_s:g} s"
        except (OSError, ValueError) as error:
            return str(error)


def _ask(connected: socket.socket, probe: Probe) -> str | None:
    request = f"GET {probe.check.path} HTTP/1.1\r\nHost: {probe.address}:{probe.port}\r\n"
    request += "User-Agent: ELB-HealthChecker/2.0\r\nConnection: close\r\n\r\n"
    stream: socket.socket = connected
    if probe.check.protocol == "HTTPS":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # A balancer does not verify its targets' certificates.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        stream = context.wrap_socket(connected)
    with stream:
        stream.sendall(request.encode())
        answer = stream.makefile("rb").readline(256).decode("latin-1").split()
        if len(answer) < 2 or not answer[0].startswith("HTTP/") or not answer[1].isdigit():
            return "the answer is not HTTP"
        return None if matches(probe.check.matcher, int(answer[1])) else f"status {answer[1]}"


def matches(matcher: str, status: int) -> bool:
    """Whether a status is in a matcher such as "200-399" or "200,301"."""
    for part in matcher.split(","):
        first, _, last = part.strip().partition("-")
        if int(first) <= status <= int(last or first):
            return True
    return False
