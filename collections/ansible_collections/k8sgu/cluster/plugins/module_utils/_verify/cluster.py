# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks through the API server: nodes, the demo, DNS, paths between pods, NetworkPolicy.

The probes are agnhost's `netexec` on every node; `/dial` makes one of them fetch an address and return the answer:
https://github.com/kubernetes/kubernetes/tree/master/test/images/agnhost#netexec
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError, Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.explain import CORDONED, explain, node_trouble
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import metrics
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check, until
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.kubectl import Kubectl

PROBES = "k8sgu-verify"
DEMO = "demo"
# Requests to a Service until every replica should have answered: one of three is missed with (2/3)^30 < 0.001 %.
REQUESTS_PER_SERVICE = 30
# Errors of connections that a firewall refuses or drops, in the words of Go and the kernel. Any other error, such as
# one of an unhealthy probe, proves nothing.
_BLOCKED = re.compile(r"refused|unreachable|no route to host|time(d )?out|deadline exceeded", re.IGNORECASE)


# The workloads that a check waits for, by the check's name: they explain a timeout.
WORKLOADS: dict[str, tuple[str, ...]] = {
    "demo_ready": tuple(f"/apis/apps/v1/namespaces/{DEMO}/deployments/{name}" for name in ("website", "database")),
    "probes_ready": (
        f"/apis/apps/v1/namespaces/{PROBES}/daemonsets/probe",
        *(f"/apis/apps/v1/namespaces/{PROBES}/deployments/{name}" for name in ("friend", "guarded")),
    ),
    "resource_metrics": (metrics.DEPLOYMENT,),
    "stores_visits": ("/apis/apps/v1/namespaces/kube-system/deployments/coredns",),
}


@dataclass(frozen=True)
class Pod:
    namespace: str
    name: str
    node: str
    ip: str
    ready: bool
    started: str = ""


def pods(client: Client, namespace: str, app: str) -> list[Pod]:
    """The pods of an app that are not terminating and have not ended, sorted by node.

    An evicted pod stays as an object, although its controller has made another.
    """
    answer = client.get(f"/api/v1/namespaces/{namespace}/pods", {"labelSelector": f"app={app}"})
    found = []
    for item in answer["items"]:
        status = item.get("status", {})
        if item["metadata"].get("deletionTimestamp") or status.get("phase") in ("Failed", "Succeeded"):
            continue
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
        name, node = item["metadata"]["name"], item["spec"].get("nodeName", "")
        found.append(Pod(namespace, name, node, status.get("podIP", ""), ready, status.get("startTime", "")))
    return sorted(found, key=lambda pod: (pod.node, pod.name))


def node_problems(items: list[dict[str, Any]], expected: list[str]) -> list[str]:
    """What keeps pods from running on the expected nodes, one phrase each. Nodes may be cordoned on purpose."""
    states = {
        item["metadata"]["name"]: "; ".join(trouble for trouble in node_trouble(item) if trouble != CORDONED)
        for item in items
    }
    problems = [f"{name} is not registered" for name in expected if name not in states]
    return problems + [f"{name}: {states[name]}" for name in expected if states.get(name)]


def open_nodes(items: list[dict[str, Any]]) -> list[str]:
    """Names of the nodes that accept pods without a toleration."""
    closing = ("NoSchedule", "NoExecute")
    return [
        item["metadata"]["name"]
        for item in items
        if not item["spec"].get("unschedulable")
        and not any(taint["effect"] in closing for taint in item["spec"].get("taints") or [])
    ]


def closed_nodes(items: list[dict[str, Any]]) -> list[str]:
    """Names of the nodes that the user reserves for some pods, by a taint that is neither Kubernetes' nor ours."""
    return [
        item["metadata"]["name"]
        for item in items
        if any(
            taint["effect"] in ("NoSchedule", "NoExecute")
            and not taint["key"].startswith(("node.kubernetes.io/", "node-role.kubernetes.io/control-plane"))
            for taint in item["spec"].get("taints") or []
        )
    ]


