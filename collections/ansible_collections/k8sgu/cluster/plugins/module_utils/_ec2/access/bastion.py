# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bastion: a small instance with a public address that hands SSH on to private nodes, and does nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterable, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import billing, names, plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access import key_pair
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import subnets
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes import changes, instances, launch

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance

# By the architecture of the image, which is that of the control plane.
TYPES = {"x86_64": "t3.micro", "arm64": "t4g.micro"}
GROUP = f"security-group/{tags.BASTION}"
# Whoever has the key may connect through it to the nodes' SSH. sshd_config.d has been read since OpenSSH 8.2.
HARDENED = """\
#!/bin/sh
mkdir -p /etc/ssh/sshd_config.d
cat >/etc/ssh/sshd_config.d/00-k8sgu.conf <<'END'
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
X11Forwarding no
AllowAgentForwarding no
AllowStreamLocalForwarding no
PermitTunnel no
AllowTcpForwarding local
PermitOpen *:22
END
systemctl try-reload-or-restart ssh
"""


def billed(description: Description, zones: int) -> Iterator[tuple[str, int]]:
    if description.has_bastion:
        yield f"{' or '.join(TYPES.values())} (bastion)", 1
        yield billing.ADDRESS, 1


def there(description: Description, current: Current) -> Instance | None:
    return current.nodes().get(names.bastion(description.name))


def wanted(draft: plan.Draft) -> set[str]:
    """Its steps; returns its name if it is to be there. What is not is a surplus instance like any other."""
    description = draft.description
    if draft.removing or not description.has_bastion:
        return set()
    own = names.bastion(draft.cluster)
    resource = f"instance/{own}"
    found = there(description, draft.current)
    marks = draft.tags(own, role=tags.BASTION)
    key = key_pair.used(draft)
    if found and found.key_name == key:
        draft.know(resource, found.id)
        draft.keep_tags(resource, found.id, found.tags, marks)
        started = []
        if found.state in ("stopped", "stopping"):
            started.append(draft.add(changes.Start(resource, f"it is {found.state}", found.id)))
        if found.groups != {draft.known(GROUP)}:
            reason = f"its groups are {', '.join(sorted(found.groups)) or 'none'} and not the bastion's alone"
            draft.add(changes.SetGroup(f"groups/{own}", reason, found.id, GROUP), [f"create {GROUP}"])
        if started or found.state == "pending":
            _wait(draft, resource, started)
        return {own}
    before = [item.id for item in draft.current.instances if item.name == own]
    after = []
    if found:
        ended = instances.Terminate(resource, f"its key pair is {found.key_name} and not {key}", found.id)
        after.append(draft.add(ended))
    pool = next(pool for pool in description.pools if pool.role == tags.CONTROL_PLANE)
    image = draft.facts.images.get(pool.image)
    subnet = f"subnet/{subnets.PUBLIC}/{draft.facts.zones[0]}"
    step = LaunchBastion(
        resource,
        "administrators reach private nodes through it",
        name=own,
        image=image,  # type: ignore[arg-type]  # none in a first plan, which is not carried out
        instance_type=TYPES[image.architecture] if image else "",
        key_name=key,
        subnet=subnet,
        public_ip=True,
        group=GROUP,
        profile="",
        root_volume_size=pool.root_volume_size,
        etcd_volume_size=0,
        kms_key_id=description.kms_key_id,
        ended=before,
        tags=marks,
        volume_tags=draft.tags(own),
    )
    before_launch = [
        f"create {subnet}",
        f"create {GROUP}",
        "create key-pair",
        "replace key-pair",
        "attach internet-gateway",
        *after,
    ]
    _wait(draft, resource, [draft.add(step, before_launch)])
    return {own}


def _wait(draft: plan.Draft, resource: str, after: list[str]) -> None:
    step = launch.WaitForRunning("wait/bastion", "it must be running", [resource])
    draft.add(step, after, quiet=True)


@dataclass
class LaunchBastion(launch._Launch):
    action = plan.CREATE

    @property
    def variant(self) -> str:
        return tags.BASTION

    def apply(self, context: Context) -> None:
        context.know(self.resource, self._run(context).id)

    def needs(self, place: Place) -> Iterable[Found]:
        return self.launch_needs(place)

    def request(self, ids: plan.Ids) -> plan.Request:
        operation, request = super().request(ids)
        return operation, {**request, "UserData": HARDENED}
