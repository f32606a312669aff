# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of drift, each with the way out. A kind is a name that scripts may rely on: none is ever given another."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

INFRASTRUCTURE = "playbooks/infrastructure.yml --check --diff shows it, playbooks/infrastructure.yml mends it"
SITE = "site.yml puts it back"
KEEP = "to keep something that has the cluster's tag, take the tag off it"

WAYS = {
    # What EC2 has.
    "instance-missing": "site.yml launches it and makes it a node again",
    "instance-unknown": f"playbooks/infrastructure.yml ends it; {KEEP}",
    "instance-outside": "end it, or move it to a network of its own; nothing of ours removes it",
    "instance-changed": INFRASTRUCTURE,
    "volume-left": f"playbooks/infrastructure.yml deletes it with its data: look first whose it was; {KEEP}",
    "volume-changed": INFRASTRUCTURE,
    "rule-added": "playbooks/infrastructure.yml takes an incoming rule out; take an outgoing one out yourself",
    "rule-missing": "playbooks/infrastructure.yml puts an incoming rule back; put an outgoing one back yourself",
    "route-added": "a route to pods goes with playbooks/infrastructure.yml; take any other out yourself",
    "route-missing": INFRASTRUCTURE,
    "route-changed": INFRASTRUCTURE,
    "tag-missing": INFRASTRUCTURE,
    "resource-missing": INFRASTRUCTURE,
    "resource-unknown": f"playbooks/infrastructure.yml removes what it could have made, and nothing else; {KEEP}",
    "resource-changed": INFRASTRUCTURE,
    # What Kubernetes and etcd have.
    "node-without-instance": "if its instance is gone for good: kubectl delete node NAME",
    "node-of-another-instance": "kubectl delete node NAME, then site.yml, which has the new instance registered",
    "instance-without-node": "look at its kubelet (journalctl -u kubelet), then site.yml",
    "member-without-node": (
        "if its node is gone for good: site.yml removes a member whose name a new node has; any other etcdctl member "
        "remove ID does, while a quorum is healthy without it"
    ),
    "node-without-member": "site.yml adds it as a learner and gives it a vote",
    "member-without-vote": "site.yml gives it its vote once it has the data",
    # What nodes have.
    "node-unreachable": "look at its console and its security groups; what is on it is not known",
    "program": SITE,
    "package": "site.yml installs it",
    "account": SITE,
    "directory": SITE,
    "file": SITE,
    "link": SITE,
    "unit-stopped": "look why (journalctl -u UNIT), then site.yml starts it",
    "unit-running": "site.yml stops it",
    "unit-disabled": "site.yml enables it",
    "unit-enabled": "site.yml disables it",
    "unit-masked": "systemctl unmask UNIT there, then site.yml",
    "unit-stale": "it runs with older files than it has: site.yml restarts it",
    "unit-dropin": "remove it there (systemctl revert UNIT), and use the variables for extra flags instead",
    "in-the-way": "remove it there, then site.yml",
    "file-unknown": "find out who needs it, and remove it there",
    "unit-unknown": "disable it (systemctl disable --now UNIT) and remove its file there",
    "link-unknown": "remove it there",
    "component-unknown": "nothing maintains it any more: stop its units and remove it there",
    "volume-not-mounted": "systemctl start var-lib-etcd.mount there, before etcd starts",
    "certificate-of-another-ca": "find out whose it is; site.yml puts ours back where the file is one of ours",
    # What could not be asked.
    "unknown": "mend that, and ask again: what is there may be as described or not",
}


@dataclass(frozen=True)
class Finding:
    """`where` is a place in EC2, the name of a node, or NODE:PLACE."""

    kind: str
    where: str
    expected: str
    seen: str

    @property
    def way(self) -> str:
        return WAYS[self.kind]

    def shown(self) -> dict[str, Any]:
        return {**asdict(self), "way_out": self.way}
