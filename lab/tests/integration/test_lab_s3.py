"""S3 from inside a node: boto3 with the role of its instance profile, over the lab's internet."""

from __future__ import annotations

import json
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from lab_support import WATCH_S, Cloud, RunningLab, ec2lab, eventually, make_cloud

NAME = f"test-s3-{os.getpid()}"
BUCKET = "snapshots-of-the-test"
ARN = f"arn:aws:s3:::{BUCKET}"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "urllib3", "dateutil", "six.py")
# Of botocore's descriptions of hundreds of services, those that are called here.
DATA = ("botocore/data/s3/", "botocore/data/sts/")
BODY = 12 << 20
PROGRAM = f"""
import sys
import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
endpoint, operation, key = sys.argv[1:4]
s3 = boto3.client("s3", region_name="us-east-1", endpoint_url=endpoint or None,
                  config=Config(retries={{"max_attempts": 0}}))
try:
    if operation == "upload":
        open("/tmp/snapshot", "wb").write(b"0123456789abcdef" * ({BODY} // 16))
        s3.upload_file("/tmp/snapshot", {BUCKET!r}, key, Config=TransferConfig(multipart_threshold=5 << 20,
                                                                             multipart_chunksize=5 << 20))
    else:
        s3.put_object(Bucket={BUCKET!r}, Key=key, Body=b"abc")
    print("done")
except ClientError as error:
    print(error.response["Error"]["Code"])
"""


def pack(path: Path) -> None:
    """The boto3 of these tests, which needs nothing but Python."""
    root = Path(boto3.__file__).parents[1]

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        inside = member.name.startswith("botocore/data/") and "/" in member.name.removeprefix("botocore/data/")
        unused = inside and not f"{member.name}/".startswith(DATA)
        return None if unused or "__pycache__" in member.name else member

    with tarfile.open(path, "w:gz") as archive:
        for package in PACKAGES:
            archive.add(root / package, package, filter=wanted)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    directory = tmp_path_factory.mktemp("lab")
    files = directory / "net/hosts/downloads.example.com"
    files.mkdir(parents=True)
    pack(files / "boto3.tar.gz")
    (files / "put.py").write_text(PROGRAM)
    running = RunningLab(NAME, directory)
    try:
        running.up("--mirror-dir", str(directory / "mirror"), "--internet-dir", str(directory / "net"))
        yield make_cloud(running)
    finally:
        running.down()


def allow(cloud: Cloud, *statements: dict[str, Any]) -> None:
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    cloud.lab.client("iam").put_role_policy(RoleName="node", PolicyName="own", PolicyDocument=json.dumps(document))


@pytest.fixture(scope="module")
def node(cloud: Cloud) -> str:
    iam = cloud.lab.client("iam")
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.create_instance_profile(InstanceProfileName="node")
    iam.add_role_to_instance_profile(InstanceProfileName="node", RoleName="node")
    options = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    (instance,) = cloud.run(IamInstanceProfile={"Name": "node"}, MetadataOptions=options)
    cloud.wait([instance], "running")
    fetch = "curl -sSf -m 60 https://downloads.example.com"
    cloud.say(instance, f"mkdir boto && {fetch}/boto3.tar.gz | tar xz -C boto && {fetch}/put.py -o put.py")
    s3 = cloud.lab.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    return instance


def put(cloud: Cloud, node: str, key: str, operation: str = "put", endpoint: str = "") -> str:
    """`done`, or the code of S3's refusal."""
    environment = "PYTHONPATH=boto AWS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt"
    return cloud.say(node, f"{environment} python3 put.py '{endpoint}' {operation} '{key}'")


