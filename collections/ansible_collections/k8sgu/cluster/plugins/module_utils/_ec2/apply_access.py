# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Handlers of the steps about access: key pair, IAM roles, instance profiles."""

from __future__ import annotations

import json
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import tags as our_tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.apply_network import tagged
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.execution import CONSISTENCY_S, Context, Handler

MISSING = ("NoSuchEntity",)
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


def import_key(context: Context, name: str, public_key: str, tags: dict[str, str]) -> None:
    context.ec2.import_key_pair(
        KeyName=name, PublicKeyMaterial=public_key.encode(), TagSpecifications=tagged("key-pair", tags)
    )


def replace_key(context: Context, name: str, public_key: str, tags: dict[str, str]) -> None:
    delete_key(context, name)
    import_key(context, name, public_key, tags)


def delete_key(context: Context, name: str) -> None:
    context.gone(lambda: context.ec2.delete_key_pair(KeyName=name), ["InvalidKeyPair.NotFound"])


def create_role(context: Context, name: str, path: str, tags: dict[str, str]) -> None:
    context.iam.create_role(
        RoleName=name,
        Path=path,
        AssumeRolePolicyDocument=json.dumps(TRUST),
        Description=f"Nodes of the cluster {context.cluster}",
        Tags=our_tags.as_list(tags),
    )


def put_policy(context: Context, name: str, policy: Mapping[str, Any]) -> None:
    context.retry(
        f"role {name} to be known",
        lambda: context.iam.put_role_policy(RoleName=name, PolicyName=names.POLICY, PolicyDocument=json.dumps(policy)),
        MISSING,
        CONSISTENCY_S,
    )


def delete_policy(context: Context, name: str) -> None:
    context.gone(lambda: context.iam.delete_role_policy(RoleName=name, PolicyName=names.POLICY), MISSING)


def create_profile(context: Context, name: str, path: str, tags: dict[str, str]) -> None:
    context.iam.create_instance_profile(InstanceProfileName=name, Path=path, Tags=our_tags.as_list(tags))


def add_role(context: Context, name: str) -> None:
    context.retry(
        f"role and instance profile {name} to be known",
        lambda: context.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name),
        MISSING,
        CONSISTENCY_S,
    )


def remove_role(context: Context, profile: str, role: str) -> None:
    context.gone(
        lambda: context.iam.remove_role_from_instance_profile(InstanceProfileName=profile, RoleName=role), MISSING
    )


def delete_profile(context: Context, name: str) -> None:
    context.gone(lambda: context.iam.delete_instance_profile(InstanceProfileName=name), MISSING)


def delete_role(context: Context, name: str) -> None:
    context.gone(lambda: context.iam.delete_role(RoleName=name), MISSING)


HANDLERS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        import_key,
        replace_key,
        delete_key,
        create_role,
        put_policy,
        delete_policy,
        create_profile,
        add_role,
        remove_role,
        delete_profile,
        delete_role,
    )
}
