"""Holds the pages to what they name: links, anchors, paths of this repository, commands of the Makefile.

    python tools/docs_links.py

Needs no network: addresses on the web are not asked. A placeholder stands for anything: `inventories/<env>`,
`roles/NAME/tasks`, `releases/*.yml`, `{server,peer}.crt`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = Path("collections/ansible_collections/k8sgu/cluster")
PAGES = (
    "*.md",
    ".github/**/*.md",
    "docs/**/*.md",
    "lab/README.md",
    f"{COLLECTION}/*.md",
    f"{COLLECTION}/roles/*/README.md",
)
# What begins like this is a path of the repository or of the collection, wherever it stands in a text.
FOLDERS = (
    r"\.ci|\.github|changelogs|collections|docs|examples|inventories|lab|meta|molecule|playbooks|plugins|releases|roles"
    r"|tests|tools"
)
NAMED = re.compile(rf"(?<![\w/.~:@<>{{}}*$=-])(?:{FOLDERS})/[\w.\-/<>{{}},*]*")
# Made by who uses the project: the pages say how.
MADE = ("releases/*.lock.yml", "changelogs/changelog.yaml", "inventories/*/group_vars/all/vault.yml")
PLACEHOLDER = re.compile(r"<[^<>]*>|\{[^{}]*\}|(?<![\w.-])[A-Z][A-Z_]+(?![\w-])")
MAKE = re.compile(r"(?<![\w.-])make ([a-z][a-z-]*)(?![\w.])")
TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)


def pages(root: Path = ROOT) -> list[Path]:
    """The pages of the repository, each once."""
    return sorted({page for pattern in PAGES for page in root.glob(pattern) if page.is_file()})


def tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings as GitHub makes them."""
    found: set[str] = set()
    parsed = MarkdownIt("commonmark").enable("table").parse(page.read_text())
    for before, token in zip(parsed, parsed[1:], strict=False):
        if before.type == "heading_open":
            words = "".join(child.content for child in token.children or [] if child.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            number, name = 0, slug
            while name in found:
                number += 1
                name = f"{slug}-{number}"
            found.add(name)
    return found


def link_fault(page: Path, address: str, root: Path) -> str | None:
    """What is wrong with a link of a page, if it leads into the repository."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.exists() or not target.is_relative_to(root):
        return f"the link {address} leads to no file of the repository"
    if parts.fragment:
        if target.is_dir():
            target /= "README.md"
        if target.suffix != ".md" or not target.is_file() or parts.fragment not in anchors(target):
            return f"the link {address} leads to no heading of {target.relative_to(root)}"
    return None


def path_fault(page: Path, name: str, root: Path) -> str | None:
    """What is wrong with a path that a page names."""
    pattern = PLACEHOLDER.sub("*", name.rstrip(".,").rstrip("/"))
    if any(fnmatch(pattern, made) for made in MADE):
        return None
    if any(any(base.glob(pattern)) for base in (root, root / COLLECTION, page.parent)):
        return None
    return f"there is no {name} in the repository, nor in the collection"


def faults(page: Path, root: Path = ROOT) -> list[str]:
    """Everything that a page names and that there is not."""
    targets = set(TARGET.findall((root / "Makefile").read_text()))
    found: list[str | None] = []
    for token in tokens(page.read_text()):
        if token.type in ("link_open", "image"):
            found.append(link_fault(page, str(token.attrGet("href") or token.attrGet("src") or ""), root))
        if token.type in ("text", "code_inline", "code_block", "fence"):
            found += [path_fault(page, name, root) for name in NAMED.findall(token.content)]
        if token.type in ("code_inline", "code_block", "fence"):
            found += [f"there is no `make {name}`" for name in MAKE.findall(token.content) if name not in targets]
    return list(dict.fromkeys(fault for fault in found if fault))


def main() -> int:
    wrong = [f"{page.relative_to(ROOT)}: {fault}" for page in pages() for fault in faults(page)]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