def test_a_node_uploads_what_its_role_allows(cloud: Cloud, node: str) -> None:
    s3 = cloud.lab.client("s3")
    assert put(cloud, node, "etcd/one") == "AccessDenied"  # its role has no policy yet
    address = f"{cloud.see(node)['PublicIpAddress']}/32"
    write = {"Effect": "Allow", "Action": "s3:PutObject"}
    allow(
        cloud,
        {**write, "Resource": f"{ARN}/etcd/*"},
        {**write, "Resource": f"{ARN}/here/*", "Condition": {"IpAddress": {"aws:SourceIp": address}}},
        {**write, "Resource": f"{ARN}/there/*", "Condition": {"NotIpAddress": {"aws:SourceIp": address}}},
    )
    assert put(cloud, node, "etcd/one") == "done"
    assert put(cloud, node, "etcd/big", "upload") == "done"
    assert put(cloud, node, "here/one") == "done"
    for key in ("other/one", "there/one"):
        assert put(cloud, node, key) == "AccessDenied"
    assert s3.get_object(Bucket=BUCKET, Key="etcd/big")["Body"].read() == b"0123456789abcdef" * (BODY // 16)
    assert sorted(each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]) == [
        "etcd/big",
        "etcd/one",
        "here/one",
    ]


def test_a_bucket_that_is_for_tls_alone(cloud: Cloud, node: str) -> None:
    plain = "http://s3.us-east-1.amazonaws.com"
    s3 = cloud.lab.client("s3")
    allow(cloud, {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"{ARN}/*"})
    assert put(cloud, node, "plain", endpoint=plain) == "done"
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": [ARN, f"{ARN}/*"]}
    policy = {"Version": "2012-10-17", "Statement": [{**deny, "Condition": {"Bool": {"aws:SecureTransport": "false"}}}]}
    s3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(policy))
    assert put(cloud, node, "plain", endpoint=plain) == "AccessDenied"
    assert put(cloud, node, "secure") == "done"


def test_a_bucket_that_answers_503(cloud: Cloud, node: str) -> None:
    allow(cloud, {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"{ARN}/*"})
    ec2lab("fault", "bucket-refuse", BUCKET)
    assert f"bucket {BUCKET}  faults: refusing" in ec2lab("status", NAME).stdout
    assert put(cloud, node, "refused") == "SlowDown"
    ec2lab("fault", "bucket-accept", BUCKET)
    assert put(cloud, node, "refused") == "done"
    missing = ec2lab("fault", "bucket-refuse", "no-such-bucket", "--lab", NAME, check=False)
    assert (missing.returncode, f"no bucket no-such-bucket in lab {NAME}" in missing.stderr) == (1, True)


def test_s3_is_outside(cloud: Cloud, node: str) -> None:
    """Without an address of its own, in a network without NAT, a node does not get there, as it would not on AWS."""
    interface = {"DeviceIndex": 0, "SubnetId": cloud.subnets[0], "Groups": [cloud.group]}
    (inner,) = cloud.run(
        NetworkInterfaces=[{**interface, "AssociatePublicIpAddress": False}], SubnetId=None, SecurityGroupIds=None
    )
    cloud.wait([inner], "running")
    question = f"curl -s -o /dev/null -m {WATCH_S} https://{BUCKET}.s3.us-east-1.amazonaws.com/"
    assert cloud.ssh(node, question).returncode == 0
    assert cloud.ssh(inner, question, check=False, through=node).returncode == 28
    cloud.terminate([inner])


def test_objects_outlive_the_daemon(cloud: Cloud, node: str) -> None:
    s3 = cloud.lab.client("s3")
    allow(cloud, {"Effect": "Allow", "Action": "s3:PutObject", "Resource": f"{ARN}/*"})
    assert put(cloud, node, "again", "upload") == "done"
    directory = Path("/var/lib/ec2lab") / NAME / "objects"
    before = {entry.name: entry.stat().st_mtime_ns for entry in directory.iterdir()}
    os.kill(cloud.lab.daemon(), signal.SIGKILL)
    (directory / ("0" * 32)).write_bytes(b"of an upload that was cut off")
    cloud.lab.up()
    assert {entry.name: entry.stat().st_mtime_ns for entry in directory.iterdir()} == before
    assert s3.get_object(Bucket=BUCKET, Key="again")["ContentLength"] == BODY
    eventually(lambda: put(cloud, node, "after") == "done", "an upload after the restart")
