# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the caller may carry a plan out: EC2 is asked (DryRun), and IAM's simulator for what EC2 does not answer.

EC2 alone knows such a question, and for some calls alone. Its answer counts above all else, since it looks at every
policy that there is.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ExamplePolicies_EC2.html#iam-example-dry-run
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import needs, policy, reader, session, simulation
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Plan

SIMULATION, DRY_RUN = "simulation", "dry_run"
# So many resources of an action are named; the others are counted.
SHOWN = 2


class Missing(session.AwsError):
    """Permissions are missing. `checked_by` is who said so."""

    def __init__(self, message: str, checked_by: str) -> None:
        super().__init__(message)
        self.checked_by = checked_by


def check(aws: session.Aws, plan: Plan, description: Description, current: Current) -> str:
    """Raises Missing, which names every action that is known to be missing.

    Returns SIMULATION where the simulator was asked for what EC2 does not answer, DRY_RUN where only EC2 was asked.
    """
    answers = ask(aws, plan)
    document = policy.document(description, current)
    lacking: list[needs.Need] = []
    checked_by = DRY_RUN
    who = simulation.caller(aws)
    # What EC2 itself has answered counts: it knows every policy and every key of a request.
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


def ask(aws: session.Aws, plan: Plan) -> dict[str, BaseException | None]:
    """Asks once for each kind of change. Returns the denial, or None, by action ("ec2:RunInstances")."""
    questions: dict[str, dict[str, Any]] = {}
    for step in plan.steps:
        asked = step.question(plan.ids)
        if asked:
            questions.setdefault(*asked)
    ec2 = aws.client("ec2")

    def denial(operation: str) -> BaseException | None:
        try:
            getattr(ec2, operation)(DryRun=True, **questions[operation])
        except Exception as error:
            # Every other answer (DryRunOperation, or that a stand-in is not there) means that it is allowed.
            if session.error_code(error) in session.DENIED_CODES:
                return error
            if not session.error_code(error) and not type(error).__module__.startswith("botocore"):
                raise
        return None

    with ThreadPoolExecutor(max_workers=reader.PARALLEL) as pool:
        answers = list(pool.map(denial, questions))
    names = ec2.meta.method_to_api_mapping
    return {f"ec2:{names[operation]}": answer for operation, answer in zip(questions, answers)}


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
