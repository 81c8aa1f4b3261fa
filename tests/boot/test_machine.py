from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.boot.firmware import FirmwareFiles
from imagefactory.boot.machine import Accelerator, Emulator, Files, Network, command
from imagefactory.boot.nova import derive
from imagefactory.errors import HostError, PropertyError

GOLDEN = Path(__file__).parent / "golden"
FLASH = FirmwareFiles(Path("code.fd"), "raw", Path("variables.fd"), "raw", requires_smm=False)


class Bench:
    """Writes command lines for properties, with everything else held still."""

    def __init__(self, profiles: ArchProfiles, emulators: dict[str, Emulator]) -> None:
        self.profiles = profiles
        self.emulators = emulators

    def command(
        self,
        properties: dict[str, str],
        accelerator: Accelerator = "tcg",
        flash: FirmwareFiles | None = FLASH,
        seed: Path | None = Path("config-drive.iso"),
    ) -> list[str]:
        guest = derive(properties, self.profiles)
        files = Files(
            disk=Path("disk.qcow2"),
            seed=seed,
            firmware=flash if guest.firmware == "uefi" else None,
            capture=Path("network.pcap"),
        )
        return command(
            guest,
            self.emulators[guest.architecture],
            files,
            Network("fa:16:3e:01:02:03", "10.0.2.15"),
            uuid="0f3c1d52-7a8e-4b55-9c3d-2f1e6a7b8c9d",
            accelerator=accelerator,
        )

    def devices(self, **properties: str) -> list[str]:
        words = self.command({"architecture": "x86_64", **properties})
        return [words[at + 1] for at, word in enumerate(words) if word == "-device"]


@pytest.fixture
def bench(profiles: ArchProfiles, emulators: dict[str, Emulator]) -> Bench:
    return Bench(profiles, emulators)


SECURE = {
    "architecture": "x86_64",
    "hw_machine_type": "q35",
    "hw_firmware_type": "uefi",
    "os_secure_boot": "required",
}


@pytest.mark.parametrize("arch", ["aarch64", "ppc64le", "x86_64"])
def test_the_shipped_profiles_give_the_golden_command_lines(
    bench: Bench, profiles: ArchProfiles, arch: str
) -> None:
    words = bench.command(profiles.get(arch).properties)
    # One option a line, so that a difference reads well.
    text = shlex.join(words).replace(" -", " \\\n  -") + "\n"
    assert text == (GOLDEN / f"{arch}.txt").read_text()


@pytest.mark.parametrize(
    ("emulated", "machine", "cpu"),
    [("aarch64", "virt", "cortex-a57"), ("ppc64le", "pseries", "POWER8"), ("x86_64", "pc", None)],
)
def test_an_emulated_guest_has_the_cpu_that_nova_gives_it(
    bench: Bench, emulated: str, machine: str, cpu: str | None
) -> None:
    properties = {"hw_emulation_architecture": emulated, "hw_machine_type": machine}
    words = bench.command({"architecture": "aarch64", **properties})
    given = words[words.index("-cpu") + 1] if "-cpu" in words else None
    assert given == cpu


def test_a_kernel_beside_the_disk_is_started_with_its_command_line(
    profiles: ArchProfiles, emulators: dict[str, Emulator]
) -> None:
    guest = derive({"architecture": "x86_64", "os_command_line": "root=LABEL=x quiet"}, profiles)

    def words(kernel: Path | None = None, ramdisk: Path | None = None) -> list[str]:
        return command(
            guest,
            emulators["x86_64"],
            Files(disk=Path("disk.qcow2"), kernel=kernel, ramdisk=ramdisk),
            Network("fa:16:3e:01:02:03", "10.0.2.15"),
            uuid="0f3c1d52-7a8e-4b55-9c3d-2f1e6a7b8c9d",
            accelerator="tcg",
        )

    both = shlex.join(words(kernel=Path("k"), ramdisk=Path("r")))
    assert "-kernel k -initrd r -append 'root=LABEL=x quiet'" in both
    alone = words(kernel=Path("k"))
    assert "-kernel" in alone
    assert "-initrd" not in alone
    assert "-append" not in words()


