"""Builds the documentation site: README, docs, the roles' pages, and every module, plugin and role of the collection.

    python tools/docs_site.py

Needs no network. The pages are put together in .cache/docs/source, the site is .cache/docs/html/index.html. A warning
of Sphinx or of antsibull-docs is an error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.docs_links import COLLECTION, ROOT, pages

BIN = ROOT / ".venv" / "bin"
SITE = ROOT / ".cache" / "docs"
TIMEOUT_S = 300
# Ansible's own documentation.
ANSIBLE = "https://docs.ansible.com/projects/ansible/latest/"
# Labels of Ansible's own site that antsibull-docs refers to, and where they are there.
ANSIBLE_LABELS = {
    "ansible_configuration_settings": "reference_appendices/config.html#ansible-configuration-settings",
    "callback_plugins": "plugins/callback.html#callback-plugins",
    "action_plugins": "plugins/action.html#action-plugins",
    "ansible_collections.ansible.builtin.template_module": "collections/ansible/builtin/template_module.html",
    "common_return_values": "reference_appendices/common_return_values.html#common-return-values",
}
# The order in which the site shows its pages. A page that is in none is a warning of Sphinx, and so an error.
CONTENTS = {
    "Using it": ["docs/variables", "docs/security", "docs/releases", "docs/ports", "docs/iam", "docs/proven"],
    "Tasks": ["docs/tasks/*"],
    "The collection": [f"{COLLECTION}/README", "collection/index", f"{COLLECTION}/CHANGELOG"],
    "Its roles": [f"{COLLECTION}/roles/*/README"],
    "Carrying it on": [
        "CONTRIBUTING",
        "docs/architecture",
        "docs/decisions/*",
        "docs/interfaces",
        "lab/README",
        "SECURITY",
    ],
}
# Pages that GitHub alone shows.
NOT_IN_SITE = ".github"
# A link, or code, in which nothing is one.
LINK_OR_CODE = re.compile(
    r"(?P<text>!?\[[^\[\]]*\]\()(?P<address>[^()\s]+)\)|^```.*?^```$|`[^`\n]*`|^ {4}[^\n]*$", re.DOTALL | re.MULTILINE
)
# A plugin's file has its documentation's page in the site.
PLUGIN = re.compile(r"/plugins/(modules|inventory|lookup|filter|callback)/(\w+)\.py$")


def repository() -> str:
    return str(yaml.safe_load((ROOT / COLLECTION / "galaxy.yml").read_text())["repository"])


def site_address(page: Path, address: str, in_site: set[Path]) -> str:
    """Where a link of a page leads in the site: to another page, to a file beside it, or to the repository."""
    path, _, fragment = address.partition("#")
    if not path or "://" in path or path.startswith("mailto:"):
        return address
    target = (page.parent / path).resolve()
    if target.is_dir() and target / "README.md" in in_site:
        target /= "README.md"
    if plugin := PLUGIN.search(str(target)):
        target = ROOT / "collection" / f"{plugin[2]}_{plugin[1].removesuffix('s')}.rst"
        in_site = in_site | {target}
    if target in in_site or target.suffix == ".svg":
        place = ROOT / "index.md" if target == ROOT / "README.md" else target
        return os.path.relpath(place, page.parent) + (f"#{fragment}" if fragment else "")
    kind = "tree" if target.is_dir() else "blob"
    return f"{repository()}/{kind}/main/{target.relative_to(ROOT)}" + (f"#{fragment}" if fragment else "")


def site_page(page: Path, in_site: set[Path]) -> str:
    """The text of a page with the site's addresses; what is code stays as it is."""

    def moved(found: re.Match[str]) -> str:
        if found["address"] is None:
            return found[0]
        return found["text"] + site_address(page, found["address"], in_site) + ")"

    return LINK_OR_CODE.sub(moved, page.read_text())


def contents() -> str:
    """The site's table of contents, as the end of its first page."""
    lists = [
        "\n".join([f"```{{toctree}}\n:hidden:\n:glob:\n:maxdepth: 1\n:caption: {caption}\n", *names, "```"])
        for caption, names in CONTENTS.items()
    ]
    return "\n\n" + "\n\n".join(lists) + "\n"


def ansible_inventory() -> bytes:
    """Ansible's labels in the form of Sphinx's inventories."""
    head = (
        "# Sphinx inventory version 2\n# Project: ansible\n# Version: \n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    lines = [f"{label} std:label -1 {address} {label}\n" for label, address in ANSIBLE_LABELS.items()]
    return head.encode() + zlib.compress("".join(lines).encode())


def run(*command: object) -> None:
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "K8SGU_DOCS_ANSIBLE": ANSIBLE,
    }
    subprocess.run([str(part) for part in command], cwd=ROOT, env=environment, timeout=TIMEOUT_S, check=True)


def main() -> int:
    source = SITE / "source"
    shutil.rmtree(SITE, ignore_errors=True)
    found = {page for page in pages() if page.relative_to(ROOT).parts[0] != NOT_IN_SITE}
    for page in found:
        place = source / ("index.md" if page == ROOT / "README.md" else page.relative_to(ROOT))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(site_page(page, found))
    with (source / "index.md").open("a") as index:
        index.write(contents())
    shutil.copy(ROOT / COLLECTION / "CHANGELOG.rst", source / COLLECTION)
    for picture in (ROOT / "docs").glob("*.svg"):
        shutil.copy(picture, source / "docs")
    (source / "ansible.inv").write_bytes(ansible_inventory())
    shutil.copy(ROOT / "docs" / "conf.py", source)
    (source / "collection").mkdir(mode=0o755)
    try:
        run(
            BIN / "antsibull-docs",
            "collection",
            "--use-current",
            "--fail-on-error",
            "--squash-hierarchy",
            "--no-add-antsibull-docs-version",
            f"--dest-dir={source / 'collection'}",
            "k8sgu.cluster",
        )
        run(BIN / "sphinx-build", "-q", "-W", "--keep-going", "-b", "html", source, SITE / "html")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"make docs: {error}", file=sys.stderr)
        return 1
    print(f"The site is {SITE / 'html' / 'index.html'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
