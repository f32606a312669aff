# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The passphrase of the CA keys each way that a user can give it: the environment, a file of ansible-vault, a terminal.

As docs/security.md has them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
from test_pki_output import INVENTORY

# Each with what shells, YAML and JSON read in a way of their own, around a word that nothing on its way would escape.
SECRET, OTHER_SECRET = "tr0ubadorAnd3", "h0rseBattery4"
PASSPHRASE, OTHER_PASSPHRASE = (f"ö \"'{word}\\ $HOME #: &" for word in (SECRET, OTHER_SECRET))
ENCRYPTED = ["kubernetes-ca", "etcd-ca", "front-proxy-ca"]
VARIABLE = "K8SGU_PKI_CA_PASSPHRASE"
WAYS = ["environment", "vault", "prompt"]
ASKED, ASKED_AGAIN = "Passphrase of the CA keys of demo", "The same passphrase again"


class CommandLines(threading.Thread):
    """Every command line of this machine that was seen while it ran, by reading /proc over and over."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.02):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(process.read_bytes())


@contextlib.contextmanager
def watched() -> Iterator[CommandLines]:
    watch = CommandLines()
    watch.start()
    try:
        yield watch
    finally:
        watch.done.set()
        watch.join()


class Site:
    """An inventory of nodes that do not exist, and the state directory that the role fills."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.state, self.inventory = directory, directory / "state", directory / "inventory.yml"
        self.inventory.write_text(INVENTORY)

    def play(
        self, way: str = "", passphrase: str = "", *arguments: str, answers: list[tuple[str, str]] | None = None
    ) -> tuple[int, str]:
        """Exit status and all output of the role, talkative, with the passphrase given this way, or not at all."""
        environment = {VARIABLE: passphrase if way == "environment" else ""}
        asked = {"k8sgu_pki_ca_passphrase_prompt": True} if way == "prompt" or answers else {}
        given = ["-vvv", "--diff", *arguments, *(self.vault(passphrase) if way == "vault" else [])]
        if way == "prompt":
            # A second time where no encrypted key says whether it is the right one.
            key = self.key("kubernetes-ca")
            answers = [(ASKED, passphrase), (ASKED_AGAIN, passphrase)][: 1 if key.exists() and not openssl(key) else 2]
        variables = {"k8sgu_state_dir": str(self.state), **asked}
        with watched() as watch:
            if answers is None:
                status, output = ansible_program.run_playbook(
                    "pki", self.inventory, *given, variables=variables, environment=environment, forked=False
                )
            else:
                command = ansible_program.playbook_arguments("pki", self.inventory, variables)
                status, output = ansible_program.run_at_terminal(
                    "ansible-playbook", *command, *given, answers=answers, environment=environment
                )
        assert any(b"playbooks/pki.yml" in line for line in watch.seen)
        secrets = [SECRET, OTHER_SECRET]
        assert [secret for secret in secrets if secret in output] == []
        assert [line for line in watch.seen for secret in secrets if secret.encode() in line] == []
        return status, output

    def vault(self, passphrase: str) -> list[str]:
        """Writes the passphrase to a file that Ansible reads with the inventory, and encrypts it."""
        file, password = self.directory / "group_vars/all/vault.yml", self.directory / "vault-password"
        file.parent.mkdir(parents=True, exist_ok=True)
        password.write_text("of the vault\n")
        quoted = passphrase.replace("'", "''")
        file.write_text(f"k8sgu_pki_ca_passphrase: '{quoted}'\n")
        option = f"--vault-password-file={password}"
        done = ansible_program.run("ansible-vault", "encrypt", option, file)
        assert done.returncode == 0, done.stderr
        assert file.read_text().startswith("$ANSIBLE_VAULT;1.1;AES256\n")
        return [option]

    def files(self) -> dict[str, tuple[int, int, int, bytes]]:
        """All that shows whether something wrote to a file, or replaced it by the same."""
        paths = [path for path in sorted(self.state.rglob("*")) if path.is_file()]
        status = {path: path.stat() for path in paths}
        return {
            str(path): (status[path].st_ino, status[path].st_mtime_ns, status[path].st_mode, path.read_bytes())
            for path in paths
        }

    def key(self, name: str) -> Path:
        return self.state / f"pki/{name}-key.pem"


def openssl(key: Path, passphrase: str | None = None) -> bool:
    """Whether openssl opens a key, with a passphrase or without."""
    environment = {**os.environ, "PASSPHRASE": passphrase or ""}
    given = ["-passin", "pass:"] if passphrase is None else ["-passin", "env:PASSPHRASE"]
    done = subprocess.run(
        ["openssl", "pkey", "-in", key, "-noout", *given], env=environment, capture_output=True, timeout=60, check=False
    )
    return done.returncode == 0


