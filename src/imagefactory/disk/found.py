"""Disks that others have made: what firmware finds on them to start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagefactory.disk.layout import BIOS_BOOT, ESP, MIB, PREP
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

_CODE = 440
"""Bytes of the boot sector that a BIOS runs, before the disk's signature and the table."""


@dataclass(frozen=True)
class FoundDisk:
    """What a disk of others looks like from outside.

    Attributes:
        table: gpt or dos; None: no partition table.
        partitions: How many it has.
        methods: How firmware could start it: uefi, bios, prep.
    """

    table: str | None
    partitions: int
    methods: frozenset[str]


def look(disk: Path, disk_format: str, virtual_size: int, work: Path) -> FoundDisk:
    """Read the partition table of a disk; nothing of it is mounted or run.

    Args:
        disk: It has passed the checks that refuse backing files and the like.
        disk_format: qcow2 or raw.
        virtual_size: Bytes.
        work: An empty directory.

    Raises:
        HostError: There is no sfdisk.
        BuildError: The table cannot be read.
    """
    start = work / "start.raw"
    blocks = ("bs=1M", "count=2")
    run(["qemu-img", "dd", "-f", disk_format, "-O", "raw", *blocks, f"if={disk}", f"of={start}"])
    first = start.read_bytes()[:_CODE]
    with start.open("r+b") as stream:
        # The table's copy at the disk's end is missing then; sfdisk bears it.
        stream.truncate(max(virtual_size, 2 * MIB))
    sfdisk = need("sfdisk", "fdisk")
    try:
        told = run([sfdisk, "--json", start]).stdout
    except CommandError:
        return FoundDisk(None, 0, frozenset())
    try:
        table = json.loads(told)["partitiontable"]
        types = [str(part["type"]) for part in table.get("partitions", ())]
    except (ValueError, LookupError, TypeError):
        raise BuildError("sfdisk told nothing of the disk's partition table") from None
    return FoundDisk(str(table["label"]), len(types), frozenset(_methods(types, first)))


def _methods(types: list[str], boot_sector: bytes) -> Iterator[str]:
    if any(boot_sector):
        yield "bios"
    for kind in types:
        # A BIOS boot partition alone starts nothing: the boot sector does.
        if (method := _TYPES.get(kind)) and method != "bios":
            yield method
