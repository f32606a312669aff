# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A KMS key as policies name it."""

from __future__ import annotations

from typing import Any


def named(given: str, region: str) -> tuple[str, dict[str, Any]]:
    """The resource that stands for a key given by id, ARN or alias, and the condition that an alias needs.

    No policy takes an alias as a resource.
    https://docs.aws.amazon.com/kms/latest/developerguide/alias-authorization.html
    """
    anything = f"arn:*:kms:{region}:*:key/"
    alias = given[given.find("alias/") :] if "alias/" in given else ""
    if alias:
        return f"{anything}*", {"ForAnyValue:StringEquals": {"kms:ResourceAliases": alias}}
    return given if given.startswith("arn:") else f"{anything}{given}", {}
