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
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Asked, Plan, StandIns

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
    answers = ask(aws, plan, description.name)
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


def ask(aws: session.Aws, plan: Plan, cluster: str) -> dict[str, BaseException | None]:
    """Asks once for each kind of change, with the change's own request.

    Returns the denial, or None, by action ("ec2:RunInstances"). An action about which EC2 said nothing is not there.
    """
    known = StandIns(plan.ids, cluster)
    questions: dict[tuple[str, str], dict[str, Any]] = {}
    for step in plan.steps:
        variant = step.variant if isinstance(step, Asked) else ""
        for operation, arguments in step.questions(known):
            questions.setdefault((operation, variant), arguments)
    ec2 = aws.client("ec2")

    def answer(question: tuple[str, str]) -> list[BaseException | None]:
        try:
            getattr(ec2, question[0])(DryRun=True, **questions[question])
        except Exception as error:
            if session.error_code(error) in session.DENIED_CODES:
                return [error]
            if not session.error_code(error) and not type(error).__module__.startswith("botocore"):
                raise
            # An instance profile that is yet to be made may be looked for before the permissions are, since the role in
            # it is one of them.
            if "IamInstanceProfile" in questions[question] and "instance profile" in str(error).lower():
                return []
            # Every other answer (DryRunOperation, or that a stand-in is not there) means that it is allowed.
        return [None]

    with ThreadPoolExecutor(max_workers=reader.PARALLEL) as pool:
        answers = list(pool.map(answer, questions))
    names = ec2.meta.method_to_api_mapping
    found: dict[str, BaseException | None] = {}
    for (operation, _variant), said in zip(questions, answers):
        for denial in said:
            action = f"ec2:{names[operation]}"
            found[action] = found.get(action) or denial
    return found


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
