"""What nova's libvirt driver makes of an image's properties: the choices, not yet a command line.

Each rule names the function of nova that it follows. Facts about architectures come from the
profile's ``hypervisor`` section, found through the ``architecture`` property alone; every
other choice comes from the properties, for they are what a cloud will see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from imagefactory.arch import CPU_LEVEL, ArchProfiles, Hypervisor
from imagefactory.errors import PropertyError

DEFAULT_RAM = 512
"""MiB for images that set no min_ram: the smallest flavor of most clouds (m1.tiny)."""

DISK_BUSES = ("ide", "sata", "scsi", "usb", "virtio")
CDROM_BUSES = ("ide", "sata", "scsi", "usb", "virtio")
VIF_MODELS = (
    "virtio",
    "e1000",
    "e1000e",
    "igb",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "spapr-vlan",
    "vmxnet3",
)
VIDEO_MODELS = ("bochs", "cirrus", "none", "qxl", "vga", "virtio", "vmvga")
SCSI_MODELS = ("virtio-scsi", "ibmvscsi", "lsilogic", "lsisas1068", "lsisas1078", "vmpvscsi")
INPUT_BUSES = ("usb", "virtio")
SECURE_BOOT = ("required", "optional", "disabled")
WATCHDOG_ACTIONS = ("disabled", "none", "pause", "poweroff", "reset")
VIOMMU_MODELS = ("intel", "smmuv3", "virtio")

UNTESTABLE = {
    "hw_tpm_version": "the boot test has no TPM emulator",
    "hw_mem_encryption": "memory encryption needs AMD hardware",
    "img_bdm_v2": "a block device mapping names volumes of one cloud",
}
"""Properties that change the machine in ways that cannot be had here."""

Firmware = Literal["uefi", "bios", "none"]
SecureBoot = Literal["required", "optional", "disabled"]
Input = tuple[Literal["keyboard", "tablet", "mouse"], Literal["usb", "virtio"]]


@dataclass(frozen=True)
class NovaGuest:
    """The guest that nova would define for an image."""

    architecture: str
    hypervisor: Hypervisor
    emulated: bool
    tcg_cpu: str
    """QEMU's CPU model under software emulation."""
    machine: str
    firmware: Firmware
    secure_boot: SecureBoot
    stateless: bool
    disk_bus: str
    cdrom_bus: str
    scsi_model: str
    vif_model: str
    video_model: str
    inputs: tuple[Input, ...]
    memory: int
    config_drive: bool
    guest_agent: bool
    boot_menu: bool
    watchdog: str
    viommu: str | None
    admin_user: str | None
    command_line: str
    """The kernel's, where nova starts a kernel by itself (``kernel_id``)."""


def derive(
    properties: Mapping[str, str], profiles: ArchProfiles, *, memory: int | None = None
) -> NovaGuest:
    """Derive the guest from image properties; an empty value counts as unset.

    Raises:
        PropertyError: A value that nova refuses, or that no machine here can have.
    """
    given = {key: value for key, value in properties.items() if value != ""}
    for key, why in UNTESTABLE.items():
        if key in given:
            raise PropertyError(f"{key}={given[key]} cannot be boot-tested: {why}")
    architecture = guest_architecture(given)
    hypervisor = _hypervisor(architecture, profiles)
    _check_hypervisor_kind(given)
    machine = given.get("hw_machine_type") or _default_machine(given, hypervisor, profiles)
    firmware = _firmware(given, hypervisor)
    disk_bus = _choice(given, "hw_disk_bus", DISK_BUSES, "virtio")
    video = _choice(given, "hw_video_model", VIDEO_MODELS, hypervisor.video)
    return NovaGuest(
        architecture=architecture,
        hypervisor=hypervisor,
        emulated="hw_emulation_architecture" in given,
        tcg_cpu=_tcg_cpu(given, hypervisor),
        machine=machine,
        firmware=firmware,
        secure_boot=_secure_boot(given, firmware),
        stateless=_flag(given, "hw_firmware_stateless") and firmware == "uefi",
        disk_bus=disk_bus,
        cdrom_bus=_choice(given, "hw_cdrom_bus", CDROM_BUSES, _cdrom_bus(machine, hypervisor)),
        scsi_model=_choice(given, "hw_scsi_model", SCSI_MODELS, hypervisor.scsi_model),
        vif_model=_choice(given, "hw_vif_model", VIF_MODELS, "virtio"),
        video_model=video,
        inputs=_inputs(given, hypervisor) if video != "none" else (),
        memory=memory or _number(given, "min_ram") or DEFAULT_RAM,
        config_drive=_choice(given, "img_config_drive", ("optional", "mandatory"), "optional")
        == "mandatory",
        guest_agent=_flag(given, "hw_qemu_guest_agent"),
        boot_menu=_flag(given, "hw_boot_menu"),
        watchdog=_choice(given, "hw_watchdog_action", WATCHDOG_ACTIONS, "disabled"),
        viommu=_choice(given, "hw_viommu_model", VIOMMU_MODELS, "") or None,
        admin_user=given.get("os_admin_user"),
        command_line=given.get("os_command_line") or _command_line(disk_bus),
    )


