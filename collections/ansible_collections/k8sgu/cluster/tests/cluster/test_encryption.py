# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encryption at rest on a running cluster: every choice of provider and resources, a rotation, refused choices.

Runs like test_security.py, and leaves the cluster as it was, except for the key, which is a new one.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from test_security import STATE, VARIABLES, hosts, kubectl, node_checks, on, playbook, put_back, value, way_to

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(900)

KEYS = STATE / "secrets" / "encryption-keys.json"
CONTROL_PLANE = "playbooks/control_plane.yml"
ROTATE = "playbooks/rotate_encryption_key.yml"
WORDS = "words that must not be in etcd"
ETCDCTL = "set -a; . /etc/etcd/etcdctl.env; set +a; etcdctl"
SECRET, MAP = "/registry/secrets/default/k8sgu-test-kept", "/registry/configmaps/default/k8sgu-test-kept"
# An API server asks its provider each minute which key it has.
KEY_NOTICED_S = 120
KMS = {"k8sgu_encryption_kms_endpoint": "unix:///run/k8sgu-test-kms/kms.sock"}


@pytest.fixture(scope="module", autouse=True)
def kept():
    """A Secret and a ConfigMap that every change must leave readable."""
    for kind in (["secret", "generic"], ["configmap"]):
        kubectl("-n", "default", "delete", "--ignore-not-found", kind[0], "k8sgu-test-kept")
        kubectl("-n", "default", "create", *kind, "k8sgu-test-kept", f"--from-literal=words={WORDS}")
    yield
    kubectl("-n", "default", "delete", "secret,configmap", "k8sgu-test-kept")


def readable():
    """All Secrets and ConfigMaps can be read, and those of the test are unchanged."""
    kubectl("get", "secrets,configmaps", "-A", "-o", "name")
    data = json.loads(kubectl("-n", "default", "get", "secret", "k8sgu-test-kept", "-o", "json"))["data"]
    assert base64.b64decode(data["words"]).decode() == WORDS
    assert json.loads(kubectl("-n", "default", "get", "configmap", "k8sgu-test-kept", "-o", "json"))["data"] == {
        "words": WORDS
    }


def stored(on, key):
    """The bytes of a value in etcd."""
    printed = on("control_plane", f"{ETCDCTL} get {key} -w json")
    return base64.b64decode(json.loads(printed)["kvs"][0]["value"])


def key_names():
    return [key["name"] for key in json.loads(KEYS.read_text())["keys"]]


def assert_written(on, prefix, key=SECRET):
    found = stored(on, key)
    assert found.startswith(prefix.encode()), found[:40]
    assert WORDS.encode() not in found
    readable()


def failed_checks(tmp_path):
    return {name: check["seen"] for (name, _where), check in node_checks(tmp_path).items() if not check["passed"]}


def test_a_lost_key_file_is_not_replaced(on):
    before = on("control_plane", "sha256sum /etc/kubernetes/encryption.yml")
    lost = KEYS.with_suffix(".lost")
    with put_back(lambda: lost.rename(KEYS)):
        KEYS.rename(lost)
        assert "Restore the file from a backup" in playbook(CONTROL_PLANE, fails=True)
        assert not KEYS.exists()
        assert on("control_plane", "sha256sum /etc/kubernetes/encryption.yml") == before
    readable()


def test_a_rotation_proves_that_nothing_needs_the_old_key_before_it_drops_it(on):
    (old,) = key_names()
    stale = "/registry/k8sgu-test/stale"
    with put_back(lambda: on("control_plane", f"{ETCDCTL} del {stale}")):
        on("control_plane", f"{ETCDCTL} put {stale} k8s:enc:secretbox:v1:{old}:left")
        assert stale in playbook(ROTATE, fails=True)
        new, kept_key = key_names()
        assert kept_key == old
    # Cut off there, it goes on there.
    playbook(ROTATE)
    assert key_names() == [new]
    assert_written(on, f"k8s:enc:secretbox:v1:{new}:")
    assert old not in [
        line.split()[-1] for line in on("control_plane", "grep name: /etc/kubernetes/encryption.yml").splitlines()
    ]


def test_a_value_that_another_key_or_none_wrote_is_found(on, tmp_path):
    assert failed_checks(tmp_path) == {}
    strange = "/registry/secrets/default/k8sgu-test-strange"
    with put_back(lambda: on("control_plane", f"{ETCDCTL} del {strange}")):
        # As an API server without encryption would store it.
        plain = json.loads(kubectl("-n", "default", "get", "secret", "k8sgu-test-kept", "-o", "json"))
        plain["metadata"] = {"name": "k8sgu-test-strange", "namespace": "default"}
        on("control_plane", f"{ETCDCTL} put {strange} '{json.dumps(plain)}'")
        failed = failed_checks(tmp_path)
    assert list(failed) == ["every value of the chosen resources is encrypted with the key that writes"]
    assert strange in failed.popitem()[1]


def test_other_resources_and_another_provider_are_rewritten(on):
    name = key_names()[0]
    both = {"k8sgu_encryption_resources": ["secrets", "configmaps"], "k8sgu_encryption_provider": "aescbc"}
    with put_back(lambda: playbook(CONTROL_PLANE)):
        playbook(CONTROL_PLANE, **both)
        assert_written(on, f"k8s:enc:aescbc:v1:{name}:")
        assert_written(on, f"k8s:enc:aescbc:v1:{name}:", MAP)
    # Put back: the ConfigMap is no longer chosen, so it is plain again, and the Secret is the first provider's.
    assert_written(on, f"k8s:enc:secretbox:v1:{name}:")
    assert not stored(on, MAP).startswith(b"k8s:enc:")
    readable()


