# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Protections of a running cluster, removed and restored: its check, and no other, notices each.

Runs against the cluster of the lab K8SGU_LAB, which it changes and leaves as it was:

    K8SGU_LAB=site pytest collections/ansible_collections/k8sgu/cluster/tests/cluster

K8SGU_TEST_VARS is a JSON object of variables for every playbook, where they differ from inventories/lab's
(k8sgu_cluster_name, k8sgu_state_dir).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[6]
BIN = Path(sys.executable).parent
VARIABLES = json.loads(os.environ.get("K8SGU_TEST_VARS", "{}"))
STATE = Path(VARIABLES.get("k8sgu_state_dir", ROOT / ".state" / VARIABLES.get("k8sgu_cluster_name", "demo")))
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{BIN}:{os.environ['PATH']}",
    "ANSIBLE_NOCOLOR": "1",
    "KUBECONFIG": str(STATE / "admin.kubeconfig"),
}
pytestmark = pytest.mark.timeout(900)

READY = "until curl -fsk https://127.0.0.1:6443/readyz >/dev/null; do sleep 0.5; done"


def playbook(name, *arguments, fails=False, **variables):
    """Output of a playbook; `fails` is whether it must."""
    extra = json.dumps({**VARIABLES, **variables})
    argv = [str(BIN / "ansible-playbook"), str(ROOT / name), "-e", extra, *arguments]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert (done.returncode != 0) is fails, done.stdout[-6000:] + done.stderr
    return done.stdout + done.stderr


def inventory():
    """({group: sorted names}, {name: variables}) as the inventory has them now."""
    argv = [
        str(BIN / "ansible-inventory"),
        "--list",
        "--playbook-dir",
        str(ROOT / "playbooks"),
        "-e",
        json.dumps(VARIABLES),
    ]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=True)
    listed = json.loads(done.stdout)
    groups = {name: sorted(listed[name]["hosts"]) for name in ("control_plane", "worker")}
    return groups, listed["_meta"]["hostvars"]


@pytest.fixture(scope="module")
def hosts():
    return inventory()


def way_to(node):
    """What ssh and scp need to reach a node with these variables, through the bastion if that is the way."""
    checks = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    options = ["-i", str(STATE / "ssh" / "id_ed25519"), *checks]
    if "ec2_bastion" in node:
        through = ["ssh", *options, "-W", "%h:%p", f"ubuntu@{value(node['ec2_bastion'])}"]
        options += ["-o", f"ProxyCommand={shlex.join(through)}"]
    return options


