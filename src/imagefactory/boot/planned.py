"""What a boot is to be, decided before anything starts: the machine, its firmware, the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagefactory.arch import ArchProfiles
from imagefactory.boot import emulator, firmware, instance, machine
from imagefactory.boot.machine import Emulator, Files, Network
from imagefactory.boot.nova import NovaGuest, derive
from imagefactory.errors import CommandError, ConfigError, PropertyError
from imagefactory.run import need, run
from imagefactory.template import BootCase


@dataclass(frozen=True)
class PlannedBoot:
    """One boot, decided before anything starts."""

    case: BootCase
    properties: Mapping[str, str]
    guest: NovaGuest
    emulator: Emulator
    machine: str
    firmware: firmware.Firmware | None


@dataclass(frozen=True)
class Image:
    """The disk under test; it is only read."""

    path: Path
    format: str
    virtual_size: int
    """bytes"""
    kernel: Path | None = None
    """What nova starts in a bootloader's place, as of ``kernel_id``."""
    ramdisk: Path | None = None


def plan_boot(case: BootCase, properties: Mapping[str, str], profiles: ArchProfiles) -> PlannedBoot:
    """Decide on one boot of an image.

    Raises:
        PropertyError: nova, libvirt or QEMU would refuse what case and properties ask for.
        HostError: This host lacks the emulator or the firmware.
    """
    merged = {**properties, **case.properties}
    guest = derive(merged, profiles, memory=case.memory)
    if guest.emulated and case.datasource == "config-drive":
        raise PropertyError(
            "hw_emulation_architecture excludes a config drive",
            hint=f"give the case {case.name!r} the datasource openstack",
        )
    asked = emulator.ask(guest.hypervisor)
    name = asked.machine(guest.machine)
    found = None
    if guest.firmware == "uefi":
        wanted = firmware.Wanted(
            architecture=Path(asked.binary).name.removeprefix("qemu-system-"),
            machine=name,
            secure_boot=guest.secure_boot,
            stateless=guest.stateless,
            package=guest.hypervisor.firmware_packages.get("uefi", "of a UEFI firmware"),
        )
        found = firmware.find(wanted)
    plan = PlannedBoot(case, merged, guest, asked, name, found)
    # Written once for nothing, so that every mistake in the properties shows before a boot.
    machine.command(
        guest,
        asked,
        Files(disk=Path("disk"), seed=Path("seed"), firmware=_pretended(found)),
        Network("52:54:00:00:00:00", instance.DHCP_ADDRESS),
        uuid="",
        accelerator="tcg",
    )
    return plan


def _pretended(found: firmware.Firmware | None) -> firmware.FirmwareFiles | None:
    if found is None:
        return None
    return firmware.FirmwareFiles(found.executable, "raw", None, "raw", requires_smm=False)


def inspect(
    disk: Path, disk_format: str, kernel: Path | None = None, ramdisk: Path | None = None
) -> Image:
    """Look at a disk, and what comes with it.

    Raises:
        ConfigError: It is not there, or not of this format.
    """
    if ramdisk and not kernel:
        raise ConfigError("a ramdisk is nothing without a kernel", hint="name both")
    for file in (kernel, ramdisk):
        if file and not (file.is_file() and file.stat().st_size):
            raise ConfigError(f"{file} is no kernel or ramdisk: no file, or an empty one")
    need("qemu-img", "qemu-utils")
    if not disk.exists():
        raise ConfigError(f"there is no disk {disk}")
    if not disk.is_file() or disk.stat().st_size == 0:
        raise ConfigError(
            f"{disk} is not a disk image",
            hint="it has to be a regular file that is not empty",
        )
    # The format is named, never probed: a raw guest could claim to be a qcow2 with a backing file.
    try:
        info = run(["qemu-img", "info", "--output=json", "-f", disk_format, disk.absolute()])
    except CommandError as error:
        raise ConfigError(
            f"{disk} is not readable as {disk_format}: {error.message.splitlines()[-1]}",
            hint="name its format: --format raw, or qcow2",
        ) from None
    size = int(json.loads(info.stdout)["virtual-size"])
    return Image(
        disk.absolute(),
        disk_format,
        size,
        kernel.absolute() if kernel else None,
        ramdisk.absolute() if ramdisk else None,
    )
