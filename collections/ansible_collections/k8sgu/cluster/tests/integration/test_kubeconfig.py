# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kubectl reads what the module kubeconfig writes, and the other way round; a kill leaves a complete file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.document import ConfigError, load
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.run import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

ROOT = Path(__file__).resolve().parents[6]


def find_kubectl() -> str | None:
    """kubectl of a filled mirror (the lab's, a cluster's), else the one on PATH."""
    mirrors = [Path(os.environ["EC2LAB_MIRROR_DIR"])] if os.environ.get("EC2LAB_MIRROR_DIR") else []
    mirrors += sorted((ROOT / ".state").glob("*/mirror"))
    for mirror in mirrors:
        for program in sorted(mirror.glob("files/kubectl/*/*/kubectl")):
            if subprocess.run([program, "version", "--client"], capture_output=True, check=False).returncode == 0:
                return str(program)
    return shutil.which("kubectl")


@pytest.fixture(scope="module")
def kubectl() -> str:
    program = find_kubectl()
    if program is None:
        pytest.skip("no kubectl: neither in a mirror (EC2LAB_MIRROR_DIR, .state/*/mirror) nor on PATH")
    return program


def options(path: Path, **given: Any) -> dict[str, Any]:
    """Module parameters as AnsibleModule fills them in."""

    def fill(spec: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        filled = {}
        for name, option in spec.items():
            value = values.get(name, option.get("default"))
            if value is not None and "options" in option:
                value = (
                    [fill(option["options"], item) for item in value]
                    if option["type"] == "list"
                    else fill(option["options"], value)
                )
            filled[name] = value
        return filled

    return fill(ARGUMENT_SPEC, {"path": str(path), **given})


def config(program: str, path: Path, *arguments: str) -> str:
    result = subprocess.run(
        [program, f"--kubeconfig={path}", "config", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


EVERYTHING: dict[str, Any] = {
    "clusters": [
        {"name": "y", "server": "https://192.0.2.1:6443", "tls_server_name": "api", "insecure_skip_tls_verify": True},
        {
            "name": "1e3",
            "server": "https://[2001:db8::1]:6443",
            "proxy_url": "socks5://proxy:1080",
            "disable_compression": True,
        },
    ],
    "users": [
        {
            "name": "no",
            "token": "0123456789",
            "impersonate": "x",
            "impersonate_groups": ["g"],
            "impersonate_extra": {"a": ["b"]},
        },
        {"name": "basic", "username": "null", "password": "p: a#s\"s'"},
        {
            "name": "sso",
            "exec": {
                "command": "helper",
                "args": ["1", "true"],
                "env": [{"name": "A", "value": "12:30"}],
                "install_hint": "see\nthere",
            },
        },
    ],
    "contexts": [
        {"name": "2024-01-01", "cluster": "y", "user": "no", "namespace": "on"},
        {"name": "b", "cluster": "1e3", "user": "sso"},
    ],
    "current_context": "2024-01-01",
}


def test_kubectl_reads_the_same_data(kubectl: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    assert run(Call(options(path, **EVERYTHING)))["changed"]
    seen = json.loads(config(kubectl, path, "view", "--raw", "--output=json"))
    ours = yaml.safe_load(path.read_text())
    for section in ("clusters", "users", "contexts"):
        assert sorted(seen[section], key=lambda entry: entry["name"]) == sorted(
            [
                # kubectl fills this one in where it is not set
                {**entry, "user": {**entry["user"], "exec": {"provideClusterInfo": False, **entry["user"]["exec"]}}}
                if "exec" in entry.get("user", {})
                else entry
                for entry in ours[section]
            ],
            key=lambda entry: entry["name"],
        )
    assert config(kubectl, path, "current-context").strip() == "2024-01-01"


def test_a_file_that_kubectl_wrote_is_merged_into(kubectl: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    config(kubectl, path, "set-cluster", "theirs", "--server=https://192.0.2.7")
    config(kubectl, path, "set-credentials", "them", "--token=sesame")
    config(kubectl, path, "set-context", "theirs", "--cluster=theirs", "--user=them")
    config(kubectl, path, "use-context", "theirs")
    ours = options(path, clusters=[{"name": "ours", "server": "https://192.0.2.8"}])
    assert run(Call(ours))["changed"]
    config(kubectl, path, "set-context", "theirs", "--namespace=web")  # kubectl writes the whole file anew
    assert not run(Call(ours))["changed"]
    seen = json.loads(config(kubectl, path, "view", "--raw", "--output=json"))
    assert [entry["name"] for entry in seen["clusters"]] == ["ours", "theirs"]
    assert seen["users"] == [{"name": "them", "user": {"token": "sesame"}}]


def test_paths_are_written_as_kubectl_writes_them(
    kubectl: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the working directory, and the file below the kubeconfig's directory or not."""
    monkeypatch.chdir(tmp_path)
    for directory in ("conf/pki", "other"):
        (tmp_path / directory).mkdir(parents=True)
    given = ["conf/pki/a.pem", str(tmp_path / "conf" / "a.pem"), "other/a.pem", "/nowhere/a.pem"]
    for number, path in enumerate(given):
        config(kubectl, tmp_path / "conf" / "theirs", "set-cluster", f"c{number}", f"--certificate-authority={path}")
        credentials = [f"--client-certificate={path}", f"--client-key={path}"]
        config(kubectl, tmp_path / "conf" / "theirs", "set-credentials", f"u{number}", *credentials)
    users = [
        {"name": f"u{number}", "client_certificate": path, "client_key": path} for number, path in enumerate(given)
    ]
    clusters = [
        {"name": f"c{number}", "server": "https://a", "certificate_authority": path}
        for number, path in enumerate(given)
    ]
    run(Call(options(tmp_path / "conf" / "ours", clusters=clusters, users=users)))
    read = {name: yaml.safe_load((tmp_path / "conf" / name).read_text()) for name in ("theirs", "ours")}
    assert read["ours"]["users"] == read["theirs"]["users"]
    authorities = {
        name: [entry["cluster"]["certificate-authority"] for entry in document["clusters"]]
        for name, document in read.items()
    }
    assert authorities["ours"] == authorities["theirs"]


def test_secrets_are_registered_before_anything_fails(tmp_path: Path) -> None:
    path = tmp_path / "config"
    run(Call(options(path, users=[{"name": "old", "token": "in-the-file"}])))
    known: set[str] = set()
    user = {"name": "new", "client_key_data": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}
    with pytest.raises(ConfigError):
        run(Call(options(path, users=[user], current_context="nowhere"), hidden=known))
    assert "in-the-file" in known
    assert user["client_key_data"] in known


WRITER = """
import sys
sys.path.insert(0, {collections!r})
from pathlib import Path
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.run import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call
import json
options = json.loads(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    options["users"][0]["token"] = "t" * 50000 + str(number)
    run(Call(options))
"""


def test_a_kill_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "config"
    given = options(path, users=[{"name": "u", "token": "first"}])
    run(Call(given))
    script = WRITER.format(collections=str(ROOT / "collections"))
    for delay in (0.05, 0.11, 0.17, 0.23, 0.31):
        writer = subprocess.Popen([sys.executable, "-c", script, json.dumps(given)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=30)
        writer.stdout.close()
        document = load(path.read_bytes(), str(path))
        assert document["users"][0]["user"]["token"].startswith(("first", "t" * 50000))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    run(Call(given))
    # Nor do the temporary files of those runs stay.
    assert [entry.name for entry in tmp_path.iterdir()] == ["config"]
