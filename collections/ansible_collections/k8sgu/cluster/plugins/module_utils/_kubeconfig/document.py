# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converts a kubeconfig between YAML and plain dictionaries, and masks its secrets."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any, Dict, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.texts import text_fault

try:
    import yaml
except ImportError:
    HAS_YAML = False  # `run` asks for it before anything here is called
else:
    HAS_YAML = True

Document = Dict[str, Any]

# The three lists of a kubeconfig, each with the key under which an entry has its fields.
SECTIONS = {"clusters": "cluster", "users": "user", "contexts": "context"}

# Fields that kubectl accepts only as text.
_TEXTS = {
    "clusters": ("server", "certificate-authority", "certificate-authority-data", "tls-server-name", "proxy-url"),
    "users": (
        *("client-certificate", "client-certificate-data", "client-key", "client-key-data"),
        *("token", "tokenFile", "username", "password", "as", "as-uid"),
    ),
    "contexts": ("cluster", "user", "namespace"),
}

_PUBLIC_USER_FIELDS = {
    "client-certificate",
    "client-key",
    "tokenFile",
    "username",
    "as",
    "as-uid",
    "as-groups",
    "as-user-extra",
}
_PUBLIC_EXEC_FIELDS = {"apiVersion", "command", "installHint", "interactiveMode", "provideClusterInfo"}
SECRET_NAME = re.compile(r"(token|secret|passw|passphrase|credential|key$|access.?key)", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^/@]*@")


class ConfigError(Exception):
    """A kubeconfig or an option cannot be used; the text names it and says what to do, and contains no secret."""


