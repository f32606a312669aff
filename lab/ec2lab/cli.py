"""`ec2lab`: an EC2 on this machine."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ec2lab import addresses, control, doctor, host, image, names, proxies, trust, vm_image
from ec2lab.errors import HostUnfit, LabError, Timeout
from ec2lab.fabric import Fabric
from ec2lab.lab import FIRST_API_PORT, REGION, STATE_ROOT, Description, Lab, all_labs, choose_range, exclusive
from ec2lab.machine import KINDS, Machines, kvm, memory, vm
from ec2lab.services.internet import check_directory

DEFAULT = "default"
MIRROR_URL = f"http://{addresses.MIRROR}:5080"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
FAULT_KINDS = {
    "power-off": "the node stops at once, as if it lost power",
    "power-on": "it boots again",
    "network-cut": "its link is down while it keeps running",
    "network-restore": "its link is up again",
    "disk-fill": "its root file system is full, for root too",
    "disk-free": "the space is there again",
    "clock-jump": "its clock goes an hour ahead; refused for a container, which shares the clock of its host",
    "bucket-refuse": "S3 answers 503 SlowDown to every request for the bucket",
    "bucket-accept": "it answers again",
}
OF_BUCKETS = "bucket-"  # these have a bucket in the place of an instance
# `ec2lab env` sets this variable: it names the lab that the shell uses.
SHELLS_LAB = "EC2LAB_NAME"
MIRROR_VARIABLE = "EC2LAB_MIRROR_DIR"
MACHINE_VARIABLE = "EC2LAB_MACHINE"
# Without --machine, virtual machines are chosen when the host has this much memory for them.
VM_MEMORY_MIB = 12 << 10


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="ec2lab", description="An EC2 on this machine, with nodes that boot.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, about: str, named: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=about, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if named:
            command.add_argument("name", nargs="?", metavar="NAME", help=f"the lab (default: {DEFAULT})")
        return command

    up = add("up", "Start a lab, or take a crashed one up again.")
    up.add_argument("--mirror-dir", type=Path, metavar="DIR", help="the directory that the lab serves to its nodes")
    up.add_argument(
        "--internet-dir", type=Path, metavar="DIR", help="hosts of the lab's own internet, and images of its registries"
    )
    up.add_argument(
        "--public-range", metavar="CIDR", help="its public addresses (default: a free part of 198.18.0.0/15)"
    )
    up.add_argument(
        "--machine",
        choices=KINDS,
        help="what its nodes are, unless a launch's tag ec2lab:machine says otherwise "
        "(default: vm where KVM serves and memory allows, else container)",
    )
    up.add_argument("--api-port", type=int, metavar="PORT", help="the API's port on 127.0.0.1 (default: a free one)")
    up.add_argument(
        "--lag",
        type=int,
        metavar="CALLS",
        help="for so many calls the API does not know what was made, as AWS may not (default: 0)",
    )
    add("down", "End a lab and remove everything it made.")
    add("status", "Show a lab, its instances and what troubles it.")
    add("env", 'Print export lines for a shell: eval "$(ec2lab env)".')
    add("doctor", "List what the lab needs of this host, and how to get what is missing.", named=False)
    console = add("console", "Show an instance's console.", named=False)
    console.add_argument("instance", metavar="INSTANCE")
    console.add_argument("--lab", default=None, metavar="NAME", help="its lab (default: the one that has it)")
    console.add_argument("--follow", "-f", action="store_true", help="show what comes, until interrupted")
    fault = add("fault", "Make something fail, or undo it.", named=False)
    fault.add_argument("kind", metavar="KIND", choices=FAULT_KINDS, help="one of the kinds below")
    fault.epilog = "kinds:\n" + "\n".join(f"  {kind:<16} {what}" for kind, what in FAULT_KINDS.items())
    fault.add_argument("target", metavar="INSTANCE", help="the instance, or the bucket of a kind that says so")
    fault.add_argument("--lab", default=None, metavar="NAME", help="its lab (default: the one that has it)")
    return top


def main(argv: list[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        if os.geteuid() != 0:
            given = sys.argv[1:] if argv is None else argv
            kept = filter(None, [proxies.kept_by_sudo(os.environ)])
            again = ["sudo", *kept, str(Path(sys.argv[0]).absolute()), *given]
            raise LabError(f"the lab needs root; run: {shlex.join(again)}")
        if "name" in arguments:
            arguments.name = lab_name(arguments.command, arguments.name, os.environ.get(SHELLS_LAB, ""))
        status: int = COMMANDS[arguments.command](arguments)
    except (LabError, OSError) as error:
        print(f"ec2lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ec2lab: interrupted", file=sys.stderr)
        return 130
    return status


def lab_name(command: str, given: str | None, shells: str) -> str:
    """The name of the lab to use: `given`, or else the default; LabError when the shell is pointed at another lab.

    `env` is exempt, since it is the command that points a shell at another lab.
    """
    if given is None and command != "env" and shells not in ("", DEFAULT):
        raise LabError(
            f"no NAME is given, which means lab {DEFAULT}, but this shell is pointed at lab {shells} ({SHELLS_LAB}): "
            f"say which, `ec2lab {command} {DEFAULT}` or `ec2lab {command} {shlex.quote(shells)}`"
        )
    return given or DEFAULT


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# -- up


def up(arguments: argparse.Namespace) -> int:
    lab = Lab(arguments.name)
    missing = doctor.missing(STATE_ROOT)
    if missing:
        raise HostUnfit("\n".join(["this host lacks what the lab needs:", *(line_of(check) for check in missing)]))
    refuse_running(lab)
    known = lab.description() or describe(lab, arguments)
    # Making an image takes minutes, in which other labs come and go.
    image.ensure_image(say)
    if known.machine == "vm":
        vm_image.ensure_image(say)
    with exclusive():
        refuse_running(lab)
        existing = lab.description()
        fresh = existing is None
        if existing is None:
            # Another lab may have taken the range or the port meanwhile.
            public, port = choose_range(arguments.public_range), choose_port(arguments.api_port)
            known = replace(known, public_range=public, api_port=port)
        else:
            known = existing
            refuse_changes(known, arguments)
            say(f"lab {lab.name} was not taken down: taking it up again")
        try:
            lab.write(known)
            Path(known.mirror_dir).mkdir(parents=True, exist_ok=True)
            host.hold_inotify_limit()
            start_daemon(lab, known)
        except BaseException:
            if fresh:  # leave nothing half-made; a lab that existed before keeps its machines
                remove(lab)
            raise
    found = lab.description() or known
    say(f"lab {lab.name} is up: {found.endpoint}, public addresses {found.public_range}")
    say(f'eval "$(ec2lab env{"" if lab.name == DEFAULT else " " + lab.name})" points this shell at it')
    return 0


def refuse_running(lab: Lab) -> None:
    pid = lab.daemon_pid()
    if pid is not None:
        raise LabError(f"lab {lab.name} is up already (process {pid}): `ec2lab down {lab.name}` ends it")


def describe(lab: Lab, arguments: argparse.Namespace) -> Description:
    directory = str(choose_mirror(lab, arguments.mirror_dir))
    machine = choose_machine(arguments.machine)
    public, port = choose_range(arguments.public_range), choose_port(arguments.api_port)
    if arguments.lag is not None and arguments.lag < 0:
        raise LabError(f"--lag {arguments.lag}: give a number of calls, 0 or more")
    inner = arguments.internet_dir
    if inner is not None:
        check_directory(inner)
    return Description(
        lab.name,
        public,
        port,
        directory,
        names.account(lab.name),
        lag=arguments.lag or 0,
        machine=machine,
        internet_dir="" if inner is None else str(inner.absolute()),
    )


def choose_machine(option: str | None) -> str:
    """The kind of the lab's nodes: from the option, the environment, or what the host can do. Says what it found."""
    told = os.environ.get(MACHINE_VARIABLE, "")
    wanted, source = (option, "--machine") if option else (told, MACHINE_VARIABLE)
    if wanted and wanted not in KINDS:
        raise LabError(f"{source}={wanted}: use {' or '.join(KINDS)}, or leave it unset")
    if wanted == "container":
        return wanted
    lacking = vm.lacking()
    if wanted == "vm":
        if lacking:
            raise LabError(f"{source} vm: {lacking}")
        verdict = kvm.verdict()
        if not verdict.serves:
            say(f"KVM does not serve ({verdict.reason}): the virtual machines' processors are emulated, which is slow")
        return wanted
    if lacking or not kvm.verdict().serves or memory.available_mib() < VM_MEMORY_MIB:
        return "container"
    say("KVM serves: nodes are virtual machines (`--machine container` for light ones)")
    return "vm"


