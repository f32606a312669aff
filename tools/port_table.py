"""Writes the port table of docs/ports.md from the collection's own; the text around it stays."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.k8sgu.cluster.plugins.module_utils._ports import table  # noqa: E402

DOCS = ROOT / "docs" / "ports.md"
BEGIN, END = "<!-- the table: tools/port_table.py -->\n\n", "\n<!-- end of the table -->\n"


def main() -> None:
    head, _begin, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    _table, _end, tail = rest.partition(END)
    DOCS.write_text(f"{head}{BEGIN}{table.as_markdown()}{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
