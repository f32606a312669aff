# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the inventory's options: each fault in one sentence that names the option and what would be valid."""

from __future__ import annotations

import difflib
from typing import Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import names as name_rules
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import ranges
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.hosts import (
    HOSTNAME_FIELDS,
    TAG_PREFIX,
    InventoryError,
)

# Options that people know from other EC2 inventories.
FOREIGN = {
    "access_key": "keys do not belong in a file: use profile or the environment",
    "aws_access_key": "keys do not belong in a file: use profile or the environment",
    "aws_access_key_id": "keys do not belong in a file: use profile or the environment",
    "secret_key": "keys do not belong in a file: use profile or the environment",
    "aws_secret_key": "keys do not belong in a file: use profile or the environment",
    "aws_secret_access_key": "keys do not belong in a file: use profile or the environment",
    "session_token": "keys do not belong in a file: use profile or the environment",
    "include_filters": "one set of filters is read; list alternatives as the values of one filter",
    "exclude_filters": "use groups, or filters on what is wanted",
    "hostvars_prefix": "every variable begins with ec2_",
    "strict_permissions": "a permission that is missing is always an error",
    "iam_role_arn": "it is assume_role_arn here",
    "aws_profile": "it is profile here",
    "region": "it is regions here",
    "cluster": "it is clusters here",
}


def check_names(given: Iterable[str], known: Iterable[str]) -> None:
    """Raises InventoryError for unknown options, each with the option that may have been meant."""
    known = sorted(known)
    faults = []
    for name in sorted(set(map(str, given)) - set(known)):
        close = difflib.get_close_matches(name, known, 1)
        hint = FOREIGN.get(name) or (f"did you mean {close[0]}?" if close else f"the options are {', '.join(known)}")
        faults.append(f"unknown option {name} ({hint})")
    if faults:
        raise InventoryError("; ".join(faults))


def addresses(connect_by: Iterable[str], admin_cidrs: Iterable[str]) -> tuple[str, ...]:
    """What to connect by, in order of preference. What is no range is ec2_cluster's to refuse."""
    ranges_given = list(admin_cidrs)
    try:
        inside = bool(ranges_given) and not any(ranges.public(cidr) for cidr in ranges_given)
    except ValueError:
        inside = False
    return tuple(dict.fromkeys([*(["private_ip"] if inside else []), *connect_by]))


def check_hostnames(preference: Iterable[str]) -> None:
    for wanted in preference:
        if wanted not in HOSTNAME_FIELDS and not (wanted.startswith(TAG_PREFIX) and len(wanted) > len(TAG_PREFIX)):
            raise InventoryError(
                f"hostnames: {wanted!r} is not a source of names; there are tag:<key> (tag:Name), "
                + ", ".join(HOSTNAME_FIELDS)
            )


def check_clusters(names: Iterable[Any], written: Any = None) -> None:
    """`written` is the option as it is in the file: a template there says which variable has the wrong value."""
    texts = written if isinstance(written, list) else [written]
    template = next((str(text) for text in texts if isinstance(text, str) and "{{" in text), "")
    for name in names:
        fault = name_rules.cluster_fault(name)
        if fault:
            raise InventoryError(f"clusters{f' ({template})' if template else ''}: {fault}")


def filters_from(given: Mapping[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """`filters` with every value a tuple of strings, sorted by name."""
    result = []
    for name, value in given.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        if not values or any(isinstance(item, (dict, list)) or item is None for item in values):
            raise InventoryError(
                f"filters: {name} needs a value or a list of values, see "
                "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html"
            )
        if name == "instance-state-name":
            raise InventoryError("filters: use the option states instead of instance-state-name")
        # The API writes true and false in lower case.
        texts = tuple(str(item).lower() if isinstance(item, bool) else str(item) for item in values)
        result.append((str(name), texts))
    return tuple(sorted(result))
