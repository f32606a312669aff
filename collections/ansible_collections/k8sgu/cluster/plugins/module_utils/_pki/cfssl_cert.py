# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of cfssl_cert: check everything, plan, apply unless in check mode, report."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import (
    CRYPTOGRAPHY,
    LibraryMissing,
    require,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import ARGUMENT_SPECS, RULES

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.apply import Made
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.plan import Plan


def run(call: Call) -> dict[str, Any]:
    require(CRYPTOGRAPHY)
    return ensure(call.options, call.check_mode, call.diff)


def ensure(options: Mapping[str, Any], check_mode: bool = False, diff: bool = False) -> dict[str, Any]:
    """Make or remove the certificates as `options` say and return the result. Raises PkiError, FileError."""
    # Imported here, since they need the library cryptography.
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import apply, plan, store
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.authorities import Authorities
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.entries import entries_of

    now = datetime.now(timezone.utc)
    entries = entries_of(options, now)
    ordered = plan.order(entries)
    for entry in ordered:
        store.check_destinations(entry)
    disk = store.Disk()
    authorities = Authorities(disk)
    for entry in ordered:
        current = store.read_current(entry, disk)
        if entry.wanted is None:
            planned = plan.plan_removal(entry, current)
        else:
            issuer = authorities.issuer(entry, entry.wanted)
            planned = plan.plan_entry(entry, entry.wanted, current, issuer, now)
            if planned.issue and issuer is not None:
                authorities.check_key(entry, entry.wanted)
        authorities.plans[entry.certificate_path] = planned
    made: dict[str, Made] = {}
    if not check_mode:
        apply.finish_interrupted({entry.directory for entry in entries})
        if any(planned.changed for planned in authorities.plans.values()):
            made = apply.apply(list(authorities.plans.values()), authorities)
    results = [
        _result(authorities.plans[entry.certificate_path], made.get(entry.certificate_path), authorities, now)
        for entry in entries
    ]
    result: dict[str, Any] = {"changed": any(one["changed"] for one in results), "certificates": results}
    if diff:
        before = "".join(_text(_before(authorities.plans[entry.certificate_path], now)) for entry in entries)
        result["diff"] = {"before": before, "after": "".join(_text(one) for one in results)}
    return result


def _result(planned: Plan, made: Made | None, authorities: Any, now: datetime) -> dict[str, Any]:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.certificates import (
        days_between,
        describe,
        timestamp,
    )
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import format_subject

    entry, wanted = planned.entry, planned.entry.wanted
    result: dict[str, Any] = {
        "name": entry.name,
        "state": "absent" if wanted is None else "present",
        "changed": planned.changed,
        "issued": planned.issue,
        "reasons": list(planned.reasons),
        "certificate_path": entry.certificate_path,
        "key_path": entry.key_path if entry.own_key else None,
        "csr_path": entry.csr_path,
        "backup_files": made.backups if made else [],
    }
    if wanted is None:
        return result
    certificate = made.certificate if made else None if planned.issue else planned.current.certificate
    if certificate is not None:
        result.update(describe(certificate, now))
        return result
    template = wanted.template
    issuer = authorities.issuer(entry, wanted)
    result.update(
        serial=None,
        fingerprint_sha256=None,
        not_before=timestamp(template.not_before),
        not_after=timestamp(template.not_after),
        days_left=days_between(now, template.not_after),
        subject=format_subject(template.subject),
        issuer=format_subject(issuer.subject if issuer else template.subject),
        hosts=[host.value for host in template.hosts],
        is_ca=wanted.profile.is_ca,
    )
    return result


def _before(planned: Plan, now: datetime) -> dict[str, Any]:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.certificates import describe

    certificate = planned.current.certificate
    result: dict[str, Any] = {"name": planned.entry.name, "changed": planned.changed}
    result["state"] = "present" if planned.current.existing else "absent"
    return {**result, **describe(certificate, now)} if certificate is not None else result


def _text(result: Mapping[str, Any]) -> str:
    """A changed certificate's properties for a diff; never its key."""
    if not result["changed"]:
        return ""
    shown = ("state", "subject", "issuer", "hosts", "is_ca", "not_before", "not_after", "serial", "fingerprint_sha256")
    lines = [f"  {key}: {result[key]}" for key in shown if result.get(key) is not None]
    lines += [f"  # {reason}" for reason in result.get("reasons", ())]
    return "\n".join([f"{result['name']}:", *lines, ""])


MODULE = Module(ARGUMENT_SPECS["cfssl_cert"], run, (PkiError, FileError, LibraryMissing), RULES)
