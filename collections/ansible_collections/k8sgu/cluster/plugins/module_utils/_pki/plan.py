# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what has to be done for a certificate, and why. Pure."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import x509_names
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.certificates import Certificate, timestamp
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.durations import format_duration
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.entries import Entry, Wanted
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.hosts import Host
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.profiles import EXTENDED_KEY_USAGES, KEY_USAGES
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import Subject, format_subject
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.store import Current

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import keys

# Reversed, because the last spelling wins and the first one is wanted.
_USAGE_NAMES = {value: name for name, value in reversed((*KEY_USAGES.items(), *EXTENDED_KEY_USAGES.items()))}
# Tolerated, so that a clock that is a little behind does not make every certificate look wrong.
_CLOCK_SLACK = timedelta(minutes=5)


@dataclass(frozen=True)
class Issuer:
    """The CA as it will be when the certificate is signed; `public_key` is None if its key is still to be made."""

    path: str
    subject: Subject
    public_key: keys.PublicKey | None
    not_after: datetime
    is_ca: bool
    pathlen: int | None


@dataclass(frozen=True)
class Plan:
    """What to do for an entry; nothing if there are no reasons."""

    entry: Entry
    current: Current
    reasons: tuple[str, ...] = ()
    issue: bool = False
    new_key: bool = False
    write_key: bool = False
    write_csr: bool = False
    close: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return bool(self.reasons)


def order(entries: list[Entry]) -> list[Entry]:
    """The entries, CAs before what they sign. Raises PkiError for a cycle and for a CA that is to be removed."""
    owners = {entry.certificate_path: entry for entry in entries}
    done: dict[str, None] = {}
    result: list[Entry] = []

    def visit(entry: Entry, path: tuple[str, ...]) -> None:
        if entry.certificate_path in done:
            return
        if entry.certificate_path in path:
            raise entry.error(
                "ca", f"leads back to the certificate itself: {' -> '.join((*path, entry.certificate_path))}"
            )
        if entry.wanted is not None and entry.wanted.ca:
            owner = owners.get(os.path.realpath(entry.wanted.ca))
            if owner is not None and owner.wanted is None:
                raise entry.error("ca", f"{entry.wanted.ca} is removed in the same call; name another, or keep it")
            if owner is not None:
                visit(owner, (*path, entry.certificate_path))
        done[entry.certificate_path] = None
        result.append(entry)

    for entry in entries:
        visit(entry, ())
    return result


def plan_removal(entry: Entry, current: Current) -> Plan:
    if not current.existing:
        return Plan(entry, current)
    return Plan(entry, current, reasons=(f"{_names(current.existing)} to be removed",), remove=current.existing)


def plan_entry(entry: Entry, wanted: Wanted, current: Current, issuer: Issuer | None, now: datetime) -> Plan:
    """The plan for one entry. Raises PkiError if a certificate would have to be signed but must not be."""
    wanted = _capped(wanted, issuer)
    entry = replace(entry, wanted=wanted)
    key_reasons = _key_reasons(entry, wanted, current)
    needs_key = bool(key_reasons)
    reasons = key_reasons + _certificate_reasons(entry, wanted, current, issuer, now)
    issue = bool(reasons)
    if issue:
        _check_issuable(entry, wanted, issuer, now)
        wanted = _with_its_name(wanted, current)
        entry = replace(entry, wanted=wanted)
    rotate = wanted.rotate_key
    if rotate is None:
        rotate = current.certificate is not None and not wanted.profile.is_ca
    new_key = entry.own_key and (needs_key or (issue and rotate))
    write_key = new_key
    if not new_key and entry.own_key and wanted.passphrase is not None and not current.key_encrypted:
        write_key = True
        reasons.append(f"{_name(entry.key_path)} is not encrypted")
    write_csr = issue
    if not issue and not _request_fits(wanted, current):
        write_csr = True
        missing = entry.csr_path not in current.existing
        reasons.append(f"{_name(entry.csr_path)} {'is missing' if missing else 'has another key'}")
    written = {entry.certificate_path: issue, entry.key_path: write_key, entry.csr_path: write_csr}
    close = tuple(path for path in current.open_files if not written[path])
    reasons += [f"{_name(path)} is accessible to others" for path in close]
    if current.interrupted:
        reasons.insert(0, "the changes of a killed run are completed")
    return Plan(entry, current, tuple(reasons), issue, new_key, write_key, write_csr, close)


