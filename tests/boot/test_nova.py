from __future__ import annotations

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.boot.nova import NovaGuest, derive
from imagefactory.errors import PropertyError

BASE = {
    "x86_64": {"architecture": "x86_64"},
    "aarch64": {"architecture": "aarch64"},
    "ppc64le": {"architecture": "ppc64le"},
}


def guest(profiles: ArchProfiles, arch: str, **properties: str) -> NovaGuest:
    return derive({**BASE[arch], **properties}, profiles)


@pytest.mark.parametrize(
    ("arch", "machine", "firmware", "cdrom", "video", "scsi", "inputs"),
    [
        ("x86_64", "pc", "bios", "ide", "virtio", "lsilogic", ()),
        ("aarch64", "virt", "uefi", "scsi", "virtio", "virtio-scsi", (("keyboard", "usb"),)),
        ("ppc64le", "pseries", "none", "scsi", "vga", "ibmvscsi", (("keyboard", "usb"),)),
    ],
)
def test_an_image_that_names_only_its_architecture_gets_novas_defaults(
    profiles: ArchProfiles,
    arch: str,
    machine: str,
    firmware: str,
    cdrom: str,
    video: str,
    scsi: str,
    inputs: tuple[tuple[str, str], ...],
) -> None:
    derived = guest(profiles, arch)
    seen = (derived.machine, derived.firmware, derived.cdrom_bus, derived.video_model)
    assert seen == (machine, firmware, cdrom, video)
    assert (derived.disk_bus, derived.vif_model) == ("virtio", "virtio")
    assert (derived.scsi_model, derived.inputs, derived.memory) == (scsi, inputs, 512)


@pytest.mark.parametrize(
    ("machine", "bus"), [("pc", "ide"), ("q35", "sata"), ("pc-q35-7.2", "sata")]
)
def test_a_cdrom_goes_where_the_machine_has_a_bus_for_it(
    profiles: ArchProfiles, machine: str, bus: str
) -> None:
    assert guest(profiles, "x86_64", hw_machine_type=machine).cdrom_bus == bus


def test_the_image_decides_where_it_says_something(profiles: ArchProfiles) -> None:
    derived = guest(
        profiles,
        "x86_64",
        hw_firmware_type="uefi",
        hw_machine_type="q35",
        hw_disk_bus="scsi",
        hw_scsi_model="virtio-scsi",
        hw_cdrom_bus="usb",
        hw_vif_model="e1000e",
        hw_video_model="bochs",
        hw_input_bus="virtio",
        os_secure_boot="required",
        hw_watchdog_action="reset",
        hw_qemu_guest_agent="yes",
        img_config_drive="mandatory",
        min_ram="384",
    )
    assert (derived.firmware, derived.secure_boot, derived.machine) == ("uefi", "required", "q35")
    assert (derived.disk_bus, derived.scsi_model, derived.cdrom_bus) == (
        "scsi",
        "virtio-scsi",
        "usb",
    )
    assert derived.inputs == (("tablet", "virtio"), ("keyboard", "virtio"))
    assert (derived.watchdog, derived.guest_agent, derived.config_drive) == ("reset", True, True)
    assert derived.memory == 384


def test_the_old_pointer_property_brings_a_usb_tablet_and_no_keyboard(
    profiles: ArchProfiles,
) -> None:
    derived = guest(profiles, "x86_64", hw_pointer_model="usbtablet")
    assert derived.inputs == (("tablet", "usb"),)


def test_a_guest_without_a_display_has_no_input_devices(profiles: ArchProfiles) -> None:
    assert guest(profiles, "aarch64", hw_video_model="none").inputs == ()


def test_an_emulated_architecture_replaces_the_images_own(profiles: ArchProfiles) -> None:
    derived = derive({"architecture": "x86_64", "hw_emulation_architecture": "aarch64"}, profiles)
    assert (derived.architecture, derived.emulated) == ("aarch64", True)


def test_the_hosts_machine_type_is_what_an_emulated_guest_gets_unless_it_names_one(
    profiles: ArchProfiles,
) -> None:
    emulated = {"architecture": "aarch64", "hw_emulation_architecture": "x86_64"}
    assert derive(emulated, profiles).machine == "virt"
    assert derive({**emulated, "hw_machine_type": "pc"}, profiles).machine == "pc"


