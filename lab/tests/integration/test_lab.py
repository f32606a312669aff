"""The lab as a user of EC2 sees it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import outside
import pytest
from botocore.exceptions import ClientError
from lab_support import BIN, EVERYWHERE, PATIENCE_S, WATCH_S, Cloud, RunningLab, ec2lab, eventually, make_cloud

from ec2lab import host

NAME = f"test-{os.getpid()}"
USER_DATA = "#!/bin/sh\necho ran >> /ran\n"
STARTED = "cut -d' ' -f22 /proc/1/stat"  # when the node's init began
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


PROGRAM, MANIFEST = os.urandom(5 << 20), json.dumps({"schemaVersion": 2, "layers": []}).encode()


def make_internet(directory: Path) -> Path:
    """One host with a file, and one registry with an image."""
    (directory / "hosts/downloads.example.com").mkdir(parents=True)
    (directory / "hosts/downloads.example.com/program").write_bytes(PROGRAM)
    write_image(directory / "images/registry.example/app")
    return directory


def write_image(layout: Path) -> str:
    """An OCI layout with the manifest of tag v1; returns its digest."""
    (layout / "blobs" / "sha256").mkdir(parents=True)
    digest = hashlib.sha256(MANIFEST).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(MANIFEST)
    entry = {"digest": f"sha256:{digest}", "annotations": {"org.opencontainers.image.ref.name": "v1"}}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return digest


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningLab]:
    directory = tmp_path_factory.mktemp("lab")
    running = RunningLab(NAME, directory)
    try:
        running.up("--mirror-dir", str(directory / "mirror"), "--internet-dir", str(make_internet(directory / "net")))
        yield running
    finally:
        running.down()


@pytest.fixture(scope="module")
def cloud(lab: RunningLab) -> Cloud:
    return make_cloud(lab)


@pytest.fixture(scope="module")
def pair(cloud: Cloud) -> tuple[str, str]:
    """Two instances of one subnet, for tests that leave them as they were."""
    iam = cloud.lab.client("iam")
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.create_instance_profile(InstanceProfileName="node")
    iam.add_role_to_instance_profile(InstanceProfileName="node", RoleName="node")
    first, second = cloud.run(
        2,
        UserData=USER_DATA,
        IamInstanceProfile={"Name": "node"},
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled", "HttpPutResponseHopLimit": 1},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "pair"}]}],
    )
    assert cloud.see(first)["State"]["Name"] == "pending"
    cloud.wait([first, second], "running")
    return first, second


def test_running_means_that_ssh_answers(cloud: Cloud, pair: tuple[str, str]) -> None:
    for instance in pair:
        assert cloud.say(instance, "id -un; sudo -n id -un").split() == ["ubuntu", "root"]
        address = cloud.address(instance)
        assert cloud.say(instance, "hostname") == "ip-" + address.replace(".", "-")
        name = cloud.see(instance)["PrivateDnsName"]
        assert cloud.say(instance, "hostname -f") == name
        assert cloud.say(instance, f"getent hosts {name}").split()[0] == address
        assert f"inet {address}/24" in cloud.say(instance, "ip -4 addr")
        assert cloud.say(instance, "ps -p 1 -o comm=") == "systemd"


def test_machines_wait_for_their_turn(cloud: Cloud, lab: RunningLab, pair: tuple[str, str]) -> None:
    for process in (1, "$(systemctl show --property=MainPID --value ssh)"):
        assert cloud.say(pair[0], f"chrt --pid {process}").splitlines()[0].endswith("SCHED_BATCH")
    assert os.sched_getscheduler(lab.daemon()) == os.SCHED_BATCH


def test_user_data_ran_once(cloud: Cloud, pair: tuple[str, str]) -> None:
    assert eventually(lambda: cloud.say(pair[0], "cat /ran"), "user data") == "ran"


def test_metadata_needs_a_token(cloud: Cloud, pair: tuple[str, str]) -> None:
    code = "curl -s -m 20 -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/"
    assert cloud.say(pair[0], code) == "401"
    assert cloud.metadata(pair[0], "meta-data/instance-id") == pair[0]
    assert cloud.metadata(pair[0], "meta-data/local-ipv4") == cloud.address(pair[0])
    assert cloud.metadata(pair[0], "meta-data/tags/instance/Name") == "pair"
    assert cloud.metadata(pair[0], "user-data") == USER_DATA.strip()
    assert json.loads(cloud.metadata(pair[0], "dynamic/instance-identity/document"))["instanceId"] == pair[0]


def test_the_profile_s_credentials_are_the_role_s(cloud: Cloud, pair: tuple[str, str]) -> None:
    role = cloud.metadata(pair[0], "meta-data/iam/security-credentials/")
    assert role == "node"
    held = json.loads(cloud.metadata(pair[0], f"meta-data/iam/security-credentials/{role}"))
    environment = {
        **os.environ,
        **cloud.lab.environment,
        "AWS_ACCESS_KEY_ID": held["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": held["SecretAccessKey"],
        "AWS_SESSION_TOKEN": held["Token"],
    }
    done = subprocess.run(
        [str(BIN / "aws"), "sts", "get-caller-identity"], env=environment, capture_output=True, text=True, check=False
    )
    assert f":assumed-role/node/{pair[0]}" in done.stdout, done.stderr


def test_metadata_stops_at_the_hop_limit(cloud: Cloud, pair: tuple[str, str]) -> None:
    """A namespace behind a bridge of the node is one hop further, like a container."""
    instance = pair[0]
    with cloud.one_hop_further(instance) as token:
        assert token() == "got:"
        cloud.ec2.modify_instance_metadata_options(
            InstanceId=instance, HttpPutResponseHopLimit=2, HttpTokens="required", InstanceMetadataTags="enabled"
        )
        assert len(token()) > len("got:")


def test_a_security_group_refuses_and_then_allows(cloud: Cloud, pair: tuple[str, str]) -> None:
    first, second = pair
    address = cloud.address(second)
    assert not cloud.pings(first, address)
    ping = cloud.allow("icmp", 8, -1, "10.240.0.0/16")
    eventually(lambda: cloud.pings(first, address), "a ping that is allowed")
    cloud.forbid(ping)
    eventually(lambda: not cloud.pings(first, address), "a ping that is refused again")


def test_a_routed_range_needs_its_route_and_no_source_check(cloud: Cloud, pair: tuple[str, str]) -> None:
    """How pod networks travel: an address of a range behind `second` is reached from `first`."""
    first, second = pair
    ping = cloud.allow("icmp", 8, -1)
    cloud.say(second, "sudo ip addr add 10.200.2.1/32 dev lo")
    extra = "10.200.2.1"
    try:
        assert not cloud.pings(first, extra)
        cloud.ec2.create_route(RouteTableId=cloud.table, DestinationCidrBlock="10.200.2.0/24", InstanceId=second)
        time.sleep(WATCH_S)
        assert not cloud.pings(first, extra)
        cloud.ec2.modify_instance_attribute(InstanceId=second, SourceDestCheck={"Value": False})
        eventually(lambda: cloud.pings(first, extra), "a ping to the routed range")
        cloud.ec2.delete_route(RouteTableId=cloud.table, DestinationCidrBlock="10.200.2.0/24")
        eventually(lambda: not cloud.pings(first, extra), "no ping without the route")
    finally:
        cloud.ec2.modify_instance_attribute(InstanceId=second, SourceDestCheck={"Value": True})
        cloud.say(second, "sudo ip addr del 10.200.2.1/32 dev lo")
        cloud.forbid(ping)


def test_the_load_balancer_loses_a_target(cloud: Cloud, pair: tuple[str, str]) -> None:
    elb = cloud.lab.client("elbv2")
    web = cloud.allow("tcp", 8080, 8080)
    for instance in pair:
        cloud.say(
            instance,
            "mkdir -p www; hostname > www/name; sudo systemd-run -q --unit=web --working-directory=/home/ubuntu/www "
            "python3 -m http.server 8080",
        )
    group = elb.create_target_group(
        Name="web",
        Protocol="TCP",
        Port=8080,
        VpcId=cloud.vpc,
        TargetType="instance",
        HealthCheckIntervalSeconds=5,
        HealthCheckTimeoutSeconds=2,
        HealthyThresholdCount=2,
        UnhealthyThresholdCount=2,
    )["TargetGroups"][0]["TargetGroupArn"]
    elb.modify_target_group_attributes(
        TargetGroupArn=group, Attributes=[{"Key": "preserve_client_ip.enabled", "Value": "false"}]
    )
    balancer = elb.create_load_balancer(Name="web", Type="network", Scheme="internet-facing", Subnets=cloud.subnets)[
        "LoadBalancers"
    ][0]
    elb.create_listener(
        LoadBalancerArn=balancer["LoadBalancerArn"],
        Protocol="TCP",
        Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
    )
    elb.register_targets(TargetGroupArn=group, Targets=[{"Id": instance} for instance in pair])

    def healthy() -> set[str]:
        seen = elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        return {each["Target"]["Id"] for each in seen if each["TargetHealth"]["State"] == "healthy"}

    def answers(client: str) -> set[str]:
        """The host names of the targets that answer a node at the balancer's name."""
        command = f"for i in 1 2 3 4 5 6 7 8; do curl -sf -m 5 http://{balancer['DNSName']}/name; done"
        return set(cloud.ssh(client, command, check=False).stdout.split())

    try:
        eventually(lambda: healthy() == set(pair), "both targets healthy")
        state = elb.describe_load_balancers(Names=["web"])["LoadBalancers"][0]["State"]["Code"]
        assert state == "active"
        hosts = {cloud.say(instance, "hostname") for instance in pair}
        eventually(lambda: answers(pair[0]) == hosts, "both targets answering")
        cloud.say(pair[1], "sudo systemctl stop web")
        eventually(lambda: healthy() == {pair[0]}, "one target unhealthy")
        lost = elb.describe_target_health(TargetGroupArn=group, Targets=[{"Id": pair[1]}])["TargetHealthDescriptions"]
        assert lost[0]["TargetHealth"]["State"] == "unhealthy"
        assert answers(pair[0]) == {cloud.say(pair[0], "hostname")}
    finally:
        elb.delete_load_balancer(LoadBalancerArn=balancer["LoadBalancerArn"])
        elb.delete_target_group(TargetGroupArn=group)
        cloud.forbid(web)
        for instance in pair:
            cloud.ssh(instance, "sudo systemctl stop web", check=False)


