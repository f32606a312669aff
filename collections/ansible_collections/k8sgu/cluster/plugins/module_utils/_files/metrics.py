# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers of our own programs for Prometheus, in files that node_exporter's textfile collector passes on.

https://github.com/prometheus/node_exporter#textfile-collector,
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

# Paths are text here, as in the options.
# ruff: noqa: PTH118
from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._files.atomic import (
    FileError,
    atomic_write,
    ensure_directory,
)

# Whoever scrapes may read it, so nothing secret is there.
DIRECTORY = "/var/lib/k8sgu/metrics"
# The collector reads no other names, and so none of a file that is not whole yet.
SUFFIX = ".prom"


@dataclass(frozen=True)
class Gauge:
    """One value of a metric that goes up and down. All of one name have the same `help`."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def text(gauges: Iterable[Gauge]) -> str:
    """The content of a file. Pure. The values of one metric come together, as the format wants it."""
    families: dict[str, list[Gauge]] = {}
    for gauge in gauges:
        families.setdefault(gauge.name, []).append(gauge)
    lines = []
    for name, family in families.items():
        about = family[0].help.replace("\\", "\\\\").replace("\n", "\\n")
        lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge"]
        lines += [f"{name}{_labels(one.labels)} {_number(one.value)}" for one in family]
    return "".join(f"{line}\n" for line in lines)


def publish(directory: str, program: str, gauges: Iterable[Gauge]) -> None:
    """Replaces all numbers of a program.

    What the program did is done also where they cannot be written: that is a line in its journal. An alert on their age
    fires then, as if it had not been done.
    """
    try:
        ensure_directory(directory, 0o755)
        atomic_write(os.path.join(directory, program + SUFFIX), text(gauges).encode(), 0o644)
    except (FileError, OSError) as error:
        sys.stderr.write(f"no metrics were written: {error}\n")
        sys.stderr.flush()


def _number(value: float) -> str:
    """As short as it can be: a time in seconds has no exponent."""
    return str(int(value)) if value == int(value) else repr(value)


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
