"""`make help` knows every command of the Makefile and the settings that they take."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_target_and_setting_is_listed() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"up", "down", "test"} <= set(targets)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  make ([a-z-]+) +\S", shown, re.MULTILINE) == targets
    settings = re.findall(r"\$\{(K8SGU_[A-Z]+):-", (ROOT / "tools" / "common.sh").read_text())
    assert settings
    assert [setting for setting in settings if setting not in shown] == []
