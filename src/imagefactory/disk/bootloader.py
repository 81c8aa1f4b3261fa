"""Bootloaders: the distribution's own, put where each kind of firmware looks for it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from imagefactory import run
from imagefactory.disk.filesystem import make_fat
from imagefactory.disk.layout import SECTOR, Layout
from imagefactory.errors import BuildError
from imagefactory.identifiers import ESP_FILESYSTEM
from imagefactory.packages.tools import Tools
from imagefactory.plan import BuildPlan, boot_files, fill, grub_stub
from imagefactory.template import GrubModules, UefiFiles

_MODULES = (
    "xzio",
    "part_gpt",
    "ext2",
    "linux",
    "search",
    "search_fs_uuid",
    "normal",
    "configfile",
    "echo",
)
"""What a GRUB needs to read our disk and start Linux; the signed one has them all built in."""

_SERIAL = ("serial", "terminal", "test", "true")
"""BIOS has no console of its own on the serial port; under UEFI and Open Firmware it has."""


@dataclass(frozen=True)
class Job:
    """What every boot method needs to do its part."""

    plan: BuildPlan
    layout: Layout
    packages: Path
    disk_tools: Tools
    boot_tools: Tools
    work: Path
    log: Path
    epoch: int

    @property
    def stub(self) -> str:
        """The first configuration GRUB reads."""
        return grub_stub(self.plan)


def configuration_path(plan: BuildPlan) -> str:
    """Return the path in the tree of the configuration that all its bootloaders share."""
    return f"{plan.template.bootloader.directory}/grub.cfg"


def grub_configuration(plan: BuildPlan, kernel: str, initramfs: Iterable[str]) -> str:
    """Return grub.cfg; ``initrd`` joins all its files into one initramfs."""
    pieces = " ".join(f"/{path}" for path in initramfs)
    return (
        "if [ $grub_platform = pc ]; then\n"
        "  serial --unit=0 --speed=115200\n"
        "  terminal_output console serial\n"
        "fi\n"
        "echo Loading Linux ...\n"
        f"linux /{kernel} {plan.command_line}\n"
        f"initrd {pieces}\n"
        "boot\n"
    )


def unpack_boot_packages(plan: BuildPlan, package_file: Callable[..., Path], work: Path) -> Path:
    """Unpack the packages that bring the bootloader into one directory."""
    names = set()
    for method in plan.boot:
        files = boot_files(plan.template.bootloader, method)
        names |= {fill(name, plan.profile) for name in files.packages}
    directory = work / "boot-packages"
    for package in plan.image_packages:
        if package.name in names:
            run.run(["dpkg-deb", "--extract", package_file(package), directory])
    return directory


def install(method: str, job: Job, disk: Path) -> None:
    """Put the bootloader of one boot method on the disk.

    Raises:
        BuildError: The distribution's package lacks a file, or GRUB does not fit.
    """
    _METHODS[method](job, disk)


def _uefi(job: Job, disk: Path) -> None:
    """Signed shim and GRUB at the removable path, which firmware tries on any disk.

    UEFI specification 3.5.1.1. Shim starts grub*.efi beside it; that GRUB looks for its
    configuration where its distribution keeps it.
    """
    files = boot_files(job.plan.template.bootloader, "uefi")
    if not isinstance(files, UefiFiles):
        raise BuildError("`bootloader: uefi:` must name shim and grub")
    suffix = job.plan.profile.names.efi or ""
    stub = job.work / "esp-grub.cfg"
    stub.write_text(job.stub, encoding="utf-8")
    looked_at = (files.config_directory, *files.more_config_directories)
    esp = job.packages / "boot/efi"
    brought = {str(path.relative_to(esp)): path for path in esp.rglob("*") if path.is_file()}
    _write_esp(
        job,
        disk,
        {
            **brought,  # by packages that put their files where the ESP is mounted
            **{path: _packaged(job, source) for path, source in files.esp.items()},
            f"EFI/BOOT/BOOT{suffix.upper()}.EFI": _packaged(job, files.shim),
            f"EFI/BOOT/{fill(files.grub_name, job.plan.profile)}": _packaged(job, files.grub),
            **{f"{directory}/grub.cfg": stub for directory in looked_at},
        },
    )


def _uefi_unsigned(job: Job, disk: Path) -> None:
    """GRUB alone at the removable path, for architectures that have no signed shim."""
    target = job.plan.profile.names.grub_efi or ""
    image = _make_core(job, "uefi-unsigned", target, ())
    suffix = (job.plan.profile.names.efi or "").upper()
    _write_esp(job, disk, {f"EFI/BOOT/BOOT{suffix}.EFI": image})


def _prep(job: Job, disk: Path) -> None:
    """GRUB as the content of the PReP partition, an ELF program for Open Firmware."""
    core = _make_core(job, "prep", "powerpc-ieee1275", ())
    partition = job.layout.partition("prep")
    if core.stat().st_size > partition.size:
        raise BuildError("GRUB does not fit into the PReP partition")
    write_at(disk, partition.start, core.read_bytes())


def _bios(job: Job, disk: Path) -> None:
    """boot.img in the MBR's code area, core.img in the BIOS boot partition.

    What grub-install does through a loop device (GRUB 2: util/setup.c, grub/i386/pc/boot.h,
    diskboot.h): boot.img holds the first sector of core.img at 0x5C; the first sector of
    core.img (diskboot.img) ends in a block list at 0x1F4: start, sectors, segment.
    """
    core_file = _make_core(job, "bios", "i386-pc", ("biosdisk", *_SERIAL))
    core = bytearray(core_file.read_bytes())
    partition = job.layout.partition("bios")
    if len(core) > partition.size:
        raise BuildError("GRUB does not fit into the BIOS boot partition")
    first = partition.start // SECTOR
    boot = bytearray(_existing(_modules(job, "bios") / "boot.img", job).read_bytes())
    struct.pack_into("<Q", boot, 0x5C, first)
    boot[0x66:0x68] = b"\x90\x90"  # no check for a floppy: firmware may report the drive wrongly
    sectors = -(-len(core) // SECTOR) - 1
    struct.pack_into("<QHH", core, 0x1F4, first + 1, sectors, 0x820)
    write_at(disk, 0, bytes(boot[:440]))  # the partition table begins after the code area
    write_at(disk, partition.start, bytes(core))


_METHODS: dict[str, Callable[[Job, Path], None]] = {
    "uefi": _uefi,
    "uefi-unsigned": _uefi_unsigned,
    "bios": _bios,
    "prep": _prep,
}


def write_at(disk: Path, offset: int, content: bytes) -> None:
    """Write bytes into a disk file."""
    with disk.open("r+b") as stream:
        stream.seek(offset)
        stream.write(content)


def _write_esp(job: Job, disk: Path, files: dict[str, Path]) -> None:
    partition = job.layout.partition("esp")
    esp = job.work / "esp.img"
    identity = job.plan.identifier(ESP_FILESYSTEM)
    make_fat(esp, files, partition.size, identity, job.epoch, job.disk_tools, job.log)
    write_at(disk, partition.start, esp.read_bytes())


def _packaged(job: Job, path: str) -> Path:
    return _existing(job.packages / fill(path, job.plan.profile), job)


def _existing(file: Path, job: Job) -> Path:
    if not file.is_file():
        raise BuildError(
            f"the boot packages have no {file.relative_to(job.packages)}",
            hint="the template's `bootloader:` names it",
        )
    return file


def _modules(job: Job, method: str) -> Path:
    files = boot_files(job.plan.template.bootloader, method)
    if not isinstance(files, GrubModules):
        raise BuildError(f"`bootloader: {method}:` must name modules")
    return job.packages / fill(files.modules, job.plan.profile)


def _make_core(job: Job, method: str, target: str, more: tuple[str, ...]) -> Path:
    """Let the release's own grub-mkimage link a GRUB with all it needs.

    Where the tree's own has done that already, there is nothing left to do.
    """
    finished = job.packages / f"{method}.core"
    if finished.is_file():
        return finished
    stub = job.work / f"{method}.cfg"
    stub.write_text(job.stub, encoding="utf-8")
    core = job.work / f"{method}.core"
    run.run(
        [
            *job.boot_tools.command("grub-mkimage"),
            "-O",
            target,
            "-d",
            _modules(job, method),
            "-p",
            "/boot/grub",
            "-c",
            stub,
            "-o",
            core,
            *_MODULES,
            *more,
        ],
        log=job.log,
    )
    return core
