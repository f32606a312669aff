"""Makes machines and network match the API, and the API's instance states match the machines.

One thread decides (`step`); slow work on a machine runs in a thread of its own, one per instance. Decisions depend
only on the present state, never on earlier decisions: a new daemon finds the work that a killed one left.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

from moto.core.utils import utcnow
from moto.ec2.models.instances import StateReason

from ec2lab import model
from ec2lab.api import translate
from ec2lab.api.backends import all_ec2, elbv2
from ec2lab.api.patches import instances
from ec2lab.api.patches import volumes as states
from ec2lab.api.server import Api
from ec2lab.errors import Busy, LabError, NoCapacity, Timeout
from ec2lab.fabric import Fabric
from ec2lab.machine import Machines
from ec2lab.volumes import Volumes

log = logging.getLogger(__name__)

# How often machines are checked when no call changes anything; this notices one that powered itself off.
IDLE_S = 2.0
# EC2 forgets a terminated instance after about an hour.
REMEMBER_TERMINATED = timedelta(hours=1)
WORKERS = 16
JOB_WAIT_S = 60.0
# After this time a volume that its instance has mounted is tried again.
BUSY_S = 0.5


def find(instance_id: str) -> Any:
    """moto's instance, or None. Roll-backs replace objects: use it only under the API's lock and do not keep it."""
    for _region, backend in all_ec2():
        for reservation in backend.reservations.values():
            for instance in reservation.instances:
                if instance.id == instance_id:
                    return instance
    return None


def find_volume(volume_id: str) -> Any:
    """moto's volume, or None; under the same rule as `find`."""
    return next((backend.volumes[volume_id] for _, backend in all_ec2() if volume_id in backend.volumes), None)


def reboots(instance: Any, which: Literal["wanted", "done"]) -> int:
    """How many reboots were requested, or done. Both are in the API's state, so that no kill loses one."""
    return int(getattr(instance, f"reboots_{which}", 0))


