# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules for names, each in one place: inventory, preflight and ec2_cluster give the same error for the same name.

A function returns the error, or an empty string for a valid name. The caller puts the option's name before it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, Mapping, Sequence

# A cluster's name is part of these names; the first two limit it to 28 characters:
# - a load balancer and its target group, 32 characters, named <cluster>-api
#   (https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_CreateLoadBalancer.html);
# - an IAM role, 64 characters, named k8sgu-<cluster>-<region>-control-plane, with AWS's longest region of 15
#   (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html);
# - a node; the control plane's, <cluster>-control-plane-0, would allow 36;
# - a tag's key, 128 characters, and a group of the inventory, which has no limit.
# A letter comes first, since YAML reads 1234 and similar as numbers. DNS labels have no upper case or underscore, and
# an underscore stands for the dash in the inventory's groups, so that no two clusters share a group.
CLUSTER_LENGTH = 28
CLUSTER = re.compile(rf"[a-z](?:[a-z0-9-]{{0,{CLUSTER_LENGTH - 2}}}[a-z0-9])?")
CLUSTER_RULE = f"give 1 to {CLUSTER_LENGTH} lower-case letters, digits and dashes, a letter first and no dash last"

# A node's name is a DNS label (RFC 1123), at most 63 characters, in lower case for Kubernetes. But its kubelet is
# system:node:<name> in the common name of a certificate, which has at most 64
# (https://kubernetes.io/docs/reference/access-authn-authz/node/, RFC 5280, appendix A).
NODE_LENGTH = 64 - len("system:node:")
NODE = re.compile(rf"[a-z0-9]([a-z0-9-]{{0,{NODE_LENGTH - 2}}}[a-z0-9])?")
NODE_RULE = f"give at most {NODE_LENGTH} lower-case letters, digits and -, with neither end a -"

# A pool's name is part of a node's name and of a group of the inventory.
POOL = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
POOL_RULE = "give lower-case letters, digits and single _ or -, a letter first and no _ or - last"
# The first two pools come from the counts; their names differ from the word in their nodes' names.
CONTROL_PLANE_POOL, WORKER_POOL = "control_plane", "workers"
POOL_WORDS = {CONTROL_PLANE_POOL: "control-plane", WORKER_POOL: "worker"}

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions; for the characters, IAM's rule,
# which is the narrowest (https://docs.aws.amazon.com/IAM/latest/APIReference/API_Tag.html,
# https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html).
RESERVED_TAGS = ("k8sgu.io/", "aws:", "kubernetes.io/")
TAG_SIGNS = "_.:/=+-@"
TAG_KEY_LENGTH, TAG_VALUE_LENGTH = 128, 256
# An instance has five tags of ours: the cluster's, Name, role, pool and pod range.
MOST_TAGS = 50 - 5


def shown(value: Any) -> str:
    """A value as it would be written in YAML, with a remark if it is not text."""
    if isinstance(value, str):
        return repr(str(value))
    return f"{json.dumps(value, default=str, ensure_ascii=False)}, which is not text in YAML,"


def cluster_fault(name: Any) -> str:
    """Why `name` cannot be a cluster's name; empty if it can."""
    if not isinstance(name, str) or not CLUSTER.fullmatch(name):
        return f"{shown(name)} cannot be a cluster's name: {CLUSTER_RULE}"
    if f"{name}-".startswith("internal-"):
        return (
            f"{shown(name)} cannot be a cluster's name: AWS reserves names of load balancers that begin with "
            "internal-; choose another"
        )
    return ""


def node_fault(name: str) -> str:
    """Why `name` cannot be a node's name; a sentence that follows the name. Empty if it can."""
    if NODE.fullmatch(name):
        return ""
    if len(name) > NODE_LENGTH:
        return f"is too long for system:node:<name>, a node's certificate ({len(name)} characters); {NODE_RULE}"
    return f"is not a host name (RFC 1123); {NODE_RULE}"


