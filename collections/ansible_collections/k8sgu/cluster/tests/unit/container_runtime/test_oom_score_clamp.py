# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wrapper of runc for hosts that cannot lower oom_score_adj."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CLAMP = Path(__file__).parents[3] / "roles/container_runtime/templates/runc.py.j2"
ALLOWED = int(Path("/proc/self/oom_score_adj").read_text())


@pytest.fixture
def called(tmp_path):
    """Calls the wrapper for a bundle with a process; returns the bundle's content afterwards, and runc's arguments."""
    (tmp_path / "runc").write_text('#!/bin/sh\nfor each in "$@"; do echo "$each"; done\n')
    (tmp_path / "runc").chmod(0o755)
    bundle = tmp_path / "bundle"
    bundle.mkdir()

    def call(process, *arguments):
        (bundle / "config.json").write_text(json.dumps({"process": process, "root": {"path": "rootfs"}}))
        done = subprocess.run(
            [sys.executable, str(CLAMP), *[each.replace("BUNDLE", str(bundle)) for each in arguments]],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
            cwd=bundle,
        )
        spec = json.loads((bundle / "config.json").read_text())
        assert spec["root"] == {"path": "rootfs"}
        assert [path.name for path in bundle.iterdir()] == ["config.json"]
        return spec["process"], [line.replace(str(bundle), "BUNDLE") for line in done.stdout.splitlines()]

    return call


CREATE = ["--root", "/run", "--log-format", "json", "create", "--bundle", "BUNDLE", "--pid-file", "/p", "id"]


@pytest.mark.parametrize(
    ("asked", "given"), [(-998, max(ALLOWED, -998)), (ALLOWED, ALLOWED), (1000, 1000), (None, None)]
)
def test_what_is_asked_for_and_what_is_given(called, asked, given):
    process = {"args": ["sh"]} | ({} if asked is None else {"oomScoreAdj": asked})
    assert called(process, *CREATE) == ({"args": ["sh"]} | ({} if given is None else {"oomScoreAdj": given}), CREATE)


def test_without_a_bundle_option_it_is_the_working_directory(called):
    assert called({"oomScoreAdj": ALLOWED - 1}, "run", "id")[0] == {"oomScoreAdj": ALLOWED}


@pytest.mark.parametrize("command", ["start", "exec", "delete", "state"])
def test_other_commands_are_passed_on(called, command):
    assert called({"oomScoreAdj": ALLOWED - 1}, command, "id") == ({"oomScoreAdj": ALLOWED - 1}, [command, "id"])
