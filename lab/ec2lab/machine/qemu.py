"""The command line of QEMU. Pure: what the machine is made of comes in, arguments come out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ec2lab import names, vm_image
from ec2lab.machine import kvm, memory

# The slot of the network card: udev calls it ens5, as on a Nitro instance.
NETWORK_SLOT = 5
ROOT_SLOT = 4
# Free slots into which volumes are plugged.
FIRST_VOLUME_SLOT = 8
VOLUME_SLOTS = 16
AGENT_PORT = "org.qemu.guest_agent.0"
# An emulated processor is a thread of the host's. A second one makes QEMU emulate every atomic instruction and barrier
# for others to see: the same boot takes a fifth more of the host's time, and two machines fill two cores already.
EMULATED_CPUS = 1
# As in AWS's images; a disk of the host may be slow, and must not fail for it.
KERNEL_ARGUMENTS = (
    f"root=PARTUUID={vm_image.PARTITION_UUID} ro console=tty0 console=ttyS0,115200 nvme_core.io_timeout=4294967295"
)


@dataclass(frozen=True)
class Volume:
    """An EBS volume that is attached."""

    volume_id: str
    path: Path
    slot: int

    @property
    def node(self) -> str:
        """Its name in QEMU, of its disk and of its device."""
        return serial(self.volume_id)


@dataclass(frozen=True)
class Plan:
    lab: str
    instance_id: str
    directory: Path
    image: vm_image.VmImage
    mac: str
    memory_mib: int
    cpus: int
    accelerated: bool
    uuid: str
    instance_type: str = ""
    root_volume_id: str = ""
    mtu: int = 9001
    volumes: tuple[Volume, ...] = ()


def serial(volume_id: str) -> str:
    """A volume's id as AWS shows it in its device's serial number.

    https://docs.aws.amazon.com/ebs/latest/userguide/identify-nvme-ebs-device.html
    """
    return volume_id.replace("-", "")


def slot_name(slot: int) -> str:
    return f"slot{slot}"


def volume_slots() -> range:
    return range(FIRST_VOLUME_SLOT, FIRST_VOLUME_SLOT + VOLUME_SLOTS)


def arguments(plan: Plan) -> list[str]:
    """QEMU's program and arguments. Relative paths are in the machine's directory, which is its working directory."""
    cpus = plan.cpus if plan.accelerated else EMULATED_CPUS
    return [
        *(kvm.QEMU, "-name", f"{memory.NAME}{plan.lab}.{plan.instance_id}"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"),
        *(
            ("-accel", "kvm", "-cpu", "host")
            if plan.accelerated
            else ("-accel", f"tcg,thread=multi,tb-size={memory.TRANSLATED_MIB}", "-cpu", "max")
        ),
        *("-smp", str(cpus), "-m", str(plan.memory_mib), "-uuid", plan.uuid),
        *("-kernel", str(plan.image.kernel), "-initrd", str(plan.image.initrd), "-append", KERNEL_ARGUMENTS),
        # What a Nitro instance's firmware says; the SKU is ours, and tells the image's own programs where they are.
        *("-smbios", f"type=1,manufacturer=Amazon EC2,product={plan.instance_type},sku=ec2lab,uuid={plan.uuid}"),
        *("-smbios", f"type=2,manufacturer=Amazon EC2,asset={plan.instance_id}"),
        *("-chardev", "file,id=console,path=console.log,append=on", "-serial", "chardev:console"),
        *("-qmp", "unix:qmp,server=on,wait=off"),
        *("-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"),
        *("-device", "virtio-serial-pci", "-chardev", "socket,id=agent,path=agent,server=on,wait=off"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
        *_port(NETWORK_SLOT),
        # The link is the VPC's; nothing on the host's side runs a script for it.
        *("-netdev", f"tap,id=net,ifname={names.node_link(plan.instance_id)},script=no,downscript=no"),
        *(
            "-device",
            f"virtio-net-pci,netdev=net,mac={plan.mac},host_mtu={plan.mtu},bus={slot_name(NETWORK_SLOT)},romfile=",
        ),
        *_port(ROOT_SLOT),
        *("-blockdev", f"{_blockdev('root', Path('disk.raw'))}"),
        *(
            "-device",
            f"nvme,drive=root,serial={serial(plan.root_volume_id) or 'vol0'},bus={slot_name(ROOT_SLOT)},bootindex=1",
        ),
        *(argument for slot in volume_slots() for argument in _port(slot)),
        *(argument for volume in plan.volumes for argument in _volume(volume)),
    ]


def _port(slot: int) -> tuple[str, str]:
    return ("-device", f"pcie-root-port,id={slot_name(slot)},slot={slot},chassis={slot},bus=pcie.0")


def _blockdev(node: str, path: Path) -> str:
    # A machine's disk survives the machine's end, not the host's: a flush need not wait for the host's disk.
    name = str(path).replace(",", ",,")
    return (
        f"driver=raw,node-name={node},discard=unmap,cache.no-flush=on,"
        f"file.driver=file,file.filename={name},file.cache.no-flush=on"
    )


def _volume(volume: Volume) -> tuple[str, ...]:
    return (
        *("-blockdev", _blockdev(volume.node, volume.path)),
        *("-device", f"nvme,id={volume.node},drive={volume.node},serial={volume.node},bus={slot_name(volume.slot)}"),
    )
