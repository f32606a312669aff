# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: ec2
short_description: The nodes of clusters that k8sgu.cluster.ec2_cluster made, from EC2
version_added: 0.1.0
author:
  - The k8sgu authors (@k8sgu)
description:
  - Lists the instances that carry a cluster's tag C(k8sgu.io/cluster/<name>).
  - The groups C(control_plane), C(etcd), C(worker), C(pool_<name>) and C(cluster_<name>) come from the tags. The first
    three are always there, empty or not.
  - A file of this plugin is named C(ec2.yml), C(ec2.yaml), C(ec2.config) or ends in C(.k8sgu.yml), C(.k8sgu.yaml) or
    C(.k8sgu.config).
  - What a tag holds is data. It is never evaluated as a template, by this plugin or later by Ansible.
  - Every option but O(compose), O(groups) and O(keyed_groups) may be a template. It sees the variables of the group
    C(all), beside the file and from sources read before it, and extra variables.
  - Two instances of one name are an error. An instance without a name that can be used is left out with a warning; the
    name of a group cannot be.
notes:
  - The permission needed is C(ec2:DescribeInstances), and C(sts:AssumeRole) with O(assume_role_arn).
  - Credentials follow boto3's chain, see
    U(https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html). There is no option for a key,
    since keys do not belong in a file.
requirements:
  - boto3 >= 1.34
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description:
      - The name of this plugin.
    type: str
    required: true
    choices: [k8sgu.cluster.ec2]
  clusters:
    description:
      - The names of the clusters to list. All of them without this option.
    type: list
    elements: str
    default: []
  regions:
    description:
      - The regions to look in, at once. Without it the environment's or the profile's region.
    type: list
    elements: str
    default: []
  filters:
    description:
      - Further filters of the API, each with a value or a list of alternatives, see
        U(https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html).
    type: dict
    default: {}
  states:
    description:
      - The states of the instances to list. Instances that are stopped or ended are left out unless asked for.
    type: list
    elements: str
    choices: [pending, running, shutting-down, stopped, stopping, terminated]
    default: [pending, running]
  hostnames:
    description:
      - Where a host's name comes from. The first that gives a usable one counts.
      - V(tag:Name) or another tag, V(instance_id), V(private_ip), V(private_dns), V(public_ip), V(public_dns).
    type: list
    elements: str
    default: ["tag:Name"]
  connect_by:
    description:
      - What C(ansible_host) is, the first that an instance has.
    type: list
    elements: str
    choices: [public_ip, private_ip, public_dns, private_dns]
    default: [public_ip, private_ip, private_dns]
  admin_cidrs:
    description:
      - The ranges that the nodes admit to SSH. With private ones alone, a private address comes before those of O(connect_by), since
        a public one would be reached from outside.
    type: list
    elements: str
    default: []
  login_user:
    description:
      - C(ansible_user) of the hosts, set on the group C(cluster_<name>), so that C(group_vars) can override it.
    type: str
    default: ubuntu
  hostvars:
    description:
      - V(roles) gives the variables that the roles need, V(full) also the whole description of the instance as
        C(ec2_instance), at several times the size and cost.
    type: str
    choices: [roles, full]
    default: roles
  profile:
    description:
      - A profile of the AWS configuration files.
    type: str
  assume_role_arn:
    description:
      - A role to assume first.
    type: str
  assume_role_external_id:
    description:
      - The external id that the role's trust policy asks for.
    type: str
  endpoint_url:
    description:
      - Another address of the API. Without it the environment's, the profile's or Amazon's own.
    type: str
  environment_command:
    description:
      - A command, as a list of its words, that prints C(export NAME=VALUE) lines. They replace the E(AWS_*) variables for
        the rest of the run, for lookups and modules on the controller too, as C(eval "$(command)") would before it.
      - It must export E(AWS_ENDPOINT_URL). Where the environment says another one, a warning names both.
      - It is run once in a run. Empty, it is not; so a template can leave the choice to the environment.
      - The program is looked for on E(PATH) and beside the interpreter that runs Ansible.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