def guest_architecture(given: Mapping[str, str]) -> str:
    """Return nova's name of the architecture that guests of an image have.

    `LibvirtDriver._check_emulation_arch`: ``hw_emulation_architecture`` counts first; beside
    it ``architecture`` says which hosts may run the guest.

    Raises:
        PropertyError: The properties name none.
    """
    architecture = given.get("hw_emulation_architecture") or given.get("architecture")
    if architecture is None:
        raise PropertyError(
            "the image has no property `architecture`",
            hint="without it nova would run the image on any host; set it, as in "
            "architecture=aarch64",
        )
    return architecture


def _hypervisor(architecture: str, profiles: ArchProfiles) -> Hypervisor:
    # Only nova's own name counts: `arm64` would be found by its alias, but nova raises on it.
    for profile in profiles.profiles:
        if profile.name == architecture:
            return profile.hypervisor
    raise PropertyError(
        f"architecture={architecture} is not the name nova uses",
        hint=f"known: {', '.join(profiles.names)}",
    )


def _default_machine(
    given: Mapping[str, str], hypervisor: Hypervisor, profiles: ArchProfiles
) -> str:
    # libvirt.utils.get_machine_type asks get_arch, which knows nothing of emulation: it takes
    # the machine type of the hosts.
    host = given.get("architecture")
    if host is None or "hw_emulation_architecture" not in given:
        return hypervisor.machine
    return _hypervisor(host, profiles).machine


def _tcg_cpu(given: Mapping[str, str], hypervisor: Hypervisor) -> str:
    level = hypervisor.cpu_levels.get(given.get(CPU_LEVEL, ""))
    return (level.tcg_cpu if level else None) or hypervisor.tcg_cpu


def _check_hypervisor_kind(given: Mapping[str, str]) -> None:
    _choice(given, "vm_mode", ("hvm",), "hvm")
    _choice(given, "hypervisor_type", ("qemu", "kvm"), "qemu")
    _choice(given, "hw_rng_model", ("virtio",), "virtio")
    _choice(given, "hw_pointer_model", ("usbtablet",), "usbtablet")
    _flag(given, "hw_time_hpet")  # nova sets the timer on KVM hosts only, and off by default


def _command_line(disk_bus: str) -> str:
    # LibvirtDriver._set_guest_for_inst_kernel; blockinfo.get_dev_prefix_for_disk_bus
    prefix = {"virtio": "vd", "ide": "hd"}.get(disk_bus, "sd")
    return f"root=/dev/{prefix}a console=tty0 console=ttyS0 console=hvc0"


def _firmware(given: Mapping[str, str], hypervisor: Hypervisor) -> Firmware:
    # LibvirtDriver._configure_guest_by_virt_type; unset is UEFI on aarch64 only.
    wanted = given.get("hw_firmware_type")
    if wanted is None:
        return hypervisor.firmware
    for kind in hypervisor.firmware_packages:
        if wanted == kind:
            return kind
    known = ", ".join(hypervisor.firmware_packages) or "none: leave the property unset"
    raise PropertyError(
        f"hw_firmware_type={wanted} does not exist for this architecture", hint=f"known: {known}"
    )


def _secure_boot(given: Mapping[str, str], firmware: Firmware) -> SecureBoot:
    # hardware.get_secure_boot_constraint, LibvirtDriver._check_secure_boot_support
    value = _choice(given, "os_secure_boot", SECURE_BOOT, "disabled")
    if value == "required" and firmware != "uefi":
        raise PropertyError(
            "os_secure_boot=required needs UEFI", hint="set hw_firmware_type=uefi as well"
        )
    policies: dict[str, SecureBoot] = {"required": "required", "optional": "optional"}
    return policies.get(value, "disabled")


def _cdrom_bus(machine: str, hypervisor: Hypervisor) -> str:
    # blockinfo.get_disk_bus_for_device_type: where IDE is the default, q35 has SATA instead.
    return "sata" if hypervisor.cdrom_bus == "ide" and "q35" in machine else hypervisor.cdrom_bus


def _inputs(given: Mapping[str, str], hypervisor: Hypervisor) -> tuple[Input, ...]:
    # LibvirtDriver._guest_add_pointer_device, _guest_add_keyboard_device
    bus = _choice(given, "hw_input_bus", INPUT_BUSES, "")
    named: Literal["usb", "virtio"] = "virtio" if bus == "virtio" else "usb"
    inputs: list[Input] = []
    if bus or "hw_pointer_model" in given:
        inputs.append(("tablet", named))
    if bus or hypervisor.keyboard == "usb":
        inputs.append(("keyboard", named))
    return tuple(inputs)


def _choice(given: Mapping[str, str], key: str, allowed: tuple[str, ...], default: str) -> str:
    value = given.get(key, default)
    if key in given and value not in allowed:
        raise PropertyError(
            f"{key}={value} is not a value that QEMU guests of nova can have",
            hint=f"known: {', '.join(allowed)}",
        )
    return value


def _flag(given: Mapping[str, str], key: str) -> bool:
    # oslo.utils.strutils.bool_from_string in strict mode, which nova's FlexibleBoolean uses.
    value = given.get(key, "no").strip().lower()
    if value in {"1", "t", "true", "on", "y", "yes"}:
        return True
    if value in {"0", "f", "false", "off", "n", "no"}:
        return False
    raise PropertyError(f"{key}={given[key]} is not a yes or a no")


def _number(given: Mapping[str, str], key: str) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    if not value.isdecimal():
        raise PropertyError(f"{key}={value} is not a number")
    return int(value)