def choose_mirror(lab: Lab, wanted: Path | None) -> Path:
    """The mirror directory from the option or the environment, or else one of the lab's own."""
    own = lab.state_dir / "mirror"
    if wanted is None:
        told = Path(os.environ.get(MIRROR_VARIABLE) or own)
        # The value comes from `ec2lab env` of another lab, and would be removed with that lab.
        wanted = own if told.resolve().is_relative_to(STATE_ROOT.resolve()) else told
    elif wanted.resolve().is_relative_to(STATE_ROOT.resolve()) and wanted.absolute() != own:
        raise LabError(
            f"--mirror-dir {wanted} is below {STATE_ROOT} and would be removed with a lab: name another directory"
        )
    if wanted.exists() and not wanted.is_dir():
        raise LabError(f"--mirror-dir {wanted} is not a directory")
    return wanted.absolute()


def requested_mirror() -> str | None:
    """The mirror directory that the user set in the environment; None when `ec2lab env` set it."""
    wish = os.environ.get(MIRROR_VARIABLE)
    return str(Path(wish).absolute()) if wish and not os.environ.get(SHELLS_LAB) else None


def refuse_changes(known: Description, arguments: argparse.Namespace) -> None:
    """LabError for an option that differs from what the existing lab was made with."""
    for option, wanted, has in (
        ("--mirror-dir", arguments.mirror_dir and str(arguments.mirror_dir.absolute()), known.mirror_dir),
        (MIRROR_VARIABLE, requested_mirror(), known.mirror_dir),
        ("--internet-dir", arguments.internet_dir and str(arguments.internet_dir.absolute()), known.internet_dir),
        ("--public-range", arguments.public_range, known.public_range),
        ("--api-port", arguments.api_port, known.api_port),
        ("--lag", arguments.lag, known.lag),
        ("--machine", arguments.machine, known.machine),
        (MACHINE_VARIABLE, None if arguments.machine else os.environ.get(MACHINE_VARIABLE) or None, known.machine),
    ):
        if wanted is not None and wanted != has:
            raise LabError(f"{option} {wanted}: lab {known.name} has {has}; `ec2lab down {known.name}` first")


