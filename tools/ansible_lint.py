"""ansible-lint, with one syntax check for many playbooks.

    python tools/ansible_lint.py [OPTIONS OF ansible-lint]

ansible-lint starts `ansible-playbook --syntax-check` for each playbook and each role, and most of what that takes is
Ansible's own start. Here those of the collection are read by one process and all others by another: a playbook of a
collection makes it the one in which short names are looked up, which must help no other playbook. Only where a fault is
found does ansible-lint check them one by one, and says as ever which it is.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from ansiblelint.__main__ import _run_cli_entrypoint
from ansiblelint.runner import Runner

BIN = Path(sys.executable).parent
COLLECTIONS = "ansible_collections"
TIMEOUT_S = 10 * 60

one_by_one: Callable[..., list[list[Any]]] = Runner._map_syntax_check_workers


def groups(playbooks: Sequence[Path], roles: Sequence[Path], directory: Path) -> list[list[Path]]:
    """The playbooks that one process may read, those of collections apart; roles are imported by one in `directory`."""
    own = [path for path in playbooks if COLLECTIONS in path.absolute().parts]
    others = [path for path in playbooks if path not in own]
    if roles:
        others.append(directory / "roles.yml")
        plays = [
            {"hosts": "localhost", "tasks": [{"ansible.builtin.import_role": {"name": str(role)}}]} for role in roles
        ]
        others[-1].write_text(yaml.safe_dump(plays))
    return [group for group in (own, others) if group]


def without_fault(playbooks: Sequence[Path], environment: Mapping[str, str]) -> bool:
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), "--syntax-check", *map(str, playbooks)],
        # As ansible-lint's own checks.
        env={**environment, "PYTHONWARNINGS": "ignore", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "False"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode == 0


def together(runner: Runner, worker: Callable[[Any], list[Any]], files: list[Any]) -> list[list[Any]]:
    """In place of Runner._map_syntax_check_workers: what is wrong with each of `files`."""
    paths = {kind: [file.path for file in files if file.kind == kind] for kind in ("playbook", "role")}
    with tempfile.TemporaryDirectory() as directory:
        grouped = groups(paths["playbook"], paths["role"], Path(directory))
        # Side by side, as those of ansible-lint are.
        with ThreadPoolExecutor() as pool:
            if all(pool.map(lambda group: without_fault(group, runner.app.runtime.environ), grouped)):
                return []
    return one_by_one(runner, worker, files)


if __name__ == "__main__":
    setattr(Runner, "_map_syntax_check_workers", together)  # noqa: B010, mypy allows no other way
    sys.argv[0] = "ansible-lint"
    _run_cli_entrypoint()
