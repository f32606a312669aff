# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks NetworkPolicy by a matrix of paths between pods that must be open or closed.

The pods and policies are in roles/verify/templates/policies.yml.j2; each is named after what its policy allows.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError, Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.explain import explain
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check, because, until

NAMESPACE, OTHER = "k8sgu-policy", "k8sgu-policy-other"
SOURCES = {"foreigner": OTHER}
METADATA_SERVICE = "169.254.169.254"
# Most of the time is spent waiting for answers that must not come.
WORKERS = 12
# Time for a path that is first tried when the timeout is over, since an answer may get lost once.
LATE_S = 5


@dataclass(frozen=True)
class Path:
    """A connection to try; `target` is a pod, "service NAME" for the pod's DNS name, or an address."""

    what: str
    source: str
    target: str
    open: bool
    port: int = 8080
    protocol: str = "http"

    def pods(self) -> tuple[str, ...]:
        """The source, and the target if it is a pod or a pod's Service."""
        return (self.source, *([] if self.target == METADATA_SERVICE else [self.target.rpartition(" ")[2]]))


MATRIX = (
    Path("without a policy, within the namespace", "stranger", "to-anyone", True),
    Path("without a policy, from another namespace", "foreigner", "to-anyone", True),
    Path("ingress by pod, the one named", "friend", "to-pod", True),
    Path("ingress by pod, another", "stranger", "to-pod", False),
    Path("ingress by pod, the one named in another namespace", "foreigner", "to-pod", False),
    Path("ingress by namespace, the one named", "foreigner", "to-namespace", True),
    Path("ingress by namespace, another", "stranger", "to-namespace", False),
    Path("ingress by namespace and pod, only one of both", "foreigner", "to-both", False),
    Path("ingress by namespace and pod, both", "foreigner", "to-friend-there", True),
    Path("ingress by namespace and pod, the pod here", "friend", "to-friend-there", False),
    Path("ingress by range, inside it", "friend", "to-range", True),
    Path("ingress by range, in its exception", "stranger", "to-range", False),
    Path("ingress by port, the one named", "stranger", "to-port", True),
    Path("ingress by port, another", "stranger", "to-port", False, 8090),
    Path("ingress by a port's name, the one named", "stranger", "to-named-port", True),
    Path("ingress by a port's name, another", "stranger", "to-named-port", False, 8090),
    Path("ingress by a range of ports, its end", "stranger", "to-ports", True, 8085),
    Path("ingress by a range of ports, above it", "stranger", "to-ports", False, 8090),
    Path("ingress by UDP port", "stranger", "to-udp", True, protocol="udp"),
    Path("ingress by UDP port, the same by TCP", "stranger", "to-udp", False),
    Path("ingress by TCP port, the same by UDP", "stranger", "to-port", False, protocol="udp"),
    Path("ingress denied", "friend", "to-nobody", False),
    Path("ingress denied, from another namespace", "foreigner", "to-nobody", False),
    Path("egress by pod and port, the one named", "narrow", "to-anyone", True),
    Path("egress by pod and port, another pod", "narrow", "to-port", False),
    Path("egress by range, inside it", "ranged", "stranger", True),
    Path("egress by range, outside it", "ranged", "to-anyone", False),
    Path("egress by range, outside its exception", "excepted", "to-anyone", True),
    Path("egress by range, in its exception", "excepted", "stranger", False),
    Path("egress by namespace, the one named", "abroad", "foreigner", True),
    Path("egress by namespace, another", "abroad", "to-anyone", False),
    Path("egress to DNS and a pod, by name", "named", "service to-anyone", True),
    Path("egress without DNS, by name", "narrow", "service to-anyone", False),
    Path("the instance's metadata service", "stranger", METADATA_SERVICE, False, 80),
    Path("the instance's metadata service, from another namespace", "foreigner", METADATA_SERVICE, False, 80),
)


def pod_path(pod: str) -> str:
    """The API path of a pod of the matrix."""
    return f"/api/v1/namespaces/{SOURCES.get(pod, NAMESPACE)}/pods/{pod}"


def dial(client: Client, source: str, host: str, port: int, protocol: str = "http") -> tuple[bool, str]:
    """Whether the pod `source` gets any answer from host:port, and that answer or the error."""
    path = f"{pod_path(source)}:8080/proxy/dial"
    query = {"protocol": protocol, "host": host, "port": str(port), "request": "hostname", "tries": "1"}
    try:
        answer: dict[str, Any] = client.get(path, query)
    except ApiError as error:
        # In this way the probe reports that it could not look up the name.
        if error.code == 400 and "lookup" in error.message:
            return False, error.message
        raise
    if answer.get("responses"):
        return True, str(answer["responses"][0])
    text = "; ".join(map(str, answer.get("errors") or ["no answer"]))
    # A negative answer is an answer too.
    return "status" in text.lower() and "lookup" not in text, text


def address(client: Client, target: str, domain: str) -> str:
    if target == METADATA_SERVICE:
        return target
    if target.startswith("service "):
        # The last dot makes it fully qualified: without DNS, each domain of the search list would have to time out.
        return f"{target.partition(' ')[2]}.{NAMESPACE}.svc.{domain}."
    return str(client.get(pod_path(target))["status"]["podIP"])


def checks(client: Client, domain: str, timeout: float) -> list[Check]:
    """One check for each path. Policies take a moment to reach the nodes, so all together get `timeout` seconds."""
    began = time.monotonic()

    def one(path: Path) -> Check:
        def look() -> Check:
            try:
                target = address(client, path.target, domain)
                arrived, seen = dial(client, path.source, target, path.port, path.protocol)
            except (KubernetesError, KeyError) as error:
                # A source that does not work proves nothing, least of all that a path is closed.
                return Check(name, False, expected, f"{path.source} does not answer: {error}", NAMESPACE, hint)
            return Check(name, arrived is path.open, expected, seen, NAMESPACE, hint)

        name = f"NetworkPolicy: {path.what}"
        expected = (
            f"{path.source} {'reaches' if path.open else 'does not reach'} {path.target}:{path.port} ({path.protocol})"
        )
        hint = f"kubectl -n {NAMESPACE} get pods,networkpolicies -o wide; journalctl -u kube-router"
        return until(look, max(timeout - (time.monotonic() - began), min(LATE_S, timeout)))

    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        found = list(pool.map(one, MATRIX))
        pods = sorted({pod for path, check in zip(MATRIX, found) if not check.passed for pod in path.pods()})
        # A pod that is not ready explains most failures of its paths.
        why = dict(zip(pods, pool.map(lambda pod: "; ".join(explain(client, pod_path(pod))), pods)))
    return [
        replace(check, seen=because(check.seen, "; ".join(why[pod] for pod in path.pods() if why.get(pod))))
        for path, check in zip(MATRIX, found)
    ]
