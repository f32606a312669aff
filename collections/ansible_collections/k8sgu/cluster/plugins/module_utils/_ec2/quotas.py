# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The account's quotas, as far as it tells them. Each resource checks its own.

https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html and
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-on-demand-instances.html#ec2-on-demand-instances-limits
"""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import READ, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader


def quota(reader: Reader, code: tuple[str, str]) -> int | None:
    """The account's value for a service and a quota's code.

    None where it cannot be had (an emulator, an older partition), which counts as enough. A missing permission is an
    error like any other.
    """
    try:
        return _value(reader.client("service-quotas"), *code)
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
    # An account may have no value of its own before somebody asked for more; AWS's default counts until then. Read from
    # the list and not by GetAWSDefaultServiceQuota, which moto and the lab answer with an error that is tried again for
    # half a minute.
    pages = client.get_paginator("list_aws_default_service_quotas").paginate(ServiceCode=service)
    return next((int(item["Value"]) for page in pages for item in page["Quotas"] if item["QuotaCode"] == code), None)


PERMISSIONS = (Grant(READ, ("servicequotas:GetServiceQuota", "servicequotas:ListAWSDefaultServiceQuotas")),)
