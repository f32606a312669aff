# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what must change in a kubeconfig: a pure function of the present document and the desired entries.

The rules for entries are client-go's: https://github.com/kubernetes/client-go/blob/master/tools/clientcmd/validation.go
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional
from urllib.parse import urlsplit

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.credentials import (
    PENDING,
    check_certificates,
    check_pair,
    decode,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.document import (
    SECTIONS,
    ConfigError,
    Document,
    find,
)

# Of two fields with the same meaning, the one that the user sets stays and the other is removed.
_EXCLUDES = {
    "certificate-authority": "certificate-authority-data",
    "certificate-authority-data": "certificate-authority",
    "client-certificate": "client-certificate-data",
    "client-certificate-data": "client-certificate",
    "client-key": "client-key-data",
    "client-key-data": "client-key",
    "token": "tokenFile",
    "tokenFile": "token",
}
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_INTERACTIVE_MODES = ("Never", "IfAvailable", "Always")


class Entry(NamedTuple):
    """One desired cluster, user or context. `fields` has kubeconfig's own keys; missing ones are left unchanged, and so
    are those in `kept` if the entry has them already."""

    option: str
    name: str
    absent: bool
    fields: dict[str, Any]
    kept: frozenset[str] = frozenset()


class Desired(NamedTuple):
    """The desired content of a kubeconfig. `option` is the prefix of option names in errors, such as kubeconfigs[1];
    relative paths in the file are relative to `directory`."""

    option: str
    clusters: list[Entry]
    users: list[Entry]
    contexts: list[Entry]
    current_context: str | None
    directory: str = "/"


class Plan(NamedTuple):
    document: Document
    changes: list[str]
    warnings: list[str]


Reader = Callable[[str], Optional[bytes]]


def plan(current: Document | None, desired: Desired, read: Reader = lambda path: None) -> Plan:
    """The document that `current` (None: no file) becomes, with reasons. Raises ConfigError.

    `read` returns the content of a referenced file, or None if it does not exist yet.
    """
    if current:
        document = copy.deepcopy(current)
    else:
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [],
            "contexts": [],
            "current-context": "",
            "users": [],
        }
    changes: list[str] = [] if current else ["the file is created"]
    for section, entries in (
        ("clusters", desired.clusters),
        ("users", desired.users),
        ("contexts", desired.contexts),
    ):
        _check_names(section, entries, desired.option)
        for entry in entries:
            changes += _merge(document, section, entry, desired.directory)
    if desired.current_context is not None and (document.get("current-context") or "") != desired.current_context:
        document["current-context"] = desired.current_context
        changes.append(f"current-context is now '{desired.current_context}'")
    for entry in desired.clusters:
        if not entry.absent:
            _check_cluster(entry, find(document, "clusters", entry.name) or {})
    for entry in desired.users:
        if not entry.absent:
            _check_user(entry, find(document, "users", entry.name) or {}, read)
    return Plan(document, changes, _check_references(document, desired))


def _check_names(section: str, entries: list[Entry], option: str) -> None:
    names = [entry.name for entry in entries]
    for entry in entries:
        if not entry.name:
            raise ConfigError(f"{entry.option}.name: is empty; give the entry's name")
        if names.count(entry.name) > 1:
            raise ConfigError(f"{option}{section}: '{entry.name}' is given twice; give each name once")


def _merge(document: Document, section: str, entry: Entry, directory: str) -> list[str]:
    inner = SECTIONS[section]
    if not isinstance(document.get(section), list):
        document[section] = []
    items: list[dict[str, Any]] = document[section]
    found = next((item for item in items if item["name"] == entry.name), None)
    if entry.absent:
        if found is None:
            return []
        items.remove(found)
        return [f"{inner} '{entry.name}' is removed"]
    if found is None:
        fields: dict[str, Any] = {}
        _set_fields(fields, entry.fields, directory)
        items.append({inner: fields, "name": entry.name})
        return [f"{inner} '{entry.name}' is added"]
    if not isinstance(found.get(inner), dict):
        found[inner] = {}
    wanted = {key: value for key, value in entry.fields.items() if key not in entry.kept or not found[inner].get(key)}
    differing = _set_fields(found[inner], wanted, directory)
    return [f"{inner} '{entry.name}': {', '.join(differing)} differed"] if differing else []