def node_name(cluster: str, pool: str, number: int) -> str:
    """The name that ec2_cluster gives a node."""
    return f"{cluster}-{POOL_WORDS.get(pool, pool.replace('_', '-'))}-{number}"


def pool_fault(name: Any) -> str:
    """Why `name` cannot be a pool's name; empty if it can."""
    if isinstance(name, str) and POOL.fullmatch(name):
        return ""
    return f"{shown(name)} cannot be a pool's name: {POOL_RULE}"


def pools_faults(cluster: str, pools: Sequence[tuple[str, int]]) -> list[str]:
    """Faults of pools, given as (valid name, count), whose nodes' names would be another pool's or too long."""
    by_first: dict[str, list[str]] = {}
    for name, _count in pools:
        by_first.setdefault(node_name(cluster, name, 0), []).append(name)
    faults = [
        f"{' and '.join(map(repr, names))}: two pools would name their first node {node}; give each its own name"
        for node, names in by_first.items()
        if len(names) > 1
    ]
    for name, count in pools:
        last = node_name(cluster, name, max(count - 1, 0))
        if len(last) > NODE_LENGTH:
            faults.append(f"{name!r}: its node {last} {node_fault(last)}; shorten the pool's name or the cluster's")
    return faults


def zones_fault(zones: Sequence[Any], region: str) -> str:
    """Why these cannot be the zones of a cluster in `region` (empty if unknown); empty if they can."""
    for zone in zones:
        if not isinstance(zone, str):
            return f"{shown(zone)} cannot be a zone; give zones like {region or 'eu-central-1'}a"
        if not zone.startswith(region):
            return f"{zone!r} is not in region {region}; give zones like {region}a"
        if list(zones).count(zone) > 1:
            return f"{zone!r} is given twice; name each zone once"
    return ""


def tags_faults(given: Mapping[Any, Any]) -> list[str]:
    """Faults of tags that are reserved, or that AWS would refuse for EC2, the load balancer or IAM."""
    faults = []
    for key, value in given.items():
        text = str(key)
        if text.lower().startswith(RESERVED_TAGS) or text.lower() == "name":
            faults.append(f"{text!r} is reserved; choose a key without {', '.join(RESERVED_TAGS)} and other than Name")
        elif not 1 <= len(text) <= TAG_KEY_LENGTH:
            faults.append(f"{text!r}: a key has 1 to {TAG_KEY_LENGTH} characters and this one {len(text)}; shorten it")
        elif isinstance(value, bool) or not isinstance(value, (str, int)):
            faults.append(f"{text!r}: the value {shown(value)} cannot be a tag's; put it in quotes")
        elif len(str(value)) > TAG_VALUE_LENGTH:
            faults.append(
                f"{text!r}: a value has at most {TAG_VALUE_LENGTH} characters and this one {len(str(value))}; "
                "shorten it"
            )
        elif str(value).lower().startswith("aws:"):
            faults.append(f"{text!r}: IAM allows no value with the prefix aws:, as {str(value)!r} has; choose another")
        else:
            faults += [
                f"{text!r}: {part!r} holds {sign!r}, and IAM allows only letters, digits, spaces and "
                f"{' '.join(TAG_SIGNS)}"
                for part in (text, str(value))
                for sign in [_strange(part)]
                if sign
            ]
    folded = [str(key).lower() for key in given]
    twice = sorted(str(key) for key in given if folded.count(str(key).lower()) > 1)
    if twice:
        faults.append(
            f"{', '.join(map(repr, twice))}: IAM does not distinguish keys by upper and lower case; keep one of them"
        )
    if len(given) > MOST_TAGS:
        faults.append(
            f"{len(given)} tags, and AWS allows {MOST_TAGS} besides the cluster's own on a resource; drop some"
        )
    return faults


def _strange(text: str) -> str:
    """The first character that a tag cannot have: not a letter, number, space or one of TAG_SIGNS."""
    return next((sign for sign in text if sign not in TAG_SIGNS and unicodedata.category(sign)[0] not in "LNZ"), "")
