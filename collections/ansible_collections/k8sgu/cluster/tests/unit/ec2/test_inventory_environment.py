from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.environment import adopt, exports
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.hosts import InventoryError

ROOT = Path(__file__).resolve().parents[7]


def program(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "tell"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)
    return [str(path)]


TELLS = """
print("export AWS_ENDPOINT_URL=http://127.0.0.1:5000")
print("export AWS_ACCESS_KEY_ID='AKIA 1'")
print("# a remark")
print('export EC2LAB_IMAGE_ID="ami-1"')
"""


def test_the_commands_settings_replace_the_callers(tmp_path: Path) -> None:
    environment = {
        "AWS_PROFILE": "production",
        "AWS_SESSION_TOKEN": "t",
        "AWS_ENDPOINT_URL_STS": "https://x",
        "HOME": "/h",
    }
    assert adopt(program(tmp_path, TELLS), environment) == []
    assert environment == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5000",
        "AWS_ACCESS_KEY_ID": "AKIA 1",
        "EC2LAB_IMAGE_ID": "ami-1",
        "HOME": "/h",
    }


def test_what_the_command_says_comes_before_the_shell(tmp_path: Path) -> None:
    """A shell that remembers another place: both are named, and only the command's word is used."""
    command = program(tmp_path, TELLS)
    remembered = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "EC2LAB_IMAGE_ID": "ami-0", "AWS_ACCESS_KEY_ID": "old"}
    environment = dict(remembered)
    (warning,) = adopt(command, environment)
    assert "AWS_ENDPOINT_URL, which is http://127.0.0.1:1 in this shell, is not used" in warning
    assert f"`{command[0]}` says http://127.0.0.1:5000" in warning
    assert environment == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5000",
        "AWS_ACCESS_KEY_ID": "AKIA 1",
        "EC2LAB_IMAGE_ID": "ami-1",
    }
    # At the same address there may be another lab by now: its word counts, and there is nothing to warn of.
    environment = {**remembered, "AWS_ENDPOINT_URL": "http://127.0.0.1:5000"}
    assert adopt(command, environment) == []
    assert environment["EC2LAB_IMAGE_ID"] == "ami-1"
    with pytest.raises(InventoryError, match="there is no lab b"):
        adopt(program(tmp_path, "import sys; sys.exit('there is no lab b')"), environment)


def test_a_program_beside_the_interpreter_is_found() -> None:
    environment: dict[str, str] = {"PATH": "/nowhere"}
    with pytest.raises(InventoryError, match="does not export AWS_ENDPOINT_URL"):
        adopt([Path(sys.executable).name, "-c", "print('export A=1')"], environment)
    assert environment == {"PATH": "/nowhere"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys; print('no lab is up', file=sys.stderr); sys.exit(1)", "failed: no lab is up"),
        ("import sys; sys.exit(3)", "failed: exit status 3"),
        ("print('export AWS_REGION=x')", "does not export AWS_ENDPOINT_URL"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
    ],
)
def test_a_command_that_does_not_tell(tmp_path: Path, text: str, message: str) -> None:
    environment = {"AWS_PROFILE": "production"}
    with pytest.raises(InventoryError, match=message):
        adopt(program(tmp_path, text), environment, timeout_s=1)
    assert environment == {"AWS_PROFILE": "production"}


def test_a_missing_program_is_named() -> None:
    with pytest.raises(InventoryError, match="the program ec2lab-not-there is not installed"):
        adopt(["ec2lab-not-there"], {})


def test_values_are_read_as_a_shell_reads_them() -> None:
    assert exports("export A='x y'\nexport B=$HOME\nC=1\nexport D=\n") == {"A": "x y", "B": "$HOME", "D": ""}


# The environment's names of a lab, and the command that the lab's inventory runs then.
NAMED = {
    ("", "", ""): "default",
    ("a", "", ""): "a",
    ("", "b", "http://127.0.0.1:5123"): "b",
    ("a", "b", "http://127.0.0.1:5123"): "a",
    ("a", "", "http://127.0.0.1:5123"): "a",
    ("", "", "http://127.0.0.1:5000"): None,  # a choice without a lab, such as another emulator
}
# Of its own, since Ansible's loader of plugins is set up once in a process.
EVALUATES = """
import json, os, sys
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template
init_plugin_loader()
template, *rows = json.load(sys.stdin)
for row in rows:
    os.environ.update(zip(("K8SGU_LAB", "EC2LAB_NAME", "AWS_ENDPOINT_URL"), row))
    print(json.dumps(Templar(DataLoader()).template(trust_as_template(template))))
"""


def test_the_labs_inventory_asks_the_lab_that_is_named() -> None:
    template = yaml.safe_load((ROOT / "inventories" / "lab" / "ec2.config").read_text())["environment_command"]
    given = json.dumps([template, *NAMED])
    done = subprocess.run([sys.executable, "-c", EVALUATES], input=given, capture_output=True, text=True, check=True)
    commands = [json.loads(line) for line in done.stdout.splitlines()]
    assert commands == [["ec2lab", "env", name] if name else [] for name in NAMED.values()]