def _key_reasons(entry: Entry, wanted: Wanted, current: Current) -> list[str]:
    """Why a new key is needed."""
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import keys

    if not entry.own_key:
        return []
    if entry.key_path in current.unreadable:
        return [f"{_name(entry.key_path)} cannot be read"]
    if current.key is None:
        if wanted.profile.is_ca and current.certificate is not None and not entry.force:
            raise entry.error(
                "path",
                f"{entry.certificate_path} is a CA whose key {_name(entry.key_path)} is missing. Restore it, or set"
                " force to make a new CA, after which nothing that the old one has signed is trusted",
            )
        return [f"{_name(entry.key_path)} is missing"]
    spec = keys.spec_of(current.key)
    if spec != wanted.request.key:
        return [f"key: is {spec or 'of another kind'}, to be {wanted.request.key}"]
    return []


def _certificate_reasons(
    entry: Entry, wanted: Wanted, current: Current, issuer: Issuer | None, now: datetime
) -> list[str]:
    """Why the certificate has to be issued, apart from changes of its key."""
    found = current.certificate
    if entry.certificate_path in current.unreadable:
        return [f"{_name(entry.certificate_path)} cannot be read"]
    if found is None:
        return [f"{_name(entry.certificate_path)} is missing"]
    template, profile = wanted.template, wanted.profile
    reasons = []
    if entry.own_key and current.key is not None and current.key_public != found.public_key:
        reasons.append(f"{_name(entry.certificate_path)} and {_name(entry.key_path)} do not belong together")
    if not entry.own_key and wanted.request.public_key != found.public_key:
        reasons.append("key: is not the request's")
    if _bag(found.subject) != _bag(template.subject):
        reasons.append(f"subject: is {format_subject(found.subject)}, to be {format_subject(template.subject)}")
    reasons += _difference("hosts", map(_host_name, found.hosts), map(_host_name, template.hosts))
    reasons += _difference("usages", usage_names(found), wanted_usage_names(wanted))
    if found.is_ca != profile.is_ca:
        reasons.append("constraints: is a CA, to be none" if found.is_ca else "constraints: is not a CA, to be one")
    elif found.pathlen != profile.pathlen:
        reasons.append(f"constraints: path length is {_limit(found.pathlen)}, to be {_limit(profile.pathlen)}")
    reasons += _issuer_reasons(found, issuer)
    remaining = found.not_after - now
    if remaining <= timedelta(0):
        reasons.append(f"expired at {timestamp(found.not_after)}")
    elif remaining < wanted.renew_before:
        reasons.append(
            f"ends at {timestamp(found.not_after)}, in less than {format_duration(wanted.renew_before)} (renew_before)"
        )
    # A profile may fix a start in the future: to issue it again would change nothing.
    if found.not_before - _CLOCK_SLACK > max(now, template.not_before):
        reasons.append(f"is not valid before {timestamp(found.not_before)}")
    return reasons


def _issuer_reasons(found: Certificate, issuer: Issuer | None) -> list[str]:
    if issuer is None:
        key = found.parsed.public_key()
        own = _bag(found.subject) == _bag(found.issuer) and found.signed_by(key)  # type: ignore[arg-type]
        return [] if own else [f"issuer: is {format_subject(found.issuer)}, to be itself"]
    if _bag(found.issuer) != _bag(issuer.subject):
        return [f"issuer: is {format_subject(found.issuer)}, to be {format_subject(issuer.subject)}"]
    if issuer.public_key is None or not found.signed_by(issuer.public_key):
        return [f"issuer: the key of {_name(issuer.path)} has been replaced"]
    return []


def _capped(wanted: Wanted, issuer: Issuer | None) -> Wanted:
    """`wanted`, ending with its CA if `cap_at_ca` is set and the CA ends first."""
    template = wanted.template
    if not wanted.cap_at_ca or issuer is None or template.not_after <= issuer.not_after:
        return wanted
    return replace(wanted, template=replace(template, not_after=issuer.not_after))


