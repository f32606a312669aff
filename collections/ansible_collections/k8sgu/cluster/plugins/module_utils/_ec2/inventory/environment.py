# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts the AWS settings that a command prints into this process's environment, as `eval "$(command)"` would.

The inventory plugin runs in Ansible's own process, so lookups and modules on the controller see them too: the whole run
works on one account, and no key passes through a variable, a file or a command line.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import MutableMapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.hosts import InventoryError

# If the command did not set this one, the calls would go to AWS.
ENDPOINT = "AWS_ENDPOINT_URL"
TIMEOUT_S = 60.0

# What botocore reads to decide where a call goes and who makes it. All of it is replaced: settings of two accounts must
# not be mixed, and a lab's inventory must not reach an account of AWS.
AWS_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_ENDPOINT_URL_STS",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)
_EXPORT = re.compile(r"export\s+(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)")


def adopt(command: Sequence[str], environment: MutableMapping[str, str], timeout_s: float = TIMEOUT_S) -> list[str]:
    """Runs `command` and puts what it exports into `environment`, in place of the AWS settings that were there.

    Returns warnings, of an endpoint that was set before and is not used. Raises InventoryError where the command is
    missing, fails, hangs, or does not name an endpoint.
    """
    # A virtual environment's programs are beside its interpreter, and it need not be activated.
    path = os.pathsep.join([environment.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    program = shutil.which(command[0], path=path)
    shown = shlex.join(command)
    if program is None:
        raise InventoryError(
            f"environment_command: the program {command[0]} is not installed; `make venv` installs the lab, "
            f"or set {ENDPOINT} and the credentials yourself"
        )
    try:
        done = subprocess.run(
            [program, *command[1:]],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InventoryError(f"environment_command: `{shown}` gave no answer within {timeout_s:.0f} s") from None
    except OSError as error:
        raise InventoryError(f"environment_command: `{shown}` cannot be run: {error}") from error
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise InventoryError(
            f"environment_command: `{shown}` failed: {said}; `make up` starts the lab and the cluster, "
            "`-i inventories/aws` is the inventory for AWS"
        )
    exported = exports(done.stdout)
    if not exported.get(ENDPOINT):
        raise InventoryError(f"environment_command: `{shown}` does not export {ENDPOINT}, so its output is not used")
    before, now = environment.get(ENDPOINT, ""), exported[ENDPOINT]
    for name in AWS_VARIABLES:
        environment.pop(name, None)
    environment.update(exported)
    if before in ("", now):
        return []
    return [f"{ENDPOINT}, which is {before} in this shell, is not used: `{shown}` says {now}"]


def exports(text: str) -> dict[str, str]:
    """The variables of the lines `export NAME=VALUE`, with the values as a shell reads them."""
    found = {}
    for line in text.splitlines():
        match = _EXPORT.fullmatch(line.strip())
        if match:
            found[match["name"]] = "".join(shlex.split(match["value"]))
    return found