def _set_fields(fields: dict[str, Any], wanted: dict[str, Any], directory: str) -> list[str]:
    """Set `wanted` in `fields`; returns the keys that differed."""
    differing = []
    for key, value in wanted.items():
        if isinstance(value, dict) and key == "exec":
            inner = dict(fields.get(key) or {})
            below = _set_fields(inner, value, directory)
            if below:
                fields[key] = inner
                differing += [f"{key}.{name}" for name in below]
            continue
        if value in ("", [], {}, False):  # empty is kubeconfig's default: remove the key
            if fields.get(key):
                del fields[key]
                differing.append(key)
            continue
        if not _same(key, fields.get(key), value, directory):
            fields[key] = value
            differing.append(key)
        other = _EXCLUDES.get(key)
        if other and other in fields and not wanted.get(other):
            del fields[other]
            differing.append(other)
    return differing


def _same(key: str, old: Any, new: Any, directory: str) -> bool:
    if key in _PATHS and isinstance(old, str) and old:
        return os.path.normpath(Path(directory, old)) == os.path.normpath(Path(directory, new))
    if key.endswith("-data") and isinstance(old, str) and old:
        return decode(old) == decode(new)  # base64 may differ in its line length
    return bool(old == new)


def _check_cluster(entry: Entry, fields: dict[str, Any]) -> None:
    server = fields.get("server")
    if not server:
        raise ConfigError(
            f"{entry.option}.server: cluster '{entry.name}' has none; give one like https://10.0.0.1:6443"
        )
    _check_url(f"{entry.option}.server", server, ("https", "http"), "https://10.0.0.1:6443")
    if fields.get("proxy-url"):
        _check_url(
            f"{entry.option}.proxy_url", fields["proxy-url"], ("http", "https", "socks5"), "http://proxy.example:3128"
        )
    authority = fields.get("certificate-authority-data")
    if fields.get("insecure-skip-tls-verify") and (authority or fields.get("certificate-authority")):
        raise ConfigError(
            f"{entry.option}.insecure_skip_tls_verify: cluster '{entry.name}' has a certificate authority too, and"
            " kubectl refuses both; give an empty certificate_authority, or leave verification on"
        )
    if authority and authority != PENDING and "certificate-authority-data" in entry.fields:
        check_certificates(decode(authority), f"{entry.option}.certificate_authority")


def _check_url(option: str, value: Any, schemes: tuple[str, ...], example: str) -> None:
    try:
        parts = urlsplit(str(value))
        good = parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or any(character.isspace() for character in str(value)):
        raise ConfigError(f"{option}: is not an address such as {example}")


def _check_user(entry: Entry, fields: dict[str, Any], read: Reader) -> None:
    where = f"{entry.option} (user '{entry.name}')"
    methods = [
        name
        for name, keys in (
            ("a token", ("token", "tokenFile")),
            ("a user name with password", ("username", "password")),
        )
        if any(fields.get(key) for key in keys)
    ]
    execution = fields.get("exec")
    if execution and fields.get("auth-provider"):
        methods += ["an auth provider", "exec"]
    if len(methods) > 1:
        raise ConfigError(
            f"{where}: has {' and '.join(methods)}, and kubectl accepts only one; clear the other with ''"
        )
    if (fields.get("as-uid") or fields.get("as-groups") or fields.get("as-user-extra")) and not fields.get("as"):
        raise ConfigError(f"{where}: impersonates a group, uid or extra without a user; give impersonate too")
    if execution:
        _check_exec(entry, execution)
    certificate = _content(fields, "client-certificate", read)
    key = _content(fields, "client-key", read)
    has_certificate = bool(fields.get("client-certificate") or fields.get("client-certificate-data"))
    has_key = bool(fields.get("client-key") or fields.get("client-key-data"))
    if has_certificate and not has_key:
        raise ConfigError(
            f"{entry.option}.client_key: user '{entry.name}' has a client certificate without its key; give the key"
        )
    if has_key and not has_certificate:
        raise ConfigError(
            f"{entry.option}.client_certificate: user '{entry.name}' has a client key without its certificate; "
            "give the certificate"
        )
    if certificate is not None and key is not None:
        check_pair(certificate, key, where)


