# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the options of a certificate and turns them into what the plan compares with."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import documents, profiles
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.durations import format_duration, parse_duration
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.profiles import Profile
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import Request, parse_request
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.signing import Template, effective_hosts, validity

_RENEW_BEFORE = timedelta(hours=720)


@dataclass(frozen=True)
class Wanted:
    """The wanted properties of a certificate, and how it is renewed."""

    request: Request
    profile: Profile
    template: Template
    initca: bool
    ca: str
    ca_key: str
    ca_passphrase: str | None
    passphrase: str | None
    renew_before: timedelta
    rotate_key: bool | None
    cap_at_ca: bool = False


@dataclass(frozen=True)
class Entry:
    """One certificate of a call. `label` is its place in the list, empty for a single one; `wanted` is None for state
    absent."""

    label: str
    name: str
    directory: str
    wanted: Wanted | None
    force: bool
    backup: bool

    @property
    def certificate_path(self) -> str:
        return os.path.join(self.directory, f"{self.name}.pem")  # noqa: PTH118

    @property
    def key_path(self) -> str:
        return os.path.join(self.directory, f"{self.name}-key.pem")  # noqa: PTH118

    @property
    def csr_path(self) -> str:
        return os.path.join(self.directory, f"{self.name}.csr")  # noqa: PTH118

    @property
    def own_key(self) -> bool:
        """Whether the key is made and kept here."""
        return self.wanted is None or self.wanted.request.pem is None

    @property
    def paths(self) -> tuple[str, ...]:
        keys = (self.key_path,) if self.own_key else ()
        return (self.certificate_path, *keys, self.csr_path)

    def error(self, option: str, message: str) -> PkiError:
        error = PkiError(option, message)
        return error.under(self.label) if self.label else error


def entries_of(options: Mapping[str, Any], now: datetime) -> list[Entry]:
    """Every certificate of a call. Raises PkiError for the first wrong option."""
    files: dict[str, Any] = {}
    listed = options.get("certificates")
    if listed is None:
        entries = [_entry(dict(options), "", now, files)]
    else:
        if not listed:
            raise PkiError("certificates", "is empty; give at least one, or leave the task out")
        entries = []
        for index, own in enumerate(listed):
            label = f"certificates[{index}] ({own.get('name')})"
            try:
                entries.append(_entry(_inherit(own, options), label, now, files))
            except PkiError as error:
                raise error.under(label) from None
    owners: dict[str, Entry] = {}
    for entry in entries:
        for path in entry.paths:
            other = owners.setdefault(path, entry)
            if other is not entry:
                raise entry.error(
                    "name", f"its file {path} is also one of {other.name!r}; give each its own name or path"
                )
    return entries