def choose_port(wanted: int | None) -> int:
    """A free port of 127.0.0.1 that belongs to no other lab."""
    if wanted is not None and not 1 <= wanted <= 65535:
        raise LabError(f"--api-port {wanted}: a port is a number from 1 to 65535")
    others = {description.api_port for each in all_labs() if (description := each.description())}
    for port in [wanted] if wanted is not None else range(FIRST_API_PORT, FIRST_API_PORT + 1000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in others:
            return port
    if wanted is not None:
        raise LabError(f"--api-port {wanted} is in use on 127.0.0.1: name another, or leave the option out")
    raise LabError(f"no port from {FIRST_API_PORT} on is free on 127.0.0.1: name one with --api-port")


def start_daemon(lab: Lab, known: Description) -> None:
    """Starts the daemon and returns when it answers; LabError with the end of its log when it does not."""
    begin = lab.log_file.stat().st_size if lab.log_file.exists() else 0
    descriptor = os.open(lab.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))}
    environment["MOTO_ACCOUNT_ID"] = known.account_id
    with os.fdopen(descriptor, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "ec2lab.daemon", lab.name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if process.poll() is not None:
            raise LabError(f"the daemon ended with status {process.returncode}:\n{tail(lab.log_file, begin)}")
        if lab.control.exists():
            try:
                control.ask(lab.control, {"command": "status"}, timeout=10)
                return
            except LabError:
                pass
        if time.monotonic() > deadline:
            process.kill()
            raise Timeout(f"the daemon did not answer within {START_TIMEOUT_S:.0f} s:\n{tail(lab.log_file, begin)}")
        time.sleep(0.05)


def tail(path: Path, begin: int, lines: int = 15) -> str:
    with path.open("rb") as file:
        file.seek(begin)
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])


