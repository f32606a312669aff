# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nodes' IAM roles, each with an instance profile of its name and, where the description has one, a policy."""

from __future__ import annotations

import json
import urllib.parse
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, plan, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.backups import upload
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import CONSISTENCY_S
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import Case, Grant, Statement
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader, together

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place

POLICY = "k8sgu"
NODE_ROLES = (tags.CONTROL_PLANE, tags.WORKER)
NO_ENTITY = ("NoSuchEntity",)
# IAM's changes take a while to be known everywhere, and it says so by these.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency
NOT_YET = (*NO_ENTITY, "ConcurrentModification", "ConcurrentModificationException")
IN_USE = ("DeleteConflict", "ConcurrentModification", "ConcurrentModificationException")
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}


@dataclass(frozen=True)
class Role:
    """`policy` is the inline document of our name, None without one."""

    name: str
    arn: str
    policy: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Profile:
    name: str
    arn: str
    roles: tuple[str, ...]


def unknown_to_ec2(error: BaseException) -> bool:
    """Whether EC2 does not know an instance profile yet: one code for many errors, of which only this one passes."""
    return session.error_code(error) == "InvalidParameterValue" and "instance profile" in str(error).lower()


def of_node(description: Description, node_role: str) -> str:
    """The name of the profile (and role) that nodes of a role are launched with; empty where there are none."""
    return names.role(description.name, description.region, node_role) if description.instance_profiles else ""


def read(reader: Reader, description: Description, current: Current, removing: bool) -> None:
    """Who wants no profiles may lack the permission to look for them; then there are none to lose."""
    try:
        _read(reader, description, current, removing)
    except session.AwsError as error:
        denied = error.__cause__ is not None and session.error_code(error.__cause__) in session.DENIED_CODES
        if description.instance_profiles or not denied:
            raise
        current.profiles.clear()
        current.roles.clear()


def _read(reader: Reader, description: Description, current: Current, removing: bool) -> None:
    region = reader.aws.region
    path = names.iam_path(description.name, region)
    found = reader.pages("iam", "list_instance_profiles", "InstanceProfiles", PathPrefix=path)
    # A role is ours by its path, so the path is compared here too and not left to the filter alone.
    for item in (item for item in found if item["Path"] == path):
        roles = tuple(role["RoleName"] for role in item.get("Roles", ()))
        current.profiles[item["InstanceProfileName"]] = Profile(item["InstanceProfileName"], item["Arn"], roles)
        for role in (role for role in item.get("Roles", ()) if role["Path"] == path):
            current.roles[role["RoleName"]] = Role(role["RoleName"], role["Arn"])
    # A profile shows its role; only where one has none there may be a role by itself.
    if removing or not {names.role(description.name, region, role) for role in NODE_ROLES} <= set(current.roles):
        listed = reader.pages("iam", "list_roles", "Roles", PathPrefix=path)
        for item in (item for item in listed if item["Path"] == path):
            current.roles.setdefault(item["RoleName"], Role(item["RoleName"], item["Arn"]))
    together([partial(_read_policy, reader, current, name) for name in sorted(current.roles)])


def _read_policy(reader: Reader, current: Current, name: str) -> None:
    try:
        document = reader.client("iam").get_role_policy(RoleName=name, PolicyName=POLICY)["PolicyDocument"]
    except Exception as error:
        if session.error_code(error) in NO_ENTITY:
            return
        raise session.AwsError(session.explain(error, "read the account (get_role_policy)")) from error
    if isinstance(document, str):
        document = json.loads(urllib.parse.unquote(document))
    current.roles[name] = Role(name, current.roles[name].arn, document)


def check_names(reader: Reader, changes: plan.Plan) -> None:
    """Raises DescriptionError where somebody else has the name of a role or a profile to create."""
    _check_names(reader, changes.of(CreateRole), "list_roles", "Roles", "RoleName", "IAM role")
    _check_names(
        reader,
        changes.of(CreateProfile),
        "list_instance_profiles",
        "InstanceProfiles",
        "InstanceProfileName",
        "instance profile",
    )


def _check_names(
    reader: Reader, steps: Iterable[CreateRole | CreateProfile], operation: str, key: str, name_of: str, what: str
) -> None:
    if not steps:
        return
    # By the whole list, since GetRole would need a permission for roles that are not ours.
    paths = {item[name_of]: item["Path"] for item in reader.pages("iam", operation, key)}
    for step in steps:
        if paths.get(step.name, step.path) != step.path:
            raise DescriptionError(
                f"name: there is an {what} {step.name} that is not the cluster's (its path is {paths[step.name]}); "
                "choose another name for the cluster, remove that, or give instance_profiles: false"
            )


