# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of pod_credentials. Standard library only: it runs on nodes."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials.judge import SHOWN, Wanted, complaint, judge
from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials.pem import PemError, fingerprints
from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials.volumes import read

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

_KEY_ID = re.compile(r"[\w-]+", re.ASCII)


class CredentialsError(Exception):
    """An option cannot be used, or pods have not followed in time; `result` has what lags."""

    def __init__(self, message: str, result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.result = result or {}


def run(call: Call) -> dict[str, Any]:
    """Waits until every pod has what it should; in check mode it looks once. Raises CredentialsError."""
    options = call.options
    wanted = _wanted(options)
    patience = 0 if call.check_mode else options["timeout"]
    deadline = time.monotonic() + patience
    while True:
        try:
            found = judge(read(Path(options["pods_dir"])), wanted, time.time())
        except OSError as error:
            raise CredentialsError(
                f"pods_dir: {error.filename}: {error.strerror}; is it the kubelet's, has the kubelet run here, and "
                "does this run as root?"
            ) from error
        if not found.lags or time.monotonic() >= deadline:
            break
        time.sleep(min(options["interval"], max(0.0, deadline - time.monotonic())))
    lagging = [{"pod": lag.pod, "volume": lag.volume, "file": lag.file, "has": lag.has} for lag in found.lags]
    result = {"changed": False, "pods": found.pods, "lagging": lagging}
    if found.expired:
        more = f" and {len(found.expired) - SHOWN} more" if len(found.expired) > SHOWN else ""
        call.warnings.append(
            f"pods whose tokens have all expired were not looked at: {', '.join(found.expired[:SHOWN])}{more}. They "
            "have ended, or the kubelet does not run (systemctl status kubelet)"
        )
    if found.lags:
        raise CredentialsError(complaint(found, wanted, patience), result)
    return result


def _wanted(options: Mapping[str, Any]) -> Wanted:
    if not options["authorities"] and not options["key_ids"]:
        raise CredentialsError("authorities, key_ids: both are empty, so that there is nothing to look for; give one")
    for name, least in (("timeout", 0), ("interval", 1)):
        if options[name] < least:
            raise CredentialsError(f"{name}: {options[name]} seconds are too few; give at least {least}")
    authorities: set[str] = set()
    for number, text in enumerate(options["authorities"]):
        try:
            authorities |= fingerprints(text)
        except PemError as error:
            raise CredentialsError(f"authorities[{number}]: {error}; give certificates as PEM text") from error
    for number, value in enumerate(options["key_ids"]):
        if not _KEY_ID.fullmatch(value):
            raise CredentialsError(
                f"key_ids[{number}]: is not the id of a key; make it of the public key by the filter "
                "k8sgu.cluster.key_ids"
            )
    return Wanted(frozenset(authorities), frozenset(options["key_ids"]), frozenset(options["ignore"]))
