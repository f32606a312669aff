"""NO_PROXY on a host behind a proxy: the lab's own addresses in addition to the user's exceptions."""

from __future__ import annotations

import ipaddress
import shlex
import sys
from pathlib import Path

import pytest

from ec2lab import addresses, cli, lab, proxies

OURS = "localhost,127.0.0.1,198.18.0.0/22,169.254.169.254,169.254.169.253,169.254.169.251"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, OURS),
        ({"NO_PROXY": ""}, OURS),
        ({"NO_PROXY": ".corp.example,10.0.0.0/8"}, f".corp.example,10.0.0.0/8,{OURS}"),
        ({"no_proxy": "a, b ,,"}, f"a,b,{OURS}"),
        # Who prefers either name must find all of it.
        ({"NO_PROXY": "a,b", "no_proxy": "b,c"}, f"a,b,c,{OURS}"),
        # Told again, in the same shell.
        ({"NO_PROXY": f"a,{OURS}", "no_proxy": f"a,{OURS}"}, f"a,{OURS}"),
        ({"NO_PROXY": "*"}, "*"),
        ({"NO_PROXY": "a", "no_proxy": "*"}, "*"),
    ],
)
def test_the_users_exceptions_are_kept(environment: dict[str, str], expected: str) -> None:
    assert proxies.exceptions(environment, "198.18.0.0/22") == expected


def test_every_address_of_the_lab_is_excepted() -> None:
    listed = proxies.exceptions({}, "198.18.4.0/22").split(",")
    ranges = [ipaddress.ip_network(entry) for entry in listed if entry != "localhost"]
    for address in (*addresses.SERVICES, "127.0.0.1", next(addresses.public_addresses("198.18.4.0/22"))):
        assert any(ipaddress.ip_address(address) in network for network in ranges), address


@pytest.fixture
def description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> lab.Description:
    """Of a lab that is up, as far as `ec2lab env` looks."""
    monkeypatch.setattr(lab, "STATE_ROOT", tmp_path / "state")
    monkeypatch.setattr(lab, "RUN_ROOT", tmp_path / "run")
    monkeypatch.setattr(lab.Lab, "daemon_pid", lambda _self: 1)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    described = lab.Description("default", "198.18.0.0/22", 5123, "/mirror", "ami-1", "AKIA", "secret")
    lab.Lab("default").write(described)
    return described


def test_env_prints_both_names(
    description: lab.Description, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_PROXY", "*.corp.example,a b")
    monkeypatch.delenv("no_proxy", raising=False)
    assert cli.main(["env"]) == 0
    printed = dict(line.removeprefix("export ").split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert printed["AWS_ENDPOINT_URL"] == description.endpoint
    assert printed["EC2LAB_INTERNET_PROXY"] == description.proxy
    assert printed["EC2LAB_INTERNET_CA"] == str(lab.Lab("default").state_dir / "internet-ca.pem")
    for name in ("NO_PROXY", "no_proxy"):
        assert shlex.split(printed[name]) == [f"*.corp.example,a b,{OURS}"]


@pytest.mark.parametrize(
    ("environment", "kept"),
    [
        ({}, ""),
        ({"https_proxy": "http://u:secret@p:1", "NO_PROXY": "a"}, "--preserve-env=https_proxy,NO_PROXY "),
    ],
)
def test_a_user_who_is_not_root_is_told_to_keep_the_proxy(
    environment: dict[str, str], kept: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*proxies.ADDRESSES, *proxies.EXCEPTIONS):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["/opt/ec2lab"])
    assert cli.main(["env"]) == 1
    told = capsys.readouterr().err
    assert told == f"ec2lab: the lab needs root; run: sudo {kept}/opt/ec2lab env\n"
    assert "secret" not in told
