"""The lab's background process: `python -m ec2lab.daemon NAME`, started by `ec2lab up`.

It ends on SIGTERM. After SIGKILL the next daemon continues from the same state: the API's state is on disk before a
call is answered, and machines and network run on without a daemon.
"""

from __future__ import annotations

import faulthandler
import fcntl
import logging
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from werkzeug.serving import BaseWSGIServer

from ec2lab import control, faults, host, image
from ec2lab.api import patches, seed, server, translate
from ec2lab.api.backends import all_ec2
from ec2lab.api.patches import balancers, buckets
from ec2lab.api.patches import machines as chosen
from ec2lab.api.s3.requests import arn
from ec2lab.authority import Authority
from ec2lab.controller import Controller, find
from ec2lab.errors import LabError
from ec2lab.fabric import Fabric
from ec2lab.guest import GuestServices
from ec2lab.lab import Description, Lab
from ec2lab.machine import KINDS, Machines
from ec2lab.services.internet import HTTPS, Internet, Outside
from ec2lab.volumes import Volumes

log = logging.getLogger(__name__)
# A daemon keeps the lock while it runs; Lab.daemon_pid, which only checks, holds it for a moment.
LOCK_WAIT_S = 1.0


class AlreadyRunning(LabError):
    """Another daemon of this lab is running."""


