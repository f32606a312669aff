# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fetches instances from the API: several regions at once, every page, as plain data that a cache can hold."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session as ec2_session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.model import API_VERSION, MODEL
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.tags import CLUSTER_PREFIX, cluster_tag

try:
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.loaders import Loader
except ImportError:  # the plugin reports it before anything here is called
    Loader = object  # type: ignore[misc, assignment]

# The most that DescribeInstances gives in one page.
PAGE = 1000
MAX_REGIONS_AT_ONCE = 16


@dataclass(frozen=True)
class Query:
    """Which instances are asked for: the options that decide what the API answers."""

    regions: tuple[str, ...]
    clusters: tuple[str, ...]  # empty: every cluster of ours
    states: tuple[str, ...]
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    full: bool = False

    def api_filters(self) -> list[dict[str, Any]]:
        """The Filters of DescribeInstances. Values of one filter are alternatives, filters all must hold."""
        keys = [cluster_tag(name) for name in self.clusters] or [CLUSTER_PREFIX + "*"]
        own = [{"Name": "tag-key", "Values": keys}, {"Name": "instance-state-name", "Values": list(self.states)}]
        return own + [{"Name": name, "Values": list(values)} for name, values in self.filters]


class _Loader(Loader):
    """botocore's loader of service models, with our model in place of EC2's."""

    def load_service_model(self, service_name: str, type_name: str, api_version: str | None = None) -> Any:
        if service_name == "ec2" and type_name == "service-2":
            return MODEL
        if service_name == "ec2" and type_name == "endpoint-rule-set-1":
            # botocore would look through the directories of all 400 services first.
            return self.load_data(f"ec2/{api_version or API_VERSION}/{type_name}")
        return super().load_service_model(service_name, type_name, api_version)


class InventoryAws(ec2_session.Aws):
    """The collection's AWS clients, EC2's with the small model unless everything is asked for (`full`)."""

    def __init__(self, connection: ec2_session.Connection, full: bool) -> None:
        self._full = full
        super().__init__(connection)

    def _make_session(self) -> Any:
        session = super()._make_session()
        if not self._full:
            session._session.register_component("data_loader", _Loader())
        return session

    def check_regions(self, regions: Iterable[str]) -> None:
        """Raises AwsError for a region that botocore does not know. The connection's own was checked before."""
        session = self.botocore_session
        known = {
            name
            for partition in session.get_available_partitions()
            for name in session.get_available_regions("ec2", partition)
        }
        for region in regions:
            if region not in known:
                raise ec2_session.AwsError(f"regions: {region!r} is not a region of AWS known to this botocore")

    @property
    def botocore_session(self) -> Any:
        """The session below boto3's, which knows profiles and credentials."""
        return self._session._session


def fetch(aws: ec2_session.Aws, query: Query) -> list[dict[str, Any]]:
    """Every instance of `query` in the API's own form, with its `Region` and `OwnerId`, in the order of the regions.

    Raises AwsError, which names the region.
    """
    filters = query.api_filters()
    # Clients are made here: sessions are not safe to share between threads, clients are.
    clients = [(region, aws.client("ec2", region)) for region in query.regions]
    if len(clients) == 1:
        return _region(*clients[0], filters)
    with ThreadPoolExecutor(min(MAX_REGIONS_AT_ONCE, len(clients))) as pool:
        futures = [pool.submit(_region, region, client, filters) for region, client in clients]
        return [instance for future in futures for instance in future.result()]


def _region(region: str, client: Any, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    request: dict[str, Any] = {"Filters": filters, "MaxResults": PAGE}
    try:
        while True:
            answer = client.describe_instances(**request)
            for reservation in answer.get("Reservations", ()):
                for instance in reservation.get("Instances", ()):
                    instance["Region"] = region
                    if owner := reservation.get("OwnerId"):
                        instance["OwnerId"] = owner
                    found.append(instance)
            token = answer.get("NextToken")
            if not token:
                return found
            request["NextToken"] = token
    except (BotoCoreError, ClientError) as error:
        raise ec2_session.AwsError(ec2_session.explain(error, f"list the instances of {region}")) from error


def plain(value: Any) -> Any:
    """`value` with dates as ISO 8601 strings, since JSON, and so a cache, has no dates."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, (datetime.datetime, datetime.date)):
        return value.isoformat()
    return value