def _inherit(own: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """An entry completed with the options beside the list; options that belong together come from the same place."""
    entry = {key: value for key, value in own.items() if value is not None}
    groups = [("path",), ("state",), ("config", "config_file"), ("profile",), ("ca", "ca_key", "ca_passphrase")]
    groups += [("renew_before",), ("cap_at_ca",), ("rotate_key",), ("force",), ("backup",)]
    not_of_roots = ("ca", "profile", "config", "cap_at_ca")
    for group in groups:
        if any(key in entry for key in group) or (entry.get("initca") and group[0] in not_of_roots):
            continue
        entry.update({key: options[key] for key in group if options.get(key) is not None})
    return entry


def _entry(options: Mapping[str, Any], label: str, now: datetime, files: dict[str, Any]) -> Entry:
    name = options.get("name") or ""
    if not name or name in (".", "..") or "/" in name or "\0" in name or name.startswith("."):
        raise PkiError(
            "name", f"{name!r} is not the base name of a file; give one such as web, and the directory as path"
        )
    if not options.get("path"):
        raise PkiError("path", "is missing; give the directory of the files")
    if options.get("initca") and (options.get("ca") or options.get("profile")):
        given = "ca" if options.get("ca") else "profile"
        raise PkiError(given, "does not go with initca, which signs itself with CFSSL's policy for CAs; leave one out")
    if options.get("initca") and options.get("cap_at_ca"):
        raise PkiError(
            "cap_at_ca", "does not go with initca: a CA that signs itself has no other CA's end; leave it out"
        )
    return Entry(
        label=label,
        name=name,
        directory=os.path.realpath(options["path"]),
        wanted=_wanted(options, now, files) if options.get("state", "present") == "present" else None,
        force=bool(options.get("force")),
        backup=bool(options.get("backup")),
    )


def _wanted(options: Mapping[str, Any], now: datetime, files: dict[str, Any]) -> Wanted:
    initca = bool(options.get("initca"))
    request = _request(options)
    source = "csr_file" if options.get("csr_file") else "csr"
    if initca:
        if request.pem is not None:
            raise PkiError("csr_file", "holds a PEM request, but a CA is made from a JSON request with its own key")
        section = request.ca
        profile = profiles.initca_profile(
            section.pathlen if section else None,
            section.expiry if section else None,
            section.backdate if section else None,
            request.crl_url,
            f"{source}.ca",
        )
    else:
        profile = _profile(options, files)
        profile = _granted(request, profile, source)
        if not options.get("ca"):
            raise PkiError("ca", "is missing; give the CA's certificate, or set initca for a CA that signs itself")
    if profile.is_ca and not request.subject:
        raise PkiError(source, "names no subject, which a CA must have; give CN, or names with at least one part")
    not_before, not_after = validity(profile, now)
    if not_after <= now or not_after <= not_before:
        raise PkiError(f"{profile.option}.expiry", "is over before the certificate is made; give a longer one")
    ca = os.path.abspath(options["ca"]) if options.get("ca") else ""  # noqa: PTH100
    return Wanted(
        request=request,
        profile=profile,
        template=Template(
            request.subject, effective_hosts(request.hosts, profile.is_ca), profile, not_before, not_after
        ),
        initca=initca,
        ca=ca,
        ca_key=_ca_key(options, ca),
        ca_passphrase=_passphrase(options, "ca_passphrase"),
        passphrase=_passphrase(options, "passphrase"),
        renew_before=_renew_before(options, not_after - now),
        rotate_key=options.get("rotate_key"),
        cap_at_ca=bool(options.get("cap_at_ca")),
    )


def _passphrase(options: Mapping[str, Any], option: str) -> str | None:
    value = options.get(option)
    if value == "":
        raise PkiError(option, "is empty; give a passphrase or leave it out")
    return value


def _ca_key(options: Mapping[str, Any], ca: str) -> str:
    if options.get("ca_key"):
        return os.path.abspath(str(options["ca_key"]))  # noqa: PTH100
    if ca and not ca.endswith(".pem"):
        raise PkiError("ca_key", f"is missing, and does not follow from {ca}, which does not end in .pem")
    return f"{ca[: -len('.pem')]}-key.pem" if ca else ""


def _renew_before(options: Mapping[str, Any], life: timedelta) -> timedelta:
    if options.get("renew_before") in (None, ""):
        return min(_RENEW_BEFORE, life / 3)
    asked = parse_duration(options["renew_before"], "renew_before", days=True)
    if asked >= life:
        raise PkiError(
            "renew_before",
            f"{options['renew_before']!r} is not shorter than the certificate's life of {format_duration(life)},"
            " so that every run would issue it again; shorten it",
        )
    return asked


def _request(options: Mapping[str, Any]) -> Request:
    if options.get("csr") is not None and options.get("csr_file"):
        raise PkiError("csr_file", "does not go with csr; leave one out")
    if options.get("csr") is not None:
        return parse_request(options["csr"], "csr")
    path = options.get("csr_file")
    if not path:
        raise PkiError("csr", "is missing; give the request as csr or csr_file")
    text = documents.read_document(path, "csr_file")
    if not text.strip():
        raise PkiError("csr_file", f'{path} is empty; write a request such as {{"CN": "web"}} to it')
    if "-----BEGIN" in text:
        from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.external_request import read_request

        return read_request(text.encode(), path, "csr_file")
    return parse_request(documents.parse_json(text, path, "csr_file"), "csr_file")


def _profile(options: Mapping[str, Any], files: dict[str, Any]) -> Profile:
    if options.get("config") is not None and options.get("config_file"):
        raise PkiError("config_file", "does not go with config; leave one out")
    path = options.get("config_file")
    if not path:
        return profiles.find_profile(options.get("config"), options.get("profile"), "config")
    if path not in files:
        files[path] = documents.parse_json(documents.read_document(path, "config_file"), path, "config_file")
    return profiles.find_profile(files[path], options.get("profile"), "config_file")


def _granted(request: Request, profile: Profile, option: str) -> Profile:
    """The profile, narrowed if the request asks for less. Raises PkiError if it asks for more."""
    import re

    allowed = profile.request_may_bring
    if allowed is not None:
        if request.subject and "subject" not in allowed:
            raise PkiError(f"{option}.CN", f"{profile.option}.CSRWhitelist does not let a request choose its subject")
        for host in request.hosts:
            if host.kind not in allowed:
                raise PkiError(
                    f"{option}.hosts",
                    f"{host.value!r} is a host that {profile.option}.CSRWhitelist does not allow",
                )
    if profile.name_whitelist:
        names = [value for relative in request.subject for oid, value in relative if oid == "2.5.4.3"]
        names += [host.value for host in request.hosts if host.kind != "ip"]
        for name in names:
            if not re.search(profile.name_whitelist, name):
                raise PkiError(option, f"{name!r} does not match {profile.option}.name_whitelist; change one of them")
    beyond = sorted(request.asked_usages[0] - profile.key_usages)
    beyond += sorted(request.asked_usages[1] - set(profile.extended_key_usages))
    if beyond:
        raise PkiError(option, f"asks for usages that {profile.option} does not grant: {', '.join(beyond)}")
    if request.ca is None:
        return profile
    if not profile.is_ca:
        raise PkiError(
            f"{option}.ca",
            f"asks for a CA, which {profile.option} does not grant; use a profile with ca_constraint.is_ca",
        )
    asked = request.ca
    if asked.expiry is not None and asked.expiry > profile.expiry:
        raise PkiError(
            f"{option}.ca.expiry",
            f"is longer than the {format_duration(profile.expiry)} of {profile.option}; shorten it",
        )
    if asked.pathlen is not None and profile.pathlen is not None and asked.pathlen > profile.pathlen:
        raise PkiError(f"{option}.ca.pathlen", f"is more than the {profile.pathlen} of {profile.option}; lower it")
    return replace(
        profile,
        expiry=asked.expiry or profile.expiry,
        pathlen=profile.pathlen if asked.pathlen is None else asked.pathlen,
    )