def hold_pid_file(path: Path) -> int:
    """Locks the pid file for the life of this process, and writes the process id into it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise AlreadyRunning("the lab's daemon runs already") from None
            time.sleep(0.01)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


class Daemon:
    def __init__(self, lab: Lab, description: Description) -> None:
        self.lab, self.description = lab, description
        self.done = threading.Event()
        patches.install(description.public_range)
        chosen.lab.kind = next(kind for kind in KINDS if kind == description.machine)
        self.api = server.Api(lab.api_state, self._changed)
        self.api.lag.calls = description.lag
        self.fabric = Fabric(lab.name, description.public_range)
        self.machines = Machines(lab.name, lab.state_dir)
        self.internet = Internet(
            Path(description.internet_dir) if description.internet_dir else None, self._aws_names, self._serve_aws
        )
        self.guest = GuestServices(self.api, self.fabric, Path(description.mirror_dir), self.internet.names)
        self.controller = Controller(
            lab.name,
            description.public_range,
            self.api,
            self.fabric,
            self.machines,
            Volumes(lab.state_dir),
            self.guest.reconcile,
        )
        balancers.source.health = self.fabric.health

    def _changed(self) -> None:
        self.controller.wake()

    def _aws_names(self) -> set[str]:
        with self.api.lock:
            return translate.aws_names()

    def _serve_aws(self, connection: socket.socket, client: Any, secure: bool) -> None:
        server.serve_connection(self.endpoint, connection, client, secure)

    def run(self) -> None:
        self._load()
        self.endpoint = endpoint = self._listen()
        self._serve_outside()
        # Restore the network and services of what a killed daemon left before the lab counts as up.
        self.controller.adopt()
        self.controller.try_step()
        loop = threading.Thread(target=self.controller.run, name="controller", daemon=True)
        loop.start()
        server.start(endpoint, "api")
        listening = control.serve(self.lab.control, self.handle)
        log.info("lab %s is up: %s", self.lab.name, self.description.endpoint)
        self.done.wait()
        log.info("lab %s: the daemon ends", self.lab.name)
        listening.close()
        endpoint.shutdown()
        self.controller.stop()
        loop.join(timeout=5)
        self.lab.control.unlink(missing_ok=True)

    def _listen(self) -> BaseWSGIServer:
        """Opens the socket itself: werkzeug would end the process when the port is taken."""
        port = self.description.api_port
        try:
            own = socket.create_server(("127.0.0.1", port))
        except OSError as error:
            raise LabError(
                f"the API cannot use port {port} of 127.0.0.1 ({error.strerror}): end the program that uses it, "
                f"or run `ec2lab down {self.lab.name}` and `ec2lab up` again for another port"
            ) from error
        with own:
            return server.listen(self.api, "127.0.0.1", port, fd=own.fileno())

    def _serve_outside(self) -> None:
        """Before any machine boots, whose disk gets the authority's certificate."""
        authority = Authority(self.lab.state_dir)
        try:
            proxy = socket.create_server(("127.0.0.1", self.description.proxy_port))
        except OSError:  # another program took it while no daemon ran
            proxy = socket.create_server(("127.0.0.1", 0))
        self.description = replace(self.description, proxy_port=proxy.getsockname()[1])
        self.lab.write(self.description)
        Outside(self.internet, authority, self.fabric.open_outside, lambda: self.fabric.connect_outside(HTTPS), proxy)

    def _load(self) -> None:
        """Loads the saved state or makes a new account, and registers the image that is in the cache now."""
        self.api.load()
        base = image.cached_image()
        if base is None:
            raise LabError("the base image is not in the cache: `ec2lab up` makes it")
        with self.api.lock:
            image_id = str(seed.add_image(base).id)
            credentials = seed.add_user(self.lab.name)
            self.api.save()
        self.description = replace(
            self.description,
            image_id=image_id,
            access_key_id=credentials.access_key_id,
            secret_access_key=credentials.secret_access_key,
        )
        self.lab.write(self.description)

    # -- the control socket

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request.get("command")
        if command == "status":
            return self._status()
        if command == "fault":
            return self._fault(str(request["kind"]), str(request["target"]))
        raise LabError(f"the daemon does not know the command {command!r}")

    def _status(self) -> dict[str, Any]:
        with self.api.lock:
            instances = [
                {
                    "id": instance.id,
                    "name": next((tag["value"] for tag in instance.get_tags() if tag["key"] == "Name"), ""),
                    "state": instance.state,
                    "machine": chosen.kind(instance),
                    "private_ip": instance.private_ip or "",
                    "public_ip": instance.public_ip or "",
                    "faults": sorted(self.api.extra.faults.get(instance.id, ())),
                }
                for _region, backend in all_ec2()
                for instance in backend.all_instances()
                if instance.state != "terminated"
            ]
            held = [
                {"name": name, "faults": sorted(self.api.extra.faults.get(arn(name), ()))}
                for name in buckets.s3().buckets
            ]
        return {"pid": os.getpid(), "instances": instances, "buckets": held, "trouble": self.controller.trouble}

    def _fault(self, kind: str, target: str) -> dict[str, Any]:
        if kind in BUCKET_FAULTS:
            return self._fault_of_bucket(target, BUCKET_FAULTS[kind])
        instance_id, apply = target, FAULTS.get(kind)
        if apply is None:
            raise LabError(f"there is no fault {kind!r}; the faults are {', '.join((*FAULTS, *BUCKET_FAULTS))}")
        with self.api.lock:
            instance = find(instance_id)
            if instance is None or instance.state == "terminated":
                raise LabError(f"there is no instance {instance_id} in lab {self.lab.name}")
            if instance.state != "running":
                raise LabError(f"{instance_id} is {instance.state}: faults are for running instances")
        with self.controller.exclusively(instance_id):
            apply(self, instance_id)
        return {}

    def _fault_of_bucket(self, bucket: str, present: bool) -> dict[str, Any]:
        with self.api.lock:
            if bucket not in buckets.s3().buckets:
                raise LabError(f"there is no bucket {bucket} in lab {self.lab.name}")
            self._note(arn(bucket), "refusing", present)
        return {}

    def _note(self, target: str, fault: str, present: bool) -> None:
        with self.api.lock:
            held = self.api.extra.faults.setdefault(target, set())
            (held.add if present else held.discard)(fault)
            if not held:
                del self.api.extra.faults[target]
            self.api.save()

    def power_off(self, instance_id: str) -> None:
        # Record the fault first: a machine that is down without one counts as shut down, and would be stopped.
        self._note(instance_id, "power", True)
        self.machines.power_off(instance_id)

    def power_on(self, instance_id: str) -> None:
        self.controller.step()  # plugs in the node's link again before it boots
        self.machines.start(instance_id)
        self._note(instance_id, "power", False)

    def cut_network(self, instance_id: str) -> None:
        self._note(instance_id, "network", True)
        self.controller.step()

    def restore_network(self, instance_id: str) -> None:
        self._note(instance_id, "network", False)
        self.controller.step()

    def fill_disk(self, instance_id: str) -> None:
        faults.fill_disk(self.machines, instance_id)
        self._note(instance_id, "disk", True)

    def free_disk(self, instance_id: str) -> None:
        faults.free_disk(self.machines, instance_id)
        self._note(instance_id, "disk", False)

    def jump_clock(self, instance_id: str) -> None:
        faults.jump_clock(self.machines, instance_id, 3600.0)


# Each fault is followed by its opposite.
FAULTS = {
    "power-off": Daemon.power_off,
    "power-on": Daemon.power_on,
    "network-cut": Daemon.cut_network,
    "network-restore": Daemon.restore_network,
    "disk-fill": Daemon.fill_disk,
    "disk-free": Daemon.free_disk,
    "clock-jump": Daemon.jump_clock,
}
BUCKET_FAULTS = {"bucket-refuse": True, "bucket-accept": False}


def main(argv: list[str]) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(threadName)s: %(message)s", level=logging.INFO)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    # `kill -USR1` logs every thread's stack, to see where a daemon hangs.
    faulthandler.register(signal.SIGUSR1)
    lab = Lab(argv[0])
    try:
        description = lab.description()
        if description is None:
            raise LabError(f"there is no lab {lab.name}: `ec2lab up {lab.name}` makes it")
        hold_pid_file(lab.pid_file)
        # Its machines too, which it starts.
        host.compute_in_turns()
        daemon = Daemon(lab, description)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: daemon.done.set())
        daemon.run()
    except (LabError, OSError) as error:
        print(f"ec2lab: {error}", file=sys.stderr)
        return 1
    # End without waiting for threads that wait for a machine.
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