def wanted(draft: plan.Draft) -> None:
    if draft.removing or not draft.description.instance_profiles:
        return
    path = names.iam_path(draft.cluster, draft.description.region)
    for node_role in NODE_ROLES:
        name = of_node(draft.description, node_role)
        word = node_role.replace("_", "-")
        marks = draft.tags(name, role=node_role)
        role, profile = draft.current.roles.get(name), draft.current.profiles.get(name)
        policy = upload.policy_of_role(draft.description, draft.current, node_role)
        if not role:
            draft.add(CreateRole(f"iam-role/{word}", plan.MISSING, name, path, marks))
        if policy and (not role or role.policy != policy):
            differs = role and role.policy
            reason = "its policy is not the description's" if differs else "it lacks the description's policy"
            draft.add(PutPolicy(f"iam-policy/{word}", reason, name, policy), [f"create iam-role/{word}"])
        elif not policy and role and role.policy is not None:
            draft.add(DeletePolicy(f"iam-policy/{word}", "the description has no policy for it", name))
        if not profile:
            draft.add(CreateProfile(f"instance-profile/{word}", plan.MISSING, name, path, marks))
        if not profile or name not in profile.roles:
            draft.add(
                AddRole(f"instance-profile/{word}", "the profile does not have its role", name),
                [f"create iam-role/{word}", f"create instance-profile/{word}"],
            )


def before_launch(node_role: str) -> list[str]:
    """The keys of the steps before which nodes of a role cannot be launched."""
    word = node_role.replace("_", "-")
    return [f"create iam-role/{word}", f"create instance-profile/{word}", f"attach instance-profile/{word}"]


def surplus(draft: plan.Draft, users: list[str], moved: list[str]) -> None:
    """`moved` are the keys of the steps that give nodes another profile, or none."""
    if not draft.removing and draft.description.instance_profiles:
        return
    profiles = draft.current.profiles.values()
    for profile in profiles:
        detached = [
            draft.add(
                RemoveRole(f"instance-profile/{profile.name}/{name}", plan.SURPLUS, profile=profile.name, role=name),
                [*users, *moved],
            )
            for name in profile.roles
        ]
        resource = f"instance-profile/{profile.name}"
        draft.add(DeleteProfile(resource, plan.SURPLUS, profile.name), [*users, *moved, *detached])
    for role in draft.current.roles.values():
        detached = [f"detach instance-profile/{profile.name}/{role.name}" for profile in profiles]
        if role.policy is not None:
            draft.add(DeletePolicy(f"iam-policy/{role.name}", plan.SURPLUS, role.name), users)
        draft.add(
            DeleteRole(f"iam-role/{role.name}", plan.SURPLUS, role.name),
            [*users, *detached, f"delete iam-policy/{role.name}"],
        )


def _on_role(place: Place, action: str, name: str) -> Iterable[Found]:
    return [(f"iam:{action}", place.role(name), place.tagged(None, "iam"))]


def _on_profile(place: Place, action: str, name: str) -> Iterable[Found]:
    return [(f"iam:{action}", place.profile(name), place.tagged(None, "iam"))]


def _remove(context: Context, what: str, call: Callable[[], Any]) -> None:
    """A removal that is repeated while IAM does not know yet that what stood in its way is gone."""
    context.remove(what, call, NO_ENTITY, IN_USE, CONSISTENCY_S)


@dataclass
class CreateRole(plan.Step):
    name: str
    path: str
    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        context.iam.create_role(
            RoleName=self.name,
            Path=self.path,
            AssumeRolePolicyDocument=json.dumps(TRUST),
            Description=f"Nodes of the cluster {context.cluster}",
            Tags=tags.as_list(self.tags),
        )

    def needs(self, place: Place) -> Iterable[Found]:
        for action in ("iam:CreateRole", "iam:TagRole"):
            yield action, place.role(self.name), place.requested()
        # After the run the account is read again.
        yield from _on_role(place, "GetRolePolicy", self.name)