@pytest.mark.parametrize(("bus", "device"), [("virtio", "vda"), ("scsi", "sda"), ("ide", "hda")])
def test_a_kernel_that_nova_starts_gets_novas_command_line(
    profiles: ArchProfiles, bus: str, device: str
) -> None:
    usual = f"root=/dev/{device} console=tty0 console=ttyS0 console=hvc0"
    assert guest(profiles, "x86_64", hw_disk_bus=bus).command_line == usual
    own = guest(profiles, "x86_64", hw_disk_bus=bus, os_command_line="root=UUID=1")
    assert own.command_line == "root=UUID=1"


def test_an_empty_value_counts_as_unset(profiles: ArchProfiles) -> None:
    assert guest(profiles, "aarch64", hw_firmware_type="").firmware == "uefi"


def test_the_case_overrules_the_images_memory(profiles: ArchProfiles) -> None:
    properties = BASE["x86_64"] | {"min_ram": "384"}
    assert derive(properties, profiles, memory=192).memory == 192
    assert derive(BASE["x86_64"] | {"min_ram": "0"}, profiles).memory == 512


@pytest.mark.parametrize(
    ("arch", "key", "value"),
    [
        ("aarch64", "hw_firmware_type", "bios"),
        ("ppc64le", "hw_firmware_type", "uefi"),
        ("x86_64", "hw_firmware_type", "efi"),
        ("x86_64", "hw_disk_bus", "fdc"),
        ("x86_64", "hw_disk_bus", "virtio-blk"),
        ("x86_64", "hw_cdrom_bus", "floppy"),
        ("x86_64", "hw_scsi_model", "buslogic"),
        ("x86_64", "hw_vif_model", "netfront"),
        ("x86_64", "hw_video_model", "gop"),
        ("x86_64", "hw_input_bus", "ps2"),
        ("x86_64", "hw_pointer_model", "mouse"),
        ("x86_64", "hw_rng_model", "hwrng"),
        ("x86_64", "hw_watchdog_action", "bark"),
        ("x86_64", "hw_viommu_model", "amd"),
        ("x86_64", "hw_qemu_guest_agent", "perhaps"),
        ("x86_64", "hw_time_hpet", "maybe"),
        ("x86_64", "os_secure_boot", "yes"),
        ("x86_64", "os_secure_boot", "required"),
        ("x86_64", "vm_mode", "xen"),
        ("x86_64", "hypervisor_type", "vmware"),
        ("x86_64", "img_config_drive", "always"),
        ("x86_64", "min_ram", "half"),
        ("x86_64", "hw_tpm_version", "2.0"),
    ],
)
def test_a_value_that_cannot_be_is_named(
    profiles: ArchProfiles, arch: str, key: str, value: str
) -> None:
    with pytest.raises(PropertyError, match=rf"{key}={value}"):
        guest(profiles, arch, **{key: value})


@pytest.mark.parametrize("name", ["arm64", "ppc64el", "amd64", "mips", "AARCH64"])
def test_only_novas_own_name_of_an_architecture_counts(profiles: ArchProfiles, name: str) -> None:
    with pytest.raises(PropertyError, match=f"architecture={name}"):
        derive({"architecture": name}, profiles)


def test_an_image_without_an_architecture_is_refused(profiles: ArchProfiles) -> None:
    with pytest.raises(PropertyError, match="no property `architecture`"):
        derive({}, profiles)


def test_an_image_is_tested_on_the_cpu_that_it_says_it_needs(profiles: ArchProfiles) -> None:
    levels = {arch: profiles.get(arch).hypervisor.cpu_levels for arch in BASE}
    assert {arch: set(known) for arch, known in levels.items()} == {
        "x86_64": {"x86-64-v2", "x86-64-v3"},
        "aarch64": set(),
        "ppc64le": {"POWER9"},
    }
    for arch, known in levels.items():
        assert guest(profiles, arch).tcg_cpu == profiles.get(arch).hypervisor.tcg_cpu
        for name, level in known.items():
            assert guest(profiles, arch, cpu_level=name).tcg_cpu == level.tcg_cpu
    unknown = guest(profiles, "x86_64", cpu_level="of another cloud's")
    assert unknown.tcg_cpu == profiles.get("x86_64").hypervisor.tcg_cpu
