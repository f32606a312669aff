# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module's options, and their translation to kubeconfig's own fields."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.credentials import encode_pem, read_pem
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.document import SECRET_NAME, key_forms
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.plan import Desired, Entry

Register = Callable[[str], None]

_STATE = {"type": "str", "choices": ["present", "absent"], "default": "present"}
_CLUSTER: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": _STATE,
    "server": {"type": "str"},
    "keep_server": {"type": "bool", "default": False},
    "certificate_authority": {"type": "path"},
    "certificate_authority_data": {"type": "str"},
    "insecure_skip_tls_verify": {"type": "bool"},
    "tls_server_name": {"type": "str"},
    "proxy_url": {"type": "str"},
    "disable_compression": {"type": "bool"},
}
_EXEC: dict[str, Any] = {
    "api_version": {"type": "str", "default": "client.authentication.k8s.io/v1"},
    "command": {"type": "str", "required": True},
    "args": {"type": "list", "elements": "str"},
    "env": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "value": {"type": "str", "required": True},
        },
    },
    "install_hint": {"type": "str"},
    "interactive_mode": {"type": "str", "choices": ["Never", "IfAvailable", "Always"], "default": "IfAvailable"},
    "provide_cluster_info": {"type": "bool"},
}
_USER: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": _STATE,
    "client_certificate": {"type": "path"},
    "client_certificate_data": {"type": "str"},
    "client_key": {"type": "path", "no_log": False},
    "client_key_data": {"type": "str", "no_log": True},
    "token": {"type": "str", "no_log": True},
    "token_file": {"type": "path", "no_log": False},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "exec": {"type": "dict", "options": _EXEC},
    "impersonate": {"type": "str"},
    "impersonate_uid": {"type": "str"},
    "impersonate_groups": {"type": "list", "elements": "str"},
    "impersonate_extra": {"type": "dict"},
}
_CONTEXT: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": _STATE,
    "cluster": {"type": "str"},
    "user": {"type": "str"},
    "namespace": {"type": "str"},
}
_CONTENT: dict[str, Any] = {
    "clusters": {"type": "list", "elements": "dict", "options": _CLUSTER},
    "users": {"type": "list", "elements": "dict", "options": _USER},
    "contexts": {"type": "list", "elements": "dict", "options": _CONTEXT},
    "current_context": {"type": "str"},
    "embed_certs": {"type": "bool", "default": False},
}