@dataclass
class PutPolicy(plan.Step):
    name: str
    policy: Mapping[str, Any]
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        context.when_known(
            f"role {self.name}",
            lambda: context.iam.put_role_policy(
                RoleName=self.name, PolicyName=POLICY, PolicyDocument=json.dumps(self.policy)
            ),
            NOT_YET,
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return _on_role(place, "PutRolePolicy", self.name)


@dataclass
class DeletePolicy(plan.Step):
    name: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        request = {"RoleName": self.name, "PolicyName": POLICY}
        _remove(context, f"the policy of role {self.name}", lambda: context.iam.delete_role_policy(**request))

    def needs(self, place: Place) -> Iterable[Found]:
        return _on_role(place, "DeleteRolePolicy", self.name)


@dataclass
class CreateProfile(plan.Step):
    name: str
    path: str
    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        context.iam.create_instance_profile(InstanceProfileName=self.name, Path=self.path, Tags=tags.as_list(self.tags))

    def needs(self, place: Place) -> Iterable[Found]:
        for action in ("iam:CreateInstanceProfile", "iam:TagInstanceProfile"):
            yield action, place.profile(self.name), place.requested()


@dataclass
class AddRole(plan.Step):
    """Puts the role into the profile of its name."""

    name: str
    action = plan.ATTACH

    def apply(self, context: Context) -> None:
        context.when_known(
            f"role and instance profile {self.name}",
            lambda: context.iam.add_role_to_instance_profile(InstanceProfileName=self.name, RoleName=self.name),
            NOT_YET,
        )

    def needs(self, place: Place) -> Iterable[Found]:
        yield from _on_profile(place, "AddRoleToInstanceProfile", self.name)
        yield from place.pass_role(self.name)


@dataclass
class RemoveRole(plan.Step):
    profile: str
    role: str
    action = plan.DETACH

    def apply(self, context: Context) -> None:
        request = {"InstanceProfileName": self.profile, "RoleName": self.role}
        what = f"role {self.role} to leave instance profile {self.profile}"
        _remove(context, what, lambda: context.iam.remove_role_from_instance_profile(**request))

    def needs(self, place: Place) -> Iterable[Found]:
        return _on_profile(place, "RemoveRoleFromInstanceProfile", self.profile)


@dataclass
class DeleteProfile(plan.Step):
    name: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        what = f"instance profile {self.name} to be free for deletion"
        _remove(context, what, lambda: context.iam.delete_instance_profile(InstanceProfileName=self.name))

    def needs(self, place: Place) -> Iterable[Found]:
        return _on_profile(place, "DeleteInstanceProfile", self.name)


@dataclass
class DeleteRole(plan.Step):
    name: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        what = f"role {self.name} to be free for deletion"
        _remove(context, what, lambda: context.iam.delete_role(RoleName=self.name))

    def needs(self, place: Place) -> Iterable[Found]:
        return _on_role(place, "DeleteRole", self.name)


def _used(case: Case) -> bool:
    return case.description.instance_profiles or bool(case.current.profiles or case.current.roles)


def _arns(case: Case) -> list[str]:
    path = names.iam_path(case.description.name, case.description.region)
    return [f"arn:*:iam::*:role{path}*", f"arn:*:iam::*:instance-profile{path}*"]


def _passed(case: Case) -> tuple[Any, Mapping[str, Any]]:
    return _arns(case)[:1], {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}


WHEN = "`instance_profiles`"
FIND = Statement("FindRoles", WHEN, "finding the nodes' roles")
ROLES = Statement(
    "NodeRoles",
    WHEN,
    "the nodes' roles and instance profiles, below a path of the cluster's own",
    lambda case: (_arns(case), {}),
)
PASS = Statement("GiveRolesToNodes", WHEN, "launching nodes with their role", _passed)
OF_NODES = Statement("ProfilesOfNodes", WHEN, "a node whose profile was changed by hand")
PERMISSIONS = (
    Grant(FIND, ("iam:ListInstanceProfiles", "iam:ListRoles"), _used),
    Grant(
        ROLES,
        (
            "iam:AddRoleToInstanceProfile",
            "iam:CreateInstanceProfile",
            "iam:CreateRole",
            "iam:DeleteInstanceProfile",
            "iam:DeleteRole",
            "iam:DeleteRolePolicy",
            "iam:GetRolePolicy",
            "iam:PutRolePolicy",
            "iam:RemoveRoleFromInstanceProfile",
        ),
        _used,
    ),
    Grant(ROLES, ("iam:TagInstanceProfile", "iam:TagRole"), _used),
    Grant(PASS, ("iam:PassRole",), _used),
    Grant(
        OF_NODES,
        (
            "ec2:AssociateIamInstanceProfile",
            "ec2:DescribeIamInstanceProfileAssociations",
            "ec2:DisassociateIamInstanceProfile",
            "ec2:ReplaceIamInstanceProfileAssociation",
        ),
        _used,
    ),
)