def refused(output: str) -> str:
    """The one error that a refused run ends with, on one line."""
    assert output.count("[ERROR]") == 1 and "Traceback" not in output, output[-4000:]
    assert "changed=0" in output and "failed=1" in output
    return " ".join(output.partition("[ERROR]")[2].split())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("way", WAYS)
def test_given(site: Site, way: str) -> None:
    status, output = site.play(way, PASSPHRASE)
    assert status == 0, output[-4000:]
    for name in ENCRYPTED:
        assert not openssl(site.key(name)) and not openssl(site.key(name), OTHER_PASSPHRASE)
        assert openssl(site.key(name), PASSPHRASE)
    # It is copied to the control plane, where nobody can type a passphrase.
    assert openssl(site.key("kubelet-client-ca"))
    made = site.files()
    assert len(made) > 40 and not any(SECRET.encode() in content for *_others, content in made.values())

    status, output = site.play(way, PASSPHRASE)
    assert status == 0 and "changed=0" in output and site.files() == made

    # Even what has nothing to do with the passphrase is not made.
    for name in ("sa.key", "sa.pub"):
        (site.state / "pki" / name).unlink()
    made = site.files()
    status, output = site.play(way, OTHER_PASSPHRASE)
    error = refused(output)
    assert status != 0 and site.files() == made
    assert "k8sgu_pki_ca_passphrase does not open" in error and str(site.key("kubernetes-ca")) in error
    assert f"{VARIABLE} in the environment" in error and "ansible-vault" in error


@pytest.mark.timeout(300)
def test_keys_that_were_made_without_one_are_encrypted_later(site: Site) -> None:
    assert site.play()[0] == 0 and openssl(site.key("kubernetes-ca"))
    made = site.files()
    status, output = site.play("prompt", PASSPHRASE)
    assert status == 0, output[-4000:]
    # Encrypted alone: what the CAs have signed stays as it is.
    changed = {path for path, seen in site.files().items() if seen != made[path]}
    assert changed == {str(site.key(name)) for name in ENCRYPTED}
    assert [(openssl(site.key(name)), openssl(site.key(name), PASSPHRASE)) for name in ENCRYPTED] == [(False, True)] * 3


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """With encrypted keys, for runs that change nothing."""
    site = Site(tmp_path_factory.mktemp("locked"))
    status, output = site.play("environment", PASSPHRASE)
    assert status == 0, output[-4000:]
    return site


@pytest.mark.timeout(300)
def test_none_for_keys_that_need_one(locked: Site) -> None:
    made = locked.files()
    status, output = locked.play()
    error = refused(output)
    assert status != 0 and locked.files() == made
    assert "k8sgu_pki_ca_passphrase is not set" in error and str(locked.key("kubernetes-ca")) in error
    assert f"{VARIABLE} in the environment" in error and "k8sgu_pki_ca_passphrase_prompt" in error


@pytest.mark.timeout(300)
@pytest.mark.parametrize("there", ["no keys", "encrypted keys"])
def test_a_prompt_without_a_terminal(site: Site, locked: Site, there: str) -> None:
    """Neither keys that are not encrypted nor a run that waits for ever."""
    played = locked if there == "encrypted keys" else site
    made = played.files()
    status, output = played.play("", "", "--extra-vars=k8sgu_pki_ca_passphrase_prompt=true")
    error = refused(output)
    assert status != 0 and played.files() == made and not site.state.exists()
    assert "k8sgu_pki_ca_passphrase_prompt is set and no passphrase was typed" in error
    assert f"{VARIABLE} in the environment" in error


@pytest.mark.timeout(300)
def test_what_is_given_is_not_asked_for(site: Site) -> None:
    """So that the inventory can ask people and a pipeline still has a way."""
    status, output = site.play("environment", PASSPHRASE, "--extra-vars=k8sgu_pki_ca_passphrase_prompt=true")
    assert status == 0 and ASKED not in output, output[-4000:]
    assert openssl(site.key("kubernetes-ca"), PASSPHRASE)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([(ASKED, ""), (ASKED_AGAIN, "")], "k8sgu_pki_ca_passphrase_prompt is set and no passphrase was typed"),
        ([(ASKED, PASSPHRASE), (ASKED_AGAIN, OTHER_PASSPHRASE)], "The two passphrases that were typed differ"),
    ],
    ids=["empty", "misspelt"],
)
def test_an_answer_that_is_not_taken(site: Site, answers: list[tuple[str, str]], said: str) -> None:
    status, output = site.play(answers=answers)
    assert status != 0 and said in refused(output) and not site.state.exists()


def test_a_secret_on_a_command_line_would_be_seen() -> None:
    with watched() as watch:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(1)", SECRET], timeout=60, check=True)
    assert any(SECRET.encode() in line for line in watch.seen)
