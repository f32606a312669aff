# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that only the node itself can make: its sockets, etcd, audit log. Standard library only."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.scan import scan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.backups import check_backups
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check, until
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.listeners import listeners, plaintext_listeners
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.ports import check_ports, program_rows
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.sandbox import check_exposure, own_units
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.swap import check_swap
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.tls import check_tls

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

AUDIT_LOG = Path("/var/log/kubernetes/audit.log")
# Between two looks at what did not pass.
AGAIN_S = 1.0


def check_plaintext(allowed_on_loopback: list[int], where: str) -> Check:
    """Every TCP listener refuses a request without TLS, except the given ports on loopback."""
    found = [listener for listener in listeners() if not (listener.loopback and listener.port in allowed_on_loopback)]
    speaking = plaintext_listeners(found)
    seen = "; ".join(f"{listener} answers {answer!r}" for listener, answer in speaking)
    return Check(
        "plain-text connections are refused on every port",
        not speaking and bool(found),
        "no answer without TLS from any of the listening sockets",
        seen or f"{len(found)} listening sockets, none answers",
        where,
        "ss -tlnp",
    )


def https_status(host: str, port: int, path: str) -> str:
    """The status of a request without a client certificate, or the error. Does not verify the server."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, timeout=5, context=context)
    try:
        connection.request("GET", path)
        return str(connection.getresponse().status)
    except ssl.SSLError as error:
        return f"{TLS_REFUSED}: {error.reason}"
    except OSError as error:
        return f"no connection: {error}"
    finally:
        connection.close()


TLS_REFUSED = "TLS refused"


def check_anonymous(name: str, host: str, port: int, answers: dict[str, str], where: str) -> Check:
    """A client without a certificate gets the expected answers. `answers`: {path: status, or start of the error}.

    403 is not enough: such a client then is the user `system:anonymous`, who may have roles.
    """
    seen = {path: https_status(host, port, path) for path in answers}
    wrong = [path for path, expected in answers.items() if not seen[path].startswith(expected)]
    return Check(
        f"{name} refuses a client without a certificate",
        not wrong,
        ", ".join(f"{path}: {expected}" for path, expected in answers.items()),
        ", ".join(f"{path}: {status}" for path, status in seen.items()),
        where,
        f"curl -k https://{host}:{port}{(wrong or list(answers))[0]}",
    )


def check_etcd_health(members: int, where: str) -> Check:
    """The expected number of etcd members exist and are healthy."""
    look = "etcdctl endpoint health --cluster"
    try:
        rows = json.loads(etcdctl.run("endpoint", "health", "--cluster", "-w", "json"))
        healthy = [row["endpoint"] for row in rows if row.get("health")]
        seen = f"{len(healthy)} of {len(rows)} members healthy"
        passed = len(healthy) == len(rows) == members
    except subprocess.CalledProcessError as error:
        passed, seen = False, etcdctl.reason(error)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        passed, seen = False, str(error)
    if not passed and _quota_used_up():
        seen = f"{seen}; its quota is used up, and it takes no writes (alarm NOSPACE): playbooks/etcd_maintenance.yml"
    return Check("etcd has its quorum", passed, f"{members} healthy members", seen, where, look)


def _quota_used_up() -> bool:
    """Members are called unhealthy for that too."""
    try:
        return b"NOSPACE" in etcdctl.run("alarm", "list", "--command-timeout=5s")
    except (OSError, subprocess.SubprocessError):
        return False


def encrypted(value: bytes, prefix: str, plaintext: str) -> bool:
    """Whether a value in etcd has its provider's prefix and does not contain the original text."""
    return value.startswith(prefix.encode()) and plaintext.encode() not in value


def check_ciphertext(key: str, prefix: str, plaintext: str, where: str) -> Check:
    """A Secret's bytes in etcd are encrypted."""
    look = f"etcdctl get {key} | hexdump -C"
    expected = f"a value that begins with {prefix}"
    try:
        value = etcdctl.run("get", key, "--print-value-only")
    except (subprocess.CalledProcessError, OSError, subprocess.TimeoutExpired) as error:
        return Check("Secrets are encrypted at rest", False, expected, str(error), where, look)
    seen = f"{len(value)} bytes that begin with {value[:24]!r}" if value else "no such key"
    return Check("Secrets are encrypted at rest", encrypted(value, prefix, plaintext), expected, seen, where, look)


