# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With several control-plane nodes behind a balancer no request is lost while every API server restarts.

Runs as test_security.py does, against a cluster with k8sgu_control_plane_count: 3.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
import threading
import time
from urllib.parse import urlsplit

import pytest
import yaml
from test_security import STATE, hosts, kubectl, on, playbook

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(1800)

PAUSE_S = 0.1
# What was sent to a server that is gone is never answered. An election takes a second or two, on a busy machine more,
# and whoever waits for it longer is served after it.
PATIENCE_S = 10


class Client(threading.Thread):
    """Asks the API server again and again, over a new connection each time and without a second try, until stopped."""

    def __init__(self, folder) -> None:
        super().__init__(daemon=True)
        folder.mkdir(parents=True, exist_ok=True)
        config = yaml.safe_load((STATE / "admin.kubeconfig").read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.address = urlsplit(cluster["server"])
        self.name = cluster.get("tls-server-name") or self.address.hostname
        for name, data in (
            ("ca", cluster["certificate-authority-data"]),
            ("cert", user["client-certificate-data"]),
            ("key", user["client-key-data"]),
        ):
            (folder / name).write_bytes(base64.b64decode(data))
        self.context = ssl.create_default_context(cafile=folder / "ca")
        self.context.load_cert_chain(folder / "cert", folder / "key")
        self.asked, self.lost, self.longest_s, self.stopped = 0, [], 0.0, threading.Event()
        # From a request that was lost to the next one that was answered.
        self.away_s, self.outages = 0.0, 0

    def send(self, method, path, body=None) -> None:
        connection = http.client.HTTPConnection(self.address.hostname, self.address.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.connect()
            # By hand, since a balancer's address may not be the name in the certificate.
            connection.sock = self.context.wrap_socket(connection.sock, server_hostname=self.name)
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            answer.read()
            if answer.status not in (200, 201):
                raise OSError(f"status {answer.status}")

    def ask(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        away_since = None
        while not self.stopped.wait(PAUSE_S):
            self.asked += 1
            began = time.monotonic()
            try:
                self.ask()
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}")
                if away_since is None:
                    away_since, self.outages = began, self.outages + 1
            else:
                if away_since is not None:
                    self.away_s = max(self.away_s, time.monotonic() - away_since)
                away_since = None
            self.longest_s = max(self.longest_s, time.monotonic() - began)

    def told(self, what) -> str:
        away = f" in {self.outages} outages, of {self.away_s:.1f} s at most" if self.lost else ""
        return f"{what}: {self.asked} requests, {len(self.lost)} lost{away}, longest {self.longest_s:.1f} s"

    @contextlib.contextmanager
    def running(self):
        self.start()
        try:
            yield self
        finally:
            self.stopped.set()
            self.join()


class Reader(Client):
    """Asks for a Secret, which the API server reads in etcd."""

    def ask(self) -> None:
        self.send("GET", "/api/v1/namespaces/k8sgu-verify/secrets/at-rest")


@pytest.fixture(autouse=True)
def several(hosts):
    groups, _variables = hosts
    if len(groups["control_plane"]) < 2:
        pytest.skip("one control-plane node: nobody takes over from it")


def starts(on_every):
    return on_every("systemctl show -P ExecMainStartTimestampMonotonic kube-apiserver")


@pytest.fixture
def on_every(hosts, on):
    """Runs a shell command on every control-plane node; the outputs by node."""
    groups, _variables = hosts
    return lambda command: {name: on(name, command) for name in groups["control_plane"]}


@pytest.mark.parametrize("what", ["a rolling change", "a rotation"], ids=["rolling_change", "rotation"])
def test_no_request_is_lost(what, on_every, tmp_path):
    before = starts(on_every)
    with Reader(tmp_path).running() as reader:
        if what == "a rotation":
            playbook("playbooks/rotate_encryption_key.yml")
        else:
            playbook("playbooks/control_plane.yml", k8sgu_apiserver_extra_flags={"audit-log-maxage": 31})
        time.sleep(5)
    after = starts(on_every)
    assert all(after[name] != before[name] for name in before)
    print(reader.told(what))
    assert reader.asked > 100
    assert reader.lost == []
    kubectl("get", "secrets", "-A", "-o", "name")
    (key,) = json.loads((STATE / "secrets" / "encryption-keys.json").read_text())["keys"]
    prefix = f"k8s:enc:secretbox:v1:{key['name']}:"
    read = "set -a; . /etc/etcd/etcdctl.env; etcdctl get /registry/secrets/k8sgu-verify/at-rest --print-value-only"
    assert set(on_every(f"{read} | head -c {len(prefix)}").values()) == {prefix}