class Controller:
    def __init__(
        self,
        lab: str,
        public_range: str,
        api: Api,
        fabric: Fabric,
        machines: Machines,
        volumes: Volumes,
        network: Callable[[model.Desired], None],
    ) -> None:
        """`network` is called with each description once the fabric matches it; it starts services of new VPCs."""
        self.lab, self.public_range = lab, public_range
        self.api, self.fabric, self.machines, self.network = api, fabric, machines, network
        self.volumes = volumes
        self._wake = threading.Event()
        self._stopping = False
        self._busy: set[str] = set()
        self._busy_lock = threading.Lock()
        self._stepping = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="machine")
        self._trouble = ""
        self._failing: dict[str, str] = {}  # by instance, the error of its last job

    # -- the loop

    def wake(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        while not self._stopping:
            self._wake.wait(IDLE_S)
            self._wake.clear()
            if not self._stopping:
                self.try_step()

    def try_step(self) -> None:
        """Runs a step and logs its failure instead of raising it; the next step tries again."""
        started = time.monotonic()
        try:
            self.step()
            self._trouble = ""
        except Exception as error:
            if str(error) != self._trouble:  # log it once, not every two seconds
                log.exception("the lab could not be made to match the API; trying again")
                self._trouble = str(error)
        log.debug("step: %.0f ms", (time.monotonic() - started) * 1000)

    @property
    def trouble(self) -> str:
        """What keeps the lab from matching the API; empty when nothing does."""
        return "; ".join(filter(None, (self._trouble, *tuple(self._failing.values()))))

    def adopt(self) -> None:
        """Removes machines that belong to no instance; a daemon does this first."""
        with self.api.lock:
            wanted = {
                instance.id
                for _region, backend in all_ec2()
                for instance in backend.all_instances()
                if instance.state != "terminated"
            }
        for instance_id in set(self.machines.known()) - wanted:
            log.warning("%s: a machine without an instance: removed", instance_id)
            self.machines.delete(instance_id)

    def step(self) -> None:
        """Makes the network match at once, and starts the jobs that machines need."""
        with self._stepping:
            with self.api.lock:
                self._forget_terminated()
                desired = translate.desired(self.lab, self.public_range, self._cut())
                work = self._work()
                for done in set(self._failing) - {instance_id for instance_id, _name, _job in work}:
                    self._failing.pop(done, None)
            self.fabric.reconcile(desired)
            self.network(desired)
            self._activate_balancers(desired)
        for instance_id, name, job in work:
            self._start_job(instance_id, name, job)

    def _cut(self) -> frozenset[str]:
        return frozenset(each for each, faults in self.api.extra.faults.items() if "network" in faults)

    @contextmanager
    def exclusively(self, instance_id: str) -> Iterator[None]:
        """Keeps jobs off the machine; LabError when a running job takes longer than JOB_WAIT_S."""
        deadline = time.monotonic() + JOB_WAIT_S
        while not self._take(instance_id):
            if time.monotonic() > deadline:
                raise LabError(f"{instance_id} is still being changed after {JOB_WAIT_S:.0f} s: try again")
            time.sleep(0.05)
        try:
            yield
        finally:
            self._release(instance_id)

    def _take(self, instance_id: str) -> bool:
        with self._busy_lock:
            if instance_id in self._busy:
                return False
            self._busy.add(instance_id)
            return True

    def _release(self, instance_id: str) -> None:
        with self._busy_lock:
            self._busy.discard(instance_id)
        self.wake()

    def _start_job(self, instance_id: str, name: str, job: Callable[[str], None]) -> None:
        if not self._take(instance_id):
            return

        def body() -> None:
            try:
                job(instance_id)
                self._failing.pop(instance_id, None)
            except Exception as error:
                log.exception("%s: %s failed", instance_id, name)
                self._failing[instance_id] = f"{instance_id}: {name}: {error}"
                time.sleep(1)  # the next step tries again
            finally:
                self._release(instance_id)

        self._pool.submit(body)

    # -- what machines need

    def _work(self) -> list[tuple[str, str, Callable[[str], None]]]:
        jobs: dict[str, Callable[[str], None]] = {
            "pending": self._boot,
            "stopping": self._shut_down,
            "shutting-down": self._terminate,
        }
        work = []
        for _region, backend in all_ec2():
            for instance in backend.all_instances():
                if instance.state in jobs:
                    work.append((instance.id, instance.state, jobs[instance.state]))
                elif instance.state == "running":
                    if reboots(instance, "done") != reboots(instance, "wanted"):
                        work.append((instance.id, "reboot", self._reboot))
                    elif not self._powered_off(instance.id) and self.machines.state(instance.id) != "running":
                        work.append((instance.id, "went down", self._went_down))
                    elif self._to_arrange(instance):
                        work.append((instance.id, "volumes", self._arrange))
                elif instance.state == "stopped" and self._to_arrange(instance):
                    work.append((instance.id, "volumes", self._arrange))
            work += self._work_on_volumes(backend)
        return work + [(each, "no volume's file", self.volumes.delete) for each in self._orphans()]

    # -- what volumes need

    @staticmethod
    def _to_arrange(instance: Any) -> bool:
        """Whether the volumes of an instance are not yet as the API says."""
        return any(
            volume.attachment.status != "attached" or states.modification(volume) is not None
            for volume in states.attached(instance)
        )

    def _work_on_volumes(self, backend: Any) -> list[tuple[str, str, Callable[[str], None]]]:
        """Of volumes that no instance has; snapshots of those that one has too."""
        work: list[tuple[str, str, Callable[[str], None]]] = []
        for volume in backend.volumes.values():
            if states.state(volume) == "creating":
                work.append((volume.id, "create", self._create_volume))
            elif states.state(volume) == "deleting":
                work.append((volume.id, "delete", self._delete_volume))
            elif volume.attachment is None and states.modification(volume) is not None:
                work.append((volume.id, "modify", self._modify_volume))
            elif states.is_root(volume) and states.modification(volume) is not None:
                work.append((volume.id, "modify", self._modify_root))
        for snapshot in states.all_snapshots(backend):
            if snapshot.status == "pending":
                work.append((snapshot.id, "copy", self._copy_snapshot))
        return work

    def _orphans(self) -> set[str]:
        """The files of volumes and snapshots that the API has no more."""
        there = {each for _region, backend in all_ec2() for each in (*backend.volumes, *backend.snapshots)}
        return self.volumes.known() - there

    def _change_volume(self, volume_id: str, change: Callable[[Any], None]) -> None:
        """Applies `change` to a volume that is still there, and saves."""
        with self.api.lock:
            volume = find_volume(volume_id)
            if volume is not None:
                change(volume)
                self.api.save()

    def _spec_of(self, volume_id: str) -> Any:
        with self.api.lock:
            volume = find_volume(volume_id)
            return None if volume is None else translate.volume_spec(volume)

    def _create_volume(self, volume_id: str) -> None:
        spec = self._spec_of(volume_id)
        if spec is not None:
            self.volumes.create(spec)
            self._change_volume(volume_id, lambda volume: setattr(volume, "lab_state", "available"))

    def _delete_volume(self, volume_id: str) -> None:
        self.volumes.delete(volume_id)

        def gone(volume: Any) -> None:
            volume.ec2_backend.volumes.pop(volume_id, None)
            volume.ec2_backend.tags.pop(volume_id, None)

        self._change_volume(volume_id, gone)

    def _modify_root(self, volume_id: str) -> None:
        """A root volume's size is described only: the machine's own disk stays as it was made."""
        self._change_volume(volume_id, states.step_modification)

    def _modify_volume(self, volume_id: str, instance_id: str = "") -> None:
        with self.api.lock:
            volume = find_volume(volume_id)
            modification = None if volume is None else states.modification(volume)
            if modification is None:
                return
            spec, gib = translate.volume_spec(volume), int(modification.target_size or volume.size)
        self.volumes.create(spec)
        self.volumes.grow(volume_id, gib)
        if instance_id:
            self.machines.grown(instance_id, volume_id)
        self._change_volume(volume_id, states.step_modification)

    def _copy_snapshot(self, snapshot_id: str) -> None:
        with self.api.lock:
            found = [backend.snapshots[snapshot_id] for _, backend in all_ec2() if snapshot_id in backend.snapshots]
            volume_id = str(found[0].volume_id) if found else ""
        if not volume_id:
            return
        self.volumes.snapshot(volume_id, snapshot_id)
        with self.api.lock:
            for _region, backend in all_ec2():
                if snapshot_id in backend.snapshots:
                    backend.snapshots[snapshot_id].status = "completed"
                    self.api.save()

    def _attachments(self, instance_id: str) -> list[tuple[Any, str, str, bool]]:
        """(description, device name, state, forced) of each volume of an instance."""
        with self.api.lock:
            instance = find(instance_id)
            found = [] if instance is None else states.attached(instance)
            return [
                (
                    translate.volume_spec(volume),
                    str(volume.attachment.device),
                    str(volume.attachment.status),
                    bool(getattr(volume.attachment, "force", False)),
                )
                for volume in found
            ]

    def _arrange(self, instance_id: str) -> None:
        """Attaches, detaches and grows the volumes of a machine that runs or is stopped."""
        for spec, device, status, forced in self._attachments(instance_id):
            if status == "attaching":
                self._attach(instance_id, spec, device)
                self._change_volume(spec.id, states.set_attached)
            elif status in ("detaching", "busy"):
                try:
                    self.machines.detach(instance_id, spec.id, forced)
                except Busy:
                    # As on EC2: it goes on when the instance has unmounted it.
                    self._change_volume(spec.id, lambda volume: setattr(volume.attachment, "status", "busy"))
                    time.sleep(BUSY_S)
                else:
                    self._change_volume(spec.id, states.finish_detach)
            else:
                try:
                    self._modify_volume(spec.id, instance_id)
                except Busy:  # a virtual machine has it mounted, and sees its size when it has let it go
                    time.sleep(BUSY_S)

    def _attach(self, instance_id: str, spec: Any, device: str) -> None:
        self.volumes.create(spec)
        self.machines.attach(instance_id, spec.id, self.volumes.path(spec.id), device)

    def _powered_off(self, instance_id: str) -> bool:
        return "power" in self.api.extra.faults.get(instance_id, set())

    def _change(self, instance_id: str, before: str, change: Callable[[Any], None]) -> bool:
        """Applies `change` and saves, if the instance is still in the state `before`."""
        with self.api.lock:
            instance = find(instance_id)
            if instance is None or instance.state != before:
                return False
            change(instance)
            self.api.save()
        return True

    # -- jobs, each repeated until the state has changed

    def _boot(self, instance_id: str) -> None:
        with self.api.lock:
            instance = find(instance_id)
            if instance is None or instance.state != "pending":
                return
            spec = translate.machine_spec(instance)
            first = not getattr(instance, "has_booted", False)
        try:
            started = time.monotonic()
            self.machines.create(spec)
            for volume, device, status, _forced in self._attachments(instance_id):
                if status in ("attaching", "attached"):
                    self._attach(instance_id, volume, device)
            self.machines.start(instance_id)
            if not self._wait_ready(instance_id):
                return
            log.info("%s: up after %.1f s", instance_id, time.monotonic() - started)
        except (LabError, OSError) as error:  # OSError: a fault of the host, such as a full disk
            log.error("%s: did not come up: %s", instance_id, error)
            code = "Server.InsufficientInstanceCapacity" if isinstance(error, NoCapacity) else "Server.InternalError"
            message = f"{code}: {error}"

            def failed(instance: Any) -> None:
                instance.state_reason = StateReason(message, code)
                instance._reason = message
                # As on EC2: a first launch that fails is terminated, a failed start is stopped again.
                instances.set_state(instance, "shutting-down" if first else "stopping")

            self._change(instance_id, "pending", failed)
            return

        def running(instance: Any) -> None:
            instance.has_booted = True
            instance.reboots_done = reboots(instance, "wanted")
            for volume in states.attached(instance):
                if volume.attachment.status == "attaching":
                    states.set_attached(volume)
            instances.set_state(instance, "running")

        self._change(instance_id, "pending", running)

    def _wait_ready(self, instance_id: str) -> bool:
        """True when the node is up; False when its instance is to stop or end meanwhile."""
        patience = self.machines.boot_patience(instance_id)
        deadline = time.monotonic() + patience
        while True:
            try:
                self.machines.wait_ready(instance_id, timeout=min(2.0, max(0.1, deadline - time.monotonic())))
                return True
            except Timeout as error:
                if time.monotonic() >= deadline:
                    raise LabError(f"SSH did not answer within {patience:.0f} s ({error})") from error
            with self.api.lock:
                instance = find(instance_id)
                if instance is None or instance.state != "pending":
                    return False

    def _shut_down(self, instance_id: str) -> None:
        self.machines.stop(instance_id)

        def stopped(instance: Any) -> None:
            for eni in instance.nics.values():
                eni.stop()  # gives an automatic public address back
            # The disk stays, and so does the fault that fills it.
            if left := self.api.extra.faults.pop(instance_id, set()) & {"disk"}:
                self.api.extra.faults[instance_id] = left
            instances.set_state(instance, "stopped")

        self._change(instance_id, "stopping", stopped)

    def _terminate(self, instance_id: str) -> None:
        self.machines.delete(instance_id)

        def gone(instance: Any) -> None:
            self.api.extra.faults.pop(instance_id, None)
            instances.finish_termination(instance)

        self._change(instance_id, "shutting-down", gone)

    def _reboot(self, instance_id: str) -> None:
        with self.api.lock:
            instance = find(instance_id)
            if instance is None or instance.state != "running":
                return
            wanted = reboots(instance, "wanted")
        if not self._powered_off(instance_id):
            self.machines.reboot(instance_id)

        def done(instance: Any) -> None:
            instance.reboots_done = wanted

        self._change(instance_id, "running", done)

    def _went_down(self, instance_id: str) -> None:
        """Handles a node that shut itself down; checks twice, since it may just be rebooting."""
        time.sleep(0.3)
        if self.machines.state(instance_id) == "running" or self._powered_off(instance_id):
            return
        log.info("%s: shut itself down", instance_id)

        def down(instance: Any) -> None:
            code = "Client.InstanceInitiatedShutdown"
            instance.state_reason = StateReason(f"{code}: Instance initiated shutdown", code)
            behaviour = instance.instance_initiated_shutdown_behavior
            instances.set_state(instance, "shutting-down" if behaviour == "terminate" else "stopping")

        self._change(instance_id, "running", down)

    # -- the rest

    def _forget_terminated(self) -> None:
        before = utcnow() - REMEMBER_TERMINATED
        for _region, backend in all_ec2():
            for reservation_id, reservation in list(backend.reservations.items()):
                ended = [getattr(instance, "terminated_at", None) for instance in reservation.instances]
                if ended and all(when is not None and when < before for when in ended):
                    for instance in reservation.instances:
                        backend.tags.pop(instance.id, None)
                    del backend.reservations[reservation_id]
                    launches = backend.__dict__.get("launches", {})
                    for token in [token for token, (_print, each) in launches.items() if each == reservation_id]:
                        del launches[token]

    def _activate_balancers(self, desired: model.Desired) -> None:
        made = {balancer.arn for vpc in desired.vpcs for balancer in vpc.load_balancers}
        with self.api.lock:
            changed = False
            for region, _backend in all_ec2():
                for balancer in elbv2(region).load_balancers.values():
                    if balancer.arn in made and balancer.state == "provisioning":
                        balancer.state, changed = "active", True
            if changed:
                self.api.save()
