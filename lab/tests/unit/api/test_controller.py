"""The controller's decisions, with machines that only record their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_support import PUBLIC_RANGE, Network, RunningApi, forget_everything
from test_api_instances import launch

from ec2lab import model
from ec2lab.controller import Controller
from ec2lab.errors import Busy, LabError, Timeout
from ec2lab.machine import MachineSpec
from ec2lab.volumes import Volumes


class RememberedMachines:
    """The interface of `Machines`, with machines that are entries in a dictionary."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.rebooted: list[str] = []
        self.disks: dict[str, tuple[str, str]] = {}  # by volume: its instance and device name
        self.mounted: set[str] = set()
        self.told: list[str] = []
        self.ready = True
        self.patience = 120.0
        self.problem: Exception | None = None

    def create(self, spec: MachineSpec) -> None:
        self.states.setdefault(spec.instance_id, "stopped")

    def start(self, instance_id: str) -> None:
        if self.problem:
            raise self.problem
        self.states[instance_id] = "running"

    def wait_ready(self, instance_id: str, timeout: float) -> None:
        if not self.ready:
            raise Timeout(f"{instance_id} is not ready")

    def boot_patience(self, instance_id: str) -> float:
        return self.patience

    def stop(self, instance_id: str) -> None:
        self.states[instance_id] = "stopped"

    def delete(self, instance_id: str) -> None:
        self.states.pop(instance_id, None)

    def attach(self, instance_id: str, volume_id: str, path: Path, device_name: str) -> None:
        assert path.exists()
        self.disks[volume_id] = (instance_id, device_name)

    def detach(self, instance_id: str, volume_id: str, force: bool = False) -> None:
        if volume_id in self.mounted and not force:
            raise Busy(f"{volume_id} is mounted")
        self.disks.pop(volume_id, None)

    def grown(self, instance_id: str, volume_id: str) -> None:
        self.told.append(volume_id)

    def reboot(self, instance_id: str) -> None:
        if self.problem:
            raise self.problem
        self.rebooted.append(instance_id)

    def state(self, instance_id: str) -> str | None:
        return self.states.get(instance_id)

    def known(self) -> dict[str, None]:
        return dict.fromkeys(self.states)


class RememberedFabric:
    def __init__(self) -> None:
        self.desired: model.Desired | None = None

    def reconcile(self, desired: model.Desired) -> None:
        self.desired = desired


@pytest.fixture
def machines() -> RememberedMachines:
    return RememberedMachines()


@pytest.fixture
def controller(running_api: RunningApi, machines: RememberedMachines) -> Iterator[Controller]:
    made = new_controller(running_api, machines)
    yield made
    made._pool.shutdown(wait=True)


def new_controller(running_api: RunningApi, machines: RememberedMachines) -> Controller:
    fabric: Any = RememberedFabric()
    remembered: Any = machines
    volumes = Volumes(running_api.state_file.parent)
    return Controller("unit", PUBLIC_RANGE, running_api.api, fabric, remembered, volumes, lambda _desired: None)


@pytest.fixture
def state_of(ec2: Any) -> Callable[[str], dict[str, Any]]:
    return lambda instance: ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]


def settle(controller: Controller, instance: str) -> None:
    """A step, and the end of the job that it started."""
    controller.step()
    with controller.exclusively(instance):
        pass


def test_a_life(
    controller: Controller,
    machines: RememberedMachines,
    running_api: RunningApi,
    ec2: Any,
    network: Network,
    state_of: Any,
) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    settle(controller, instance)
    assert (state_of(instance)["State"]["Name"], machines.states) == ("running", {instance: "running"})
    ec2.reboot_instances(InstanceIds=[instance])
    settle(controller, instance)
    settle(controller, instance)
    assert machines.rebooted == [instance]
    ec2.stop_instances(InstanceIds=[instance])
    settle(controller, instance)
    assert (state_of(instance)["State"]["Name"], machines.states) == ("stopped", {instance: "stopped"})
    ec2.start_instances(InstanceIds=[instance])
    settle(controller, instance)
    assert state_of(instance)["State"]["Name"] == "running"
    ec2.terminate_instances(InstanceIds=[instance])
    settle(controller, instance)
    assert (state_of(instance)["State"]["Name"], machines.states) == ("terminated", {})