# -- down


def down(arguments: argparse.Namespace) -> int:
    lab = Lab(arguments.name)
    with exclusive():
        existed = lab.state_dir.exists() or lab.run_dir.exists()
        remove(lab)
    say(f"lab {lab.name} is down" if existed else f"there was no lab {lab.name}")
    return 0


def remove(lab: Lab) -> None:
    """Ends and removes everything with the lab's name, also after a crash and after a killed `up`."""
    description = lab.description_or_none()
    stop_daemon(lab)
    Machines(lab.name, lab.state_dir).destroy()
    Fabric(lab.name, description.public_range if description else str(addresses.POOL)).destroy()
    for directory in (lab.state_dir, lab.run_dir):
        if directory.exists():
            shutil.rmtree(directory)
    with contextlib.suppress(OSError):  # other labs may be in there; the rest of RUN_ROOT is removed with the lock
        STATE_ROOT.rmdir()
    if not all_labs():
        host.release_inotify_limit()


def stop_daemon(lab: Lab) -> None:
    pid = lab.daemon_pid()
    if pid is None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            if lab.daemon_pid() is None:
                return
            time.sleep(0.02)
    raise Timeout(f"the daemon (process {pid}) did not end within {2 * STOP_TIMEOUT_S:.0f} s of SIGTERM")


# -- the rest


def require(name: str) -> tuple[Lab, Description]:
    lab = Lab(name)
    description = lab.description()
    if description is None:
        here = (
            f", which this shell is pointed at ({SHELLS_LAB}; a new shell is not)"
            if os.environ.get(SHELLS_LAB) == name
            else ""
        )
        raise LabError(f"there is no lab {name}{here}: `ec2lab up{'' if name == DEFAULT else ' ' + name}` makes it")
    return lab, description


def ask(lab: Lab, request: dict[str, Any]) -> dict[str, Any]:
    if lab.daemon_pid() is None:
        raise LabError(f"lab {lab.name}'s daemon is not running: `ec2lab up {lab.name}` starts it again")
    return control.ask(lab.control, request)


def env(arguments: argparse.Namespace) -> int:
    lab, description = require(arguments.name)
    if lab.daemon_pid() is None:
        raise LabError(f"lab {lab.name}'s daemon is not running: `ec2lab up {lab.name}` starts it again")
    values = {
        "AWS_ENDPOINT_URL": description.endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": description.access_key_id,
        "AWS_SECRET_ACCESS_KEY": description.secret_access_key,
        SHELLS_LAB: lab.name,
        "EC2LAB_IMAGE_ID": description.image_id,
        MIRROR_VARIABLE: description.mirror_dir,
        "EC2LAB_MIRROR_URL": MIRROR_URL,
        "EC2LAB_INTERNET_PROXY": description.proxy,
        "EC2LAB_INTERNET_CA": str(trust.certificate_path(lab.state_dir)),
        **dict.fromkeys(proxies.EXCEPTIONS, proxies.exceptions(os.environ, description.public_range)),
    }
    for name, value in values.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def status(arguments: argparse.Namespace) -> int:
    lab, description = require(arguments.name)
    answer = ask(lab, {"command": "status"})
    print(f"lab {lab.name}: up, process {answer['pid']}")
    print(f"  API                {description.endpoint}")
    print(f"  account            {description.account_id}")
    print(f"  public addresses   {description.public_range}")
    print(f"  mirror             {description.mirror_dir}")
    print(f"  internet           {description.internet_dir or 'AWS alone'}")
    for each in answer["instances"]:
        marks = f"  faults: {', '.join(each['faults'])}" if each["faults"] else ""
        line = f"  {each['id']}  {each['state']:<13}  {each['private_ip']:<15}  {each['public_ip']:<15}  {each['name']}"
        if each["machine"] != description.machine:
            marks = f"  {each['machine']}{marks}"
        print(f"{line}{marks}".rstrip())
    for each in answer["buckets"]:
        marks = f"  faults: {', '.join(each['faults'])}" if each["faults"] else ""
        print(f"  bucket {each['name']}{marks}")
    if answer["trouble"]:
        print(f"  trouble: {answer['trouble']} (see {lab.log_file})")
        return 1
    return 0


