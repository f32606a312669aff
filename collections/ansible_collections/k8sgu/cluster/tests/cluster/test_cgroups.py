# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods keep their control groups and limits, whatever systemd does, and the driver that they were started with.

Runs like test_security.py.
"""

from __future__ import annotations

import json

import pytest
from test_boots import PORT, eventually, names, ready
from test_security import hosts, kubectl, on, playbook, put_back, value

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(900)

# The first process of every container: when it started, and in each hierarchy its group, with the limits there
# and in its pod's. The kubelet itself moves those of a class of service (burstable) all the time.
LOOK = """
import glob, json, os

LIMITS = (
    "memory.limit_in_bytes", "memory.max", "pids.max", "devices.list",
    "cpu.shares", "cpu.weight", "cpu.cfs_quota_us", "cpu.max",
)

def read(path):
    try:
        with open(path) as stream:
            return sorted(stream.read().splitlines())
    except OSError:
        return []

found = {}
for process in glob.glob("/proc/[0-9]*"):
    lines = read(process + "/cgroup")
    # In a container it is number 1, and what a probe runs there is not.
    first = any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in read(process + "/status"))
    if not first or not any("/kubepods" in line for line in lines):
        continue
    with open(process + "/stat") as stream:
        start = stream.read().rpartition(")")[2].split()[19]
    groups = {}
    for line in lines:
        _number, controllers, path = line.split(":", 2)
        limits = {}
        for mount in [name.partition("=")[2] or name for name in controllers.split(",")] if controllers else ["."]:
            for folder in (path, os.path.dirname(path)):
                for name in LIMITS:
                    value = read("/sys/fs/cgroup/" + mount + folder + "/" + name)
                    if value:
                        limits[folder + "/" + name] = value
        groups[controllers] = {"path": path, "limits": limits}
    found[process + " " + start + " " + os.readlink(process + "/exe")] = groups
print(json.dumps(found))
"""
# As an update of systemd and one of ours at once. Not the lab's own units.
OURS = """
cd /etc/systemd/system
units=$(ls *.service | grep -v ^ec2lab)
for unit in containerd.service docker.service; do systemctl -q is-active $unit && units="$units $unit"; done
running=
for unit in $(printf '%s\\n' $units | sort -u); do systemctl -q is-active $unit && running="$running $unit"; done
systemctl daemon-reexec
systemctl restart $running
echo $running
"""
# systemd needs one more controller for any unit, here blkio.
ACCOUNTED = "systemctl set-property --runtime ssh.service IOAccounting=yes; systemctl restart kube-proxy.service"
UNACCOUNTED = (
    "rm -r /run/systemd/system.control/ssh.service.d; systemctl daemon-reload; systemctl restart kube-proxy.service"
)
# It needs fewer: nothing that it knows is delegated while the runtime's units are not there, as when they are replaced.
RUNTIME = "containerd.service docker.service cri-dockerd.service"
AWAY = f"""
mkdir -p /root/k8sgu-test
for unit in {RUNTIME}; do
    file=$(systemctl show -P FragmentPath $unit)
    [ -z "$file" ] || {{ echo "$file" >/root/k8sgu-test/$unit.path; mv "$file" /root/k8sgu-test/$unit; }}
done
systemctl daemon-reload
systemctl restart kube-proxy.service
"""
THERE = """
cd /root/k8sgu-test
for unit in *.service; do mv $unit $(cat $unit.path); done
rm -r /root/k8sgu-test
systemctl daemon-reload
systemctl restart kube-proxy.service
"""
# As on a node that was made before it had the systemd driver. What counts is what is written there.
DRIVER = """
kubelet=/var/lib/kubelet/config.yaml
sed -i 's/^cgroupDriver: .*/cgroupDriver: {driver}/' $kubelet
if [ -e /etc/docker/daemon.json ]; then
    sed -i 's/native.cgroupdriver=[a-z]*/native.cgroupdriver={driver}/' /etc/docker/daemon.json
else
    sed -i 's/SystemdCgroup = .*/SystemdCgroup = {flag}/' /etc/containerd/config.toml
