"""Writes the collection's CHANGELOG.rst from the fragments in its changelogs/fragments, by antsibull-changelog.

python tools/docs_changelog.py           write it
python tools/docs_changelog.py --check   end with status 1 where it is stale

A version that changelogs/changelog.yaml does not know is not released yet, and its heading says so. A release is
`antsibull-changelog release` in the collection's directory, which moves the fragments into that file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = ROOT / "collections" / "ansible_collections" / "k8sgu" / "cluster"
BIN = ROOT / ".venv" / "bin"
TIMEOUT_S = 120


def released(collection: Path) -> set[str]:
    """The versions that were released."""
    known = collection / "changelogs" / "changelog.yaml"
    return set(yaml.safe_load(known.read_text())["releases"]) if known.exists() else set()


def changelog(collection: Path = COLLECTION) -> str:
    """What CHANGELOG.rst has to say. Made in a copy, since antsibull-changelog takes every look for a release."""
    version = yaml.safe_load((collection / "galaxy.yml").read_text())["version"]
    unreleased = version not in released(collection)
    with tempfile.TemporaryDirectory(prefix="k8sgu-changelog-") as base:
        copy = Path(base) / "ansible_collections" / "k8sgu" / "cluster"
        shutil.copytree(collection, copy, ignore=shutil.ignore_patterns("tests", "releases", "__pycache__"))
        command = ["release", "--date", "2000-01-01"] if unreleased else ["generate"]
        done = subprocess.run(
            [BIN / "antsibull-changelog", *command],
            cwd=copy,
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "ANSIBLE_COLLECTIONS_PATH": base},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"docs_changelog: antsibull-changelog: {done.stdout}{done.stderr}")
        text = (copy / "CHANGELOG.rst").read_text()
    return not_released(text, version) if unreleased else text


def not_released(text: str, version: str) -> str:
    """The text with a word about its newest version, in the heading."""
    heading = f"v{version}"
    told = f"{heading} (not released yet)"
    changed = text.replace(f"\n{heading}\n{'=' * len(heading)}\n", f"\n{told}\n{'=' * len(told)}\n", 1)
    if changed == text:
        raise SystemExit(f"docs_changelog: antsibull-changelog wrote no heading {heading}")
    return changed


def main() -> int:
    page, text = COLLECTION / "CHANGELOG.rst", changelog()
    if "--check" in sys.argv[1:]:
        if not page.exists() or page.read_text() != text:
            print(f"{page.relative_to(ROOT)} is stale: run python tools/docs_changelog.py", file=sys.stderr)
            return 1
        return 0
    page.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
