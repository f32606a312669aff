# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the API: every page of a call, and calls side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session, tags

# EC2 throttles bursts of more; so many calls are answered in one round trip.
PARALLEL = 12


class Reader:
    """Reads what belongs to one cluster. Every method is one call, or none, or the pages of one."""

    def __init__(self, aws: session.Aws, cluster: str) -> None:
        self.aws = aws
        self._cluster = cluster
        self._owned = [tags.owned_filter(cluster)]

    def client(self, service: str) -> Any:
        return self.aws.client(service)

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> list[Any]:
        """All items of a call's answer, whatever the number of pages. Raises AwsError."""
        client = self.aws.client(service)
        try:
            if client.can_paginate(operation):
                return [
                    item for page in client.get_paginator(operation).paginate(**arguments) for item in page.get(key, ())
                ]
            return list(getattr(client, operation)(**arguments)[key])
        except Exception as error:
            if session.error_code(error) or type(error).__module__.startswith("botocore"):
                raise session.AwsError(session.explain(error, f"read the account ({operation})")) from error
            raise

    def maybe(self, service: str, operation: str, key: str, missing: Iterable[str], **arguments: Any) -> list[Any]:
        """As `pages`, with an empty list where the API says that there is nothing of this name (`missing`)."""
        try:
            return self.pages(service, operation, key, **arguments)
        except session.AwsError as error:
            if error.__cause__ is not None and session.error_code(error.__cause__) in missing:
                return []
            raise

    def owned(self, operation: str, key: str) -> list[Any]:
        """What carries the cluster's tag."""
        return self.pages("ec2", operation, key, Filters=self._owned)

    def in_vpc(self, operation: str, key: str, vpc_id: str, filter_name: str = "vpc-id") -> list[Any]:
        return self.pages("ec2", operation, key, Filters=[{"Name": filter_name, "Values": [vpc_id]}])

    def mine(self, resource_tags: Mapping[str, str]) -> bool:
        return resource_tags.get(tags.cluster_tag(self._cluster)) == tags.OWNED


def together(calls: Iterable[Callable[[], None]]) -> None:
    """Makes calls side by side and raises the first error."""
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result()