def test_names_resolve_on_the_nodes(cloud: Cloud, pair: tuple[str, str]) -> None:
    """By the address that EC2's DHCP gives, the VPC's base plus two."""
    name = cloud.see(pair[1])["PrivateDnsName"]
    assert cloud.say(pair[0], "grep ^nameserver /etc/resolv.conf") == "nameserver 10.240.0.2"
    assert cloud.say(pair[0], f"getent ahostsv4 {name} | cut -d' ' -f1 | sort -u") == cloud.address(pair[1])


def test_the_name_server_answers_no_other_address_than_an_interface_s(cloud: Cloud, pair: tuple[str, str]) -> None:
    """As Amazon's: what a pod asks with its own address gets no answer, whatever routes and checks allow."""
    node, source = pair[0], "10.200.3.1"
    query = "bytes.fromhex('beef01000001000000000000') + b'\\x09localhost\\x00\\x00\\x01\\x00\\x01'"
    program = (
        "import socket, sys\n"
        "asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "asked.settimeout(3)\n"
        "asked.bind((sys.argv[1], 0))\n"
        f"asked.sendto({query}, (sys.argv[2], 53))\n"
        "try:\n    print(len(asked.recv(512)) > 12)\nexcept TimeoutError:\n    print('silence')\n"
    )
    cloud.say(node, f"sudo ip addr add {source}/32 dev lo; cat > ask.py <<'END'\n{program}END")
    cloud.ec2.create_route(RouteTableId=cloud.table, DestinationCidrBlock="10.200.3.0/24", InstanceId=node)
    cloud.ec2.modify_instance_attribute(InstanceId=node, SourceDestCheck={"Value": False})
    time.sleep(WATCH_S)
    try:
        for server in ("10.240.0.2", "169.254.169.253"):
            assert cloud.say(node, f"python3 ask.py {cloud.address(node)} {server}") == "True"
            assert cloud.say(node, f"python3 ask.py {source} {server}") == "silence"
    finally:
        cloud.ec2.modify_instance_attribute(InstanceId=node, SourceDestCheck={"Value": True})
        cloud.ec2.delete_route(RouteTableId=cloud.table, DestinationCidrBlock="10.200.3.0/24")
        cloud.say(node, f"sudo ip addr del {source}/32 dev lo; rm ask.py")