def line_of(check: doctor.Check) -> str:
    detail = f" ({check.detail})" if check.detail else ""
    return f"  {check.name}{detail}: {check.purpose}. {check.remedy}"


def run_doctor(_arguments: argparse.Namespace) -> int:
    found = doctor.checks(STATE_ROOT)
    for check in found:
        mark = "ok     " if check.ok else "MISSING" if check.needed else "absent "
        detail = f" ({check.detail})" if check.detail else ""
        remedy = "" if check.ok else f"\n          {check.remedy}"
        print(f"{mark}  {check.name}{detail}: {check.purpose}{remedy}")
    return 1 if any(check.needed and not check.ok for check in found) else 0


def lab_of(instance: str, name: str | None) -> Lab:
    """The lab with this name, or else the one that has the instance."""
    candidates = [require(name)[0]] if name else all_labs()
    for lab in candidates:
        if (Machines(lab.name, lab.state_dir).console_path(instance)).parent.is_dir():
            return lab
    where = f"lab {name}" if name else "any lab"
    raise LabError(f"there is no machine of an instance {instance} in {where}: `ec2lab status` lists them")


def lab_of_bucket(bucket: str, name: str | None) -> Lab:
    """The lab with this name, or else the one that has the bucket; LabError when several have one of that name."""
    candidates = [require(name)[0]] if name else [lab for lab in all_labs() if lab.daemon_pid() is not None]
    found = [lab for lab in candidates if bucket in buckets_of(lab)]
    if len(found) == 1:
        return found[0]
    if found:
        raise LabError(f"the labs {', '.join(lab.name for lab in found)} have a bucket {bucket}: say which with --lab")
    where = f"lab {name}" if name else "any lab that is up"
    raise LabError(f"there is no bucket {bucket} in {where}: `ec2lab status` lists them")


def buckets_of(lab: Lab) -> set[str]:
    """The lab's buckets; none when its daemon does not answer, or is of a version that does not tell them."""
    try:
        return {each["name"] for each in ask(lab, {"command": "status"}).get("buckets", ())}
    except LabError:
        return set()


def console(arguments: argparse.Namespace) -> int:
    lab = lab_of(arguments.instance, arguments.lab)
    path = Machines(lab.name, lab.state_dir).console_path(arguments.instance)
    if not path.exists():
        raise LabError(f"{arguments.instance} has written nothing to its console yet")
    with path.open("rb") as file:
        while True:
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()
            if not arguments.follow or not path.exists():
                return 0
            time.sleep(0.2)


def fault(arguments: argparse.Namespace) -> int:
    find = lab_of_bucket if arguments.kind.startswith(OF_BUCKETS) else lab_of
    ask(find(arguments.target, arguments.lab), {"command": "fault", "kind": arguments.kind, "target": arguments.target})
    return 0


COMMANDS = {
    "up": up,
    "down": down,
    "status": status,
    "env": env,
    "doctor": run_doctor,
    "console": console,
    "fault": fault,
}

if __name__ == "__main__":
    sys.exit(main())