@pytest.fixture(scope="module")
def on(hosts):
    """on("worker", command) runs a shell command as root on a node, or a group's first one; returns its output."""

    def run(group, command):
        groups, variables = hosts
        node = variables[groups[group][0] if group in groups else group]
        argv = ["ssh", *way_to(node), f"ubuntu@{value(node['ansible_host'])}", "sudo", "bash", "-e"]
        done = subprocess.run(argv, input=command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, command + done.stdout + done.stderr
        return done.stdout

    return run


def kubectl(*arguments, given=None):
    argv = ["kubectl", *arguments]
    # To delete a namespace takes up to two minutes where tests before restarted the API server: its clients, here the
    # controller manager, come back to it late (test_access.settled).
    done = subprocess.run(argv, env=ENVIRONMENT, input=given, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def probe_pods():
    """Verify's pods that answer, one on each node, once all of them do: they are the first that a full node evicts."""
    namespace = ["-n", "k8sgu-verify"]
    kubectl(*namespace, "rollout", "status", "daemonset/probe", "--timeout=120s")
    listed = json.loads(kubectl(*namespace, "get", "pods", "-l", "app=probe", "-o", "json"))["items"]
    return [pod for pod in listed if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]]


@contextlib.contextmanager
def put_back(*steps):
    """Takes every step at the end, even if one of them fails."""
    with contextlib.ExitStack() as stack:
        for step in steps:
            stack.callback(step)
        yield


def value(printed):
    """A value of `ansible-inventory --list`, without the mark of values that are never templates."""
    return printed["__ansible_unsafe"] if isinstance(printed, dict) else printed


def failed_items():
    findings = json.loads((STATE / "security-report.json").read_text())["findings"]
    assert len(findings) > 100
    return {row["number"] for row in findings if row["status"] == "FAIL"}


def test_the_security_report_notices_removed_protections(on):
    everybody = "k8sgu-test-everybody"
    with put_back(
        lambda: on("worker", "chmod 0600 /var/lib/kubelet/config.yaml; chown root /etc/kubernetes/proxy.conf"),
        lambda: on("control_plane", "chmod 0700 /var/lib/etcd; chmod 0600 /etc/kubernetes/pki/apiserver.key"),
        lambda: kubectl("delete", "--ignore-not-found", "clusterrolebinding,clusterrole", everybody),
        lambda: kubectl("delete", "--ignore-not-found", "namespace", "k8sgu-test-privileged"),
    ):
        on("worker", "chmod 0644 /var/lib/kubelet/config.yaml; chown ubuntu /etc/kubernetes/proxy.conf")
        on("control_plane", "chmod 0755 /var/lib/etcd; chmod 0640 /etc/kubernetes/pki/apiserver.key")
        kubectl("create", "clusterrole", everybody, "--verb=get", "--resource=secrets")
        kubectl("create", "clusterrolebinding", everybody, f"--clusterrole={everybody}", "--group=system:authenticated")
        kubectl("create", "namespace", "k8sgu-test-privileged")
        kubectl("label", "namespace", "k8sgu-test-privileged", "pod-security.kubernetes.io/enforce=privileged")
        output = playbook("playbooks/security_report.yml", fails=True)
        # The table is printed before it fails, and how to accept an item is said.
        assert "Print every item" in output and "k8sgu_security_report_accepted" in output
        privileged = {"5.2.1", "5.2.2", "5.2.3", "5.2.4", "5.2.5", "5.2.10", "5.2.11", "5.2.12", "X.9"}
        assert failed_items() == {"1.1.11", "1.1.21", "4.1.4", "4.1.9", "5.1.2"} | privileged
    output = playbook("playbooks/security_report.yml")
    assert "FAIL" not in output.partition("Print every item")[2].partition("TASK")[0]
    assert failed_items() == set()


def test_programs_read_copies_of_what_is_on_disk(on):
    """Also of a certificate that was replaced: the component restarts what reads it, and with that it is copied."""
    same = (
        "set -- /run/etcd/* /run/kube-apiserver/* /run/kube-controller-manager/* /run/kube-scheduler/*; echo $#; "
        'for copy; do name=${copy##*/}; cmp "$copy" "$(ls /etc/etcd/pki/$name /etc/kubernetes/pki/$name '
        '/etc/kubernetes/$name 2>/dev/null | head -n 1)"; done'
    )
    assert on("control_plane", same).split() == ["22"]
    key = STATE / "pki" / "kube-scheduler-key.pem"
    before = on("control_plane", "sha256sum </run/kube-scheduler/kube-scheduler.key")
    key.unlink()
    playbook("playbooks/pki.yml")
    playbook("playbooks/control_plane.yml")
    assert on("control_plane", same).split() == ["22"]
    assert on("control_plane", "sha256sum </run/kube-scheduler/kube-scheduler.key") != before


def node_checks(tmp_path):
    found = tmp_path / "found.json"
    playbook(f"{Path(__file__).parent.relative_to(ROOT)}/node_checks.yml", found=str(found))
    return {(check["name"], check["where"]): check for check in json.loads(found.read_text())}


def failed_checks(tmp_path):
    return {key: check for key, check in node_checks(tmp_path).items() if not check["passed"]}


def swapped(on, group, path, script, unit, after="true"):
    """Changes a file of a node by a sed script and restarts a unit; returns what puts it back."""
    on(
        group,
        f"cp -p {path} {path}.k8sgu-test; sed -i '{script}' {path}; "
        f"systemctl daemon-reload; systemctl restart {unit}; {after}",
    )
    return lambda: on(group, f"mv {path}.k8sgu-test {path}; systemctl daemon-reload; systemctl restart {unit}; {after}")


def test_open_doors_old_tls_strangers_silence_and_exposure_are_seen(on, hosts, tmp_path):
    """All at once, each with another check, so one run tells whether a check sees its fault and no other's."""
    groups, _variables = hosts
    worker, control = groups["worker"][0], groups["control_plane"][0]
    config = on("worker", "tr '\\0' '\\n' < /proc/$(pgrep -x kubelet)/cmdline | sed -n 's/^--config=//p'").strip()
    old_tls = (
        "s/tls-min-version=VersionTLS12/tls-min-version=VersionTLS10/; "
        "s/tls-cipher-suites=/&TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,/"
    )
    unit, drop_in = "/etc/systemd/system/kube-scheduler.service", "/run/systemd/system/kube-scheduler.service.d"
    off = ["ProtectSystem", "PrivateDevices", "RestrictNamespaces", "NoNewPrivileges", "ProtectHome", "PrivateTmp"]
    settings = "\\n".join(
        ["SystemCallFilter=", "User=root", "CapabilityBoundingSet=~", *(f"{name}=no" for name in off)]
    )
    # It accepts and says nothing, so only the table can tell.
    listen = "import socket,time; s=socket.create_server(('0.0.0.0', 8099)); time.sleep(600)"
    with contextlib.ExitStack() as undo:
        # First and put back last, since programs may end and start again when the API server does.
        api_server = "/etc/kubernetes/authentication.yml"
        undo.callback(swapped(on, "control_plane", api_server, "/conditions:/,$d", "kube-apiserver", READY))
        anonymous = "/anonymous:/,/enabled:/s/enabled: false/enabled: true/"
        undo.callback(swapped(on, "worker", config, anonymous, "kubelet", "sleep 3"))
        undo.callback(swapped(on, "control_plane", unit, old_tls, "kube-scheduler", "sleep 3"))
        undo.callback(on, "worker", "systemctl stop k8sgu-test-stranger || true; systemctl start kube-proxy")
        on("worker", f'systemd-run --unit k8sgu-test-stranger python3 -c "{listen}"; systemctl stop kube-proxy')
        # What systemd would do counts, so the scheduler need not run without its sandbox.
        undo.callback(on, "control_plane", f"rm -rf {drop_in}; systemctl daemon-reload")
        on(
            "control_plane",
            f"mkdir -p {drop_in}; printf '[Service]\\n{settings}\\n' > {drop_in}/open.conf; systemctl daemon-reload",
        )
        failed = failed_checks(tmp_path)
    expected = {
        # Anonymous and without a role is a 403, and not good enough.
        ("the API server refuses a client without a certificate", control): [
            "/livez: 200, /version: 200, /api/v1/secrets: 403"
        ],
        ("the kubelet refuses a client without a certificate", worker): ["/pods: 403"],
        ("TLS 1.2 or later with modern suites, and nothing else", control): [
            "kube-scheduler at tcp 127.0.0.1:10259: its answer to TLS 1.1: agrees to TLS 1.1",
            "its answer to TLS 1.2 with weak suites: agrees to TLS 1.2",
        ],
        ("nothing listens that is not in the port table", worker): ["python3", "8099"],
        ("everything in the port table listens", worker): ["kube-proxy-metrics"],
        ("systemd confines the programs", control): [],
    }
    assert sorted(failed) == sorted(expected)
    missing = {key: [text for text in texts if text not in failed[key]["seen"]] for key, texts in expected.items()}
    assert not any(missing.values()), (missing, failed)
    assert "kube-scheduler.service" in failed["systemd confines the programs", control]["look"]
    assert failed_checks(tmp_path) == {}


def test_the_audit_report_names_who_did_it():
    name = f"k8sgu-test-{uuid.uuid4().hex[:8]}"
    kubectl("-n", "default", "create", "configmap", name)
    kubectl("-n", "default", "delete", "configmap", name)
    playbook(
        "playbooks/audit_report.yml",
        k8sgu_audit_since="10m",
        k8sgu_audit_resources=["configmaps"],
        k8sgu_audit_names=[name],
    )
    events = json.loads((STATE / "audit-report.json").read_text())
    done = [(event["verb"], event["user"], event["namespace"], event["name"]) for event in events]
    assert done == [(verb, "kubernetes-admin", "default", name) for verb in ("create", "delete")]
    playbook("playbooks/audit_report.yml", k8sgu_audit_since="10m", k8sgu_audit_users=["nobody-at-all"])
    assert json.loads((STATE / "audit-report.json").read_text()) == []


def test_pod_security_refuses_and_exempts():
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "k8sgu-test"},
        "spec": {"containers": [{"name": "c", "image": "x", "securityContext": {"privileged": True}}]},
    }  # fmt: skip
    argv = ["kubectl", "create", "--dry-run=server", "-f", "-", "-n"]
    answers = {
        namespace: subprocess.run(
            [*argv, namespace],
            env=ENVIRONMENT,
            input=json.dumps(pod),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for namespace in ("default", "kube-system")
    }
    assert "violates PodSecurity" in answers["default"].stderr
    assert answers["kube-system"].returncode == 0
    # What baseline takes, restricted warns of.
    del pod["spec"]["containers"][0]["securityContext"]
    plain = subprocess.run(
        [*argv, "default"],
        env=ENVIRONMENT,
        input=json.dumps(pod),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert plain.returncode == 0
    assert "would violate PodSecurity" in plain.stderr


TOKEN = """
import http.client
c = http.client.HTTPConnection("169.254.169.254", timeout=4)
try:
    c.request("PUT", "/latest/api/token", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    print("token", c.getresponse().status)
except OSError as error:
    print("none", error)
"""


def test_pods_get_no_token_of_the_metadata_service(on, hosts):
    """Two protections, either of which is enough: the packet rule and the hop limit of 1."""
    import boto3

    groups, variables = hosts
    worker = groups["worker"][0]
    instance = value(variables[worker]["ec2_instance_id"])
    printed = subprocess.run(
        [str(BIN / "ec2lab"), "env", os.environ["K8SGU_LAB"]], capture_output=True, text=True, check=True
    )
    settings = dict(line.removeprefix("export ").split("=", 1) for line in printed.stdout.splitlines() if "=" in line)
    settings = {name: value.strip("'\"") for name, value in settings.items()}
    ec2 = boto3.client(
        "ec2", endpoint_url=settings["AWS_ENDPOINT_URL"], region_name=settings["AWS_REGION"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"], aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip

    def hops(number):
        ec2.modify_instance_metadata_options(InstanceId=instance, HttpPutResponseHopLimit=number)

    # From a pod's network, with the node's programs: the pod's image has none.
    program = base64.b64encode(TOKEN.encode()).decode()
    pod = f"pid=$(pgrep -n agnhost); echo {program} | base64 -d | nsenter -t $pid -n python3 -"
    node = f"echo {program} | base64 -d | python3 -"
    assert on("worker", node).startswith("token 200")
    assert on("worker", pod).startswith("none")
    with put_back(lambda: hops(1), lambda: on("worker", "systemctl restart k8sgu-pod-network")):
        on("worker", "nft flush chain ip k8sgu forward")
        assert on("worker", pod).startswith("none"), "the hop limit alone"
        hops(3)
        assert on("worker", pod).startswith("token 200"), "with both taken away the question must get through"
        on("worker", "systemctl restart k8sgu-pod-network")
        assert on("worker", pod).startswith("none"), "the packet rule alone"


def secrets():
    """The secrets that must never be shown, by the file that has them."""
    found = {}
    for path in STATE.rglob("*"):
        if not path.is_file() or "mirror" in path.parts:
            continue
        text = path.read_text(errors="replace")
        if "PRIVATE KEY-----" in text:
            # Any line of its body; as bytes in JSON or base64 again, its middle.
            body = [line for line in text.split("PRIVATE KEY-----")[1].splitlines() if len(line) > 40]
            found[str(path.relative_to(STATE))] = body[0]
        for line in text.splitlines():
            if "client-key-data:" in line:
                found[str(path.relative_to(STATE))] = line.split()[-1][80:140]
        if path.name == "encryption-keys.json":
            for number, key in enumerate(json.loads(text)["keys"]):
                found |= {f"{path.name} {number} {kind}": key[kind] for kind in key if kind != "name"}
    return found


def test_no_secret_is_printed(on):
    """Runs everything that carries secrets to nodes at the highest verbosity, with changes each time."""
    known = secrets()
    assert len(known) > 25
    on(
        "control_plane",
        "rm /etc/kubernetes/encryption.yml /etc/kubernetes/scheduler.conf /etc/kubernetes/pki/sa.key",
    )
    output = "".join(
        playbook(name, "-vvv", "--diff")
        for name in (
            "playbooks/control_plane.yml",
            "playbooks/worker.yml",
            "playbooks/verify.yml",
            "playbooks/security_report.yml",
        )
    )
    assert "/etc/kubernetes/encryption.yml" in output
    assert [where for where, secret in known.items() if secret in output] == []
    encoded = {where: base64.b64encode(secret.encode()).decode()[4:40] for where, secret in known.items()}
    assert [where for where, secret in encoded.items() if secret in output] == []
    logs = on(
        "control_plane", "journalctl --no-pager -o cat; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || true"
    )
    assert [where for where, secret in known.items() if secret in logs] == []


def test_the_state_directory_is_its_owners():
    public = (".pem", ".pub", ".csr", ".xml")
    assert STATE.stat().st_mode & 0o777 == 0o700
    for path in STATE.rglob("*"):
        mode = path.stat().st_mode & 0o777
        if path.is_dir():
            assert mode & 0o077 == 0, path
        elif path.name.endswith("-key.pem") or (not path.name.endswith(public) and path.name != "known_hosts"):
            assert mode == 0o600, path
