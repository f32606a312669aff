# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as users get it: built, installed in a virtual environment of its own, run from a folder with nothing
but an inventory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ansible_program
import pytest
import yaml
from ec2_account import AMI, account, picture
from moto_server import Server

ROOT = ansible_program.ROOT
COLLECTION = ROOT / "collections" / "ansible_collections" / "k8sgu" / "cluster"
INVENTORY = Path("inventories") / "aws"
# What the collection's README tells its users to install.
PACKAGES = ("ansible-core", "boto3", "botocore", "cryptography", "jmespath")
# Nodes that nobody has to reach: certificates are made on the controller.
NODES = {
    "control_plane": {"demo-control-plane-0": "10.240.0.10"},
    "etcd": {"demo-control-plane-0": "10.240.0.10"},
    "worker": {"demo-worker-0": "10.240.0.20"},
}


@dataclass
class Site:
    """The virtual environment, and where its user works."""

    bin: Path
    home: Path

    def run(self, program: str, *arguments: object, cwd: Path, **environment: str) -> tuple[int, str]:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON", "VIRTUAL"))
        }
        done = subprocess.run(
            [self.bin / program, *map(str, arguments)],
            cwd=cwd,
            env={
                **kept,
                "HOME": str(self.home),
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "ANSIBLE_NOCOLOR": "1",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ansible_program.TIMEOUT_S,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("built")
    done = ansible_program.run("ansible-galaxy", "collection", "build", "--output-path", built, cwd=COLLECTION)
    assert done.returncode == 0, done.stdout + done.stderr
    [found] = built.glob("k8sgu-cluster-*.tar.gz")
    return found


@pytest.fixture(scope="module")
def site(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    base = tmp_path_factory.mktemp("site")
    environment = base / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", ROOT / "constraints.txt", *PACKAGES], check=True, timeout=280)
    made = Site(environment / "bin", base / "home")
    made.home.mkdir()
    status, output = made.run("ansible-galaxy", "collection", "install", "--offline", tarball, cwd=base)
    assert status == 0, output
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An otherwise empty folder with the inventory for AWS. Without an ansible.cfg, Ansible knows the plugin's file by
    the ending .yml."""
    inventory = tmp_path / INVENTORY
    shutil.copytree(ROOT / INVENTORY, inventory)
    (inventory / "ec2.config").rename(inventory / "ec2.yml")
    return tmp_path


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with account() as running:
        yield running


def test_the_tarball_holds_what_runs_and_no_tests(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        names = set(archive.getnames())
        information = json.load(archive.extractfile("MANIFEST.json") or pytest.fail("no manifest"))["collection_info"]
    assert {
        "playbooks/site.yml",
        "playbooks/destroy.yml",
        "releases/1.36.yml",
        "meta/runtime.yml",
        "CHANGELOG.rst",
    } <= names
    assert [name for name in names if name.startswith(("tests", "changelogs/fragments")) or "__pycache__" in name] == []
    for address in ("issues", "documentation", "homepage", "repository"):
        assert information[address].startswith("https://"), address


def test_every_playbook_of_the_repository_has_its_name_in_the_collection(site: Site, folder: Path) -> None:
    playbooks = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
    assert "site" in playbooks and "destroy" in playbooks
    names = [f"k8sgu.cluster.{name}" for name in playbooks]
    status, output = site.run("ansible-playbook", "-i", "localhost,", "--syntax-check", *names, cwd=folder)
    assert status == 0, output
    assert output.count("playbook: ") == len(playbooks)


def static(folder: Path) -> Path:
    """The same inventory with nodes that are written down, instead of those in an account."""
    inventory = folder / INVENTORY
    (inventory / "ec2.yml").unlink()
    groups = {
        group: {
            "hosts": {name: {"ec2_private_ip": address, "ec2_public_ip": address} for name, address in nodes.items()}
        }
        for group, nodes in NODES.items()
    }
    (inventory / "nodes.yml").write_text(yaml.safe_dump({"all": {"children": groups}}))
    return inventory


def test_certificates_from_an_empty_folder(site: Site, folder: Path) -> None:
    inventory = static(folder)
    status, output = site.run("ansible-playbook", "-i", inventory, "k8sgu.cluster.pki", cwd=folder)
    assert status == 0, output
    state = folder / ".state" / "demo"
    assert (state / "pki" / "kubernetes-ca.pem").is_file()
    assert (state / "admin.kubeconfig").is_file()
    # From another folder, by the same inventory: the same state, and nothing to do.
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    status, output = site.run("ansible-playbook", "-i", inventory, "k8sgu.cluster.pki", cwd=elsewhere)
    assert status == 0 and "changed=0" in output, output
    assert list(elsewhere.iterdir()) == []
    # A command that is no playbook has the same key for SSH.
    status, output = site.run(
        "ansible", "-i", inventory, "worker", "-m", "debug", "-a", "var=ansible_ssh_private_key_file", cwd=elsewhere
    )
    assert status == 0 and f'"{state}/ssh/id_ed25519"' in output, output


def test_without_a_word_about_it_the_state_is_beside_the_inventory(site: Site, folder: Path) -> None:
    """No `k8sgu_state_dir`: in the inventory where that is a directory, beside it where it is a file."""
    inventory = static(folder)
    description = inventory / "group_vars" / "all" / "cluster.yml"
    description.write_text("".join(x for x in description.open() if not x.startswith("k8sgu_state_dir")))
    (inventory / "group_vars" / "all" / "connection.yml").unlink()
    for source, place in ((inventory, inventory), (inventory / "nodes.yml", inventory)):
        status, output = site.run("ansible-playbook", "-i", source, "k8sgu.cluster.pki", "--check", cwd=folder)
        assert status == 0 and str(place / ".state" / "demo") in output, output
    assert not (folder / ".state").exists()


def test_the_plan_of_an_empty_account(site: Site, folder: Path, server: Server) -> None:
    before = picture(server)
    extra = {
        "k8sgu_image": AMI,
        "k8sgu_admin_cidrs": ["203.0.113.7/32"],
        "k8sgu_region": "us-east-1",
        # moto has no policy simulator.
        "k8sgu_ec2_options": {"check_permissions": False},
    }
    status, output = site.run(
        "ansible-playbook",
        "-i",
        folder / INVENTORY,
        "k8sgu.cluster.infrastructure",
        "--check",
        "--diff",
        "-e",
        json.dumps(extra),
        cwd=folder,
        **{name: value for name, value in server.environment().items() if name.startswith("AWS_")},
    )
    assert status == 0, output
    assert "demo-control-plane-0" in output and "demo-worker-1" in output
    warnings = [line for line in output.splitlines() if line.startswith("[WARNING]")]
    # Of an account without nodes Ansible itself says so.
    assert [line for line in warnings if "provided hosts list is empty" not in line] == []
    assert picture(server) == before
    assert not (folder / ".state").exists()
