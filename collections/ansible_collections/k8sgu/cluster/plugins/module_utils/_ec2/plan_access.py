# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans who may do what: the key pair for SSH, the nodes' IAM roles and instance profiles."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, plan, tags

NODE_ROLES = (tags.CONTROL_PLANE, tags.WORKER)


def key_pair_used(draft: plan.Draft) -> str:
    """The name of the key pair that nodes are launched with."""
    return draft.description.key_name or names.key_pair(draft.cluster)


def plan_access(draft: plan.Draft) -> None:
    if draft.removing:
        return
    if draft.description.public_key:
        _key_pair(draft)
    if draft.description.instance_profiles:
        for role in NODE_ROLES:
            _profile(draft, role)


def _key_pair(draft: plan.Draft) -> None:
    name = names.key_pair(draft.cluster)
    mark = names.fingerprint(draft.description.public_key)
    wanted = draft.tags(name, fingerprint=mark)
    there = next((pair for pair in draft.current.key_pairs if pair.name == name), None)
    arguments: dict[str, Any] = {"name": name, "public_key": draft.description.public_key, "tags": wanted}
    if not there:
        draft.add(plan.CREATE, "key-pair", plan.MISSING, "import_key", **arguments)
    elif there.tags.get(names.FINGERPRINT) != mark:
        reason = "it has another public key; nodes that are there keep the old one in authorized_keys"
        draft.add(plan.REPLACE, "key-pair", reason, "replace_key", **arguments)
    else:
        draft.keep_tags("key-pair", there.id, there.tags, wanted)


def _profile(draft: plan.Draft, node_role: str) -> None:
    name = names.role(draft.cluster, draft.description.region, node_role)
    path = names.iam_path(draft.cluster, draft.description.region)
    word = node_role.replace("_", "-")
    wanted = draft.tags(name, role=node_role)
    role, profile = draft.current.roles.get(name), draft.current.profiles.get(name)
    policy: Mapping[str, Any] | None = draft.description.policies.get(node_role)
    if not role:
        draft.add(plan.CREATE, f"iam-role/{word}", plan.MISSING, "create_role", name=name, path=path, tags=wanted)
    if policy and (not role or role.policy != policy):
        reason = "its policy is not the description's" if role and role.policy else "it lacks the description's policy"
        draft.add(
            plan.UPDATE,
            f"iam-policy/{word}",
            reason,
            "put_policy",
            [f"create iam-role/{word}"],
            name=name,
            policy=policy,
        )
    elif not policy and role and role.policy is not None:
        draft.add(plan.DELETE, f"iam-policy/{word}", "the description has no policy for it", "delete_policy", name=name)
    if not profile:
        draft.add(
            plan.CREATE, f"instance-profile/{word}", plan.MISSING, "create_profile", name=name, path=path, tags=wanted
        )
    if not profile or name not in profile.roles:
        draft.add(
            plan.ATTACH,
            f"instance-profile/{word}",
            "the profile does not have its role",
            "add_role",
            [f"create iam-role/{word}", f"create instance-profile/{word}"],
            name=name,
        )


def profile_steps(node_role: str) -> list[str]:
    """The keys of the steps before which nodes of a role cannot be launched."""
    word = node_role.replace("_", "-")
    return [
        f"{action} {kind}/{word}"
        for action, kind in (
            ("create", "iam-role"),
            ("create", "instance-profile"),
            ("attach", "instance-profile"),
        )
    ]