def test_the_mirror_serves_files_and_images(cloud: Cloud, pair: tuple[str, str]) -> None:
    mirror = Path(cloud.lab.environment["EC2LAB_MIRROR_DIR"])
    url = cloud.lab.environment["EC2LAB_MIRROR_URL"]
    content = os.urandom(5 << 20)
    (mirror / "files").mkdir(parents=True)
    (mirror / "files" / "program").write_bytes(content)
    wanted = hashlib.sha256(content).hexdigest()
    for instance in pair:
        assert cloud.say(instance, f"curl -sf {url}/files/program | sha256sum").split()[0] == wanted
    digest = write_image(mirror / "images" / "registry.example" / "app")
    pulled = cloud.say(pair[0], f"curl -sf '{url}/v2/app/manifests/v1?ns=registry.example' | sha256sum")
    assert pulled.split()[0] == digest


def test_the_lab_s_own_internet_answers_a_node_with_a_public_address(cloud: Cloud, pair: tuple[str, str]) -> None:
    node = pair[0]
    fetched = cloud.say(node, "curl -sSf https://downloads.example.com/program | sha256sum")
    assert fetched.split()[0] == hashlib.sha256(PROGRAM).hexdigest()
    # Python looks its authorities up in another way than curl does.
    program = "import urllib.request as u; print(len(u.urlopen('https://downloads.example.com/program').read()))"
    assert cloud.say(node, f'python3 -c "{program}"') == str(len(PROGRAM))
    digest = hashlib.sha256(MANIFEST).hexdigest()
    for reference in ("v1", f"sha256:{digest}"):
        pulled = cloud.say(node, f"curl -sSf https://registry.example/v2/app/manifests/{reference} | sha256sum")
        assert pulled.split()[0] == digest
    assert cloud.ssh(node, "curl -s -m 20 https://nowhere.invalid/", check=False).returncode == 6  # no such name
    # It is outside: the group's egress applies, and the lab's services at 169.254.169.251 are another matter.
    rules = cloud.ec2.describe_security_groups(GroupIds=[cloud.group])["SecurityGroups"][0]["IpPermissionsEgress"]
    question = f"curl -s -o /dev/null -m {WATCH_S} https://downloads.example.com/program"
    cloud.ec2.revoke_security_group_egress(GroupId=cloud.group, IpPermissions=rules)
    try:
        eventually(lambda: cloud.ssh(node, question, check=False).returncode == 28, "no way out without egress")
    finally:
        cloud.ec2.authorize_security_group_egress(GroupId=cloud.group, IpPermissions=rules)
    eventually(lambda: cloud.ssh(node, question, check=False).returncode == 0, "the way out is back")