@pytest.mark.parametrize(
    ("properties", "devices"),
    [
        ({"hw_disk_bus": "virtio"}, ["virtio-blk-pci,drive=disk,bootindex=1"]),
        (
            {"hw_disk_bus": "scsi", "hw_scsi_model": "virtio-scsi"},
            ["virtio-scsi-pci,id=scsi", "scsi-hd,bus=scsi.0,drive=disk,bootindex=1"],
        ),
        (
            {"hw_disk_bus": "scsi"},
            ["lsi53c895a,id=scsi", "scsi-hd,bus=scsi.0,drive=disk,bootindex=1"],
        ),
        (
            {"hw_disk_bus": "sata"},
            ["ich9-ahci,id=sata", "ide-hd,bus=sata.0,drive=disk,bootindex=1"],
        ),
        (
            {"hw_disk_bus": "usb"},
            ["piix3-usb-uhci,id=usb", "usb-storage,bus=usb.0,drive=disk,bootindex=1"],
        ),
        ({"hw_disk_bus": "ide"}, ["ide-hd,bus=ide.0,drive=disk,bootindex=1"]),
        ({"hw_cdrom_bus": "ide"}, ["ide-cd,bus=ide.1,drive=seed"]),
        ({"hw_cdrom_bus": "virtio"}, ["virtio-blk-pci,drive=seed"]),
        ({"hw_cdrom_bus": "sata"}, ["ich9-ahci,id=sata", "ide-cd,bus=sata.1,drive=seed"]),
        (
            {"hw_vif_model": "e1000"},
            ["e1000,netdev=net,mac=fa:16:3e:01:02:03,romfile="],
        ),
        ({"hw_video_model": "virtio"}, ["virtio-vga"]),
        ({"hw_video_model": "qxl"}, ["qxl-vga"]),
        (
            {"hw_input_bus": "usb"},
            ["piix3-usb-uhci,id=usb", "usb-tablet,bus=usb.0", "usb-kbd,bus=usb.0"],
        ),
        ({"hw_input_bus": "virtio"}, ["virtio-tablet-pci", "virtio-keyboard-pci"]),
        ({"hw_watchdog_action": "poweroff"}, ["i6300esb"]),
        (
            {"hw_qemu_guest_agent": "yes"},
            [
                "virtio-serial-pci,id=serial",
                "virtserialport,bus=serial.0,chardev=agent,name=org.qemu.guest_agent.0",
            ],
        ),
        ({"hw_viommu_model": "virtio"}, ["virtio-iommu-pci"]),
        ({}, ["virtio-rng-pci", "virtio-balloon-pci"]),
    ],
)
def test_a_property_brings_its_devices(
    bench: Bench, properties: dict[str, str], devices: list[str]
) -> None:
    seen = bench.devices(**properties)
    assert [device for device in devices if device not in seen] == []


def test_one_controller_serves_all_its_devices(bench: Bench) -> None:
    seen = bench.devices(hw_disk_bus="scsi", hw_cdrom_bus="scsi", hw_scsi_model="virtio-scsi")
    assert [device for device in seen if device.startswith("virtio-scsi-pci")] == [
        "virtio-scsi-pci,id=scsi"
    ]


def test_on_pci_express_each_device_has_a_root_port(bench: Bench) -> None:
    seen = bench.devices(hw_machine_type="q35")
    ports = [device for device in seen if device.startswith("pcie-root-port")]
    behind = [device for device in seen if ",bus=port" in device]
    assert len(ports) == len(behind) == 5
    assert "virtio-vga" in seen
    assert not any("root-port" in device for device in bench.devices(hw_machine_type="pc"))


def test_software_emulation_gets_the_cpu_and_options_of_the_profile(bench: Bench) -> None:
    words = bench.command({"architecture": "ppc64le"})
    assert "pseries-7.2,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken" in words
    assert words[words.index("-cpu") + 1] == "POWER9"
    assert words[words.index("-accel") + 1] == "tcg,thread=multi"


def test_kvm_gets_the_hosts_cpu_and_no_options_for_emulation(bench: Bench) -> None:
    words = bench.command({"architecture": "ppc64le"}, accelerator="kvm")
    assert "pseries-7.2" in words
    assert words[words.index("-cpu") + 1] == "host"
    assert words[words.index("-accel") + 1] == "kvm"


@pytest.mark.parametrize(
    ("arch", "told"), [("x86_64", True), ("aarch64", False), ("ppc64le", False)]
)
def test_only_where_nova_sets_it_does_smbios_say_openstack(
    bench: Bench, arch: str, told: bool
) -> None:
    text = " ".join(bench.command({"architecture": arch}))
    assert ("product=OpenStack Nova" in text) == told
    assert "-uuid 0f3c1d52-7a8e-4b55-9c3d-2f1e6a7b8c9d" in text


def test_secure_boot_with_smm_locks_the_flash(bench: Bench) -> None:
    flash = FirmwareFiles(Path("c.fd"), "raw", Path("v.fd"), "raw", requires_smm=True)
    words = bench.command(SECURE, flash=flash)
    machine = words[words.index("-machine") + 1]
    assert machine == "pc-q35-7.2,pflash0=pflash0,pflash1=pflash1,smm=on"
    assert "driver=cfi.pflash01,property=secure,value=on" in words


def test_a_file_name_with_a_comma_stays_one_name(bench: Bench) -> None:
    words = bench.command({"architecture": "x86_64"}, seed=Path("a,b.iso"))
    assert any('"filename": "a,b.iso"' in word for word in words)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"hw_machine_type": "isapc"}, "hw_machine_type=isapc is unknown"),
        ({"hw_machine_type": "q35", "hw_disk_bus": "ide"}, "hw_disk_bus=ide: .* no IDE bus"),
        ({"hw_vif_model": "spapr-vlan"}, "hw_vif_model=spapr-vlan asks for the device"),
        ({"hw_scsi_model": "ibmvscsi", "hw_disk_bus": "scsi"}, "hw_scsi_model=ibmvscsi asks"),
    ],
)
def test_a_machine_that_cannot_be_is_a_named_error(
    bench: Bench, properties: dict[str, str], message: str
) -> None:
    with pytest.raises(PropertyError, match=message):
        bench.devices(**properties)


def test_uefi_without_flash_is_an_error(bench: Bench) -> None:
    with pytest.raises(HostError, match="no UEFI firmware"):
        bench.command({"architecture": "aarch64"}, flash=None)
