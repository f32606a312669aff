# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key pair for SSH: the cluster's own, or one that was brought (`key_name`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterable, Iterator, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, plan, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import CHANGE, MAKE, READ, Case, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place

TYPES = {"key": "key-pair"}


@dataclass(frozen=True)
class KeyPair:
    id: str
    name: str
    tags: Mapping[str, str]


def fingerprint(public_key: str) -> str:
    """What a key pair's tag says of its key. EC2's own fingerprints differ by type and source of a key."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:40]


def used(draft: plan.Draft) -> str:
    """The name of the key pair that nodes are launched with."""
    return draft.description.key_name or names.key_pair(draft.cluster)


def read(reader: Reader, current: Current) -> None:
    for item in reader.owned("describe_key_pairs", "KeyPairs"):
        current.key_pairs.append(KeyPair(item["KeyPairId"], item["KeyName"], tags.as_mapping(item.get("Tags"))))


def check_brought(reader: Reader, description: Description) -> None:
    """Raises DescriptionError where the key pair of `key_name` is not there."""
    if not description.key_name:
        return
    try:
        reader.pages("ec2", "describe_key_pairs", "KeyPairs", KeyNames=[description.key_name])
    except session.AwsError as error:
        if error.__cause__ is None or session.error_code(error.__cause__) != "InvalidKeyPair.NotFound":
            raise
        raise DescriptionError(
            f"key_name: there is no key pair {description.key_name} in {description.region}; import it, or give "
            "public_key"
        ) from None


def check_name(reader: Reader, changes: plan.Plan) -> None:
    """Raises DescriptionError where somebody else has the name of the key pair to import."""
    for step in changes.of(ImportKey):
        filters = [{"Name": "key-name", "Values": [step.name]}]
        found = reader.pages("ec2", "describe_key_pairs", "KeyPairs", Filters=filters)
        if any(not reader.mine(tags.as_mapping(item.get("Tags"))) for item in found):
            raise DescriptionError(
                f"name: there is a key pair {step.name} that is not the cluster's; choose another name for the "
                f"cluster, remove that, or give key_name: {step.name} to use it"
            )


def wanted(draft: plan.Draft) -> None:
    public_key = draft.description.public_key
    if draft.removing or not public_key:
        return
    name = names.key_pair(draft.cluster)
    mark = fingerprint(public_key)
    marks = draft.tags(name, fingerprint=mark)
    there = next((pair for pair in draft.current.key_pairs if pair.name == name), None)
    if not there:
        draft.add(ImportKey("key-pair", plan.MISSING, name, public_key, marks))
    elif there.tags.get(tags.FINGERPRINT) != mark:
        reason = "it has another public key; nodes that are there keep the old one in authorized_keys"
        draft.add(ReplaceKey("key-pair", reason, name, public_key, marks))
    else:
        draft.keep_tags("key-pair", there.id, there.tags, marks)


def surplus(draft: plan.Draft, users: list[str]) -> None:
    for pair in draft.current.key_pairs:
        if draft.removing or not draft.description.public_key or pair.name != names.key_pair(draft.cluster):
            draft.add(DeleteKey(f"key-pair/{pair.name}", plan.SURPLUS, pair.name), users)


def _deletion(name: str) -> plan.Request:
    return "delete_key_pair", {"KeyName": name}


def _delete(context: Context, name: str) -> None:
    context.gone(lambda: plan.sent(context, _deletion(name)), ["InvalidKeyPair.NotFound"])


def _needs_deletion(place: Place, name: str) -> Iterator[Found]:
    pair = next((pair for pair in place.current.key_pairs if pair.name == name), None)
    context = {**place.region, **place.tagged(pair.tags if pair else None, "ec2")}
    yield "ec2:DeleteKeyPair", place.arn("ec2", f"key-pair/{name}"), context


@dataclass
class _Import(plan.Asked):
    name: str
    public_key: str
    tags: dict[str, str]

    def request(self, ids: plan.Ids) -> plan.Request:
        return "import_key_pair", {
            "KeyName": self.name,
            "PublicKeyMaterial": self.public_key.encode(),
            "TagSpecifications": tags.at_creation("key-pair", self.tags),
        }


@dataclass
class ImportKey(_Import):
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        self.send(context)

    def needs(self, place: Place) -> Iterable[Found]:
        return place.creates("ImportKeyPair", "key-pair", name=self.name)


@dataclass
class ReplaceKey(_Import):
    action = plan.REPLACE

    def requests(self, ids: plan.Ids) -> Iterable[plan.Request]:
        return [_deletion(self.name), self.request(ids)]

    def apply(self, context: Context) -> None:
        _delete(context, self.name)
        self.send(context)

    def needs(self, place: Place) -> Iterable[Found]:
        yield from _needs_deletion(place, self.name)
        yield from place.creates("ImportKeyPair", "key-pair", name=self.name)


@dataclass
class DeleteKey(plan.Asked):
    name: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        _delete(context, self.name)

    def needs(self, place: Place) -> Iterable[Found]:
        return _needs_deletion(place, self.name)

    def request(self, ids: plan.Ids) -> plan.Request:
        return _deletion(self.name)


def _own(case: Case) -> bool:
    return case.whole or bool(case.description.public_key or case.current.key_pairs)


PERMISSIONS = (
    Grant(READ, ("ec2:DescribeKeyPairs",)),
    Grant(MAKE, ("ec2:ImportKeyPair",), _own, tags=True),
    Grant(CHANGE, ("ec2:DeleteKeyPair",), _own),
)
