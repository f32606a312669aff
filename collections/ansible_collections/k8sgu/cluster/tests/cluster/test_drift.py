# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""drift.yml names what was changed by hand, each kind of it, and nothing else; it changes nothing.

Runs like test_security.py.
"""

from __future__ import annotations

import contextlib
import datetime
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_members import ETCDCTL
from test_neighbours import ec2
from test_security import STATE, VARIABLES, hosts, kubectl, on, playbook, value

__all__ = ["ec2", "hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(600)

AUDIT_LOG = "/var/log/kubernetes/audit.log"
STAMP = "/run/k8sgu-test-drift"
# What a run must leave alone, and what the node's own programs do not write meanwhile.
PLACES = "/etc /opt/k8sgu /usr/local/bin /var/lib/k8sgu /var/lib/kubelet/config.yaml"
# The timer's, which may come at any moment.
SNAPSHOTS = "/var/lib/k8sgu/snapshots"
ADDRESS = "10.240.250.9"


def drift(fails):
    """What differs, as pairs of kind and place, and the report as a whole."""
    output = playbook("playbooks/drift.yml", fails=fails)
    document = json.loads((STATE / "drift.json").read_text())
    found = [(one["kind"], one["where"]) for one in document["findings"]]
    # Each is printed too.
    assert [output.count(f"{kind}  ") >= 1 and output.count(where) >= 1 for kind, where in found] == [True] * len(found)
    assert document["drift"] is fails, output[-6000:]
    return found, document


def stranger():
    """A certificate that its own key has signed."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes-ca")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@contextlib.contextmanager
def by_hand(hosts, on, ec2):
    """Makes each kind of drift, gives what drift.yml has to say of it, and takes it back."""
    groups, variables = hosts
    control, first, last = groups["control_plane"][0], groups["worker"][0], groups["worker"][-1]
    cluster = VARIABLES.get("k8sgu_cluster_name", "demo")
    ours = [{"Key": f"k8sgu.io/cluster/{cluster}", "Value": "owned"}]
    worker = value(variables[first]["ec2_instance_id"])
    [found] = ec2.describe_instances(InstanceIds=[worker])["Reservations"][0]["Instances"]
    expected = []
    with contextlib.ExitStack() as undo:
        # -- EC2
        group = found["SecurityGroups"][0]
        ports = {"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}
        ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[ports])
        undo.callback(lambda: ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[ports]))
        expected.append(("rule-added", group["GroupName"]))

        tables = ec2.describe_route_tables(Filters=[{"Name": f"tag:{ours[0]['Key']}", "Values": ["owned"]}])
        table = tables["RouteTables"][0]
        route = {"RouteTableId": table["RouteTableId"], "DestinationCidrBlock": "192.0.2.0/24"}
        [gate] = [one["GatewayId"] for one in table["Routes"] if one.get("GatewayId", "").startswith("igw-")]
        ec2.create_route(**route, GatewayId=gate)
        undo.callback(lambda: ec2.delete_route(**route))
        expected.append(("route-added", f"{route['RouteTableId']}/192.0.2.0/24"))

        volume = ec2.create_volume(AvailabilityZone=found["Placement"]["AvailabilityZone"], Size=1)["VolumeId"]
        undo.callback(lambda: ec2.delete_volume(VolumeId=volume))
        ec2.create_tags(Resources=[volume], Tags=ours)
        expected.append(("volume-left", f"volume/{volume}"))

        launched = ec2.run_instances(
            ImageId=ec2.image,
            InstanceType="m5.large",
            MinCount=1,
            MaxCount=1,
            SubnetId=found["SubnetId"],
            TagSpecifications=[{"ResourceType": "instance", "Tags": [*ours, {"Key": "Name", "Value": "stray"}]}],
        )["Instances"][0]["InstanceId"]
        undo.callback(
            lambda: ec2.get_waiter("instance_terminated").wait(InstanceIds=[launched], WaiterConfig={"Delay": 1})
        )
        undo.callback(lambda: ec2.terminate_instances(InstanceIds=[launched]))
        expected.append(("instance-unknown", "instance/stray"))

        # -- Kubernetes and etcd
        # Tainted, since a DaemonSet counts a pod for a Node that is deleted before the pod was placed.
        taint = {"key": "k8sgu.io/test", "effect": "NoSchedule"}
        gone = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "k8sgu-test-gone"},
            "spec": {"taints": [taint]},
        }
        kubectl("create", "--filename=-", given=json.dumps(gone))
        undo.callback(lambda: kubectl("delete", "node", "k8sgu-test-gone"))
        expected.append(("node-without-instance", "k8sgu-test-gone"))

        listed = on(control, f"{ETCDCTL} member add gone --learner --peer-urls=https://{ADDRESS}:2380 -w json")
        member = json.loads(listed)["member"]["ID"]
        undo.callback(lambda: on(control, f"{ETCDCTL} member remove {member:x}"))
        expected.append(("member-without-node", ADDRESS))

        # -- nodes: how it is made, how it is taken back, and what it is
        kept = "/root/k8sgu-test"
        config, unit = "/var/lib/kubelet/config.yaml", "/etc/systemd/system/kube-router.service"
        crictl, certificate = "/usr/local/bin/crictl", "/etc/kubernetes/pki/kubelet.crt"
        removed = "Status: deinstall ok config-files"
        status, dropin = "/var/lib/dpkg/status", "/etc/systemd/system/kube-proxy.service.d/k8sgu-test.conf"
        for node, do, back, kind, place in (
            (first, f"cp -p {config} {kept}.1; echo >> {config}", f"mv {kept}.1 {config}", "file", config),
            (
                first,
                f"mv {unit} {kept}.2; ln -s /dev/null {unit}; systemctl daemon-reload",
                f"mv {kept}.2 {unit}; systemctl daemon-reload",
                "unit-masked",
                "kube-router.service",
            ),
            (
                first,
                f"cp -P {crictl} {kept}.3; ln -sfn /bin/true {crictl}",
                f"mv -T {kept}.3 {crictl}",
                "link",
                crictl,
            ),
            (
                first,
                f"cp -p {status} {kept}.4; sed -i '/^Package: conntrack$/,/^$/s/^Status: .*/{removed}/' {status}",
                f"mv {kept}.4 {status}",
                "package",
                "conntrack",
            ),
            (last, "systemctl stop kube-proxy", "systemctl start kube-proxy", "unit-stopped", "kube-proxy.service"),
            (
                last,
                f"mkdir {dropin.rpartition('/')[0]}; echo '[Unit]' > {dropin}; systemctl daemon-reload",
                f"rm -r {dropin.rpartition('/')[0]}; systemctl daemon-reload",
                "unit-dropin",
                dropin,
            ),
            (
                last,
                f"cp -p {certificate} {kept}.5; cat > {certificate} <<'END'\n{stranger()}END\n",
                f"mv {kept}.5 {certificate}",
                "certificate-of-another-ca",
                certificate,
            ),
            (
                control,
                "echo > /etc/kubernetes/k8sgu-test.yml",
                "rm /etc/kubernetes/k8sgu-test.yml",
                "file-unknown",
                "/etc/kubernetes/k8sgu-test.yml",
            ),
        ):
            undo.callback(on, node, back)
            on(node, do)
            expected.append((kind, f"{node}:{place}"))
        yield expected