def check_keys(resources: list[str], prefix: str, where: str) -> Check:
    """Every value of the chosen resources is encrypted with the writing key, not with an older one or none."""
    look = "etcdctl get KEY | hexdump -C; playbooks/rotate_encryption_key.yml rewrites everything"
    try:
        found = scan(etcdctl.run, resources, prefix)
        passed, seen = not found.others, found.describe()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        passed, seen = False, str(error)
    return Check(
        "every value of the chosen resources is encrypted with the key that writes",
        passed,
        f"{', '.join(resources)}: values that begin with {prefix}",
        seen,
        where,
        look,
    )


def audit_event(line: str, user_agent: str) -> dict[str, Any] | None:
    """The event in a line of the audit log, if the line is complete and from that user agent; else None."""
    if user_agent not in line:
        return None
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return event if event.get("userAgent") == user_agent and event.get("stage") == "ResponseComplete" else None


def audit_has(user_agent: str, timeout: float) -> bool:
    """Whether this node's audit log has an event of a user agent, within `timeout` seconds."""

    def look() -> Check:
        try:
            with AUDIT_LOG.open("rb") as log:
                # The request was just made, so its event is near the end.
                log.seek(max(0, AUDIT_LOG.stat().st_size - 8 * 2**20))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            lines = []
        return Check("", any(audit_event(line, user_agent) for line in reversed(lines)), "", "")

    return until(look, timeout).passed


def run(call: Call) -> dict[str, Any]:
    return execute(call.options)


def execute(options: dict[str, Any]) -> dict[str, Any]:
    """The result of the module verify_node."""
    checks, audited = node_checks(options)
    return {"changed": False, "checks": [asdict(check) for check in checks], "audited": audited}


def node_checks(parameters: dict[str, Any]) -> tuple[list[Check], bool]:
    """All checks of a node, and whether the request of `user_agent` is in its audit log.

    A program that was started a moment ago need not listen yet, and a busy node may answer late: a check that fails is
    made again until `timeout` seconds are over.
    """
    deadline = time.monotonic() + parameters["timeout"]
    checks: list[Check] = []
    for look in _looks(parameters):
        began = time.monotonic()
        made = look()
        while not all(check.passed for check in made) and time.monotonic() < deadline:
            time.sleep(AGAIN_S)
            made = look()
        took = time.monotonic() - began
        checks += [Check(**{**vars(check), "seconds": check.seconds or took / len(made)}) for check in made]
    return checks, parameters["control_plane"] and audit_has(parameters["user_agent"], 5)


def _looks(parameters: dict[str, Any]) -> list[Callable[[], list[Check]]]:
    """What makes the checks that the parameters ask for, each apart from the others."""
    where, address = parameters["node"], parameters["address"]
    role = "control_plane" if parameters["control_plane"] else "worker"
    table, prefix = parameters["port_table"], parameters["encryption_prefix"]
    looks: list[Callable[[], list[Check]]] = [
        lambda: [check_plaintext(parameters["plaintext_ports"], where)],
        lambda: [check_anonymous("the kubelet", address, 10250, {"/pods": "401", "/metrics": "401"}, where)],
        lambda: [check_swap(where)],
    ]
    if table:

        def look_at_listeners() -> list[Check]:
            found = listeners(protocols=("tcp", "udp"))
            checks = check_ports(table, parameters["system_listeners"], role, found, where)
            return [*checks, check_tls(table, role, found, where)]

        looks.append(look_at_listeners)
        for row in program_rows(table, role):
            if row["name"] == "node-exporter":
                answers = {"/metrics": TLS_REFUSED}
                at = (row["listener"], address, int(row["first"]), answers, where)
                looks.append(lambda at=at: [check_anonymous(*at)])  # type: ignore[misc]
    if parameters["exposure_limits"]:
        looks.append(lambda: [check_exposure(parameters["exposure_limits"], own_units(), where)])
    if parameters["control_plane"]:
        # A balancer must be able to read the health paths; /version would be the first path open to anonymous access.
        api = {"/livez": "200", "/version": "401", "/api/v1/secrets": "401"}
        looks.append(lambda: [check_anonymous("the API server", address, parameters["api_port"], api, where)])
    if parameters["etcd_members"]:
        looks += [
            lambda: [check_anonymous("etcd", address, 2379, {"/v3/kv/range": TLS_REFUSED}, where)],
            lambda: [check_etcd_health(parameters["etcd_members"], where)],
            lambda: [check_ciphertext(parameters["secret_key"], prefix, parameters["plaintext"], where)],
        ]
    if parameters["etcd_snapshot_minutes"]:
        minutes, to = parameters["etcd_snapshot_minutes"], parameters["etcd_uploads_to"]
        looks.append(lambda: check_backups(minutes, to, parameters["etcd_drills"], where))
    if parameters["encrypted_resources"]:
        looks.append(lambda: [check_keys(parameters["encrypted_resources"], prefix, where)])
    return looks
