# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Searches a node's audit log, rotated files included. Standard library only: it runs on nodes.

https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(\d+)([smhd])")
# The last stage of a request; its earlier ones (ResponseStarted of a watch) say less.
_LAST_STAGES = ("ResponseComplete", "Panic")


class AuditError(Exception):
    """An option or a log cannot be used; the text says what to do."""


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises AuditError."""
    options = call.options
    now = datetime.datetime.now(datetime.timezone.utc)
    since, until = (moment(options[name], name, now) for name in ("since", "until"))
    if since >= until:
        raise AuditError(f"since: {options['since']} is not before until ({options['until']}); nothing can be found")
    if options["limit"] < 1:
        raise AuditError(f"limit: {options['limit']} is not a number of events; give 1 or more")
    filters = {name: options[name] for name in ("users", "verbs", "resources", "namespaces", "names")}
    rows, found = search(Path(options["path"]), options["node"], Wanted(since, until, **filters), options["limit"])
    return {"changed": False, "events": rows, "found": found}


def moment(text: str, option: str, now: datetime.datetime) -> datetime.datetime:
    """A point in time: "90m" (ago), or "2026-11-23T12:00:00Z" (UTC if it names no zone). Raises AuditError."""
    span = _SPAN.fullmatch(text)
    if span:
        return now - datetime.timedelta(seconds=int(span.group(1)) * _UNITS[span.group(2)])
    try:
        given = datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        raise AuditError(
            f"{option}: {text!r} is not a time; give how long ago, such as 90m, 2h or 3d, "
            "or a date and time, such as 2026-11-23T12:00:00Z"
        ) from None
    return given if given.tzinfo else given.replace(tzinfo=datetime.timezone.utc)


@dataclass(frozen=True)
class Wanted:
    """The search; patterns are shell patterns, an empty list or pattern matches everything."""

    since: datetime.datetime
    until: datetime.datetime
    users: list[str] = field(default_factory=list)
    verbs: list[str] = field(default_factory=list)
    resources: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def takes(self, row: dict[str, Any]) -> bool:
        time = moment(row["time"], "time", self.until)
        return (
            self.since <= time <= self.until
            and _any(self.users, row["user"], row["as"])
            and _any(self.verbs, row["verb"])
            and _any(self.resources, row["resource"], row["resource"].partition("/")[0])
            and _any(self.namespaces, row["namespace"])
            and _any(self.names, row["name"])
        )


def _any(patterns: list[str], *values: str) -> bool:
    return not patterns or any(fnmatchcase(value, pattern) for pattern in patterns for value in values)


def row(event: dict[str, Any], node: str) -> dict[str, Any]:
    """An event in short: when, who (and as whom), what, on which object, with what answer, from where."""
    reference = event.get("objectRef") or {}
    resource = reference.get("resource", "")
    if reference.get("subresource"):
        resource += f"/{reference['subresource']}"
    return {
        "time": event.get("requestReceivedTimestamp", ""),
        "node": node,
        "user": (event.get("user") or {}).get("username", ""),
        "as": (event.get("impersonatedUser") or {}).get("username", ""),
        "verb": event.get("verb", ""),
        "group": reference.get("apiGroup", ""),
        "resource": resource or event.get("requestURI", "").partition("?")[0],
        "namespace": reference.get("namespace", ""),
        "name": reference.get("name", "") or _created(event),
        "code": (event.get("responseStatus") or {}).get("code", 0),
        "from": ", ".join(event.get("sourceIPs") or []),
        "agent": event.get("userAgent", ""),
        "id": event.get("auditID", ""),
    }


def _created(event: dict[str, Any]) -> str:
    """The name of a new object, which is only in the request's body, if the policy records that."""
    body = event.get("requestObject")
    metadata = body.get("metadata") if isinstance(body, dict) else None
    return str((metadata or {}).get("name", ""))


def logs(current: Path, since: datetime.datetime) -> list[Path]:
    """The log and its rotated files (NAME-TIME.log) that may have events since then, oldest first."""
    rotated = [path for path in current.parent.glob(f"{current.stem}-*{current.suffix}") if path != current]
    files = [path for path in rotated if path.stat().st_mtime >= since.timestamp()]
    return [*sorted(files), current]


def events(path: Path) -> Iterator[dict[str, Any]]:
    """The finished requests in a file, without truncated lines (of a node that lost power)."""
    with path.open(encoding="utf-8", errors="replace") as log:
        for line in log:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("stage") in _LAST_STAGES:
                yield event


def search(current: Path, node: str, wanted: Wanted, limit: int) -> tuple[list[dict[str, Any]], int]:
    """The newest `limit` matching rows, oldest first, and the number of all matches. Raises AuditError."""
    found: list[dict[str, Any]] = []
    try:
        for path in logs(current, wanted.since):
            found += [one for one in (row(event, node) for event in events(path)) if wanted.takes(one)]
    except OSError as error:
        raise AuditError(
            f"path: {error.filename}: {error.strerror}; is this a control-plane node, and does this run as root?"
        ) from error
    found.sort(key=lambda one: str(one["time"]))
    return found[-limit:], len(found)
