# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Items X: what this project requires beyond the benchmark. X.9 is in `policies`, with similar items."""

from __future__ import annotations

import re
from typing import Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.items import (
    FAIL,
    PASS,
    Finding,
    Item,
    Node,
    Verdict,
    failed,
    flag_is,
    from_flags,
    judged,
    mode_at_most,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.node import COPIES
from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.worker import configured, setting, setting_is

API, ETCD, KUBELET, PROXY = "kube-apiserver", "etcd", "kubelet", "kube-proxy"
LONGEST_TOKEN_S = 24 * 3600
_SECONDS = {"h": 3600, "m": 60, "s": 1}


def coverage(expected: Iterable[str], read: Iterable[str]) -> list[Finding]:
    """Fails for each node that was not read, so that it does not count as passed."""
    there, findings = set(read), []
    for name in expected:
        status = PASS if name in there else FAIL
        reason = "read" if name in there else "it was not read: is it running, and was the play limited to other nodes?"
        findings.append(Finding("X.1", "Every node of the inventory was read", status, reason, name))
    return findings


def copies(node: Node) -> Verdict:
    """Copies of keys for programs that do not run as root are in directories that nobody else can enter."""
    wrong, number = [], 0
    for directory in COPIES:
        program = directory.rpartition("/")[2]
        for path, found in node.files.items():
            if path != directory and not path.startswith(directory + "/"):
                continue
            number += found["kind"] == "file"
            limit = "0700" if found["kind"] == "directory" else "0400"
            if found["owner"] != node.user(program) or not mode_at_most(found["mode"], limit):
                wrong.append(f"{path} {found['owner']} {found['mode']}")
    if not number:
        return failed(f"there are none below {', '.join(COPIES)}")
    return judged(not wrong, ", ".join(wrong) or f"{number} files below {', '.join(COPIES)}")


def seconds(duration: str) -> int | None:
    """The seconds of a Go duration of whole hours, minutes and seconds; None for any other text."""
    if not re.fullmatch(r"(\d+[hms])+", duration):
        return None
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def token_life(node: Node) -> Verdict:
    value = node.flag(API, "service-account-max-token-expiration") or ""
    life = seconds(value)
    seen = f"--service-account-max-token-expiration={value or 'not set'}"
    return judged(life is not None and 0 < life <= LONGEST_TOKEN_S, seen)


def limits(node: Node) -> Verdict:
    """Pods and events have limits. To the kubelet, 0 events a second means no limit (CIS 4.2.8 accepts that)."""
    names = ("maxPods", "eventRecordQPS", "eventBurst")
    values = {name: setting(node, name) for name in names}
    without = [name for name, value in values.items() if not isinstance(value, int) or value <= 0]
    return judged(not without, ", ".join(f"{name}: {value}" for name, value in values.items()))


def kubelet_profiling(node: Node) -> Verdict:
    names = ("enableProfilingHandler", "enableDebugFlagsHandler")
    return judged(
        all(setting(node, name) is False for name in names),
        ", ".join(f"{name}: {setting(node, name)}" for name in names),
    )


def control_plane_items() -> list[Item]:
    no_profiling = flag_is(ETCD, "enable-pprof", "false", default="false")
    return [
        Item("X.2", "Copies of keys are readable by their program only", API, copies),
        *from_flags(ETCD, "config-file", [Item("X.3", "etcd does not offer profiling", ETCD, no_profiling)]),
        Item("X.4", "Service accounts' tokens last a day at most", API, token_life),
    ]


def items() -> list[Item]:
    kernel = setting_is("protectKernelDefaults", True)
    no_profiling = flag_is(PROXY, "profiling", "false", default="false")
    return [
        *configured(
            [
                Item("X.5", "The kubelet does not change kernel settings", KUBELET, kernel),
                Item("X.6", "Pods and events have limits", KUBELET, limits),
                Item("X.7", "The kubelet does not offer profiling", KUBELET, kubelet_profiling),
            ]
        ),
        *from_flags(PROXY, "config", [Item("X.8", "kube-proxy does not offer profiling", PROXY, no_profiling)]),
    ]