# demo.k8sgu.yml: one cluster, in the region of the environment
plugin: k8sgu.cluster.ec2
clusters: [demo]

---
# Two regions at once with a role in another account, by private addresses, cached between runs
plugin: k8sgu.cluster.ec2
clusters: [blue, green]
regions: [eu-central-1, eu-west-1]
assume_role_arn: arn:aws:iam::123456789012:role/inventory
connect_by: [private_ip]
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/k8sgu

---
# Names and regions from group_vars/all beside this file, groups by zone and by a tag of one's own
plugin: k8sgu.cluster.ec2
clusters: ["{{ k8sgu_cluster_name }}"]
regions: ["{{ k8sgu_region }}"]
keyed_groups:
  - key: ec2_zone
    prefix: zone
  - key: ec2_tags.team
    prefix: team
compose:
  short_name: inventory_hostname | split('-') | last
"""

import os
from typing import Any

from ansible.constants import DEFAULT_HASH_BEHAVIOUR
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.cache_key import cache_key, identity
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.environment import adopt
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.fetch import (
    InventoryAws,
    Query,
    fetch,
    plain,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.hosts import (
    CLUSTER_GROUP,
    STANDING_GROUPS,
    Host,
    InventoryError,
    Layout,
    hosts_from,
    placed,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.options import (
    addresses,
    check_clusters,
    check_hostnames,
    check_names,
    filters_from,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.session import (
    AwsError,
    Connection,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import BOTO3, fault

FILE_NAMES = ("ec2.yml", "ec2.yaml", "ec2.config")
FILE_ENDINGS = (".k8sgu.yml", ".k8sgu.yaml", ".k8sgu.config")
# Commands that were run: their output stays in the environment when the inventory is read again.
_asked: list[list[str]] = []
# Constructable evaluates the expressions of these for each host.
NOT_TEMPLATED = frozenset({"plugin", "compose", "groups", "keyed_groups"})


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]
    NAME = "k8sgu.cluster.ec2"

    # Values come from tags, which others may write, so none is a template.
    trusted_by_default = False

    def verify_file(self, path: str) -> bool:
        name = str(path).rsplit("/", 1)[-1]
        return bool(super().verify_file(path)) and (name in FILE_NAMES or name.endswith(FILE_ENDINGS))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        missing = fault(BOTO3)
        if missing:
            raise AnsibleParserError(missing)
        config = self._read_config_data(path)
        try:
            check_names(config, self._options)
            self._template_options(config, path)
            instances, query = self._instances(config, cache)
            layout = Layout(
                clusters=query.clusters,
                hostnames=tuple(self.get_option("hostnames")),
                addresses=addresses(self.get_option("connect_by"), self.get_option("admin_cidrs")),
                full=query.full,
            )
            found = hosts_from(plain(instances) if query.full else instances, layout, self.inventory.groups)
            for warning in found.warnings:
                self.display.warning(f"{path}: {warning}")
            self._fill(found.hosts)
        except (AwsError, InventoryError) as error:
            # Without the cause, an exception of botocore's of many lines.
            raise AnsibleParserError(str(error)) from None

    def _template_options(self, config: dict[str, Any], path: str) -> None:
        """Evaluates the options that the file gives: only templates in the file are trusted."""
        group = self.inventory.groups["all"]
        beside = get_vars_from_inventory_sources(self.loader, [path], [group], "all")
        self.templar.available_variables = combine_vars(combine_vars(group.get_vars(), beside), self._vars)
        # First, since the other options may look at the environment.
        command = [str(word) for word in self.templar.template(config.get("environment_command") or [])]
        if command and command not in _asked:
            for warning in adopt(command, os.environ):
                self.display.warning(f"{path}: {warning}")
            _asked.append(command)
        given = {
            name: self.templar.template(value) for name, value in config.items() if name not in NOT_TEMPLATED and value
        }
        self.set_options(direct={**config, **given}, var_options=self._vars)

    def _instances(self, written: dict[str, Any], cache: bool) -> tuple[list[dict[str, Any]], Query]:
        """What the API or the cache answers, and what was asked. `written` are the options as they are in the file."""
        option = self.get_option
        check_hostnames(option("hostnames"))
        clusters = tuple(option("clusters"))
        check_clusters(clusters, written.get("clusters"))
        filters = filters_from(option("filters"))
        # Each region once: an instance that is found twice would count as two of one name.
        regions = list(dict.fromkeys(region for region in option("regions") if region))
        connection = Connection.from_options({**self._options, "region": regions[0] if regions else None})
        full = option("hostvars") == "full"
        aws = InventoryAws(connection, full)
        aws.check_regions(regions[1:])
        query = Query(tuple(regions or [aws.region]), clusters, tuple(option("states")), filters, full)
        if not option("cache"):
            return fetch(aws, query), query

        endpoint = aws.client("ec2", query.regions[0]).meta.endpoint_url
        key = cache_key(identity(connection, aws.botocore_session), connection, endpoint, query)
        self.load_cache_plugin()
        # `cache` is false on --flush-cache and meta: refresh_inventory. Then it asks again and keeps the new answer.
        if cache:
            try:
                return self._cache[key], query
            except KeyError:
                pass
        answer = plain(fetch(aws, query))
        self._cache[key] = answer
        return answer, query

    def _fill(self, hosts: list[Host]) -> None:
        inventory = self.inventory
        kept = placed(hosts, merging=DEFAULT_HASH_BEHAVIOUR == "merge")
        for group in (*STANDING_GROUPS, *sorted({group for host in hosts for group in host.groups})):
            inventory.add_group(group)
            # Not by set_variable, which would visit and tag each value: Ansible never takes strings without a tag for
            # templates, and a thousand hosts take a third of a second less.
            inventory.groups[group].vars.update(kept.groups.get(group, {}))
            if group.startswith(CLUSTER_GROUP):
                inventory.set_variable(group, "ansible_user", self.get_option("login_user"))
        for host, own in zip(hosts, kept.hosts):
            inventory.add_host(host.name)
            for group in host.groups:
                inventory.add_child(group, host.name)
            inventory.hosts[host.name].vars.update(own)
        if any(self.get_option(name) for name in ("compose", "groups", "keyed_groups")):
            self._construct(hosts)

    def _construct(self, hosts: list[Host]) -> None:
        """Composes variables and groups. Raises InventoryError where a group would be named like a host."""
        compose, groups, keyed_groups = (self.get_option(name) for name in ("compose", "groups", "keyed_groups"))
        strict = self.get_option("strict")
        inventory = self.inventory
        fault: Exception | None = None
        for host in hosts:
            known = {**host.variables, **inventory.hosts[host.name].get_vars()}
            try:
                self._set_composite_vars(compose, known, host.name, strict)
                self._add_host_to_composed_groups(groups, known, host.name, strict)
                self._add_host_to_keyed_groups(keyed_groups, known, host.name, strict)
            except Exception as error:
                # Where a group has a host's name, Ansible names the consequence and not the cause.
                fault = error
                break
        clashes = [host for host in hosts if host.name in inventory.groups]
        if not clashes and fault is None:
            return
        # No play may go on with hosts that a group has the name of, or that lack a group.
        for one in hosts:
            inventory.remove_host(inventory.hosts[one.name])
        if clashes:
            named = ", ".join(f"{one.name!r} ({one.variables['ec2_instance_id']})" for one in clashes)
            raise InventoryError(
                f"groups, keyed_groups: a group would be named like an instance: {named}; choose another name or prefix "
                "for the group, give the instance another Name tag, or put instance_id into hostnames"
            )
        raise InventoryError(
            f"compose, groups, keyed_groups: at {host.name!r} ({host.variables['ec2_instance_id']}): {fault}"
        )