def blocked(answer: str) -> bool:
    """Whether an answer of `_dial` means that there was no connection."""
    return answer.startswith("error:") and "lookup" not in answer and bool(_BLOCKED.search(answer))


def found(answer: str) -> bool:
    """Whether the answer of `_dial` says that a name was looked up: something answered, or there was an address."""
    if not answer.startswith("error:"):
        return True
    return "lookup" not in answer and bool(re.search(r"status code|dial tcp (\d+\.){3}\d+:\d+: ", answer))


class ClusterChecks:
    """All checks; `timeout` is in seconds, for each. An error makes its check fail.

    `outside` is a control-plane node's name outside the cluster, empty for none, and its API server's port.
    """

    def __init__(
        self,
        client: Client,
        kubectl: Kubectl,
        nodes: list[str],
        domain: str,
        timeout: float,
        outside: tuple[str, int] = ("", 0),
        metrics_server: bool = False,
    ) -> None:
        self.client, self.kubectl, self.nodes = client, kubectl, nodes
        self.domain, self.timeout, self.outside = domain, timeout, outside
        self.metrics_server, self.moved = metrics_server, False

    def run(self) -> list[Check]:
        # No other check can pass before these; they say what is missing.
        ready = [self._attempt(check) for check in (self.nodes_ready, self.demo_ready, self.probes_ready)]
        if not all(check.passed for check in ready):
            return ready
        rest: list[Callable[[], Check]] = [
            self.apart,
            self.stores_visits,
            self.balances,
            self.crosses_nodes,
            self.streams,
            self.policy_lets_friends_in,
            self.policy_keeps_others_out,
            *([self.resolves_outside] if self.outside[0] else []),
            *([self.resource_metrics] if self.metrics_server else []),
        ]
        with ThreadPoolExecutor(max_workers=len(rest)) as pool:
            return ready + list(pool.map(self._attempt, rest))

    def _attempt(self, probe: Callable[[], Check]) -> Check:
        def guarded() -> Check:
            try:
                return probe()
            except (KubernetesError, KeyError, ValueError) as error:
                return Check(probe.__doc__ or probe.__name__, False, "an answer", str(error))

        return until(guarded, self.timeout, why=lambda: explained(self.client, WORKLOADS.get(probe.__name__, ())))

    def _dial(self, source: Pod, host: str, port: int, request: str) -> str:
        """The answer that a probe pod gets from http://host:port/request, or the error."""
        path = f"/api/v1/namespaces/{source.namespace}/pods/{source.name}:8080/proxy/dial"
        query = {"protocol": "http", "host": host, "port": str(port), "request": request, "tries": "1"}
        answer = self.client.get(path, query)
        if answer.get("responses"):
            return str(answer["responses"][0])
        return "error: " + "; ".join(map(str, answer.get("errors") or ["no answer"]))

    def nodes_ready(self) -> Check:
        """every node is ready"""
        problems = node_problems(self.client.get("/api/v1/nodes")["items"], self.nodes)
        seen = "; ".join(problems) or f"{len(self.nodes)} nodes are"
        return Check(
            "every node is ready", not problems, f"{', '.join(self.nodes)} Ready", seen, look="kubectl describe nodes"
        )

    def demo_ready(self) -> Check:
        """the demo's website and database run"""
        found = {app: pods(self.client, DEMO, app) for app in ("website", "database")}
        wanted = {app: int(self._deployment(app)["spec"]["replicas"]) for app in found}
        waiting = [pod.name for rows in found.values() for pod in rows if not pod.ready]
        seen = ", ".join(f"{len([pod for pod in rows if pod.ready])} {app}" for app, rows in found.items())
        return Check(
            "the demo's website and database run",
            not waiting and all(len(rows) == wanted[app] > 0 for app, rows in found.items()),
            ", ".join(f"{max(count, 1)} {app}" for app, count in wanted.items()) + ", every pod ready",
            seen + (f"; not ready: {', '.join(waiting)}" if waiting else ""),
            DEMO,
            "kubectl -n demo get pods -o wide",
        )

    def _deployment(self, name: str) -> dict[str, Any]:
        return self.client.get(f"/apis/apps/v1/namespaces/{DEMO}/deployments/{name}")

    def probes_ready(self) -> Check:
        """pods start on every node"""
        have = {pod.node for pod in pods(self.client, PROBES, "probe") if pod.ready}
        others = [pod for app in ("friend", "guarded") for pod in pods(self.client, PROBES, app) if pod.ready]
        missing = sorted(set(self.nodes) - have)
        closed = sorted(set(missing) & set(closed_nodes(self.client.get("/api/v1/nodes")["items"]))) if missing else []
        missing = [node for node in missing if node not in closed]
        passed = not missing and len(others) == 2
        seen = f"none on {', '.join(missing)}" if missing else f"{len(have)} probes, {len(others)} pods beside them"
        seen += f"; none is meant for {', '.join(closed)}, by its taint" if closed else ""
        return Check(
            "pods start on every node", passed, f"{len(self.nodes)} probes and 2 pods beside them", seen, PROBES,
            "kubectl -n k8sgu-verify get pods -o wide",
        )  # fmt: skip

    def apart(self) -> Check:
        """the website runs on another node than its database"""
        database = {pod.node for pod in pods(self.client, DEMO, "database")}
        replicas = pods(self.client, DEMO, "website")
        website = {pod.node for pod in replicas}
        seen = f"database on {', '.join(sorted(database))}; website on {', '.join(sorted(website))}"
        open_to_all = open_nodes(self.client.get("/api/v1/nodes")["items"])
        # With a single worker there is no other node.
        alone = len(open_to_all) == 1 and website == database == set(open_to_all)
        passed = alone or (bool(website - database) and bool(database))
        if not passed and not self.moved and replicas and set(open_to_all) - database - website:
            # After a node's failure all pods are on the remaining nodes, and Kubernetes does not move them back.
            self.client.request("DELETE", f"/api/v1/namespaces/{DEMO}/pods/{replicas[0].name}")
            self.moved = True
        return Check(
            "the website runs on another node than its database",
            passed,
            "a website pod on a node without the database, where more than one node takes pods",
            seen + ("; no other node takes pods" if alone else ""),
            DEMO,
        )

    def stores_visits(self) -> Check:
        """the website is found by DNS name from every node and its database keeps what it is given"""
        service = f"/api/v1/namespaces/{DEMO}/services/website:80/proxy/api/visits"
        count = int(self.client.request("POST", service)["count"])
        host = f"website.{DEMO}.svc.{self.domain}"
        wrong = []
        for probe in pods(self.client, PROBES, "probe"):
            answer = self._dial(probe, host, 80, "api/visits")
            counts = [int(part.split(",")[0]) for part in answer.split('"count":')[1:2]]
            if not counts or counts[0] < count:
                wrong.append(f"{probe.node}: {answer[:160]}")
        return Check(
            "the website is found by DNS name from every node and its database keeps what it is given",
            not wrong,
            f"{host} shows at least {count} visits on every node",
            "; ".join(wrong) or f"all {len(self.nodes)} nodes see them",
            DEMO,
            "kubectl -n kube-system logs -l k8s-app=kube-dns",
        )

    def resolves_outside(self) -> Check:
        """pods look up names outside the cluster"""
        name, port = self.outside

        def ask(probe: Pod) -> str:
            try:
                # Whole, by its last dot. Whatever answers at that port, the name was found.
                return self._dial(probe, f"{name}.", port, "readyz")
            except ApiError as error:
                return f"error: {error.message}"
            except KubernetesError:
                return "error: the pod gave no answer in time, as where it waits for a name server"

        answers = {probe.node: ask(probe) for probe in pods(self.client, PROBES, "probe")}
        wrong = [f"{node}: {answer[:160]}" for node, answer in answers.items() if not found(answer)]
        return Check(
            "pods look up names outside the cluster",
            not wrong and bool(answers),
            f"the address of {name}, which only the nodes' name server knows, in pods of every node",
            "; ".join(wrong) or f"found by pods of {len(answers)} nodes",
            PROBES,
            "nft list table ip k8sgu; kubectl -n kube-system logs -l k8s-app=kube-dns",
        )

    def resource_metrics(self) -> Check:
        """kubectl top shows what every node and its pods use"""
        problem = metrics.service_problem(self.client.find(metrics.API_SERVICE), self.client.find(metrics.DEPLOYMENT))
        seen, shown = problem, 0
        if not problem:
            probes = [metrics.Running(pod.name, pod.node, pod.started) for pod in pods(self.client, PROBES, "probe")]
            told = self.client.get(metrics.pods_path(PROBES))["items"]
            problems = metrics.missing(self.nodes, self.client.get(metrics.NODES)["items"], probes, told)
            seen, shown = "; ".join(problems), len(told)
        if not seen:
            # A node that kubectl knows nothing of has `<unknown>` in its line.
            lines = [line.split() for line in self.kubectl.top_nodes().splitlines()]
            shows = {line[0] for line in lines if line and "<unknown>" not in line}
            unknown = [node for node in self.nodes if node not in shows]
            seen = f"kubectl top nodes knows nothing of {', '.join(unknown)}" if unknown else ""
        return Check(
            "kubectl top shows what every node and its pods use",
            not seen,
            f"CPU and memory of {len(self.nodes)} nodes, and of their probes that have run for {metrics.YOUNG_S} s",
            seen or f"those of {len(self.nodes)} nodes and {shown} pods",
            "kube-system",
            "kubectl top nodes; kubectl get apiservice v1beta1.metrics.k8s.io; "
            "kubectl -n kube-system logs -l k8s-app=metrics-server",
        )

    def balances(self) -> Check:
        """the Service spreads requests over its replicas"""
        replicas = {pod.name for pod in pods(self.client, DEMO, "website") if pod.ready}
        probe = pods(self.client, PROBES, "probe")[0]
        path = f"/api/v1/namespaces/{PROBES}/pods/{probe.name}:8080/proxy/dial"
        host = f"website.{DEMO}.svc.{self.domain}"
        query = {
            "protocol": "http", "host": host, "port": "80", "request": "api/visits", "tries": str(REQUESTS_PER_SERVICE)
        }  # fmt: skip
        answers = [str(answer) for answer in self.client.get(path, query).get("responses") or []]
        reached = {name for name in replicas for answer in answers if f'"hostname":"{name}"' in answer.replace(" ", "")}
        return Check(
            "the Service spreads requests over its replicas",
            reached == replicas and bool(replicas),
            f"answers of {len(replicas)} replicas",
            f"answers of {len(reached)}: {', '.join(sorted(reached))}",
            DEMO,
            "nft list ruleset",
        )

    def crosses_nodes(self) -> Check:
        """pods reach pods on other nodes"""
        probes = pods(self.client, PROBES, "probe")
        pairs = [(source, target) for source in probes for target in probes if source.node != target.node]

        def reach(pair: tuple[Pod, Pod]) -> str:
            source, target = pair
            answer = self._dial(source, target.ip, 8080, "hostname")
            return "" if answer == target.name else f"{source.node} to {target.node}: {answer}"

        with ThreadPoolExecutor(max_workers=8) as pool:
            wrong = [text for text in pool.map(reach, pairs) if text]
        return Check(
            "pods reach pods on other nodes",
            not wrong,
            f"{len(pairs)} paths open",
            "; ".join(wrong[:5]) or f"{len(pairs)} paths open",
            PROBES,
            "ip route; nft list table ip k8sgu",
        )

    def streams(self) -> Check:
        """kubectl exec, logs and port-forward reach a pod on every node"""

        def reach(pod: Pod) -> str:
            try:
                printed = self.kubectl.run_in_pod(pod.namespace, pod.name, "/agnhost", "--version")
                written = self.kubectl.logs(pod.namespace, pod.name)
                answered = self.kubectl.fetch(pod.namespace, pod.name, 8080, "/hostname")
            except KubernetesError as error:
                return f"{pod.node}: {error}"
            if "version" in printed and written and pod.name in answered:
                return ""
            return f"{pod.node}: exec {printed!r}, logs {written!r}, port-forward {answered!r}"

        probes = pods(self.client, PROBES, "probe")
        with ThreadPoolExecutor(max_workers=8) as pool:
            wrong = [text for text in pool.map(reach, probes) if text]
        return Check(
            "kubectl exec, logs and port-forward reach a pod on every node",
            not wrong and bool(probes),
            "the version that a program in the pod prints, what the pod has written, its answer at a forwarded port",
            "; ".join(wrong) or f"all of it, on {len(probes)} nodes",
            PROBES,
            f"kubectl -n {PROBES} exec daemonset/probe -- /agnhost --version; journalctl -u kubelet",
        )

    def _reach_guarded(self, app: str) -> tuple[Pod, str]:
        """The answer that a pod of `app` gets from the guarded pod, from another node if there is one."""
        guarded = pods(self.client, PROBES, "guarded")[0]
        sources = pods(self.client, PROBES, app)
        source = next((pod for pod in sources if pod.node != guarded.node), sources[0])
        return guarded, self._dial(source, guarded.ip, 8080, "hostname")

    def policy_lets_friends_in(self) -> Check:
        """a NetworkPolicy lets in whom it names"""
        guarded, answer = self._reach_guarded("friend")
        return Check(
            "a NetworkPolicy lets in whom it names", answer == guarded.name, guarded.name, answer, PROBES,
            "kubectl -n k8sgu-verify describe networkpolicy guarded",
        )  # fmt: skip

    def policy_keeps_others_out(self) -> Check:
        """a NetworkPolicy keeps out everybody else"""
        guarded, answer = self._reach_guarded("probe")
        return Check(
            "a NetworkPolicy keeps out everybody else", blocked(answer), "a refused or dropped connection", answer,
            guarded.node, "journalctl -u kube-router",
        )  # fmt: skip