fi
"""


def set_driver(on, node, driver):
    on(node, DRIVER.format(driver=driver, flag=str(driver == "systemd").lower()))


def look(on, node):
    """{first process of a container: {controllers: its group and limits}} on a node."""
    return json.loads(on(node, f"python3 - <<'END'\n{LOOK}\nEND"))


def drivers(on, node):
    """The drivers that the node's containers were started with."""
    groups = [group for own in look(on, node).values() for group in own.values()]
    return {"systemd" if group["path"].startswith("/kubepods.slice/") else "cgroupfs" for group in groups}


def made_with(on, node, driver):
    """A node whose pods are started with this driver, those that run now included: the kubelet starts them anew."""
    set_driver(on, node, driver)
    on(node, "systemctl restart containerd.service kubelet.service")
    eventually(f"pods of {node} with {driver}", lambda: drivers(on, node) == {driver})
    kubectl("rollout", "status", "-n", "demo", "deployment/website", "--timeout=120s")


def started():
    """{pod: how often each of its containers was started, and as what} of those that are not finished."""
    return {
        f"{pod['metadata']['namespace']}/{pod['metadata']['name']}": [
            (one["name"], one["restartCount"], one.get("containerID")) for one in pod["status"]["containerStatuses"]
        ]
        for pod in json.loads(kubectl("get", "pods", "-A", "-o", "json"))["items"]
        if pod["status"]["phase"] == "Running"
    }


def changes(before, now):
    """What is another group or limit now, one line each; a process that is not there any more has no groups."""
    found = []
    for who, groups in before.items():
        for controllers, was in groups.items():
            is_ = now.get(who, {}).get(controllers, {"path": None, "limits": {}})
            if is_["path"] != was["path"]:
                found.append(f"{who}: {controllers}: {was['path']} -> {is_['path']}")
            elif is_ != was:
                found += [
                    f"{who}: {limit}: {was['limits'].get(limit)} -> {is_['limits'].get(limit)}"
                    for limit in sorted({*was["limits"], *is_["limits"]})
                    if was["limits"].get(limit) != is_["limits"].get(limit)
                ]
    return found


@pytest.mark.parametrize(
    ("event", "undo"),
    [(OURS, "true"), (ACCOUNTED, UNACCOUNTED), (AWAY, THERE)],
    ids=["reexec", "another controller", "fewer controllers"],
)
def test_pods_keep_their_groups_and_limits(event, undo, hosts, on):
    groups, variables = hosts
    everywhere = {name: look(on, name) for name in names(groups)}
    for seen in everywhere.values():
        assert seen
        assert [who for who, own in seen.items() if not all("/kubepods" in one["path"] for one in own.values())] == []
    before = started()
    for name, seen in everywhere.items():
        with put_back(lambda name=name: on(name, undo)):
            on(name, event)
            assert changes(seen, look(on, name)) == []
        assert changes(seen, look(on, name)) == []
    eventually("nodes Ready", lambda: ready(()) == sorted(names(groups)))
    for name in names(groups):
        ask = f"curl -fsS --max-time 10 http://{value(variables[name]['ec2_private_ip'])}:{PORT}/api/visits"
        assert "count" in eventually(f"demo at {name}", lambda name=name, ask=ask: on(name, ask))
    assert started() == before


def test_a_node_with_pods_keeps_its_driver(hosts, on):
    """Another one would stop all of its pods at once. It changes while a node is drained: test_upgrade.py."""
    groups, _variables = hosts
    node = groups["worker"][-1]
    set_driver(on, node, "cgroupfs")
    with put_back(lambda: set_driver(on, node, "systemd")):
        said = playbook("playbooks/site.yml", "--check", "--diff", "--tags", "container_runtime,worker")
    # The kubelet would be restarted, which was started with another file. The files stay as they are.
    assert "kubelet.service: it was started with another" in said
    assert [word for word in ("SystemdCgroup", "native.cgroupdriver", "cgroupDriver") if word in said] == []
