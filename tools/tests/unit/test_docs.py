"""What holds the pages of documentation to the tree, and puts them together as a site."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools import docs_changelog, docs_links, docs_site

ROOT = docs_links.ROOT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("docs/security.md", "playbooks/site.yml", "Makefile"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "docs" / "security.md").write_text("# Security\n\n## Who may `exec`?\n\n## Twice\n\n## Twice\n")
    (tmp_path / "playbooks" / "site.yml").write_text("[]\n")
    (tmp_path / "Makefile").write_text("help:\nbench-build: help\n")
    role = tmp_path / docs_links.COLLECTION / "roles" / "etcd" / "tasks"
    role.mkdir(parents=True)
    (role / "main.yml").write_text("[]\n")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "[security](docs/security.md), [who](docs/security.md#who-may-exec), [again](docs/security.md#twice-1)",
        "[folder](docs) and [elsewhere](https://example.com/docs/none.md)",
        "`playbooks/site.yml`, `playbooks/*.yml`, `roles/etcd/tasks`, `roles/<role>/tasks`, `roles/NAME/tasks`.",
        "    make help && ansible-playbook playbooks/site.yml\n\nmake nothing of it, `make bench-build`",
        "`/var/lib/docs/none`, `.state/docs/none`, https://example.com/tools/none",
        "`releases/1.36.lock.yml` comes with the first download",
        "```\n[no link](none.md)\n```\n",
    ],
)
def test_what_is_there_is_no_fault(tree: Path, text: str) -> None:
    (tree / "README.md").write_text(text)
    assert docs_links.faults(tree / "README.md", tree) == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[gone](docs/gone.md)", "docs/gone.md"),
        ("[outside](../other.md)", "../other.md"),
        ("![picture](docs/gone.svg)", "docs/gone.svg"),
        ("[heading](docs/security.md#gone)", "docs/security.md#gone"),
        ("[folder's heading](docs#gone)", "docs#gone"),
        ("[heading of this page](#gone)", "#gone"),
        ("`playbooks/gone.yml`", "playbooks/gone.yml"),
        ("the words of docs/gone.md.", "docs/gone.md"),
        ("`roles/<role>/gone`", "roles/<role>/gone"),
        ("    ansible-playbook -i inventories/gone playbooks/site.yml", "inventories/gone"),
        ("```\ntools/gone\n```", "tools/gone"),
        ("`make gone`", "`make gone`"),
    ],
)
def test_what_is_not_there_is_named(tree: Path, text: str, named: str) -> None:
    (tree / "README.md").write_text(text)
    [fault] = docs_links.faults(tree / "README.md", tree)
    assert named in fault


def test_the_pages_are_those_that_a_reader_finds() -> None:
    names = {str(page.relative_to(ROOT)) for page in docs_links.pages()}
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md", "lab/README.md"} <= names
    assert len([name for name in names if name.endswith("/README.md") and "/roles/" in name]) == len(
        [role for role in (ROOT / docs_links.COLLECTION / "roles").iterdir() if role.is_dir()]
    )


def test_links_lead_to_pages_of_the_site_or_to_the_repository() -> None:
    in_site = set(docs_links.pages())
    repository = docs_site.repository()

    def moved(page: str, address: str) -> str:
        return docs_site.site_address(ROOT / page, address, in_site)

    assert moved("README.md", "docs/security.md#pods") == "docs/security.md#pods"
    assert moved("docs/security.md", "../README.md") == "../index.md"
    assert moved("docs/security.md", "../lab") == "../lab/README.md"
    assert moved("docs/security.md", "../examples") == f"{repository}/tree/main/examples"
    assert moved("README.md", "Makefile#L1") == f"{repository}/blob/main/Makefile#L1"
    assert moved("README.md", "#day-two") == "#day-two"
    assert moved("README.md", "https://example.com") == "https://example.com"
    assert moved("README.md", f"{docs_links.COLLECTION}/plugins/lookup/hosts.py") == "collection/hosts_lookup.rst"
    assert moved("README.md", f"{docs_links.COLLECTION}/plugins/modules/mirror.py") == "collection/mirror_module.rst"


def test_code_is_not_taken_for_links(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    code = "`[a](b)`\n\n    [a](b)\n\n```\n[a](b)\n```\n"
    page.write_text(f"[`a`](https://example.com/a)\n\n{code}")
    assert docs_site.site_page(page, set()) == page.read_text()


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A collection of the same name with a changelog and nothing else."""
    copy = tmp_path / "ansible_collections" / "k8sgu" / "cluster"
    (copy / "changelogs" / "fragments").mkdir(parents=True)
    for name in ("galaxy.yml", "changelogs/config.yaml"):
        shutil.copy(docs_changelog.COLLECTION / name, copy / name)
    (copy / "changelogs" / "fragments" / "one.yml").write_text("---\nbugfixes:\n  - etcd - starts again.\n")
    return copy


def test_a_changelog_says_what_fragments_say_and_that_it_is_not_released(collection: Path) -> None:
    text = docs_changelog.changelog(collection)
    assert "(not released yet)\n=====" in text
    assert "- etcd - starts again." in text
    assert not (collection / "CHANGELOG.rst").exists()


def test_a_released_version_is_told_without_fragments(collection: Path) -> None:
    (collection / "changelogs" / "fragments" / "one.yml").unlink()
    version = yaml.safe_load((collection / "galaxy.yml").read_text())["version"]
    (collection / "changelogs" / "changelog.yaml").write_text(
        f"---\nancestor: null\nreleases:\n  {version}:\n    release_date: '2026-01-01'\n"
        "    changes: {bugfixes: [etcd - was mended.]}\n"
    )
    text = docs_changelog.changelog(collection)
    assert f"\nv{version}\n===" in text and "not released" not in text
    assert "- etcd - was mended." in text


def test_a_fragment_of_an_unknown_kind_is_refused(collection: Path) -> None:
    (collection / "changelogs" / "fragments" / "one.yml").write_text("---\nimprovements:\n  - etcd - better.\n")
    with pytest.raises(SystemExit, match="improvements"):
        docs_changelog.changelog(collection)
