# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each snapshot of etcd is put into the bucket, encrypted, by a role that can do nothing else there.

Runs like test_security.py, against a cluster with k8sgu_backup_bucket.
"""

from __future__ import annotations

import hashlib
import io
import json
import time

import pyrage
import pytest
from test_neighbours import aws
from test_security import STATE, VARIABLES, hosts, on, put_back

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(600)

BUCKET = VARIABLES["k8sgu_backup_bucket"]
PREFIX = f"{VARIABLES.get('k8sgu_cluster_name', 'demo')}/etcd/"
TAKEN_S = 120
# What somebody would try who has broken into a node, by the same library and the same credentials.
TRIED = f"""
import boto3, json, sys
from botocore.exceptions import ClientError
s3 = boto3.client("s3", region_name=sys.argv[1])
where = {{"Bucket": {BUCKET!r}}}
key = {{**where, "Key": sys.argv[2]}}
calls = {{
    "read": lambda: s3.get_object(**key),
    "look": lambda: s3.head_object(**key),
    "list": lambda: s3.list_objects_v2(**where),
    "remove": lambda: s3.delete_object(**key),
    "elsewhere": lambda: s3.put_object(**where, Key="other/etcd/file", Body=b"content"),
    "rules": lambda: s3.delete_bucket_lifecycle(**where),
    "versions": lambda: s3.put_bucket_versioning(**where, VersioningConfiguration={{"Status": "Suspended"}}),
}}
said = {{}}
for name, call in calls.items():
    try:
        call()
        said[name] = "done"
    except ClientError as error:
        said[name] = error.response["Error"]["Code"]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def s3():
    return aws("s3")


def take(on):
    """Takes a snapshot as the timer does; its name."""
    before = on("control_plane", "date -u +%Y%m%dT%H%M%SZ").strip()
    on("control_plane", "systemctl start etcd-snapshot.service")
    name = on("control_plane", "cd /var/lib/k8sgu/snapshots; ls *_backup.db | tail -n 1").strip()
    assert name >= before
    return name


@pytest.fixture(scope="module")
def uploaded(on):
    """The name of a snapshot, once it is in the bucket."""
    name, deadline = take(on), time.monotonic() + TAKEN_S
    while True:
        record = json.loads(on("control_plane", "cat /var/lib/k8sgu/uploaded.json || echo '{}'"))
        if record.get("name") == name:
            assert record["to"] == f"s3://{BUCKET}/{PREFIX}"
            return name
        journal = on("control_plane", "journalctl -u etcd-upload.service -n 5 --no-pager")
        assert time.monotonic() < deadline, f"{name} was not put into the bucket within {TAKEN_S} s: {journal}"
        time.sleep(1)


def test_a_snapshot_is_put_there_and_opens_with_the_controllers_key(uploaded, on, s3):
    answer = s3.get_object(Bucket=BUCKET, Key=f"{PREFIX}{uploaded}.age")
    sealed, content = io.BytesIO(answer["Body"].read()), io.BytesIO()
    assert b"/registry/" not in sealed.getvalue()
    identity = pyrage.x25519.Identity.from_str((STATE / "secrets" / "backup-identity.txt").read_text().strip())
    pyrage.decrypt_io(sealed, content, [identity])
    assert b"/registry/" in content.getvalue()
    told = on("control_plane", f"sha256sum /var/lib/k8sgu/snapshots/{uploaded}").split()[0]
    assert hashlib.sha256(content.getvalue()).hexdigest() == told
    # Nodes have the public half only.
    assert on("control_plane", "grep -rl AGE-SECRET-KEY /etc /var/lib/k8sgu || true") == ""


def test_who_has_broken_into_a_node_can_neither_read_nor_remove_it(uploaded, on, s3):
    region = s3.meta.region_name
    said = json.loads(on("control_plane", f"python3 - {region} {PREFIX}{uploaded}.age <<'PYTHON'\n{TRIED}\nPYTHON"))
    # HEAD has no body that could say it in words.
    assert said.pop("look") == "403"
    assert set(said.values()) == {"AccessDenied"}, said
    assert s3.head_object(Bucket=BUCKET, Key=f"{PREFIX}{uploaded}.age")["ContentLength"] > 0
    # Workers have nothing to do there at all.
    told = on("worker", "python3 -c 'import boto3' 2>&1 || true")
    assert "No module named 'boto3'" in told


def test_a_bucket_that_does_not_take_it_keeps_nobody_from_taking_snapshots(uploaded, on, s3):
    before = s3.get_bucket_policy(Bucket=BUCKET)["Policy"]
    denied = json.loads(before)
    place = f"arn:aws:s3:::{BUCKET}/*"
    denied["Statement"].append({"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": place})
    with put_back(lambda: s3.put_bucket_policy(Bucket=BUCKET, Policy=before)):
        s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(denied))
        name = take(on)
        assert name != uploaded
        on("control_plane", "systemctl stop etcd-upload.service")
        program = "/usr/local/lib/k8sgu/etcd-upload.pyz --patience=0"
        said = on("control_plane", f"{program} --to=s3://{BUCKET}/{PREFIX} --region={s3.meta.region_name} 2>&1 || true")
        assert "this node's role may not put it there; run playbooks/infrastructure.yml" in said
    on("control_plane", "systemctl start etcd-upload.service")
    assert s3.head_object(Bucket=BUCKET, Key=f"{PREFIX}{name}.age")["ContentLength"] > 0