def test_aws_answers_at_its_own_names(cloud: Cloud, pair: tuple[str, str], tmp_path: Path) -> None:
    """From the host by the proxy, without an endpoint; from a node by an address that the host has signed."""
    program = (
        "import boto3\n"
        "s3 = boto3.client('s3')\n"
        "s3.create_bucket(Bucket='files-of-the-test')\n"
        "s3.put_object(Bucket='files-of-the-test', Key='a/b', Body=b'abc')\n"
        "print(boto3.client('ec2').describe_vpcs()['Vpcs'][0]['VpcId'])\n"
        "print(s3.generate_presigned_url('get_object', Params={'Bucket': 'files-of-the-test', 'Key': 'a/b'}))\n"
    )
    known = {name: value.strip("'") for name, value in cloud.lab.environment.items()}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        **{name: value for name, value in known.items() if name != "AWS_ENDPOINT_URL"},
        "HTTPS_PROXY": known["EC2LAB_INTERNET_PROXY"],
        "AWS_CA_BUNDLE": known["EC2LAB_INTERNET_CA"],
    }
    told = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    vpc, address = told.stdout.split()
    assert vpc.startswith("vpc-")
    assert address.startswith("https://files-of-the-test.s3")
    assert cloud.say(pair[0], f"curl -sSf '{address}'") == "abc"


def test_the_api_answers_on_the_nodes(cloud: Cloud, pair: tuple[str, str]) -> None:
    """Nobody signed this, so it is S3 that it comes to, and S3 refuses it."""
    assert "<Code>AccessDenied</Code>" in cloud.say(pair[0], "curl -s http://169.254.169.251/")


