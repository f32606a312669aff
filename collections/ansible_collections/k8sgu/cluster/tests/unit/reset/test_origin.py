# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node was before us, as `component` records it before it changes anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import accounts, packages
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import origin as origins
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import record as records
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    Component,
    ComponentError,
    Directory,
    File,
    Job,
    Leaves,
    Unit,
    User,
    decode,
    encode,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.systemd import UnitState
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import PathState

UNIT = Unit("zz.service", b"[Service]\n")
STATES = {"zz.service": UnitState()}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "k8sgu"
    monkeypatch.setattr(origins, "HOME", str(home))
    monkeypatch.setattr(origins, "PATH", str(home / "origin.json"))
    monkeypatch.setattr(records, "DIRECTORY", str(home / "component"))
    return tmp_path


def component(root: Path, *files: str, **more: object) -> Component:
    named = [File(str(root / name), b"ours") for name in files]
    directories = [Directory(str(root / "conf"), "root", "root", 0o755)]
    return Component(name="zz", files=named, directories=directories, units=[UNIT], **more)  # type: ignore[arg-type]


def recorded() -> origins.Origin:
    found = origins.read()
    assert found is not None
    return found


def test_the_first_that_is_seen_of_a_path_counts(place: Path) -> None:
    (place / "there").write_text("before")
    (place / "there").chmod(0o640)
    wanted = component(place, "there", "conf/new", "way/to/it")
    origins.remember([wanted], STATES)
    first = recorded()
    assert first.paths[str(place / "there")] == PathState("file", 0, 0, 0o640, b"before")
    for missing in ("conf", "conf/new", "way", "way/to", "way/to/it"):
        assert first.paths[str(place / missing)] == PathState(), missing
    assert first.whole == [str(place / "conf")]
    assert Path(origins.PATH).stat().st_mode & 0o777 == 0o600
    # As the component leaves them, and as a later run finds them.
    (place / "conf").mkdir()
    (place / "there").write_text("ours")
    origins.remember([wanted], {"zz.service": UnitState(active="active", enabled="enabled")})
    assert recorded() == first


def test_what_a_later_version_places_is_recorded_without_a_list(place: Path) -> None:
    origins.remember([component(place, "one")], STATES)
    (place / "two").write_text("before")
    origins.remember([component(place, "one", "two", leaves=Leaves(paths=[str(place / "run")]))], STATES)
    found = recorded()
    assert found.paths[str(place / "two")].content == b"before"
    assert found.paths[str(place / "run")] == PathState() and str(place / "run") in found.whole
    assert found.incomplete == []


def test_of_a_node_that_was_built_before_nothing_is_guessed(place: Path) -> None:
    records.write("zz", records.Record())
    (place / "old").write_text("ours, or not")
    (place / "conf").mkdir()
    origins.remember([component(place, "old", "new", user=User("root", "root", "/"))], STATES)
    found = recorded()
    assert found.incomplete == ["zz"]
    assert found.paths[str(place / "old")].kind == origins.UNKNOWN
    assert found.paths[str(place / "new")] == PathState()
    assert found.packages == []


def test_accounts_and_settings_that_were_there_are_not_ours(place: Path) -> None:
    leaves = Leaves(sysctls=["kernel.ostype", "kernel.no_such_setting"])
    origins.remember([component(place, user=User("k8sgu-zz", "root", "/"), leaves=leaves)], STATES)
    found = recorded()
    assert (found.users, found.groups) == (["k8sgu-zz"], [])
    assert found.sysctls == {"kernel.ostype": "Linux", "kernel.no_such_setting": ""}


@pytest.mark.parametrize("cut_off", [False, True])
def test_packages_that_came_are_ours_also_when_it_was_cut_off(
    place: Path, monkeypatch: pytest.MonkeyPatch, cut_off: bool
) -> None:
    there, groups = ["bash", "nftables"], ["daemon"]
    monkeypatch.setattr(accounts, "of_system", lambda: {"users": ["daemon"], "groups": list(groups)})
    monkeypatch.setattr(packages, "installed", lambda: sorted(there))
    monkeypatch.setattr(origins, "_automatic", lambda: {"libnet", "bash"})

    class Killed(BaseException):
        pass

    def install(_names: list[str]) -> None:
        there.extend(["conntrack", "libnet", "by-hand"])
        groups.append("docker")
        if cut_off:
            monkeypatch.setattr(origins, "write", lambda _origin: None)
            raise Killed

    monkeypatch.setattr(packages, "install", install)
    if cut_off:
        write = origins.write
        with pytest.raises(Killed):
            origins.install(["conntrack"])
        monkeypatch.setattr(origins, "write", write)
        assert (recorded().installing or {})["packages"] == ["bash", "nftables"]
    else:
        origins.install(["conntrack"])
    origins.remember([component(place)], STATES)
    found = recorded()
    # Neither what was there, nor what somebody installed meanwhile.
    assert found.packages == ["conntrack", "libnet"] and found.installing is None
    # Which the package's script made, and its removal leaves.
    assert (found.users, found.groups) == ([], ["docker"])


def test_a_record_that_cannot_be_read_is_not_written_over(place: Path) -> None:
    origins.remember([component(place)], STATES)
    path = Path(origins.PATH)
    for damage in ("{", json.dumps({**json.loads(path.read_text()), "schema": 99})):
        path.write_text(damage)
        with pytest.raises(ComponentError, match=r"origin\.json: what the node was before k8sgu cannot be read"):
            origins.remember([component(place)], STATES)
        assert path.read_text() == damage


def test_what_programs_leave_reaches_the_node() -> None:
    leaves = Leaves(paths=["/var/log/pods"], chains=["KUBE-*"])
    [arrived] = decode(encode(Job([Component(name="zz", leaves=leaves)]))).components
    assert arrived.leaves == leaves
