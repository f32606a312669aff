from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2_inventory.environment import adopt, exports
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2_inventory.hosts import InventoryError


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
    assert adopt(program(tmp_path, TELLS), environment)
    assert environment == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:5000",
        "AWS_ACCESS_KEY_ID": "AKIA 1",
        "EC2LAB_IMAGE_ID": "ami-1",
        "HOME": "/h",
    }


@pytest.mark.parametrize(("command", "chosen"), [(["/no/such/program"], "http://127.0.0.1:1"), ([], "")])
def test_a_choice_already_made_is_left_alone(command: list[str], chosen: str) -> None:
    environment = {"AWS_ENDPOINT_URL": chosen}
    assert not adopt(command, environment)
    assert environment == {"AWS_ENDPOINT_URL": chosen}


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
