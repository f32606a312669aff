# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The caller's identity, and whether its credentials are fit: no root user, no old key, no file that others can read.

AWS on the root user and on old keys:
https://docs.aws.amazon.com/IAM/latest/UserGuide/root-user-best-practices.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/id-credentials-access-keys-update.html
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import BOTO3, LibraryMissing, require
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

# Where it is missing, libraries.require reports it before anything here is called.
with contextlib.suppress(ImportError):
    from botocore.exceptions import BotoCoreError, ClientError

_USER_ARN = re.compile(r"arn:[^:]+:iam::\d{12}:user/(?:.*/)?(?P<name>[^/]+)")
_ROOT_ARN = re.compile(r"arn:[^:]+:iam::\d{12}:root")
# A file with such a line holds a secret.
_SECRET_LINE = re.compile(r"^\s*(aws_secret_access_key|aws_session_token)\s*=", re.MULTILINE)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class RootUser(Exception):
    """The caller is the account's root user."""


@dataclass(frozen=True)
class Caller:
    """What STS and IAM say. `key_age_days` is None for temporary keys and where the age may not be read."""

    account: str
    arn: str
    user_id: str
    region: str
    endpoint_url: str
    key_age_days: int | None = None

    @property
    def is_root(self) -> bool:
        return bool(_ROOT_ARN.fullmatch(self.arn))


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises AwsError, RootUser and LibraryMissing."""
    require(BOTO3)
    options = call.options
    aws = session.Aws(session.Connection.from_options(options))
    caller = ask(aws, datetime.datetime.now(datetime.timezone.utc))
    call.warnings += judge(caller, files_to_check(os.environ), options["max_key_age_days"], options["allow_root"])
    return {"changed": False, **result(caller)}


def ask(aws: session.Aws, now: datetime.datetime) -> Caller:
    """Asks STS who calls, and IAM for the age of a user's key. Raises AwsError."""
    sts = aws.client("sts")
    try:
        answer = sts.get_caller_identity()
    except (BotoCoreError, ClientError) as error:
        raise session.AwsError(session.explain(error, "find out who calls")) from error
    return Caller(
        account=answer["Account"],
        arn=answer["Arn"],
        user_id=answer["UserId"],
        region=aws.region,
        endpoint_url=aws.client("ec2").meta.endpoint_url,
        key_age_days=_key_age(aws, answer["Arn"], now),
    )


def _key_age(aws: session.Aws, arn: str, now: datetime.datetime) -> int | None:
    user = _USER_ARN.fullmatch(arn)
    credentials = aws.client("sts")._get_credentials()
    # Temporary credentials have a token and expire by themselves.
    if user is None or credentials is None or credentials.token:
        return None
    try:
        pages = aws.client("iam").get_paginator("list_access_keys").paginate(UserName=user["name"])
        keys = [key for page in pages for key in page["AccessKeyMetadata"]]
    except (BotoCoreError, ClientError):
        # Nothing else here needs the permission to list keys. Without it there is no warning.
        return None
    return next(
        ((now - key["CreateDate"]).days for key in keys if key["AccessKeyId"] == credentials.access_key),
        None,
    )


def files_to_check(environment: Mapping[str, str]) -> list[Path]:
    """Those of the files in which botocore looks for credentials that hold a secret.

    https://boto3.amazonaws.com/v1/documentation/api/latest/guide/configuration.html
    """
    candidates = (
        environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials",
        environment.get("AWS_CONFIG_FILE") or "~/.aws/config",
    )
    found = []
    for candidate in candidates:
        path = Path(os.path.expandvars(candidate)).expanduser()
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if _SECRET_LINE.search(text):
            found.append(path)
    return found


def judge(caller: Caller, files: Iterable[Path], max_key_age_days: int, allow_root: bool = False) -> list[str]:
    """The warnings. Raises RootUser where the root user calls and that is not allowed."""
    if caller.is_root and not allow_root:
        raise RootUser(
            f"the credentials are those of the root user of account {caller.account}, whose permissions cannot be "
            "limited; create an IAM user or role for this work, or use single sign-on, and delete the root user's keys"
        )
    warnings = []
    if caller.key_age_days is not None and caller.key_age_days > max_key_age_days:
        warnings.append(
            f"the access key of {caller.arn} is {caller.key_age_days} days old, more than {max_key_age_days}: "
            "create a new one and delete this one, or use single sign-on"
        )
    for path in files:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS:
            warnings.append(
                f"other users of this machine can get at {path} (mode {mode:04o}): chmod 600 {shlex.quote(str(path))}"
            )
    return warnings


def result(caller: Caller) -> dict[str, Any]:
    """What the module returns."""
    return {
        "account": caller.account,
        "arn": caller.arn,
        "user_id": caller.user_id,
        "region": caller.region,
        "endpoint_url": caller.endpoint_url,
        "access_key_age_days": caller.key_age_days,
    }


MODULE = Module(ARGUMENT_SPECS["caller_identity"], run, (session.AwsError, RootUser, LibraryMissing))