def _content(fields: dict[str, Any], key: str, read: Reader) -> bytes | None:
    data = fields.get(f"{key}-data")
    if data == PENDING:
        return None
    if data:
        return decode(str(data))
    path = fields.get(key)
    return read(str(path)) if path else None


def _check_exec(entry: Entry, execution: dict[str, Any]) -> None:
    option = f"{entry.option}.exec"
    if not execution.get("command"):
        raise ConfigError(
            f"{option}.command: user '{entry.name}' has an exec without a command; give the program to run"
        )
    if str(execution["command"]).startswith("~"):
        raise ConfigError(
            f"{option}.command: begins with ~, which clients do not expand; give the program's name, its absolute"
            " path, or a path with a slash, relative to the kubeconfig's directory"
        )
    version = execution.get("apiVersion")
    if not version:
        raise ConfigError(f"{option}.api_version: is missing; give client.authentication.k8s.io/v1")
    mode = execution.get("interactiveMode")
    if version == "client.authentication.k8s.io/v1" and mode not in _INTERACTIVE_MODES:
        raise ConfigError(f"{option}.interactive_mode: must be one of {', '.join(_INTERACTIVE_MODES)} with {version}")


def _check_references(document: Document, desired: Desired) -> list[str]:
    """Raises ConfigError if this call leaves a dangling name; returns warnings of those that were there before."""
    names = {section: [entry["name"] for entry in document.get(section) or []] for section in SECTIONS}
    gone = {
        section: {entry.name for entry in entries if entry.absent}
        for section, entries in (
            ("clusters", desired.clusters),
            ("users", desired.users),
            ("contexts", desired.contexts),
        )
    }
    ours = {entry.name: entry.option for entry in desired.contexts}
    warnings = []
    for name in names["contexts"]:
        fields = find(document, "contexts", name) or {}
        for section, kind in (("clusters", "cluster"), ("users", "user")):
            target = fields.get(kind)
            if target in names[section]:
                continue
            if name in ours:
                if not target:
                    raise ConfigError(
                        f"{ours[name]}.{kind}: context '{name}' names no {kind}; give one of {_list(names[section])}"
                    )
                raise ConfigError(
                    f"{ours[name]}.{kind}: context '{name}' names the {kind} '{target}', which does not exist;"
                    f" add it to {section}, or name one of {_list(names[section])}"
                )
            if target in gone[section]:
                raise ConfigError(
                    f"{desired.option}{section}: {kind} '{target}' cannot be removed while context '{name}' names it;"
                    f" remove that context too, with state absent in {desired.option}contexts"
                )
            warnings.append(
                f"context '{name}' names the {kind} '{target or ''}', which does not exist; it was so before"
            )
    current = document.get("current-context") or ""
    if current and current not in names["contexts"]:
        if desired.current_context is not None or current in gone["contexts"]:
            raise ConfigError(
                f"{desired.option}current_context: '{current}' does not exist;"
                f" name one of {_list(names['contexts'])}, or give '' for none"
            )
        warnings.append(f"the current context '{current}' does not exist; it was so before")
    return warnings


def _list(names: list[str]) -> str:
    return ", ".join(names) or "(there are none yet)"
