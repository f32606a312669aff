# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of numbers for Prometheus: the format, who may read them, and what a killed run or a full disk leaves."""

from __future__ import annotations

import ast
import os
import re
import signal
import stat
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import atomic, metrics
from ansible_collections.k8sgu.cluster.plugins.module_utils._files.metrics import Gauge

_LABEL = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(rf"(?P<name>[a-z_]+)(?:{{(?P<labels>{_LABEL}(?:,{_LABEL})*)}})? (?P<value>-?[0-9][0-9.e+-]*)")


def parse(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """{metric: {labels: value}}. Each has one HELP and one TYPE, and then all its values, as the format wants."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    assert text.endswith("\n") or not text
    lines = text.splitlines()
    while lines:
        about, kind = lines.pop(0), lines.pop(0)
        match = re.fullmatch(r"# HELP ([a-z_]+) \S.*", about)
        assert match and match[1] not in found, about
        assert kind == f"# TYPE {match[1]} gauge"
        values = found.setdefault(match[1], {})
        while lines and not lines[0].startswith("#"):
            sample = _SAMPLE.fullmatch(lines.pop(0))
            assert sample and sample["name"] == match[1]
            labels = re.findall(r'([a-z_]+)=("(?:[^"\\]|\\.)*")', sample["labels"] or "")
            key = tuple((name, ast.literal_eval(value)) for name, value in labels)
            assert key not in values
            values[key] = float(sample["value"])
        assert values, about
    return found


def test_each_metric_is_together_with_its_help_and_type() -> None:
    given = [Gauge("a", "One.", 1), Gauge("b", "Two.", 0.5), Gauge("a", "One.", 1796126400, {"path": "/x"})]
    said = metrics.text(given)
    assert said == (
        '# HELP a One.\n# TYPE a gauge\na 1\na{path="/x"} 1796126400\n# HELP b Two.\n# TYPE b gauge\nb 0.5\n'
    )
    assert parse(said) == {"a": {(): 1, (("path", "/x"),): 1796126400}, "b": {(): 0.5}}
    assert metrics.text([]) == ""


@pytest.mark.parametrize("value", ['CN="x"', "a\\b", "two\nlines", "\\n", 'a="b",c'], ids=range(5))
def test_a_label_may_have_any_text(value: str) -> None:
    said = metrics.text([Gauge("a", "Help with \\ and\na line.", 1, {"subject": value, "path": "/x"})])
    assert parse(said) == {"a": {(("subject", value), ("path", "/x")): 1}}
    assert "# HELP a Help with \\\\ and\\na line.\n" in said


def test_others_may_read_it_whatever_the_umask(tmp_path: Path) -> None:
    place = tmp_path / "metrics"
    before = os.umask(0o077)
    try:
        metrics.publish(str(place), "program", [Gauge("a", "One.", 1)])
    finally:
        os.umask(before)
    assert [path.name for path in place.iterdir()] == ["program.prom"]
    assert stat.S_IMODE(place.stat().st_mode) == 0o755
    assert stat.S_IMODE((place / "program.prom").stat().st_mode) == 0o644


def test_what_cannot_be_written_is_a_line_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics").write_text("")
    metrics.publish(str(tmp_path / "metrics"), "program", [Gauge("a", "One.", 1)])
    said = capsys.readouterr().err
    assert said.startswith(f"no metrics were written: {tmp_path / 'metrics'}: ") and said.count("\n") == 1


def test_a_killed_run_leaves_the_old_numbers_and_the_next_one_clears_up(tmp_path: Path) -> None:
    metrics.publish(str(tmp_path), "program", [Gauge("a", "One.", 1)])
    child = os.fork()
    if not child:
        # All is written, and has not got its name.
        atomic.os.replace = lambda *_paths: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        metrics.publish(str(tmp_path), "program", [Gauge("a", "One.", 2)])
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert parse((tmp_path / "program.prom").read_text()) == {"a": {(): 1}}
    left = [path.name for path in tmp_path.iterdir() if path.name != "program.prom"]
    assert len(left) == 1 and not left[0].endswith(metrics.SUFFIX)
    metrics.publish(str(tmp_path), "program", [Gauge("a", "One.", 2)])
    assert [path.name for path in tmp_path.iterdir()] == ["program.prom"]
    assert parse((tmp_path / "program.prom").read_text()) == {"a": {(): 2}}
