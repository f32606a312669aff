"""Writes the tables in docs/ports.md and docs/iam.md from the collection's data; keeps the text around them."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import ports  # noqa: E402
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import policy  # noqa: E402
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import (  # noqa: E402
    Description,
    Image,
    Pool,
)

BEGIN, END = "<!-- the table: tools/port_table.py -->\n\n", "\n<!-- end of the table -->\n"


def described(control_plane: int, **more: str | bool) -> Description:
    sizes = (("control_plane", "control_plane", control_plane), ("workers", "worker", 2))
    pools = tuple(Pool(name, role, count, "m5.large", Image(), 20, 0) for name, role, count in sizes)
    return Description(name="NAME", region="REGION", pools=pools, public_key="given", **more)  # type: ignore[arg-type]


def tables() -> dict[Path, str]:
    """{page: the table between its marks}."""
    whole = described(3, private_nodes=True, kms_key_id="KEY", backup_bucket="BUCKET")
    return {
        ROOT / "docs" / "ports.md": ports.as_markdown(),
        ROOT / "docs" / "iam.md": policy.as_markdown(whole, described(1)),
    }


def main() -> None:
    for page, text in tables().items():
        head, _begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _table, _end, tail = rest.partition(END)
        page.write_text(f"{head}{BEGIN}{text}{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
