"""Arch profiles: everything the factory knows about a processor architecture, as data.

One file of ``arch_profiles/`` describes one architecture. Python knows none by name: adding
an architecture is adding a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from imagefactory import yamlfile
from imagefactory.data import SearchPath
from imagefactory.errors import ConfigError, UnknownNameError
from imagefactory.words import CpuLevelName
from imagefactory.yamlfile import Model

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.+-]*$", max_length=64)]


CPU_LEVEL = "cpu_level"
"""The image property that says which CPU level the image needs; nova does not read it, operators
and the boot test do."""

BootMethod = Literal["uefi", "uefi-unsigned", "bios", "prep"]

ALL = "all"
"""What ``--arch`` takes for every architecture; no profile may be called so."""


class ArchNames(Model):
    """The name of the architecture in each ecosystem."""

    deb: Name = Field(description="Debian's architecture name, as `dpkg --print-architecture`")
    rpm: Name = Field(description="rpm's architecture name, as `uname -m` mostly")
    efi: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9]+$",
        description="suffix of EFI programs (BOOTxxx.EFI), UEFI specification 3.5.1.1, lower case",
    )
    grub_efi: str | None = Field(default=None, description="GRUB's target name under UEFI")
    grub_deb: str | None = Field(
        default=None,
        description="the architecture in the names of Debian's GRUB packages; unset: as deb",
    )
    multiarch: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_-]+$",
        description="Debian's library directory below /usr/lib (multiarch tuple)",
    )
    qemu_user: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_]+$",
        description="QEMU's name in user mode, qemu-NAME-static: runs its programs on other hosts",
    )


class ElfMachine(Model):
    """What the ELF header of its programs says (System V ABI: e_ident and e_machine)."""

    machine: int = Field(ge=1, le=0xFFFF, description="e_machine")
    bits: Literal[32, 64]
    endian: Literal["little", "big"]


class CpuLevel(Model):
    """Processors from some generation on, which a distribution may ask for."""

    traits: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9_]+$")], ...] = Field(
        default=(), description="by which nova's scheduler finds hosts that have it (os-traits)"
    )
    tcg_cpu: str | None = Field(
        default=None, description="-cpu under software emulation; unset: the architecture's"
    )


class Hypervisor(Model):
    """What the cloud's side does for guests of this architecture when the image says nothing.

    These are facts about nova's libvirt driver, libvirt and QEMU, not about our image; the
    boot test reaches them through the ``architecture`` property alone.
    """

    qemu: str = Field(description="the system emulator, qemu-system-*")
    qemu_package: str = Field(description="the Debian package that brings it")
    machine: str = Field(description="nova's default machine type")
    machine_options: tuple[str, ...] = Field(
        default=(), description="options of -machine that software emulation needs"
    )
    tcg_cpu: str = Field(description="-cpu under software emulation")
    emulated_cpu: str | None = Field(
        default=None, description="nova's CPU for a guest foreign to its host"
    )
    cpu_levels: dict[CpuLevelName, CpuLevel] = Field(
        default={},
        description="those that `cpu:` of a template may name, all above `emulated_cpu`",
    )
    cdrom_bus: Literal["scsi", "sata", "ide", "virtio"] = Field(
        description="nova's default bus of a CD-ROM on the default machine"
    )
    video: str = Field(description="nova's default video model")
    firmware: Literal["uefi", "bios", "none"] = Field(
        description="the firmware nova gives when hw_firmware_type is unset; "
        "none: the machine brings its own (SLOF, OpenSBI)"
    )
    firmware_packages: dict[Literal["uefi", "bios"], str] = Field(
        default={}, description="the Debian packages of firmware images"
    )
    smbios: bool = Field(default=False, description="nova fills in SMBIOS system information")
    keyboard: Literal["usb", "ps2"] | None = Field(
        default=None, description="the keyboard that nova adds or the machine has"
    )
    scsi_model: str = Field(
        default="virtio-scsi", description="libvirt's SCSI controller when the image names none"
    )
    usb_controller: str = Field(
        default="qemu-xhci", description="libvirt's USB controller, a QEMU device"
    )
    firmware_log: str | None = Field(
        default=None, description="the QEMU device on which the firmware writes its own log"
    )
    boot_budget: int = Field(
        gt=0, description="seconds from power-on to SSH that software emulation may take"
    )


class ArchProfile(Model):
    """One processor architecture."""

    name: Name = Field(description="nova's name of the architecture")
    description: str
    aliases: tuple[Name, ...] = Field(default=(), description="other names accepted for it")
    names: ArchNames
    elf: ElfMachine
    kernel: dict[str, str] = Field(
        description="distribution -> the package that brings a kernel for virtual machines"
    )
    console: str = Field(description="the serial console's device name in Linux")
    boot: tuple[BootMethod, ...] = Field(
        min_length=1,
        description="how firmware starts the image, each prepared on the disk: "
        "uefi (signed shim and GRUB), uefi-unsigned (GRUB alone), bios, prep",
    )
    min_ram: int = Field(gt=0, description="MiB that a minimal guest needs to boot")
    properties: dict[str, str] = Field(description="Glance image properties of the architecture")
    hypervisor: Hypervisor

    @field_validator("boot")
    @classmethod
    def _uefi_needs_names(
        cls, boot: tuple[BootMethod, ...], info: ValidationInfo
    ) -> tuple[BootMethod, ...]:
        names = info.data.get("names")  # absent when it has mistakes of its own
        if names is not None and {"uefi", "uefi-unsigned"} & {*boot}:
            missing = [key for key in ("efi", "grub_efi") if getattr(names, key) is None]
            if missing:
                raise ValueError(f"to boot by UEFI, names needs {' and '.join(missing)}")
        return boot


@dataclass(frozen=True)
class ArchProfiles:
    """All profiles on the search path, found by their name or an alias."""

    profiles: tuple[ArchProfile, ...]

    @classmethod
    def load(cls, path: SearchPath) -> ArchProfiles:
        """Read every profile.

        Raises:
            YamlMistakesError: A profile has mistakes.
            ConfigError: Two profiles claim one name, or a file is named unlike its profile.
        """
        profiles = []
        owner: dict[str, Path] = {}
        for stem, file in path.yaml_files("arch_profiles").items():
            profile = yamlfile.load(file, ArchProfile)
            if profile.name != stem:
                raise ConfigError(
                    f"{file}: the profile is named {profile.name!r}, the file {stem!r}",
                    hint=f"rename the file to {profile.name}.yaml",
                )
            for name in (profile.name, *profile.aliases):
                if name == ALL:
                    raise ConfigError(f"{file}: the name {ALL!r} means all architectures")
                if name in owner:
                    raise ConfigError(
                        f"{file}: the name {name!r} is taken by {owner[name]}",
                        hint="each name and alias belongs to one profile",
                    )
                owner[name] = file
            profiles.append(profile)
        return cls(tuple(sorted(profiles, key=lambda profile: profile.name)))

    @property
    def names(self) -> tuple[str, ...]:
        """The canonical names, sorted."""
        return tuple(profile.name for profile in self.profiles)

    def get(self, name: str) -> ArchProfile:
        """Find a profile by its name or one of its aliases.

        Raises:
            UnknownNameError: No profile has this name.
        """
        for profile in self.profiles:
            if name.lower() in (profile.name, *profile.aliases):
                return profile
        raise UnknownNameError("architecture", name, self.names)

    def select(self, names: tuple[str, ...]) -> tuple[ArchProfile, ...]:
        """Resolve ``--arch`` values (names, aliases, ``all``) into profiles without repeats.

        Raises:
            UnknownNameError: No profile has one of these names.
        """
        chosen = {
            profile.name: profile
            for name in names
            for profile in (self.profiles if name.lower() == ALL else (self.get(name),))
        }
        return tuple(chosen.values())
