"""The QEMU command line of a guest: what libvirt makes of the choices in ``nova.py``.

Pure: nothing here starts a program or touches a file. Where libvirt decides by machine type
(which buses exist, where devices sit), a table in this module says so with its source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from imagefactory.boot.firmware import FirmwareFiles
from imagefactory.boot.nova import Input, NovaGuest
from imagefactory.errors import HostError, PropertyError

Accelerator = Literal["kvm", "tcg"]

VCPUS = 2
SSH_PORT = 2222
"""The port in the private network namespace that leads to the guest's port 22."""

NOVA_SYSINFO = "type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova,version=31.0.0"
"""LibvirtDriver._get_guest_config_sysinfo with the defaults of nova.version."""

MACHINES_WITH_IDE = ("pc-i440fx-*", "pc-0.*", "pc-1.*")
"""libvirt, qemuDomainHasBuiltinIDE: no other machine type has an IDE controller here."""

MACHINES_WITH_PCIE = ("pc-q35-*", "virt-*")
"""libvirt, qemuDomainIsQ35 and virDomainDefHasPCIeRoot: each device has a root port of its own."""

VIDEO_DEVICES: Mapping[str, tuple[str, ...]] = {
    "bochs": ("bochs-display",),
    "cirrus": ("cirrus-vga",),
    "none": (),
    "qxl": ("qxl-vga", "qxl"),
    "vga": ("VGA",),
    "virtio": ("virtio-vga", "virtio-gpu-pci"),
    "vmvga": ("vmware-svga",),
}
"""libvirt, qemuDeviceVideoGetModel: the VGA-compatible one where the emulator has it."""

NIC_DEVICES: Mapping[str, str] = {"virtio": "virtio-net-pci"}
"""vif models that are named otherwise in QEMU."""

SCSI_DEVICES: Mapping[str, str] = {
    "virtio-scsi": "virtio-scsi-pci",
    "ibmvscsi": "spapr-vscsi",
    "lsilogic": "lsi53c895a",
    "lsisas1068": "mptsas1068",
    "lsisas1078": "megasas",
    "vmpvscsi": "pvscsi",
}
"""libvirt, qemuControllerModelSCSI."""

INPUT_DEVICES: Mapping[Input, str] = {
    ("keyboard", "usb"): "usb-kbd",
    ("keyboard", "virtio"): "virtio-keyboard-pci",
    ("tablet", "usb"): "usb-tablet",
    ("tablet", "virtio"): "virtio-tablet-pci",
    ("mouse", "usb"): "usb-mouse",
    ("mouse", "virtio"): "virtio-mouse-pci",
}

NOT_ON_PCI = ("spapr-", "usb-", "scsi-", "ide-", "isa-", "virtserialport")
"""Devices with a bus of their own; all others here sit on PCI."""

ON_PCIE_ROOT = ("virtio-vga", "VGA", "qxl-vga", "cirrus-vga", "vmware-svga", "intel-iommu")
"""What libvirt leaves on the root complex: the primary VGA adapter, and the IOMMU itself."""


@dataclass(frozen=True)
class Emulator:
    """What a QEMU binary says of itself: its machine types (with aliases) and devices."""

    binary: str
    version: str
    machines: Mapping[str, str]
    devices: frozenset[str]

    def machine(self, name: str) -> str:
        """Resolve a machine type to its canonical, versioned name (``pc`` -> ``pc-i440fx-7.2``).

        Raises:
            PropertyError: This QEMU has no such machine type.
        """
        if name not in self.machines:
            raise PropertyError(
                f"hw_machine_type={name} is unknown to {self.binary} {self.version}",
                hint=f"it has: {', '.join(sorted(self.machines))}",
            )
        return self.machines[name]


@dataclass(frozen=True)
class Network:
    """The guest's network: a private slirp network that reaches the metadata address only."""

    mac: str
    address: str
    ipv6_prefix: str = "fd00:6966::"


