from __future__ import annotations

import os
import struct
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath
from imagefactory.disk import bootloader
from imagefactory.disk.bootloader import Job, grub_configuration, install
from imagefactory.disk.layout import SECTOR, plan_layout
from imagefactory.errors import BuildError
from imagefactory.packages.pool import Package
from imagefactory.packages.tools import Tools
from imagefactory.plan import BuildPlan
from imagefactory.template import UefiFiles, load

MKIMAGE = """#!/bin/sh
# Links nothing: what it "links" is a file of the wanted size.
while [ "$1" != -o ]; do shift; done
cp "$CORE" "$2"
"""


@pytest.fixture
def plan() -> BuildPlan:
    path = SearchPath.default()
    template, file = load(path, "minimal")
    return BuildPlan(
        template=template,
        template_file=file,
        profile=ArchProfiles.load(path).get("x86_64"),
        image_packages=(),
        kernel=Package("linux-image-6.1.0-9", "6.1-1", "amd64", "0" * 64, 0),
        disk_tools=(),
        boot_tools=(),
        properties={},
        warnings=(),
        epoch=0,
        digest="0" * 64,
    )


@pytest.fixture
def job(plan: BuildPlan, tmp_path: Path) -> Job:
    """A job whose packages hold a boot.img of recognisable bytes."""
    modules = tmp_path / "packages/usr/lib/grub/i386-pc"
    modules.mkdir(parents=True)
    (modules / "boot.img").write_bytes(b"\xaa" * 512)
    tool = tmp_path / "tools/usr/bin/grub-mkimage"
    tool.parent.mkdir(parents=True)
    tool.write_text(MKIMAGE)
    tool.chmod(0o755)
    tools = Tools(tmp_path / "tools")
    layout = plan_layout(["bios"], 64, lambda purpose: uuid.uuid5(uuid.NAMESPACE_URL, purpose))
    packages = tmp_path / "packages"
    return Job(plan, layout, packages, tools, tools, tmp_path, tmp_path / "log", 0)


def core_of(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "core").write_bytes(b"\xcc" * size)
    monkeypatch.setenv("CORE", str(tmp_path / "core"))


@pytest.fixture
def disk(job: Job, tmp_path: Path) -> Path:
    disk = tmp_path / "disk"
    with disk.open("wb") as stream:
        stream.truncate(job.layout.size)
    bootloader.write_at(disk, 440, b"the partition table")
    return disk


def test_the_boot_sector_points_to_the_core_and_the_core_to_its_rest(
    job: Job, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core_of(5 * SECTOR + 1, tmp_path, monkeypatch)
    install("bios", job, disk)
    content = disk.read_bytes()
    first = job.layout.partition("bios").start // SECTOR
    assert struct.unpack_from("<Q", content, 0x5C) == (first,)
    assert content[0x66:0x68] == b"\x90\x90"
    assert content[0x68:440] == b"\xaa" * (440 - 0x68)
    assert content[440:459] == b"the partition table"
    core = content[first * SECTOR :]
    assert struct.unpack_from("<QHH", core, 0x1F4) == (first + 1, 5, 0x820)
    assert core[0x200 : 5 * SECTOR + 1] == b"\xcc" * (4 * SECTOR + 1)
    assert core[5 * SECTOR + 1] == 0


def test_a_core_that_does_not_fit_is_refused(
    job: Job, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core_of((1 << 20) + 1, tmp_path, monkeypatch)
    before = disk.read_bytes()
    with pytest.raises(BuildError, match="does not fit into the BIOS boot partition"):
        install("bios", job, disk)
    assert disk.read_bytes() == before


def test_a_package_without_its_boot_sector_is_told(
    job: Job, disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core_of(1024, tmp_path, monkeypatch)
    os.unlink(job.packages / "usr/lib/grub/i386-pc/boot.img")  # noqa: PTH108
    with pytest.raises(BuildError, match=r"have no usr/lib/grub/i386-pc/boot\.img"):
        install("bios", job, disk)


def test_a_package_without_its_signed_programs_is_told(job: Job, disk: Path) -> None:
    profile = ArchProfiles.load(SearchPath.default()).get("aarch64")
    with pytest.raises(BuildError, match=r"have no usr/lib/shim/shimaa64\.efi\.signed"):
        install("uefi", replace(job, plan=replace(job.plan, profile=profile)), disk)


def test_what_else_the_template_names_lies_on_the_esp(
    job: Job, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uefi = UefiFiles(
        packages=(),
        shim="usr/share/efi/{rpm}/shim.efi",
        grub="usr/share/efi/{rpm}/grub.efi",
        grub_name="grub.efi",
        config_directory="EFI/BOOT",
        more_config_directories=("EFI/own",),
        esp={"EFI/own/shim.efi": "usr/share/efi/{rpm}/shim.efi"},
    )
    brought = job.packages / "usr/share/efi/x86_64"
    brought.mkdir(parents=True)
    for name in ("shim.efi", "grub.efi"):
        (brought / name).write_text(name)
    kept: dict[str, str] = {}
    monkeypatch.setattr(
        bootloader,
        "_write_esp",
        lambda _job, _disk, files: kept.update((k, v.read_text()) for k, v in files.items()),
    )
    image = job.plan.template
    changed = image.bootloader.model_copy(update={"uefi": uefi})
    plan = replace(job.plan, template=image.model_copy(update={"bootloader": changed}))
    install("uefi", replace(job, plan=plan), disk)
    assert kept == {
        "EFI/BOOT/BOOTX64.EFI": "shim.efi",
        "EFI/BOOT/grub.efi": "grub.efi",
        "EFI/own/shim.efi": "shim.efi",
        "EFI/BOOT/grub.cfg": job.stub,
        "EFI/own/grub.cfg": job.stub,
    }
    assert uefi.sources == (uefi.shim, uefi.grub)


def test_grub_starts_linux_with_all_its_pieces(plan: BuildPlan) -> None:
    text = grub_configuration(plan, "boot/vmlinuz-6.1", ["boot/a", "usr/b"])
    root = plan.identifier("root filesystem")
    linux = f"linux /boot/vmlinuz-6.1 root=UUID={root} console=tty0 console=ttyS0 quiet\n"
    assert linux in text
    assert "initrd /boot/a /usr/b\n" in text
