# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asks EC2 before the first change whether the caller may make the changes (DryRun).

EC2 alone knows such a question, and for some calls alone. What it answers counts above all else, since it has looked
at every policy that there is.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ExamplePolicies_EC2.html#iam-example-dry-run
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import reading, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.apply_network import tagged
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Plan

# Stand-ins, and a range that no VPC can have: EC2 asks for permissions before it looks at such things, and an
# emulator that takes no notice of DryRun for these calls cannot carry the question out.
VPC, SUBNET, ADDRESS, GROUP = "vpc-00000000", "subnet-00000000", "eipalloc-00000000", "sg-00000000"
IMPOSSIBLE_RANGE = "10.0.0.0/8"

Arguments = Mapping[str, Any]


def _rule(step: Arguments, ids: Mapping[str, str]) -> dict[str, Any] | None:
    """A rule that nobody has, for a group that is there: the policy asks for its tag, which a stand-in has not."""
    group = ids.get(step["reference"])
    rule = {"IpProtocol": "tcp", "FromPort": 65535, "ToPort": 65535, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]}
    return {"GroupId": group, "IpPermissions": [rule]} if group else None


# For each handler the call and how to ask for it: with what the step has and the ids that are known, or None where one
# that is needed is not. Calls whose DryRun an emulator may not know are left out, since it would carry them out.
QUESTIONS: dict[str, tuple[str, Callable[[Arguments, Mapping[str, str]], dict[str, Any] | None]]] = {
    "create_vpc": (
        "create_vpc",
        lambda step, ids: {"CidrBlock": IMPOSSIBLE_RANGE, "TagSpecifications": tagged("vpc", step["tags"])},
    ),
    "create_gateway": (
        "create_internet_gateway",
        lambda step, ids: {"TagSpecifications": tagged("internet-gateway", step["tags"])},
    ),
    "create_subnet": (
        "create_subnet",
        lambda step, ids: {
            "VpcId": VPC,
            "CidrBlock": step["cidr"],
            "TagSpecifications": tagged("subnet", step["tags"]),
        },
    ),
    "create_table": (
        "create_route_table",
        lambda step, ids: {"VpcId": VPC, "TagSpecifications": tagged("route-table", step["tags"])},
    ),
    "create_group": (
        "create_security_group",
        lambda step, ids: {
            "GroupName": step["name"],
            "Description": "none",
            "VpcId": ids.get("vpc", VPC),
            "TagSpecifications": tagged("security-group", step["tags"]),
        },
    ),
    "allocate_address": (
        "allocate_address",
        lambda step, ids: {"Domain": "vpc", "TagSpecifications": tagged("elastic-ip", step["tags"])},
    ),
    "create_nat": (
        "create_nat_gateway",
        lambda step, ids: {
            "SubnetId": SUBNET,
            "AllocationId": ADDRESS,
            "TagSpecifications": tagged("natgateway", step["tags"]),
        },
    ),
    "import_key": (
        "import_key_pair",
        lambda step, ids: {
            "KeyName": step["name"],
            "PublicKeyMaterial": step["public_key"].encode(),
            "TagSpecifications": tagged("key-pair", step["tags"]),
        },
    ),
    "launch": (
        "run_instances",
        lambda step, ids: {
            "MinCount": 1,
            "MaxCount": 1,
            "ImageId": step["image"].id,
            "InstanceType": step["instance_type"],
            "SubnetId": ids.get(step["subnet"], SUBNET),
            "SecurityGroupIds": [ids.get(step["group"], GROUP)],
            "TagSpecifications": tagged("instance", step["tags"]),
        },
    ),
    "terminate": ("terminate_instances", lambda step, ids: {"InstanceIds": [step["id"]]}),
    "replace": ("terminate_instances", lambda step, ids: {"InstanceIds": [step["id"]]}),
    "delete_group": ("delete_security_group", lambda step, ids: {"GroupId": step["id"]}),
    "delete_gateway": ("delete_internet_gateway", lambda step, ids: {"InternetGatewayId": step["id"]}),
    "detach_gateway": (
        "detach_internet_gateway",
        lambda step, ids: {"InternetGatewayId": step["id"], "VpcId": step["vpc_id"]},
    ),
    "authorize": ("authorize_security_group_ingress", _rule),
    "revoke": ("revoke_security_group_ingress", _rule),
    "create_tags": (
        "create_tags",
        lambda step, ids: {"Resources": [step["id"]], "Tags": tags.as_list(step["tags"])},
    ),
    "start": ("start_instances", lambda step, ids: {"InstanceIds": [step["id"]]}),
    "modify_volume": ("modify_volume", lambda step, ids: {"VolumeId": step["id"], "Size": step["size"]}),
    "delete_volume": ("delete_volume", lambda step, ids: {"VolumeId": step["id"]}),
    "release_address": ("release_address", lambda step, ids: {"AllocationId": step["id"]}),
    "delete_key": ("delete_key_pair", lambda step, ids: {"KeyName": step["name"]}),
    "replace_key": ("delete_key_pair", lambda step, ids: {"KeyName": step["name"]}),
}


def ask(aws: session.Aws, plan: Plan) -> dict[str, BaseException | None]:
    """Asks for each kind of change once; by action ("ec2:RunInstances") the denial, or None where there is none."""
    questions: dict[str, dict[str, Any]] = {}
    for step in plan.steps:
        operation, asked = QUESTIONS.get(step.call, ("", None))
        arguments = asked(step.arguments, plan.ids) if asked and operation not in questions else None
        if arguments is not None:
            questions[operation] = arguments
    ec2 = aws.client("ec2")

    def denial(operation: str) -> BaseException | None:
        try:
            getattr(ec2, operation)(DryRun=True, **questions[operation])
        except Exception as error:
            # Any other answer (DryRunOperation, or that a stand-in is not there) means that nothing forbids it.
            if session.error_code(error) in session.DENIED_CODES:
                return error
            if not session.error_code(error) and not type(error).__module__.startswith("botocore"):
                raise
        return None

    with ThreadPoolExecutor(max_workers=reading.PARALLEL) as pool:
        answers = list(pool.map(denial, questions))
    names = ec2.meta.method_to_api_mapping
    return {f"ec2:{names[operation]}": answer for operation, answer in zip(questions, answers)}