@dataclass(frozen=True)
class Files:
    """Files that the machine uses; relative ones are relative to QEMU's working directory."""

    disk: Path
    """The disposable overlay."""
    seed: Path | None = None
    """The config drive or NoCloud seed."""
    firmware: FirmwareFiles | None = None
    console: str = "socket,path=console.sock"
    """The character device of the serial console. (No logfile= of QEMU's: when the reader is
    slow it holds characters twice.)"""
    qmp: str | None = "socket,path=qmp.sock"
    firmware_log: str = "socket,path=firmware.sock"
    agent: str = "socket,path=agent.sock,server=on,wait=off"
    capture: Path | None = None
    """A pcap file of all the guest's network traffic."""
    kernel: Path | None = None
    """What is started in a bootloader's place."""
    ramdisk: Path | None = None


class _Devices:
    """Collects -device options and gives each PCIe device its root port."""

    def __init__(self, emulator: Emulator, machine: str) -> None:
        self.arguments: list[str] = []
        self._emulator = emulator
        self._pcie = _matches(machine, MACHINES_WITH_PCIE)
        self._ports = 0
        self._controllers: set[str] = set()

    def add(self, device: str, *options: str, why: str) -> None:
        """Add one device; the emulator must have it."""
        if device not in self._emulator.devices:
            raise PropertyError(
                f"{why} asks for the device {device}, which {self._emulator.binary} "
                f"{self._emulator.version} does not have"
            )
        words = [device, *options]
        if self._pcie and not device.startswith(NOT_ON_PCI) and device not in ON_PCIE_ROOT:
            self._ports += 1
            port = f"port{self._ports}"
            self.arguments += ["-device", f"pcie-root-port,id={port},chassis={self._ports}"]
            words.append(f"bus={port}")
        self.arguments += ["-device", ",".join(words)]

    def first_known(self, names: tuple[str, ...]) -> str:
        """Return the first of some devices that the emulator has; the first of all if none."""
        return next((name for name in names if name in self._emulator.devices), names[0])

    def controller(self, identity: str, device: str, *, why: str) -> None:
        """Add a bus controller unless it is there already."""
        if identity not in self._controllers:
            self._controllers.add(identity)
            self.add(device, f"id={identity}", why=why)


def command(
    guest: NovaGuest,
    emulator: Emulator,
    files: Files,
    network: Network,
    *,
    uuid: str,
    accelerator: Accelerator,
) -> list[str]:
    """Write the command line.

    Raises:
        PropertyError: The machine cannot have what the properties ask for.
        HostError: Secure Boot needs a firmware that was not given.
    """
    machine = emulator.machine(guest.machine)
    devices = _Devices(emulator, machine)
    _add_storage(devices, guest, machine, with_seed=files.seed is not None)
    _add_network(devices, guest)
    _add_display(devices, guest)
    _add_extras(devices, guest)
    return [
        emulator.binary,
        *("-name", "boot-test", "-uuid", uuid),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *_machine(guest, machine, files, accelerator),
        *("-m", f"{guest.memory}M", "-smp", str(VCPUS)),
        *_sysinfo(guest, uuid),
        *_direct(guest, files),
        *("-rtc", "base=utc"),
        *("-boot", "strict=on" + (",menu=on" if guest.boot_menu else "")),
        *("-chardev", f"{files.console},id=console", "-serial", "chardev:console"),
        *_monitor(files),
        *_firmware_log(guest, files),
        *_drives(files),
        *("-netdev", _netdev(network)),
        *(_capture(files)),
        *_agent(guest, files),
        *[word.replace("{mac}", network.mac) for word in devices.arguments],
    ]


