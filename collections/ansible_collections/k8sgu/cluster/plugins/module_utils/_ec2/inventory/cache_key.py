# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The key under which an answer of the API is cached: who asked whom for what, found out without a call.

A cached answer must never be given for another account, endpoint or question, and a hit must not cost a call.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import asdict
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.fetch import Query
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.session import Connection

_ACCOUNT_IN_ARN = re.compile(r"arn:[^:]*:iam::(\d{12}):")
# The settings of a profile that say whose it is, without keys and tokens.
_PROFILE_SETTINGS = (
    "role_arn",
    "source_profile",
    "credential_source",
    "credential_process",
    "external_id",
    "web_identity_token_file",
    "sso_account_id",
    "sso_role_name",
    "sso_session",
    "sso_start_url",
)
_SECRETS = ("secret_key", "session_token")


def account_of_key(access_key: str) -> str | None:
    """The account of an access key's id. None where the id does not hold it (keys made before 2019).

    After the four letters of its prefix the id is base 32: a bit that marks the newer form, then 40 bits of account.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
    """
    if not re.fullmatch(r"A[KS]IA[A-Z2-7]{16}", access_key):
        return None
    raw = base64.b32decode(access_key[4:])
    account = (int.from_bytes(raw[:6], "big") & 0x7FFFFFFFFF80) >> 7
    return f"{account:012d}" if raw[0] & 0x80 and account < 10**12 else None


def identity(connection: Connection, session: Any) -> dict[str, Any]:
    """Who calls with `connection` through this botocore session: the account where it is known, and what says so."""
    profile = session.get_scoped_config()
    told = {name: profile[name] for name in _PROFILE_SETTINGS if name in profile}
    for arn in (connection.assume_role_arn, profile.get("role_arn")):
        match = _ACCOUNT_IN_ARN.match(arn or "")
        if match:
            return {"account": match.group(1), "role": arn, "profile": told}
    if "sso_account_id" in profile:
        return {"account": str(profile["sso_account_id"]), "profile": told}
    credentials = session.get_credentials()
    # Reading the key of credentials that are fetched on first use would fetch them.
    if credentials is None or type(credentials).__name__.startswith("Deferred"):
        return {"account": None, "profile": told, "name": session.profile}
    account = account_of_key(credentials.access_key)
    return {"account": account} if account else {"account": None, "key": credentials.access_key}


def cache_key(who: dict[str, Any], connection: Connection, endpoint: str, query: Query) -> str:
    """A key of fixed length: the same for the same account and question, and different for any other."""
    how = {name: value for name, value in asdict(connection).items() if name not in _SECRETS and name != "access_key"}
    asked = {"format": 1, "who": who, "how": how, "endpoint": endpoint, "query": asdict(query)}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
