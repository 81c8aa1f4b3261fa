from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagefactory.disk.found import FoundDisk, look
from imagefactory.disk.layout import BIOS_BOOT, ESP, MIB, PREP, ROOT_TYPE
from imagefactory.errors import BuildError
from imagefactory.run import need, run

SIZE = 64 * MIB


def made(directory: Path, script: str, boot_sector: bytes = b"", kind: str = "qcow2") -> FoundDisk:
    raw = directory / "raw"
    with raw.open("wb") as stream:
        stream.truncate(SIZE)
    if script:
        run([need("sfdisk", "fdisk"), "--quiet", raw], stdin=script)
    with raw.open("r+b") as stream:
        stream.write(boot_sector)
    disk = directory / "disk"
    run(["qemu-img", "convert", "-f", "raw", "-O", kind, raw, disk])
    (directory / "work").mkdir()
    return look(disk, kind, SIZE, directory / "work", ["aa64", "x64"])


def gpt(*types: str) -> str:
    return "label: gpt\n" + "".join(f"size=1MiB, type={kind}\n" for kind in (*types, ROOT_TYPE))


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
@pytest.mark.parametrize(
    ("script", "boot_sector", "found"),
    [
        (gpt(ESP.type), b"", FoundDisk("gpt", 2, frozenset({"uefi"}))),
        (gpt(PREP.type), b"", FoundDisk("gpt", 2, frozenset({"prep"}))),
        (gpt(BIOS_BOOT.type, ESP.type), b"\xeb", FoundDisk("gpt", 3, frozenset({"uefi", "bios"}))),
        # A partition for GRUB, and nothing that would start it.
        (gpt(BIOS_BOOT.type), b"", FoundDisk("gpt", 2, frozenset())),
        ("label: dos\ntype=83, bootable\n", b"\xeb", FoundDisk("dos", 1, frozenset({"bios"}))),
        ("label: dos\nsize=1MiB, type=41\ntype=83", b"", FoundDisk("dos", 2, frozenset({"prep"}))),
        ("label: dos\nsize=1MiB, type=ef\ntype=83", b"", FoundDisk("dos", 2, frozenset({"uefi"}))),
    ],
)
def test_what_firmware_finds_is_told(
    kind: str, script: str, boot_sector: bytes, found: FoundDisk, tmp_path: Path
) -> None:
    assert made(tmp_path, script, boot_sector, kind) == found


def test_what_is_no_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no partition table"):
        made(tmp_path, "")


@pytest.mark.parametrize("kind", ["qcow2", "raw"])
def test_a_disk_that_was_cut_off_is_told(kind: str, tmp_path: Path) -> None:
    made(tmp_path, gpt(ESP.type), kind=kind)
    disk, work = tmp_path / "disk", tmp_path / "again"
    work.mkdir()
    with (tmp_path / "raw").open("r+b") as stream:
        stream.seek(3 * MIB)
        stream.write(b"x" * MIB)
    run(["qemu-img", "convert", "-f", "raw", "-O", kind, tmp_path / "raw", disk])
    size = disk.stat().st_size // 2 if kind == "qcow2" else 2 * MIB
    os.truncate(disk, size)
    with pytest.raises(BuildError, match="cut off"):
        look(disk, kind, SIZE if kind == "qcow2" else size, work, ["x64"])


def test_the_loaders_of_the_esp_are_told(tmp_path: Path) -> None:
    made(tmp_path, gpt(ESP.type))
    with (tmp_path / "raw").open("r+b") as stream:
        stream.seek(MIB + 8192)
        stream.write(b"BOOTAA64EFI \0\0BOOTX64 EFI \0\0BOOTIA32EFI ")
    work = tmp_path / "again"
    work.mkdir()
    assert look(tmp_path / "raw", "raw", SIZE, work, ["aa64"]).loaders == {"aa64"}
    assert look(tmp_path / "raw", "raw", SIZE, work, ["aa64", "x64"]).loaders == {"aa64", "x64"}