def reschedule_check(client: Client, gone: str, timeout: float) -> Check:
    """Waits until the demo runs again without a node that was stopped."""

    def look() -> Check:
        try:
            found = {app: pods(client, DEMO, app) for app in ("website", "database")}
        except KubernetesError as error:
            return Check("", False, "", str(error))
        alive = {app: [pod for pod in rows if pod.ready and pod.node != gone] for app, rows in found.items()}
        wanted = len([pod for pod in found["website"] if pod.node != gone])
        passed = bool(alive["database"]) and len(alive["website"]) >= max(wanted, 1)
        passed = passed and not any(pod.node == gone for rows in found.values() for pod in rows)
        return Check(
            "the demo's pods leave a node that stopped",
            passed,
            f"database and website ready on other nodes than {gone}",
            ", ".join(f"{pod.name} on {pod.node}" for rows in alive.values() for pod in rows) or "none",
            DEMO,
            "kubectl -n demo get pods -o wide",
        )

    return until(look, timeout, interval=1.0, why=lambda: explained(client, WORKLOADS["demo_ready"]))


def explained(client: Client, paths: Iterable[str]) -> str:
    """Why the workloads at these paths of the API are not ready; empty if they are."""
    lines: list[str] = []
    for path in paths:
        # Report once what two workloads say of the same node.
        lines += [line for line in explain(client, path) if line not in lines]
    return "; ".join(lines)


def audited_request(client: Client) -> None:
    """Makes a request that the audit log must contain; the client's user agent marks it."""
    client.get(f"/api/v1/namespaces/{PROBES}/secrets/at-rest")