def test_nodes_cannot_reach_the_host(cloud: Cloud, pair: tuple[str, str]) -> None:
    """The API's own port on the host's loopback stands for every service of the host."""
    port = cloud.lab.environment["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
    gateways = cloud.say(pair[0], "ip -4 route show default | cut -d' ' -f3").split()
    for address in ["127.0.0.1", *gateways, *(each for each in addresses if ":" not in each)]:
        reached = cloud.ssh(pair[0], f"curl -s -m 3 http://{address}:{port}/", check=False)
        assert reached.returncode != 0, f"{address}:{port} answered a node"


def test_the_aws_cli_works_unchanged(cloud: Cloud, pair: tuple[str, str]) -> None:
    environment = {**os.environ, **cloud.lab.environment}

    def aws(*arguments: str) -> Any:
        done = subprocess.run(
            [str(BIN / "aws"), *arguments, "--output", "json"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    seen = aws("ec2", "describe-instances", "--filters", "Name=tag:Name,Values=pair")
    found = {each["InstanceId"] for group in seen["Reservations"] for each in group["Instances"]}
    assert found == set(pair)
    aws("ec2", "wait", "instance-running", "--instance-ids", pair[0])
    volume = aws("ec2", "create-tags", "--resources", pair[0], "--tags", "Key=made-by,Value=cli")
    assert volume is None
    assert aws("sts", "get-caller-identity")["Arn"].endswith(f":user/{NAME}/lab-admin")
    assert aws("elbv2", "describe-load-balancers")["LoadBalancers"] == []


def test_the_console_is_shown(cloud: Cloud, pair: tuple[str, str]) -> None:
    assert ec2lab("console", pair[0]).stdout.strip()
    refused = ec2lab("console", "i-0123456789abcdef0", check=False)
    assert refused.returncode == 1
    assert "no machine" in refused.stderr


def test_stop_keeps_the_disk_and_terminate_does_not(cloud: Cloud) -> None:
    (instance,) = cloud.run(UserData=USER_DATA)
    cloud.wait([instance], "running")
    address, public = cloud.address(instance), cloud.see(instance)["PublicIpAddress"]
    eventually(lambda: cloud.say(instance, "cat /ran") == "ran", "user data")
    cloud.say(instance, "echo kept > kept; sync")
    cloud.ec2.stop_instances(InstanceIds=[instance])
    cloud.wait([instance], "stopped")
    assert "PublicIpAddress" not in cloud.see(instance)
    with pytest.raises(OSError, match=r"timed out|unreachable|refused|No route"):
        socket.create_connection((public, 22), timeout=WATCH_S)
    cloud.ec2.start_instances(InstanceIds=[instance])
    cloud.wait([instance], "running")
    assert cloud.address(instance) == address
    assert cloud.say(instance, "cat kept /ran").split() == ["kept", "ran"]
    boot = cloud.say(instance, STARTED)
    # As a container runtime leaves them when its machine reboots.
    made = "d=/sys/fs/cgroup; [ -d $d/memory ] && d=$d/memory; sudo mkdir -p $d/pods/one; echo $d/pods"
    cgroup = cloud.say(instance, made)
    cloud.ec2.reboot_instances(InstanceIds=[instance])

    def rebooted() -> bool:
        """Whether its init is a new one and the disk is unchanged."""
        return cloud.say(instance, STARTED) != boot and cloud.say(instance, "cat kept") == "kept"

    eventually(rebooted, "the node back after a reboot")
    assert cloud.say(instance, f"test -e {cgroup} || echo gone") == "gone"
    # A node that shuts itself down is stopped, as InstanceInitiatedShutdownBehavior says.
    cloud.ssh(instance, "sudo systemctl poweroff", check=False)
    cloud.wait([instance], "stopped")
    disk = Path(f"/var/lib/ec2lab/{NAME}/machines/{instance}")
    assert disk.is_dir()
    cloud.terminate([instance])
    assert not disk.exists()


def test_an_elastic_ip_leads_to_its_instance_while_it_is_associated(cloud: Cloud) -> None:
    (instance,) = cloud.run()
    cloud.wait([instance], "running")
    automatic = cloud.see(instance)["PublicIpAddress"]
    host_name = cloud.say(instance, "hostname")
    allocated = cloud.ec2.allocate_address(Domain="vpc")
    address = allocated["PublicIp"]
    assert not connects(address)
    made = cloud.ec2.associate_address(InstanceId=instance, AllocationId=allocated["AllocationId"])
    try:
        assert cloud.see(instance)["PublicIpAddress"] == address
        eventually(lambda: cloud.say(instance, "hostname") == host_name, "SSH to the Elastic IP")
        assert not connects(automatic)
    finally:
        cloud.ec2.disassociate_address(AssociationId=made["AssociationId"])
    eventually(lambda: not connects(address), "no answer at an address that is nobody's")
    cloud.ec2.release_address(AllocationId=allocated["AllocationId"])
    cloud.terminate([instance])


def test_the_default_vpc_is_reached_if_its_group_allows_it(cloud: Cloud) -> None:
    """`aws ec2 run-instances` without a subnet and a group, as it works in a new account."""
    default = cloud.ec2.describe_security_groups(
        Filters=[{"Name": "vpc-id", "Values": [default_vpc(cloud)]}, {"Name": "group-name", "Values": ["default"]}]
    )["SecurityGroups"][0]["GroupId"]
    (instance,) = cloud.run(SubnetId=None, SecurityGroupIds=None)
    cloud.wait([instance], "running")
    assert cloud.see(instance)["VpcId"] == default_vpc(cloud)
    # Its group lets only its own members in.
    assert cloud.ssh(instance, "true", check=False, connect=WATCH_S).returncode != 0
    permission = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": EVERYWHERE}]}
    cloud.ec2.authorize_security_group_ingress(GroupId=default, IpPermissions=[permission])
    eventually(lambda: cloud.say(instance, "hostname").startswith("ip-172-31-"), "the new rule lets SSH in")
    cloud.ec2.revoke_security_group_ingress(GroupId=default, IpPermissions=[permission])
    cloud.terminate([instance])


def default_vpc(cloud: Cloud) -> str:
    (vpc,) = cloud.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    return str(vpc["VpcId"])


def test_a_private_subnet_reaches_the_internet_through_a_nat_gateway(cloud: Cloud, tmp_path: Path) -> None:
    if not host.has_default_route():
        pytest.skip("the host has no default route, so its nodes have no way out")
    ec2 = cloud.ec2
    subnet = ec2.create_subnet(VpcId=cloud.vpc, CidrBlock="10.240.9.0/24")["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=cloud.vpc)["RouteTable"]["RouteTableId"]
    association = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
    (door,) = cloud.run()
    (inner,) = cloud.run(SubnetId=subnet)
    cloud.wait([door, inner], "running")
    assert "PublicIpAddress" not in cloud.see(inner)

    def reached() -> set[bool]:
        """Of both outsides: the host's, and the lab's own by its name, which resolves without a way out too."""
        found = set()
        for address in (f"http://{there}/", "https://downloads.example.com/program"):
            asked = cloud.ssh(inner, f"curl -sf -o /dev/null -m {WATCH_S} {address}", check=False, through=door)
            assert asked.returncode in (0, 7, 28), asked.stderr  # curl's: fetched, not connected, timed out
            found.add(asked.returncode == 0)
        return found

    allocated = ec2.allocate_address(Domain="vpc")["AllocationId"]
    with outside.internet(tmp_path / "web") as there:
        eventually(lambda: reached() == {False}, "no way out without a gateway")
        gateway = ec2.create_nat_gateway(SubnetId=cloud.subnets[0], AllocationId=allocated)["NatGateway"][
            "NatGatewayId"
        ]
        ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[gateway], WaiterConfig={"Delay": 1})
        assert reached() == {False}  # the route leads there, not the gateway alone
        ec2.create_route(RouteTableId=table, DestinationCidrBlock=EVERYWHERE, NatGatewayId=gateway)
        eventually(lambda: reached() == {True}, "the internet through the NAT gateway")
        ec2.delete_route(RouteTableId=table, DestinationCidrBlock=EVERYWHERE)
        eventually(lambda: reached() == {False}, "no way out without the route")
    ec2.delete_nat_gateway(NatGatewayId=gateway)
    cloud.terminate([door, inner])
    ec2.disassociate_route_table(AssociationId=association)
    ec2.delete_route_table(RouteTableId=table)
    ec2.delete_subnet(SubnetId=subnet)


def connects(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=WATCH_S):
            return True
    except OSError:
        return False


def test_faults_and_their_opposites(cloud: Cloud) -> None:
    (instance,) = cloud.run()
    cloud.wait([instance], "running")

    def reached() -> bool:
        return cloud.ssh(instance, "true", check=False, connect=5).returncode == 0

    ec2lab("fault", "network-cut", instance)
    assert not reached()
    ec2lab("fault", "network-restore", instance)
    eventually(reached, "the node back on the network")
    ec2lab("fault", "disk-fill", instance)
    assert cloud.ssh(instance, "head -c 1M /dev/zero > more", check=False).returncode != 0
    assert "faults: disk" in ec2lab("status", NAME).stdout
    ec2lab("fault", "disk-free", instance)
    cloud.say(instance, "head -c 1M /dev/zero > more")
    ec2lab("fault", "power-off", instance)
    assert not reached()
    assert cloud.see(instance)["State"]["Name"] == "running"
    ec2lab("fault", "power-on", instance)
    eventually(reached, "the node up again")
    # Also without a pause: the link that is removed with the power must be back.
    ec2lab("fault", "power-off", instance)
    ec2lab("fault", "power-on", instance)
    eventually(reached, "the node up again at once")
    refused = ec2lab("fault", "clock-jump", instance, check=False)
    assert refused.returncode == 1
    assert "clock" in refused.stderr
    cloud.terminate([instance])


def test_a_killed_daemon_comes_back(cloud: Cloud, pair: tuple[str, str]) -> None:
    started = cloud.say(pair[0], "stat -c %Y /proc/1")
    before = cloud.ec2.describe_instances()["Reservations"]
    os.kill(cloud.lab.daemon(), signal.SIGKILL)
    refused = ec2lab("status", NAME, check=False)
    assert refused.returncode == 1
    assert "is not running" in refused.stderr
    assert "taking it up again" in cloud.lab.up()
    assert cloud.ec2.describe_instances()["Reservations"] == before
    assert cloud.say(pair[0], "stat -c %Y /proc/1") == started
    assert cloud.metadata(pair[0], "meta-data/instance-id") == pair[0]
    ping = cloud.allow("icmp", 8, -1)
    eventually(lambda: cloud.pings(pair[0], cloud.address(pair[1])), "a change made after the restart")
    cloud.forbid(ping)


def test_a_daemon_killed_amid_launches_finishes_them(cloud: Cloud) -> None:
    """Killed right after the answer: every promised instance comes up once, with its address."""
    wanted = {"ClientToken": "amid", "SubnetId": cloud.subnets[1]}
    made = cloud.run(2, **wanted)
    os.kill(cloud.lab.daemon(), signal.SIGKILL)
    cloud.lab.up()
    assert cloud.run(2, **wanted) == made
    cloud.wait(made, "running")
    os.kill(cloud.lab.daemon(), signal.SIGKILL)
    cloud.lab.up()
    cloud.ec2.terminate_instances(InstanceIds=made)
    os.kill(cloud.lab.daemon(), signal.SIGKILL)
    cloud.lab.up()
    cloud.wait(made, "terminated")
    left = {path.name for path in Path(f"/var/lib/ec2lab/{NAME}/machines").iterdir()}
    assert not left & set(made)


def test_what_ec2_refuses_the_lab_refuses(cloud: Cloud) -> None:
    with pytest.raises(ClientError, match=r"InvalidAMIID\.NotFound"):
        cloud.run(ImageId="ami-0123456789abcdef0")
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        cloud.run(InstanceType="m5.gigantic")


def test_volumes_are_disks(cloud: Cloud) -> None:
    """One instance: what is written stays over detach, stop and start, restart of the daemon; growth; snapshot; end."""
    ec2, zone = cloud.ec2, "us-east-1a"
    mapping = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "VolumeType": "gp3", "DeleteOnTermination": True}}
    [instance] = cloud.run(1, BlockDeviceMappings=[mapping])
    cloud.wait([instance], "running")
    mapped = {each["DeviceName"]: each["Ebs"]["VolumeId"] for each in cloud.see(instance)["BlockDeviceMappings"]}
    volume = mapped["/dev/sdf"]
    files = Path(f"/var/lib/ec2lab/{cloud.lab.name}/volumes")

    def link(of: str) -> str:
        return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{of.replace('-', '')}"

    def state(of: str = volume) -> dict[str, Any]:
        return dict(ec2.describe_volumes(VolumeIds=[of])["Volumes"][0])

    def attached(of: str) -> bool:
        return [each["State"] for each in state(of)["Attachments"]] == ["attached"]

    def size(of: str) -> int:
        return int(cloud.say(instance, f"sudo blockdev --getsize64 {link(of)}"))

    # By its id, with the name that the kernel gives it and not the one that was asked for.
    assert re.fullmatch(r"/dev/nvme[1-9]n1", cloud.say(instance, f"readlink -f {link(volume)}"))
    assert attached(volume) and size(volume) == 1 << 30
    cloud.say(instance, f"sudo mkfs.ext4 -q {link(volume)} && sudo mkdir /data && sudo mount {link(volume)} /data")
    cloud.say(instance, "echo kept | sudo tee /data/file && sync")

    # A mounted volume stays until it is unmounted.
    ec2.detach_volume(VolumeId=volume)
    eventually(lambda: state()["Attachments"][0]["State"] == "busy", "the mounted volume to be busy")
    cloud.say(instance, "sudo umount /data")
    eventually(lambda: state()["State"] == "available", "the volume to be available")
    assert cloud.ssh(instance, f"test -e {link(volume)}", check=False).returncode == 1
    assert cloud.say(instance, "ls /dev/nvme* 2>/dev/null | wc -l") == "0"

    # A second one beside it; both are there again after a reboot, a stop and a start, and a new daemon finds them.
    other = ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    eventually(lambda: state(other)["State"] == "available", "the second volume to be available")
    for name, of in (("/dev/sdg", volume), ("/dev/sdf", other)):
        ec2.attach_volume(InstanceId=instance, VolumeId=of, Device=name)
        eventually(lambda of=of: attached(of), f"{of} to be attached")  # type: ignore[misc]
    cloud.say(instance, f"sudo mount {link(volume)} /data && cat /data/file")
    os.kill(cloud.lab.daemon(), signal.SIGKILL)
    cloud.lab.up()
    assert attached(volume) and attached(other)
    ec2.stop_instances(InstanceIds=[instance])
    cloud.wait([instance], "stopped")
    backing = [path.read_text().strip() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert not [each for each in backing if each.startswith(str(files))]
    ec2.start_instances(InstanceIds=[instance])
    cloud.wait([instance], "running")
    assert cloud.say(instance, f"sudo mount {link(volume)} /data && cat /data/file && ls {link(other)}").startswith(
        "kept"
    )

    # It grows while it is mounted, and the file system after it.
    ec2.modify_volume(VolumeId=volume, Size=2)
    eventually(lambda: size(volume) == 2 << 30, "the device to grow")
    online = f"sudo resize2fs {link(volume)}"
    # A host whose root has no CAP_SYS_RESOURCE cannot do it while it is mounted.
    offline = f"sudo umount /data && sudo e2fsck -fp {link(volume)} && {online} && sudo mount {link(volume)} /data"
    cloud.say(instance, f"{online} || ({offline})")
    assert int(cloud.say(instance, "df --output=size -B1 /data | tail -1")) > 3 << 29

    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    again = ec2.create_volume(AvailabilityZone=zone, SnapshotId=snapshot)["VolumeId"]
    eventually(lambda: state(again)["State"] == "available", "the snapshot's volume to be available")
    ec2.attach_volume(InstanceId=instance, VolumeId=again, Device="/dev/sdh")
    eventually(lambda: attached(again), "the snapshot's volume to be attached")
    assert cloud.say(instance, f"sudo mkdir /copy && sudo mount {link(again)} /copy && cat /copy/file") == "kept"

    # The mapping's volume ends with the instance, the two that were attached later stay.
    cloud.terminate([instance])
    left = {each["VolumeId"] for each in ec2.describe_volumes()["Volumes"]}
    assert {other, again} <= left
    for of in (volume, other, again):
        if of in left:
            ec2.delete_volume(VolumeId=of)
    ec2.delete_snapshot(SnapshotId=snapshot)
    eventually(lambda: not list(files.glob("*")), "the files to be removed")