def test_nothing_differs(hosts):
    """No false alarm."""
    found, document = drift(fails=False)
    assert found == []
    groups, _variables = hosts
    assert [row["node"] for row in document["nodes"]] == sorted(node for group in groups.values() for node in group)
    assert {row["ec2"] for row in document["nodes"]} == {"running"}


def test_what_was_done_by_hand_is_named_and_nothing_else(hosts, on, ec2):
    groups, _variables = hosts
    nodes = [node for group in groups.values() for node in group]
    with by_hand(hosts, on, ec2) as expected:
        members = on("control_plane", f"{ETCDCTL} member list")
        lines = int(on("control_plane", f"wc -l < {AUDIT_LOG}"))
        for node in nodes:
            on(node, f"touch {STAMP}")
        found, document = drift(fails=True)
        assert sorted(found) == sorted(expected)
        assert document["unknown"] == [] and all(one["way_out"] for one in document["findings"])
        # Nothing was changed: neither on a node, nor in Kubernetes, nor in etcd. That no call of EC2's changes anything
        # is held by tests of ec2_cluster.
        for node in nodes:
            assert on(node, f"find {PLACES} -path {SNAPSHOTS} -prune -o -newer {STAMP} -print; rm {STAMP}") == "", node
        assert on("control_plane", f"{ETCDCTL} member list") == members
        log = [json.loads(line) for line in on("control_plane", f"cat {AUDIT_LOG}").splitlines()]
        changes = {"create", "update", "patch", "delete", "deletecollection"}
        changed = [(number, event["userAgent"]) for number, event in enumerate(log) if event["verb"] in changes]
        # What a module of ours changed when the cluster was made is there, and nothing of this run.
        numbers = [number for number, agent in changed if agent.startswith("k8sgu")]
        assert numbers and max(numbers) < lines