def _with_its_name(wanted: Wanted, current: Current) -> Wanted:
    """`wanted` with the present encoding of a CA's unchanged name: Go's verifiers compare issuers byte by byte."""
    found, template = current.certificate, wanted.template
    if found is None or not wanted.profile.is_ca or _bag(found.subject) != _bag(template.subject):
        return wanted
    return replace(wanted, template=replace(template, encoded=x509_names.subject_of(found.parsed)))


def _check_issuable(entry: Entry, wanted: Wanted, issuer: Issuer | None, now: datetime) -> None:
    """Raises PkiError if the CA may not sign this, by the rules that apply in addition to the profile's."""
    if issuer is None:
        return
    if not issuer.is_ca:
        raise entry.error("ca", f"{issuer.path} is not the certificate of a CA; name one, or make it with initca")
    profile, template = wanted.profile, wanted.template
    if profile.is_ca and issuer.pathlen is not None:
        if issuer.pathlen == 0:
            raise entry.error(
                "ca", f"{issuer.path} may sign no further CA: its path length is 0; raise it, or name another"
            )
        if profile.pathlen is not None and profile.pathlen >= issuer.pathlen:
            raise entry.error(
                f"{profile.option}.ca_constraint.max_path_len",
                f"{profile.pathlen} is not less than the path length {issuer.pathlen} of {issuer.path}; lower it",
            )
    if template.not_after > issuer.not_after:
        longest = max(issuer.not_after - template.not_before, timedelta(0))
        raise entry.error(
            f"{profile.option}.{'not_after' if profile.not_after else 'expiry'}",
            f"the certificate would end at {timestamp(template.not_after)}, after its CA {issuer.path} at"
            f" {timestamp(issuer.not_after)}; use at most {format_duration(longest)}, set cap_at_ca to let the"
            " certificate end with its CA, or renew the CA first",
        )
    # With less time left it would be due for renewal at once, in every run until the CA ends.
    if wanted.cap_at_ca and issuer.not_after - max(now, template.not_before) <= wanted.renew_before:
        raise entry.error(
            "cap_at_ca",
            f"the CA {issuer.path} ends at {timestamp(issuer.not_after)}, and a certificate that ends with it is due"
            f" for renewal at once (renew_before, {format_duration(wanted.renew_before)}); renew the CA first, or"
            " shorten renew_before",
        )


def _request_fits(wanted: Wanted, current: Current) -> bool:
    if wanted.request.pem is not None:
        return current.csr_pem == wanted.request.pem
    return current.csr_key is not None and current.csr_key == current.key_public


def _bag(subject: Subject) -> list[tuple[str, str]]:
    """A subject without details in which programs differ: the order of its parts, and duplicates."""
    return sorted({attribute for relative in subject for attribute in relative})


def _difference(what: str, found: Iterable[str], wanted: Iterable[str]) -> list[str]:
    have, want = set(found), set(wanted)
    parts = [f"to add {', '.join(sorted(want - have))}"] if want - have else []
    parts += [f"to drop {', '.join(sorted(have - want))}"] if have - want else []
    return [f"{what}: {'; '.join(parts)}"] if parts else []


def _host_name(host: Host) -> str:
    # Old versions of CFSSL wrote URIs as DNS names, which is not the same.
    return f"URI {host.value}" if host.kind == "uri" else host.value


def usage_names(found: Certificate) -> list[str]:
    return [_USAGE_NAMES.get(usage, usage) for usage in (*found.key_usages, *found.extended_key_usages)]


def wanted_usage_names(wanted: Wanted) -> list[str]:
    return [_USAGE_NAMES[usage] for usage in (*wanted.profile.key_usages, *wanted.profile.extended_key_usages)]


def _limit(pathlen: int | None) -> str:
    return "unlimited" if pathlen is None else str(pathlen)


def _name(path: str) -> str:
    return os.path.basename(path)  # noqa: PTH119


def _names(paths: Iterable[str]) -> str:
    return ", ".join(_name(path) for path in paths)
