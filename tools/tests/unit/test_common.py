"""tools/common.sh for a caller who is not root, perhaps behind a proxy."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def as_root(directory: Path, **environment: str) -> list[str]:
    """The words that are put before a command that only root may run."""
    program = directory / "id"
    program.write_text("#!/bin/sh\necho 1000\n")
    program.chmod(0o755)
    shown = subprocess.run(
        ["bash", "-euc", '. tools/common.sh; printf "%s\\n" "${as_root[@]}"'],
        cwd=ROOT,
        env={"PATH": f"{directory}:/usr/bin:/bin", "HOME": "/home/me", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.splitlines()


def test_root_gets_the_names_of_proxy_variables_only(tmp_path: Path) -> None:
    plain = as_root(tmp_path)
    assert (plain[0], plain[1], plain[-1]) == ("sudo", "env", "HOME=/home/me")
    words = as_root(tmp_path, https_proxy="http://user:pa55word@proxy.example:3128", NO_PROXY=".example", HTTP_PROXY="")
    assert words == ["sudo", "--preserve-env=https_proxy", "--preserve-env=NO_PROXY", *plain[1:]]