def load(text: bytes, path: str) -> Document:
    """The document in `text`; {} if it is empty. Raises ConfigError if it is not a kubeconfig."""

    def refuse(reason: str) -> ConfigError:
        return ConfigError(
            f"path: {path} is not a kubeconfig: {reason}. "
            "It was left untouched; correct it, move it away or name another path"
        )

    try:
        # The parser's own message quotes the text around the error, which may be a secret: give only the line.
        document = yaml.load(text.decode("utf-8"), Loader=_loader())  # noqa: S506 - a SafeLoader
    except UnicodeDecodeError:
        raise refuse("it is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        detail = str(error.problem) if isinstance(error, _DuplicateKey) else "it is not YAML"
        raise refuse(f"{detail} (line {line})") from None
    except (yaml.YAMLError, ValueError):
        raise refuse("it is not YAML") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise refuse("it holds no mapping")
    wrong = text_fault(document.get("current-context"))
    if wrong:
        raise refuse(f"its current-context {wrong}")
    if document.get("kind", "Config") != "Config" or document.get("apiVersion", "v1") != "v1":
        raise refuse("its kind is not Config of version v1")
    if document and not {"kind", "current-context", *SECTIONS} & set(document):
        raise refuse("it has neither a kind nor clusters, users or contexts")
    for section, inner in SECTIONS.items():
        entries = document.get(section)
        if entries is not None and not isinstance(entries, list):
            raise refuse(f"its {section} are not a list")
        seen = set()
        for entry in entries or []:
            name = entry.get("name") if isinstance(entry, dict) else None
            wrong = text_fault(name)
            if wrong:
                raise refuse(f"the name of an entry of its {section} {wrong}")
            if not isinstance(name, str) or not isinstance(entry.get(inner) or {}, dict):
                raise refuse(f"an entry of its {section} has no name or no fields")
            for key in _TEXTS[section]:
                wrong = text_fault((entry.get(inner) or {}).get(key))
                if wrong:
                    raise refuse(f"{key} of its {inner} '{name}' {wrong}")
            if name in seen:
                raise refuse(f"it names {inner} '{name}' twice")
            seen.add(name)
    return document


def dump(document: Document) -> bytes:
    """`document` as YAML that kubectl reads as the same data; keys keep their order."""
    text = yaml.dump(
        document,
        Dumper=_dumper(),
        sort_keys=False,
        default_flow_style=False,
        allow_unicode=True,
        width=2**31 - 1,
    )
    return str(text).encode("utf-8")


def secrets_of(document: Document) -> Iterator[str]:
    """Every value of `document` that must not be printed."""
    for entry in document.get("users") or []:
        user = entry.get("user") or {}
        for key in ("token", "password"):
            if isinstance(user.get(key), str) and user[key]:
                yield user[key]
        if isinstance(user.get("client-key-data"), str):
            yield from key_forms(user["client-key-data"])
        config = (user.get("auth-provider") or {}).get("config") or {}
        for key, value in config.items():
            if isinstance(value, str) and value and SECRET_NAME.search(str(key)):
                yield value
        execution = user.get("exec")
        for variable in (execution.get("env") if isinstance(execution, dict) else None) or []:
            if isinstance(variable, dict) and SECRET_NAME.search(str(variable.get("name"))) and variable.get("value"):
                yield str(variable["value"])


def key_forms(data: str) -> Iterator[str]:
    """A key as in a kubeconfig (base64), and its PEM text."""
    if not data:
        return
    yield data
    try:
        pem = base64.b64decode(data, validate=False).decode("ascii")
    except (binascii.Error, ValueError):
        return
    yield pem
    yield pem.strip()


def masked(document: Document | None, before: Document | None = None) -> str:
    """`document` as YAML for a diff. Secrets are masked; the mask shows whether they differ from `before`."""
    if document is None:
        return ""
    clean = dict(document)
    for section, inner in SECTIONS.items():
        if not isinstance(clean.get(section), list):
            continue
        entries: list[dict[str, Any]] = []
        for entry in clean[section]:
            fields = entry.get(inner)
            if isinstance(fields, dict):
                old = find(before, section, entry["name"]) or {}
                if section == "users":
                    fields = _masked_user(fields, old)
                elif section == "clusters":
                    fields = _masked_cluster(fields)
            entries.append({**entry, inner: fields})
        clean[section] = entries
    return dump(clean).decode("utf-8")


def find(document: Document | None, section: str, name: str) -> dict[str, Any] | None:
    """The fields of the entry `name`, {} if it has none, None if there is no such entry."""
    for entry in (document or {}).get(section) or []:
        if entry["name"] == name:
            fields = entry.get(SECTIONS[section]) or {}
            return dict(fields)
    return None


def _masked_cluster(fields: dict[str, Any]) -> dict[str, Any]:
    clean = dict(fields)
    if isinstance(clean.get("certificate-authority-data"), str):
        clean["certificate-authority-data"] = _digest(clean["certificate-authority-data"])
    for key in ("server", "proxy-url"):
        if isinstance(clean.get(key), str):
            clean[key] = _USERINFO.sub("<secret>@", clean[key])
    return clean


def _masked_user(fields: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    clean: dict[str, Any] = {}
    for key, value in fields.items():
        if key in _PUBLIC_USER_FIELDS:
            clean[key] = value
        elif key == "client-certificate-data" and isinstance(value, str):
            clean[key] = _digest(value)
        elif key == "exec" and isinstance(value, dict):
            old_exec = old.get("exec") if isinstance(old.get("exec"), dict) else {}
            clean[key] = _masked_exec(value, old_exec or {})
        else:  # unknown fields too: they may be secret
            clean[key] = _secret(value, old.get(key))
    return clean


def _masked_exec(fields: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    clean: dict[str, Any] = {}
    for key, value in fields.items():
        if key in _PUBLIC_EXEC_FIELDS:
            clean[key] = value
        elif key == "args" and isinstance(value, list):
            clean[key] = _masked_arguments(value)
        elif key == "env" and isinstance(value, list):
            old_env = {item.get("name"): item.get("value") for item in old.get("env") or [] if isinstance(item, dict)}
            clean[key] = [
                {**item, "value": _secret(item.get("value"), old_env.get(item.get("name")))}
                if isinstance(item, dict)
                else _secret(item, None)
                for item in value
            ]
        else:
            clean[key] = _secret(value, old.get(key))
    return clean


def _masked_arguments(arguments: list[Any]) -> list[Any]:
    """Arguments with the values of flags such as --token=... or --password ... hidden."""
    clean: list[Any] = []
    hide_next = False
    for argument in arguments:
        text = str(argument)
        flag, equals, _value = text.partition("=")
        if hide_next and not text.startswith("-"):
            clean.append("<secret>")
            hide_next = False
        elif text.startswith("-") and SECRET_NAME.search(flag):
            clean.append(f"{flag}=<secret>" if equals else text)
            hide_next = not equals
        else:
            clean.append(argument)
            hide_next = False
    return clean


def _secret(value: Any, old: Any) -> str:
    return "<secret>" if old is None or value == old else "<another secret>"


def _digest(data: str) -> str:
    try:
        content = base64.b64decode(data, validate=False)
    except (binascii.Error, ValueError):
        content = data.encode("utf-8")
    return f"<sha256 {hashlib.sha256(content).hexdigest()[:16]}>"


# kubectl reads YAML by Go's rules. PyYAML's differ in details that would change data, so both directions are adjusted.
_RESOLVERS: list[tuple[str, re.Pattern[str], str]] = [
    (
        "tag:yaml.org,2002:bool",
        re.compile(r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$"),
        "yYnNtTfFoO",
    ),
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN\0"),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*|0x[0-9a-fA-F]+)$"), "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"),
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:merge", re.compile(r"^<<$"), "<"),
]
_AMBIGUOUS = re.compile(r"^(?:[-+.]?[0-9].*|[yYnN])$", re.DOTALL)
_CACHE: dict[str, Any] = {}


def _loader() -> Any:
    if "loader" not in _CACHE:
        base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        loader: Any = type("KubeconfigLoader", (base,), {"construct_mapping": _construct_mapping})
        loader.yaml_implicit_resolvers = {}
        for tag, pattern, first in _RESOLVERS:
            letters = ["" if letter == "\0" else letter for letter in first]
            loader.add_implicit_resolver(tag, pattern, letters)
        _CACHE["loader"] = loader
    return _CACHE["loader"]


def _dumper() -> Any:
    if "dumper" not in _CACHE:
        base = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        dumper: Any = type("KubeconfigDumper", (base,), {"ignore_aliases": lambda self, data: True})
        dumper.add_representer(str, _represent_string)
        _CACHE["dumper"] = dumper
    return _CACHE["dumper"]


def _represent_string(dumper: Any, data: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="'" if _AMBIGUOUS.match(data) else None)


if HAS_YAML:

    class _DuplicateKey(yaml.MarkedYAMLError):
        pass


def _construct_mapping(self: Any, node: Any, deep: bool = False) -> Any:
    """As in SafeLoader, but a duplicate key is an error: one of its values would be lost."""
    keys = [key.value for key, _value in node.value if isinstance(key.value, str) and key.value != "<<"]
    for key in keys:
        if keys.count(key) > 1:
            raise _DuplicateKey(problem=f"a mapping has the key '{key[:40]}' twice", problem_mark=node.start_mark)
    return yaml.SafeLoader.construct_mapping(self, node, deep=deep)
