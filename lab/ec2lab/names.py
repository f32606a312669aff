"""Names of everything the lab makes on the host.

Each contains the lab's name, so that everything of a lab can be found by name alone, also after a crash. A lab's name
cannot contain the separator, a dot, so no lab's names are a prefix of another's.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ec2lab.errors import LabError

NETNS_DIR = Path("/run/netns")
NODE_DEVICE = "ens5"  # what a Nitro instance calls its first interface
INTERNET_DEVICE = "internet"  # in a VPC's namespace: leads to the internet through the host, by slirp4netns
HOST_DEVICE = "host"  # in a VPC's namespace: the link to the host, where public addresses arrive
OUTSIDE_DEVICE = "outside"  # in a VPC's namespace: the link to the lab's own internet
LEAST_RANGE_METRIC = 2**31  # see range_metric

_LAB_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


def check_lab_name(name: str) -> str:
    """Returns `name`, or raises LabError if a lab cannot have it."""
    if not _LAB_NAME.fullmatch(name):
        raise LabError(
            f"{name!r} cannot be a lab's name: use 1 to 32 lower-case letters, digits and hyphens, "
            "with no hyphen at either end"
        )
    return name


def prefix(lab: str) -> str:
    """The prefix of the names of the lab's namespaces, and of the aliases of its interfaces on the host."""
    return f"ec2lab.{lab}."


def account(lab: str) -> str:
    """The lab's account id: 12 digits, derived from the name, so that each lab has its own and keeps it."""
    return f"{int(hashlib.sha256(prefix(lab).encode()).hexdigest(), 16) % 10**12:012}"


def namespace(lab: str, vpc_id: str) -> str:
    return prefix(lab) + vpc_id


def namespace_path(lab: str, vpc_id: str) -> Path:
    return NETNS_DIR / namespace(lab, vpc_id)


def outside(lab: str) -> str:
    """The namespace of the lab's own internet. No VPC has this name: their ids begin with `vpc-`."""
    return namespace(lab, OUTSIDE_DEVICE)


def outside_path(lab: str) -> Path:
    return NETNS_DIR / outside(lab)


def outside_link(vpc_id: str) -> str:
    """The end of a VPC's link that is in the lab's own internet."""
    return "o" + hashlib.sha256(vpc_id.encode()).hexdigest()[:12]


def cgroup(lab: str) -> str:
    """The lab's directory under the root of each cgroup hierarchy."""
    return f"ec2lab.{lab}"


def uplink(lab: str, vpc_id: str) -> str:
    """The host's end of the link to a VPC. Interface names have at most 15 characters; the alias names the lab."""
    return "e2l" + hashlib.sha256(namespace(lab, vpc_id).encode()).hexdigest()[:12]


def range_metric(lab: str) -> int:
    """Metric of the host's unreachable route to the lab's public range. It identifies the lab: routes have no name.

    Larger than any other in use, so that every route into the lab comes first.
    """
    return LEAST_RANGE_METRIC + int(hashlib.sha256(prefix(lab).encode()).hexdigest(), 16) % 2**31


def node_link(instance_id: str) -> str:
    """The VPC's end of a node's link: the last 14 of an instance id's 17 random digits."""
    return "n" + instance_id.removeprefix("i-")[-14:]


def node_plug(instance_id: str) -> str:
    """The node's end of the link while no node has it."""
    return "p" + instance_id.removeprefix("i-")[-14:]
