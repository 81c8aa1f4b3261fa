"""Disks that others have made: what firmware finds on them to start."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from imagefactory.disk.layout import BIOS_BOOT, ESP, MIB, PREP, SECTOR
from imagefactory.errors import BuildError, CommandError
from imagefactory.run import need, run

_TYPES = {
    ESP.type: "uefi",
    "ef": "uefi",  # the same in an MBR: UEFI specification 5.2.2
    BIOS_BOOT.type: "bios",
    PREP.type: "prep",
    "41": "prep",  # PowerPC Reference Platform, in an MBR
}
"""sfdisk's name of a partition's type -> the boot method it is for."""

_PROTECTIVE = "ee"
"""Type of the one partition in the protective MBR before a GPT (UEFI specification 5.2.3)."""

_LARGEST_ESP = 1 << 30
"""Bytes of an EFI system partition that are looked at."""

_CODE = 440
"""Bytes of the boot sector that a BIOS runs, before the disk's signature and the table."""


_LOADER = re.compile(rb"BOOT([A-Z0-9]{2,4}) *EFI")
"""The short name, 8 + 3 characters, of EFI/BOOT/BOOT*.EFI in its directory (FAT specification,
section 6; UEFI specification 3.5.1.1 has the names of the architectures)."""

_SOUND = (0, 3)
"""Exit statuses of `qemu-img check`: all is well, or space is wasted (qemu-img(1))."""


@dataclass(frozen=True)
class FoundDisk:
    """What a disk of others looks like from outside.

    Attributes:
        table: gpt or dos; None: no partition table.
        partitions: How many it has.
        methods: How firmware could start it: uefi, bios, prep.
        loaders: UEFI's names of the architectures whose firmware finds a loader, in small letters.
    """

    table: str | None
    partitions: int
    methods: frozenset[str]
    loaders: frozenset[str] = frozenset()


def look(
    disk: Path, disk_format: str, virtual_size: int, work: Path, loaders: Collection[str]
) -> FoundDisk:
    """Read the partition table of a disk; nothing of it is mounted or run.

    Args:
        disk: It has passed the checks that refuse backing files and the like.
        disk_format: qcow2 or raw.
        virtual_size: Bytes.
        work: An empty directory.
        loaders: UEFI's names of architectures that loaders are looked for of.

    Raises:
        HostError: There is no sfdisk.
        BuildError: It is damaged, or no disk at all.
    """
    if disk_format == "qcow2":
        _check(disk)
    start = work / "start.raw"
    _read(disk, disk_format, start, 0, 2 * MIB)
    first = start.read_bytes()[:_CODE]
    with start.open("r+b") as stream:
        # The table's copy at the disk's end is missing then; sfdisk bears it.
        stream.truncate(max(virtual_size, 2 * MIB))
    sfdisk = need("sfdisk", "fdisk")
    try:
        told = run([sfdisk, "--json", start]).stdout
    except CommandError:
        raise BuildError("it has no partition table, so it is no disk to boot from") from None
    try:
        table = json.loads(told)["partitiontable"]
        sector = int(table.get("sectorsize", SECTOR))
        parts = [
            (str(part["type"]), int(part["start"]) * sector, int(part["size"]) * sector)
            for part in table.get("partitions", ())
        ]
    except (ValueError, LookupError, TypeError):
        raise BuildError("sfdisk told nothing of its partition table") from None
    # Where the GPT is not believed, only what protects it from old programs is left.
    protective = any(kind == _PROTECTIVE for kind, _, _ in parts)
    if protective or any(begin + size > virtual_size for _, begin, size in parts):
        raise BuildError("its partition table tells of more than there is: it was cut off")
    found: set[str] = set()
    for kind, begin, size in parts:
        if _TYPES.get(kind) == "uefi":
            esp = work / "esp.raw"
            _read(disk, disk_format, esp, begin, min(size, _LARGEST_ESP))
            found |= {name.decode().lower() for name in _LOADER.findall(esp.read_bytes())}
            esp.unlink()
    methods = _methods([kind for kind, _, _ in parts], first)
    return FoundDisk(
        str(table["label"]), len(parts), frozenset(methods), frozenset(found & {*loaders})
    )


def _check(disk: Path) -> None:
    """See that every part of a qcow2 is where it says, which nobody notices before it is read."""
    try:
        run(["qemu-img", "check", "-q", "-f", "qcow2", disk], accept=_SOUND)
    except CommandError:
        raise BuildError("qemu-img check finds it damaged, or cut off") from None


def _read(disk: Path, disk_format: str, target: Path, begin: int, size: int) -> None:
    """Read a part of a disk; both numbers are bytes, of whole sectors."""
    block = math.gcd(begin, size, MIB)
    # qemu-img counts what it skips, dd(1) does not; either way there is enough.
    words = [f"bs={block}", f"skip={begin // block}", f"count={(begin + size) // block}"]
    words += [f"if={disk}", f"of={target}"]
    try:
        run(["qemu-img", "dd", "-f", disk_format, "-O", "raw", *words])
    except CommandError:
        raise BuildError("qemu-img cannot read it") from None
    os.truncate(target, size)


def _methods(types: list[str], boot_sector: bytes) -> Iterator[str]:
    if any(boot_sector):
        yield "bios"
    for kind in types:
        # A BIOS boot partition alone starts nothing: the boot sector does.
        if (method := _TYPES.get(kind)) and method != "bios":
            yield method