def _machine(
    guest: NovaGuest, machine: str, files: Files, accelerator: Accelerator
) -> tuple[str, ...]:
    hypervisor = guest.hypervisor
    options = [machine]
    software = accelerator == "tcg"
    if software:
        options += hypervisor.machine_options
    if guest.viommu == "smmuv3":
        options.append("iommu=smmuv3")
    cpu: str | None = guest.tcg_cpu if software else "host"
    if guest.emulated:
        # LibvirtDriver._get_guest_cpu_config: a model for some architectures, else none at all,
        # and then it is QEMU's default.
        cpu = hypervisor.emulated_cpu
    tail: list[str] = ["-cpu", cpu] if cpu else []
    firmware = files.firmware
    if firmware is not None:
        options.append("pflash0=pflash0")
        tail += _blockdev("pflash0", firmware.executable_format, firmware.executable, ro=True)
        if firmware.variables is not None:
            options.append("pflash1=pflash1")
            tail += _blockdev("pflash1", firmware.variables_format, firmware.variables)
        if firmware.requires_smm:
            # docs/interop/firmware.json, requires-smm; S3 and SMM exclude each other.
            options.append("smm=on")
            tail += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
            tail += ["-global", "ICH9-LPC.disable_s3=1"]
    elif guest.firmware == "uefi":
        raise HostError("no UEFI firmware was given for a guest that needs it")
    accel = "tcg,thread=multi" if software else "kvm"
    return ("-machine", ",".join(options), "-accel", accel, *tail)


def _sysinfo(guest: NovaGuest, uuid: str) -> tuple[str, ...]:
    if not guest.hypervisor.smbios:
        return ()
    return ("-smbios", f"{NOVA_SYSINFO},serial={uuid},uuid={uuid},family=Virtual Machine")


def _direct(guest: NovaGuest, files: Files) -> tuple[str, ...]:
    """Let the firmware start a kernel that is no file of the disk."""
    if files.kernel is None:
        return ()
    ramdisk = ("-initrd", str(files.ramdisk)) if files.ramdisk else ()
    return ("-kernel", str(files.kernel), *ramdisk, "-append", guest.command_line)


def _monitor(files: Files) -> tuple[str, ...]:
    if files.qmp is None:
        return ()
    return ("-chardev", f"{files.qmp},id=qmp", "-mon", "chardev=qmp,mode=control", "-S")


def _firmware_log(guest: NovaGuest, files: Files) -> tuple[str, ...]:
    device = guest.hypervisor.firmware_log
    if device is None:
        return ()
    return (
        *("-chardev", f"{files.firmware_log},id=firmware"),
        *("-device", f"{device},chardev=firmware"),
    )


def _drives(files: Files) -> tuple[str, ...]:
    disk = _blockdev("disk", "qcow2", files.disk, discard="unmap")
    seed = _blockdev("seed", "raw", files.seed, ro=True) if files.seed else ()
    return (*disk, *seed)


def _blockdev(
    node: str, driver: str, path: Path, *, ro: bool = False, **options: str
) -> tuple[str, str]:
    description: dict[str, Any] = {
        "node-name": node,
        "driver": driver,
        "read-only": ro,
        **options,
        "file": {"driver": "file", "filename": str(path), **options},
    }
    return ("-blockdev", json.dumps(description))


def _netdev(network: Network) -> str:
    return (
        "user,id=net,net=10.0.2.0/24,dhcpstart=10.0.2.15"
        f",ipv6-prefix={network.ipv6_prefix},ipv6-prefixlen=64,ipv6-host={network.ipv6_prefix}2"
        f",hostfwd=tcp:127.0.0.1:{SSH_PORT}-{network.address}:22"
    )


def _capture(files: Files) -> tuple[str, ...]:
    if files.capture is None:
        return ()
    return ("-object", f"filter-dump,id=capture,netdev=net,file={files.capture}")


def _agent(guest: NovaGuest, files: Files) -> tuple[str, ...]:
    return ("-chardev", f"{files.agent},id=agent") if guest.guest_agent else ()