ARGUMENT_SPEC: dict[str, Any] = {
    "path": {"type": "path"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    **_CONTENT,
    "kubeconfigs": {
        "type": "list",
        "elements": "dict",
        "options": {"path": {"type": "path", "required": True}, **_CONTENT},
    },
    "mode": {"type": "str", "default": "0600"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "backup": {"type": "bool", "default": False},
}

RULES: dict[str, Any] = {
    "required_one_of": [("path", "kubeconfigs")],
    "mutually_exclusive": [
        (name, "kubeconfigs") for name in ("path", "clusters", "users", "contexts", "current_context")
    ],
}

_KEYS = {
    "clusters": {
        "server": "server",
        "certificate_authority": "certificate-authority",
        "certificate_authority_data": "certificate-authority-data",
        "insecure_skip_tls_verify": "insecure-skip-tls-verify",
        "tls_server_name": "tls-server-name",
        "proxy_url": "proxy-url",
        "disable_compression": "disable-compression",
    },
    "users": {
        "client_certificate": "client-certificate",
        "client_certificate_data": "client-certificate-data",
        "client_key": "client-key",
        "client_key_data": "client-key-data",
        "token": "token",
        "token_file": "tokenFile",
        "username": "username",
        "password": "password",
        "exec": "exec",
        "impersonate": "as",
        "impersonate_uid": "as-uid",
        "impersonate_groups": "as-groups",
        "impersonate_extra": "as-user-extra",
    },
    "contexts": {"cluster": "cluster", "user": "user", "namespace": "namespace"},
}
_EXEC_KEYS = {
    "api_version": "apiVersion",
    "command": "command",
    "args": "args",
    "env": "env",
    "install_hint": "installHint",
    "interactive_mode": "interactiveMode",
    "provide_cluster_info": "provideClusterInfo",
}
_FILES = {
    "certificate_authority": "certificate-authority-data",
    "client_certificate": "client-certificate-data",
    "client_key": "client-key-data",
}


_PATHS = (*_FILES, "token_file")


def requests(params: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(prefix of option names in errors, options) of each kubeconfig of a call."""
    if params["kubeconfigs"] is not None:
        return [(f"kubeconfigs[{index}].", item) for index, item in enumerate(params["kubeconfigs"])]
    return [("", params)]


def secrets_of_options(params: dict[str, Any]) -> Iterator[str]:
    """Secret values of the options that the argument spec does not mark."""
    for _prefix, request in requests(params):
        for cluster in request["clusters"] or []:
            address = cluster.get("proxy_url") or ""
            if "@" in address:
                yield address.rpartition("@")[0].rpartition("//")[2].rpartition(":")[2]
        for user in request["users"] or []:
            if user.get("client_key_data"):
                yield from key_forms(user["client_key_data"])
            for variable in (user.get("exec") or {}).get("env") or []:
                if SECRET_NAME.search(variable["name"]) and variable["value"]:
                    yield variable["value"]


def written_path(path: str, directory: str) -> str:
    """A file's path as `kubectl config` writes it: relative to `directory` if it is below it, otherwise absolute.

    `path` is relative to the working directory, as in kubectl's own options.
    """
    whole = os.path.abspath(path)  # noqa: PTH100 - links are not resolved
    below = os.path.relpath(whole, directory)
    return whole if below == os.pardir or below.startswith(os.pardir + os.sep) else below


def desired(prefix: str, request: dict[str, Any], check_mode: bool, register: Register) -> Desired:
    """One kubeconfig's options as kubeconfig's own fields; reads the files that are to be embedded.

    In check mode a file to embed may be missing. `register` is called with every key before a message can contain it.
    Raises ConfigError.
    """
    directory = str(Path(os.path.abspath(request["path"])).parent)  # noqa: PTH100
    entries: dict[str, list[Entry]] = {}
    for section, keys in _KEYS.items():
        entries[section] = [
            Entry(
                f"{prefix}{section}[{index}]",
                item["name"],
                item["state"] == "absent",
                _fields(
                    f"{prefix}{section}[{index}]", item, keys, directory, request["embed_certs"], check_mode, register
                ),
                frozenset({"server"} if item.get("keep_server") else ()),
            )
            for index, item in enumerate(request[section] or [])
        ]
    sections = (entries["clusters"], entries["users"], entries["contexts"])
    return Desired(prefix, *sections, request["current_context"], directory)


def _fields(
    option: str,
    item: dict[str, Any],
    keys: dict[str, str],
    directory: str,
    embed: bool,
    check_mode: bool,
    register: Register,
) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if item["state"] == "absent":
        return fields
    for name, key in keys.items():
        value = item.get(name)
        if value is None:
            continue
        if name == "exec":
            fields[key] = {_EXEC_KEYS[below]: content for below, content in value.items() if content is not None}
        elif key.endswith("-data") and value:
            fields[key] = encode_pem(value, f"{option}.{name}")
        elif embed and name in _FILES and value:
            fields[_FILES[name]] = read_pem(value, f"{option}.{name}", check_mode)
        elif name in _PATHS and value:
            fields[key] = written_path(value, directory)
        else:
            fields[key] = value
    for secret in key_forms(fields.get("client-key-data") or ""):
        register(secret)
    return fields


def both_given(request: dict[str, Any]) -> tuple[str, str] | None:
    """The first file option that is given together with its data, and that data option; None if there is none."""
    for section in ("clusters", "users"):
        for index, item in enumerate(request[section] or []):
            for name in _PATHS:
                data = "token" if name == "token_file" else f"{name}_data"
                if item.get(name) and item.get(data):
                    return f"{section}[{index}].{name}", data
    return None
