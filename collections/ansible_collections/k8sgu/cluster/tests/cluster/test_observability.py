# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What node_exporter tells of each node, to whom, and what is left without it. Runs like test_security.py."""

from __future__ import annotations

import re
import shlex

import pytest
from test_security import STATE, hosts, on, playbook, put_back, value

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(900)

PKI = STATE / "pki"
# In memory, for root alone, and gone with the command.
ASK = """
set -eu
umask 077
place=$(mktemp -d /run/k8sgu-test.XXXXXX)
trap 'rm -rf "$place"' EXIT
cat > "$place/client.pem" <<'END'
{client}
END
curl --silent --show-error --max-time 20 --cacert /etc/kubernetes/pki/ca.crt --cert "$place/client.pem" \\
  {url} 2>&1 || true
"""
PLACES = (
    "/etc/k8sgu/node-exporter.yml",
    "/etc/kubernetes/pki/node-exporter.key",
    "/etc/systemd/system/node-exporter.service",
)


def nodes(hosts):
    groups, _variables = hosts
    return sorted({name for group in groups.values() for name in group})


def told(on, hosts, node, who="prometheus"):
    """What node_exporter of a node answers to a client with a certificate of the controller's."""
    _groups, variables = hosts
    client = "".join((PKI / f"{who}{part}.pem").read_text() for part in ("", "-key"))
    return on(node, ASK.format(client=client, url=f"https://{value(variables[node]['ec2_private_ip'])}:9100/metrics"))


def samples(text, name):
    """{labels: value} of a metric."""
    return {labels: float(number) for labels, number in re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)}


def test_each_node_tells_how_it_is(on, hosts):
    for node in nodes(hosts):
        text = told(on, hosts, node)
        assert len(samples(text, "node_uname_info")) == 1, text[:300]
        # Not what its own mount namespace shows, where everything is read-only; nor what belongs to pods.
        mounts = samples(text, "node_filesystem_readonly")
        assert [number for labels, number in mounts.items() if 'mountpoint="/"' in labels] == [0.0]
        assert "/var/lib/kubelet/" not in text
        assert 'device="veth' not in text
        # What alerts look at is there; the rest depends on the kernel and on the machine.
        success = samples(text, "node_scrape_collector_success")
        wanted = ("cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "stat", "textfile", "uname")
        assert {name: success.get(f'collector="{name}"') for name in wanted} == dict.fromkeys(wanted, 1.0)


def test_only_prometheus_is_answered(on, hosts):
    for node in nodes(hosts):
        for who in ("admin", "kube-apiserver-kubelet-client", "kube-scheduler"):
            # By an alert, or by the end of the connection, whichever curl sees first.
            assert re.fullmatch(r"curl: \((35|55|56)\) .*\n", told(on, hosts, node, who)), who


def test_our_own_numbers_are_passed_on(on, hosts):
    node = nodes(hosts)[0]
    path = "/var/lib/k8sgu/metrics/k8sgu-test.prom"
    with put_back(lambda: on(node, f"rm -f {path}")):
        on(node, f"printf 'k8sgu_test 42\\n' > {path}; chmod 0644 {path}")
        assert samples(told(on, hosts, node), "k8sgu_test") == {"": 42.0}
        # Its user cannot write there.
        written = on(node, f"runuser -u node-exporter -- touch {shlex.quote(path)}.own 2>&1 || echo refused")
        assert "refused" in written


def test_a_cluster_without_it_has_nothing_of_it(on, hosts):
    with put_back(lambda: playbook("playbooks/observability.yml")):
        # Verify compares what listens with the port table.
        on(nodes(hosts)[0], "systemctl stop node-exporter")
        output = playbook("playbooks/verify.yml", fails=True, k8sgu_verify_timeout=15)
        assert "not listening: node-exporter" in " ".join(output.split())
        playbook("playbooks/observability.yml", k8sgu_observability=False)
        for node in nodes(hosts):
            assert on(node, f"ls {' '.join(PLACES)} 2>/dev/null || true; ss -tln | grep -c :9100 || true").split() == [
                "0"
            ]
        playbook("playbooks/verify.yml", k8sgu_observability=False)
    for node in nodes(hosts):
        assert samples(told(on, hosts, node), "node_load1")