@pytest.fixture
def provider(hosts, on, tmp_path):
    """A KMS v2 provider on every control-plane node; returns a function that gives it another key."""
    source, binary = Path(__file__).parent / "kms_plugin", tmp_path / "kms_plugin"
    built = subprocess.run(
        ["go", "build", "-trimpath", "-o", str(binary), "."],
        cwd=source, env={**os.environ, "CGO_ENABLED": "0"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    groups, variables = hosts
    assert len(groups["control_plane"]) == 1, "each node needs the same keys; the test gives them to one"
    node = variables[groups["control_plane"][0]]
    there = f"ubuntu@{value(node['ansible_host'])}:/tmp/k8sgu-test-kms"
    argv = ["scp", "-q", *way_to(node), str(binary), there]
    subprocess.run(argv, check=True, timeout=60)
    unit = """[Service]
User=kube-apiserver
RuntimeDirectory=k8sgu-test-kms
StateDirectory=k8sgu-test-kms
ExecStart=/usr/local/bin/k8sgu-test-kms /run/k8sgu-test-kms/kms.sock /var/lib/k8sgu-test-kms/keys
"""

    def another_key():
        """Its id, which is in what it encrypts."""
        identity = "import hashlib, sys; print(hashlib.sha256(bytes.fromhex(sys.stdin.read())).hexdigest()[:16])"
        return on(
            "control_plane",
            "keys=/var/lib/k8sgu-test-kms/keys; (od -An -tx1 -N32 /dev/urandom | tr -d ' \\n'; echo) >> $keys; "
            f"tail -n 1 $keys | python3 -c '{identity}'",
        ).strip()

    on(
        "control_plane",
        "install -m 0755 /tmp/k8sgu-test-kms /usr/local/bin/k8sgu-test-kms; mkdir -p /var/lib/k8sgu-test-kms; "
        f"printf '%s' '{unit}' > /etc/systemd/system/k8sgu-test-kms.service; systemctl daemon-reload",
    )
    another_key()
    on("control_plane", "chown -R kube-apiserver /var/lib/k8sgu-test-kms; systemctl start k8sgu-test-kms")
    yield another_key
    on(
        "control_plane",
        "systemctl stop k8sgu-test-kms; rm -rf /var/lib/k8sgu-test-kms /usr/local/bin/k8sgu-test-kms "
        "/tmp/k8sgu-test-kms /etc/systemd/system/k8sgu-test-kms.service; systemctl daemon-reload",
    )


def writes_with(on, identity):
    """Waits until the API server has noticed that its provider has another key."""
    name = "k8sgu-test-noticed"
    kubectl("-n", "default", "create", "secret", "generic", name)
    with put_back(lambda: kubectl("-n", "default", "delete", "secret", name)):
        deadline = time.monotonic() + KEY_NOTICED_S
        while identity.encode() not in stored(on, f"/registry/secrets/default/{name}"):
            assert time.monotonic() < deadline, f"the API server did not notice the new key within {KEY_NOTICED_S} s"
            time.sleep(1)
            kubectl("-n", "default", "annotate", "--overwrite", "secret", name, f"at={time.monotonic()}")


def test_a_kms_provider_and_back(on, provider, tmp_path):
    name, unit = key_names()[0], {"k8sgu_encryption_kms_unit": "k8sgu-test-kms.service"}
    kms = {**KMS, **unit, "k8sgu_encryption_provider": "kms"}
    prefix = "k8s:enc:kms:v2:k8sgu:"
    for wrong in ("", "/run/kms.sock"):
        changed = {**kms, "k8sgu_encryption_kms_endpoint": wrong}
        assert "give unix:///path" in playbook(CONTROL_PLANE, fails=True, **changed)
    with put_back(lambda: playbook(CONTROL_PLANE, **KMS, **unit)):
        playbook(CONTROL_PLANE, k8sgu_encryption_provider="aescbc")
        assert_written(on, f"k8s:enc:aescbc:v1:{name}:")
        playbook(CONTROL_PLANE, **kms)
        assert_written(on, prefix)
        VARIABLES.update(kms)
        try:
            assert failed_checks(tmp_path) == {}
        finally:
            for variable in kms:
                del VARIABLES[variable]
        # What it wrote cannot be read without it, so it may not go.
        assert "keep it until a run" in playbook(CONTROL_PLANE, fails=True)
        # Another key of its own: everything is stored anew, no API server restarts and no key of ours is made.
        ask = "systemctl show -P ExecMainStartTimestampMonotonic kube-apiserver"
        started, before = on("control_plane", ask), stored(on, SECRET)
        writes_with(on, provider())
        playbook(ROTATE, **kms)
        assert stored(on, SECRET) != before
        assert (on("control_plane", ask), key_names()) == (started, [name])
        # It starts with the provider, and waits for it.
        on("control_plane", "systemctl stop k8sgu-test-kms; systemctl restart kube-apiserver")
        assert on("control_plane", "systemctl is-active k8sgu-test-kms").strip() == "active"
        assert_written(on, prefix)
    assert_written(on, f"k8s:enc:secretbox:v1:{name}:")
    playbook(CONTROL_PLANE)
    on("control_plane", "systemctl stop k8sgu-test-kms; systemctl restart kube-apiserver")
    assert_written(on, f"k8s:enc:secretbox:v1:{name}:")
