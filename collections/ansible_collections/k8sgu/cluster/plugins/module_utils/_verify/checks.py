# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of checks: what was expected, what was found, where to look; reported as text and as a JUnit file."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Callable, Iterable
from xml.etree import ElementTree


@dataclass(frozen=True)
class Check:
    """`where` is the node or object checked, `look` a command that shows more, `seconds` how long the check took."""

    name: str
    passed: bool
    expected: str
    seen: str
    where: str = ""
    look: str = ""
    seconds: float = 0.0


def until(
    probe: Callable[[], Check],
    timeout: float,
    interval: float = 0.5,
    clock: Callable[[], float] = time.monotonic,
    why: Callable[[], str] = lambda: "",
) -> Check:
    """The first passing result of `probe`, or its last one after `timeout` seconds, explained by `why`."""
    began = clock()
    while True:
        check = probe()
        took = clock() - began
        if check.passed or took >= timeout:
            seen = check.seen if check.passed else because(f"{check.seen} (after {took:.0f} s)", why())
            return Check(**{**asdict(check), "seen": seen, "seconds": took})
        time.sleep(interval)


def because(seen: str, why: str) -> str:
    return f"{seen}: {why}" if why else seen


def from_dictionaries(rows: Iterable[dict[str, Any]]) -> list[Check]:
    return [Check(**row) for row in rows]


def failure_text(checks: Iterable[Check]) -> str:
    """The failed checks, one paragraph each; empty if none failed."""
    paragraphs = []
    for check in checks:
        if not check.passed:
            lines = [f"{check.name}" + (f" [{check.where}]" if check.where else "")]
            lines += [f"    expected: {check.expected}", f"    seen:     {check.seen}"]
            if check.look:
                lines.append(f"    look at:  {check.look}")
            paragraphs.append("\n".join(lines))
    return "\n".join(paragraphs)


def junit(checks: Iterable[Check], suite: str) -> bytes:
    """A JUnit file with one suite, in which each check is a test case."""
    rows = list(checks)
    failures = sum(not check.passed for check in rows)
    root = ElementTree.Element("testsuite", name=suite, tests=str(len(rows)), failures=str(failures))
    for check in rows:
        case = ElementTree.SubElement(
            root, "testcase", classname=check.where or suite, name=check.name, time=f"{check.seconds:.3f}"
        )
        if not check.passed:
            failure = ElementTree.SubElement(case, "failure", message=f"expected {check.expected}")
            failure.text = failure_text([check])
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