def _add_storage(devices: _Devices, guest: NovaGuest, machine: str, *, with_seed: bool) -> None:
    _add_drive(devices, guest, machine, ("disk", "hw_disk_bus", guest.disk_bus, "hd"))
    if with_seed:
        _add_drive(devices, guest, machine, ("seed", "hw_cdrom_bus", guest.cdrom_bus, "cd"))


def _add_drive(
    devices: _Devices, guest: NovaGuest, machine: str, drive: tuple[str, str, str, str]
) -> None:
    node, key, bus, kind = drive
    why = f"{key}={bus}"
    first = ("bootindex=1",) if node == "disk" else ()
    place = 0 if node == "disk" else 1
    if bus == "virtio":
        # A virtio CD-ROM is a read-only disk, as in libvirt.
        devices.add("virtio-blk-pci", f"drive={node}", *first, why=why)
    elif bus == "scsi":
        model = SCSI_DEVICES[guest.scsi_model]
        devices.controller("scsi", model, why=f"hw_scsi_model={guest.scsi_model}")
        devices.add(f"scsi-{kind}", "bus=scsi.0", f"drive={node}", *first, why=why)
    elif bus == "sata":
        devices.controller("sata", "ich9-ahci", why=why)
        devices.add(f"ide-{kind}", f"bus=sata.{place}", f"drive={node}", *first, why=why)
    elif bus == "usb":
        devices.controller("usb", guest.hypervisor.usb_controller, why=why)
        devices.add("usb-storage", "bus=usb.0", f"drive={node}", *first, why=why)
    else:
        if not _matches(machine, MACHINES_WITH_IDE):
            raise PropertyError(
                f"{why}: the machine {machine} has no IDE bus",
                hint=f"set {key} to one of: sata, scsi, usb, virtio",
            )
        devices.add(f"ide-{kind}", f"bus=ide.{place}", f"drive={node}", *first, why=why)


def _add_network(devices: _Devices, guest: NovaGuest) -> None:
    model = NIC_DEVICES.get(guest.vif_model, guest.vif_model)
    # Network boot is not what is tested, and a boot ROM that waits for DHCP would be slow.
    no_rom = () if model.startswith("spapr-") else ("romfile=",)
    devices.add(model, "netdev=net", "mac={mac}", *no_rom, why=f"hw_vif_model={guest.vif_model}")


def _add_display(devices: _Devices, guest: NovaGuest) -> None:
    why = f"hw_video_model={guest.video_model}"
    names = VIDEO_DEVICES[guest.video_model]
    if names:
        devices.add(devices.first_known(names), why=why)
    for kind, bus in guest.inputs:
        if bus == "usb":
            devices.controller("usb", guest.hypervisor.usb_controller, why=f"a USB {kind}")
        where = ("bus=usb.0",) if bus == "usb" else ()
        devices.add(INPUT_DEVICES[kind, bus], *where, why=f"hw_input_bus={bus}")


def _add_extras(devices: _Devices, guest: NovaGuest) -> None:
    # LibvirtDriver._add_rng_device and _guest_add_memory_balloon: always, since Ussuri.
    devices.add("virtio-rng-pci", why="nova's random number generator")
    devices.add("virtio-balloon-pci", why="nova's memory balloon")
    if guest.guest_agent:
        devices.controller("serial", "virtio-serial-pci", why="hw_qemu_guest_agent")
        devices.add(
            "virtserialport",
            "bus=serial.0",
            "chardev=agent",
            "name=org.qemu.guest_agent.0",
            why="hw_qemu_guest_agent",
        )
    if guest.watchdog != "disabled":
        devices.add("i6300esb", why=f"hw_watchdog_action={guest.watchdog}")
        devices.arguments += ["-action", f"watchdog={guest.watchdog}"]
    if guest.viommu == "intel":
        devices.add("intel-iommu", why="hw_viommu_model=intel")
    elif guest.viommu == "virtio":
        devices.add("virtio-iommu-pci", why="hw_viommu_model=virtio")


def _matches(machine: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(machine, pattern) for pattern in patterns)