@pytest.mark.parametrize("problem", [LabError("no space left"), OSError("no space left")])
def test_an_instance_that_does_not_boot_is_terminated_with_its_reason(
    controller: Controller,
    machines: RememberedMachines,
    running_api: RunningApi,
    network: Network,
    state_of: Any,
    problem: Exception,
) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    machines.problem = problem
    settle(controller, instance)
    settle(controller, instance)
    seen = state_of(instance)
    assert seen["State"]["Name"] == "terminated"
    assert seen["StateReason"] == {"Code": "Server.InternalError", "Message": "Server.InternalError: no space left"}
    assert machines.states == {}


def test_a_reboot_outlives_the_daemon_that_was_asked(
    controller: Controller, machines: RememberedMachines, running_api: RunningApi, ec2: Any, network: Network
) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    settle(controller, instance)
    ec2.reboot_instances(InstanceIds=[instance])  # answered, and then the daemon is killed
    for _daemon in range(2):
        forget_everything()
        running_api.api.load()
        later = new_controller(running_api, machines)
        later.adopt()
        settle(later, instance)
        later._pool.shutdown(wait=True)
    assert machines.rebooted == [instance]


def test_a_failing_job_is_reported_until_it_succeeds(
    controller: Controller, machines: RememberedMachines, running_api: RunningApi, ec2: Any, network: Network
) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    settle(controller, instance)
    machines.problem = LabError("no such process")
    ec2.reboot_instances(InstanceIds=[instance])
    settle(controller, instance)
    assert controller.trouble == f"{instance}: reboot: no such process"
    machines.problem = None
    settle(controller, instance)
    assert controller.trouble == ""


def test_a_stop_keeps_a_full_disk_and_no_other_fault(
    controller: Controller, running_api: RunningApi, ec2: Any, network: Network
) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    settle(controller, instance)
    running_api.api.extra.faults[instance] = {"disk", "network"}
    ec2.stop_instances(InstanceIds=[instance])
    settle(controller, instance)
    assert running_api.api.extra.faults == {instance: {"disk"}}
    ec2.terminate_instances(InstanceIds=[instance])
    settle(controller, instance)
    assert running_api.api.extra.faults == {}


def test_an_instance_that_ran_before_and_does_not_boot_is_stopped_and_keeps_its_disk(
    controller: Controller,
    machines: RememberedMachines,
    running_api: RunningApi,
    ec2: Any,
    network: Network,
    state_of: Any,
) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    settle(controller, instance)
    ec2.stop_instances(InstanceIds=[instance])
    settle(controller, instance)
    machines.problem = LabError("no space left")
    ec2.start_instances(InstanceIds=[instance])
    settle(controller, instance)
    settle(controller, instance)
    assert (state_of(instance)["State"]["Name"], machines.states) == ("stopped", {instance: "stopped"})


def test_a_boot_that_takes_too_long_says_so(
    controller: Controller,
    machines: RememberedMachines,
    running_api: RunningApi,
    network: Network,
    state_of: Any,
) -> None:
    machines.patience = 0.2
    machines.ready = False
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    settle(controller, instance)
    assert "SSH did not answer within" in state_of(instance)["StateReason"]["Message"]


@pytest.mark.parametrize(("behaviour", "end"), [("stop", "stopped"), ("terminate", "terminated")])
def test_a_node_that_shuts_itself_down(
    controller: Controller,
    machines: RememberedMachines,
    running_api: RunningApi,
    network: Network,
    state_of: Any,
    behaviour: str,
    end: str,
) -> None:
    launched = launch(running_api, network, InstanceInitiatedShutdownBehavior=behaviour)
    instance = launched["Instances"][0]["InstanceId"]
    settle(controller, instance)
    machines.states[instance] = "stopped"
    settle(controller, instance)
    settle(controller, instance)
    assert state_of(instance)["State"]["Name"] == end
    assert state_of(instance)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_one_that_lost_its_power_stays_running_in_the_api(
    controller: Controller, machines: RememberedMachines, running_api: RunningApi, network: Network, state_of: Any
) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    settle(controller, instance)
    running_api.api.extra.faults[instance] = {"power"}
    machines.states[instance] = "stopped"
    settle(controller, instance)
    assert state_of(instance)["State"]["Name"] == "running"


def test_a_new_daemon_removes_machines_without_an_instance(
    controller: Controller, machines: RememberedMachines
) -> None:
    machines.states["i-0123456789abcdef0"] = "running"
    controller.adopt()
    assert machines.states == {}


def test_a_cut_is_passed_on(controller: Controller, running_api: RunningApi, network: Network) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    running_api.api.extra.faults[instance] = {"network"}
    settle(controller, instance)
    fabric: Any = controller.fabric
    assert fabric.desired.vpcs[0].nodes[0].cut is True
