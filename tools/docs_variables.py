"""Writes docs/variables.md: every variable of every role, from the roles' argument specs.

python tools/docs_variables.py           write it
python tools/docs_variables.py --check   exit with status 1 if it is stale
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
ROLES = ROOT / "collections" / "ansible_collections" / "k8sgu" / "cluster" / "roles"
PAGE = ROOT / "docs" / "variables.md"
HEAD = """# Variables

Set them in `inventories/<env>/group_vars/all/cluster.yml`.
Written by `tools/docs_variables.py` from the roles' argument specs.

What a cluster is made with it keeps: `k8sgu_vpc_cidr`, `k8sgu_pod_cidr`, `k8sgu_pod_cidr_node_prefix`,
`k8sgu_pod_network`, `k8sgu_service_cidr`, `k8sgu_api_service_address`, `k8sgu_cluster_dns_address`,
`k8sgu_cluster_domain`, the number of control-plane nodes, and on a node with pods `k8sgu_container_runtime`. From the
first quorum of etcd on, every playbook refuses another value before it changes anything, and so it does a Kubernetes
version that goes back or leaves out a minor one. The way there is a new cluster beside the old one.
"""


def options(role: Path) -> dict[str, dict[str, Any]]:
    """The options of all entry points of a role, by name."""
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    found: dict[str, dict[str, Any]] = {}
    for spec in specs.values():
        found.update(spec.get("options") or {})
    return found


def cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def rows(name: str, option: dict[str, Any]) -> list[str]:
    """The row of a variable, and one for each key of a dictionary whose keys are known."""
    return [row(f"`{name}`", option)] + [
        row(f"`{key}` of `{name}`", inner) for key, inner in (option.get("options") or {}).items()
    ]


def row(name: str, option: dict[str, Any]) -> str:
    description = option.get("description", "")
    text = " ".join(description) if isinstance(description, list) else description
    if option.get("choices"):
        text += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
    default = option.get("default", "")
    shown = "" if default in ("", None) else f"`{cell(default)}`"
    kind = option.get("type", "str") + (f" of {option['elements']}" if option.get("elements") else "")
    return f"| {name} | {kind} | {shown} | {cell(text)} |"


def page() -> str:
    parts = [HEAD]
    for role in sorted(path.parent.parent for path in ROLES.glob("*/meta/argument_specs.yml")):
        found = options(role)
        if found:
            lines = [line for name, option in found.items() for line in rows(name, option)]
            head = f"## {role.name}\n\n| variable | type | default | what it is |\n|---|---|---|---|\n"
            parts.append(head + "\n".join(lines) + "\n")
    return "\n".join(parts)


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != text:
            print("docs/variables.md is stale: run python tools/docs_variables.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
