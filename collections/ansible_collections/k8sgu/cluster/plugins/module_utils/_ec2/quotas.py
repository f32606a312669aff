# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Quotas that the plan would run into, as far as the account tells them.

https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html and
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html#ec2-on-demand-instances-limits
"""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, plan_groups, session, state
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reading import Reader

VPCS = ("vpc", "L-F678F1CE")
ROUTES = ("vpc", "L-93826ACB")
ADDRESSES = ("ec2", "L-0263D0A3")
STANDARD_VCPUS = ("ec2", "L-1216C47A")
# The families that the quota of vCPUs of standard instances covers.
STANDARD_FAMILY = re.compile(r"[acdhimrtz]\d")


def check_rules(description: Description, internet_facing: bool) -> None:
    """The rules of a security group against the quota's default, which most accounts have."""
    nodes = [pool.node_name(description.name, number) for pool in description.pools for number in range(pool.count)]
    for role in plan_groups.roles_wanted(description):
        number = len(plan_groups.rules_wanted(description, role, nodes, internet_facing))
        if number <= plan_groups.RULES_QUOTA:
            continue
        if role == plan_groups.API:
            raise DescriptionError(
                "load_balancer_scheme: an internet-facing load balancer admits each node by its public address, "
                f"and {number} "
                f"rules exceed a security group's {plan_groups.RULES_QUOTA}; give internal"
            )
        option = "node_port_cidrs" if len(description.node_port_cidrs) > len(description.admin_cidrs) else "admin_cidrs"
        raise DescriptionError(
            f"{option}: so many ranges make {number} rules in the group of {role}, and a security group has "
            f"{plan_groups.RULES_QUOTA} at most; join ranges"
        )


def check(reader: Reader, description: Description, current: state.Current, changes: plan.Plan, vcpus: int) -> None:
    """Quotas of the account. What cannot be asked for here (an emulator, an older partition) counts as enough."""
    calls = [step.call for step in changes.steps]
    if "create_vpc" in calls:
        allowed = _quota(reader, VPCS)
        there = len(reader.pages("ec2", "describe_vpcs", "Vpcs")) if allowed is not None else 0
        if allowed is not None and there + 1 > allowed:
            raise DescriptionError(
                f"vpc_id: the account has {there} VPCs in {description.region} and its quota is {allowed}; remove "
                "one, give "
                f"vpc_id of an existing one, or have the quota {VPCS[1]} raised"
            )
    if "allocate_address" in calls:
        allowed = _quota(reader, ADDRESSES)
        there = len(reader.pages("ec2", "describe_addresses", "Addresses")) if allowed is not None else 0
        if allowed is not None and there + calls.count("allocate_address") > allowed:
            raise DescriptionError(
                f"nat_gateways: {calls.count('allocate_address')} Elastic IPs are needed, {there} of {allowed} "
                "are in use; "
                f"give nat_gateways: one, release some, or have the quota {ADDRESSES[1]} raised"
            )
    if "launch" in calls and description.pod_network == "routed":
        allowed = _quota(reader, ROUTES)
        # Beside the pods' routes each table has the local and the default route.
        if allowed is not None and description.node_count + 2 > allowed:
            raise DescriptionError(
                f"pod_network: routed needs {description.node_count + 2} routes in a table and the quota is "
                f"{allowed}; give "
                f"vxlan, fewer nodes, or have the quota {ROUTES[1]} raised"
            )
    if vcpus:
        _check_vcpus(reader, description, vcpus)


def _check_vcpus(reader: Reader, description: Description, vcpus: int) -> None:
    if not all(STANDARD_FAMILY.match(pool.instance_type) for pool in description.pools):
        return
    allowed = _quota(reader, STANDARD_VCPUS)
    if allowed is None:
        return
    used = 0
    running = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    for reservation in reader.pages("ec2", "describe_instances", "Reservations", Filters=running):
        for item in reservation["Instances"]:
            options = item.get("CpuOptions", {})
            if STANDARD_FAMILY.match(item["InstanceType"]) and item.get("InstanceLifecycle") != "spot":
                used += options.get("CoreCount", 1) * options.get("ThreadsPerCore", 1)
    if used + vcpus > allowed:
        raise DescriptionError(
            f"pools: the new nodes have {vcpus} vCPUs, {used} are in use and the quota is {allowed}; choose fewer "
            "or smaller "
            f"nodes, or have the quota {STANDARD_VCPUS[1]} raised"
        )


def _quota(reader: Reader, quota: tuple[str, str]) -> int | None:
    """The account's value, None where it is not to be had. A missing permission is an error like any other."""
    try:
        return _value(reader.client("service-quotas"), *quota)
    except Exception as error:
        if session.error_code(error) in session.DENIED_CODES:
            raise session.AwsError(session.explain(error, "read the account's quotas")) from error
        if session.error_code(error) or type(error).__module__.startswith("botocore"):
            return None
        raise


def _value(client: Any, service: str, code: str) -> int | None:
    try:
        return int(client.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"])
    except Exception as error:
        if session.error_code(error) != "NoSuchResourceException":
            raise
    # An account may have no value of its own before somebody asked for more; AWS's counts until then. The list and not
    # GetAWSDefaultServiceQuota, which moto and the lab answer with an error that is tried again for half a minute.
    pages = client.get_paginator("list_aws_default_service_quotas").paginate(ServiceCode=service)
    return next((int(item["Value"]) for page in pages for item in page["Quotas"] if item["QuotaCode"] == code), None)
