# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the caller may carry a plan out: EC2 is asked, and IAM's simulator for what EC2 does not answer."""

from __future__ import annotations

from typing import Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import (
    dry_run,
    needs,
    policy,
    session,
    simulation,
    state,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Plan

SIMULATION, DRY_RUN = "simulation", "dry_run"
# So many resources of an action are named, the others counted.
SHOWN = 2


class Missing(session.AwsError):
    """Permissions are missing; `checked_by` is who said so."""

    def __init__(self, message: str, checked_by: str) -> None:
        super().__init__(message)
        self.checked_by = checked_by


def check(aws: session.Aws, plan: Plan, description: Description, current: state.Current) -> str:
    """Raises Missing, which names every action that is known to be missing.

    Gives SIMULATION where the simulator was asked for what EC2 does not answer, DRY_RUN where EC2 alone was asked.
    """
    answers = dry_run.ask(aws, plan)
    document = policy.document(description, current)
    lacking: list[needs.Need] = []
    checked_by = DRY_RUN
    who = simulation.caller(aws)
    # Where EC2 itself has answered, that answer counts: it knows every policy and every key of a request.
    wanted = [
        need
        for need in (needs.of(plan, description, current, who.account) if who else ())
        if need.action not in answers and need.created_by not in answers
    ]
    if who and wanted:
        try:
            lacking = simulation.denied(aws, who, wanted, policy.condition_keys(document))
            checked_by = SIMULATION
        except simulation.NotAvailable:
            pass
    parts = [*_by_ec2(answers), *_by_iam(lacking)]
    if parts:
        raise Missing(
            f"cannot carry the plan out: {'; '.join(parts)}; nothing was changed; give the caller the policy "
            "iam_policy of this result (docs/iam.md explains it), or skip this check with check_permissions: false",
            checked_by,
        )
    return checked_by


def _by_ec2(answers: Mapping[str, BaseException | None]) -> list[str]:
    return [
        f"the permission {session.denied_action(error)} is missing ({session.message(error)})"
        for error in answers.values()
        if error is not None
    ]


def _by_iam(lacking: list[needs.Need]) -> list[str]:
    by_action: dict[str, list[needs.Need]] = {}
    for need in lacking:
        by_action.setdefault(need.action, []).append(need)
    return [
        f"the permission {action} is missing on {_listed([need.resource for need in found])}, for: {found[0].step}"
        for action, found in by_action.items()
    ]


def _listed(resources: list[str]) -> str:
    each = list(dict.fromkeys(resources))
    return " and ".join(each[:SHOWN]) + (f" and {len(each) - SHOWN} more" if len(each) > SHOWN else "")
