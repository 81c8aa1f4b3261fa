"""Partition tables: which partitions a boot method needs, and how they are written."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imagefactory import run
from imagefactory.errors import BuildError
from imagefactory.packages.tools import Tools

SECTOR = 512
MIB = 1 << 20

ROOT_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
"""Linux filesystem data (GPT partition type)."""


@dataclass(frozen=True)
class PartitionKind:
    """A kind of partition that firmware or a bootloader asks for; size in MiB."""

    name: str
    type: str
    size: int


ESP = PartitionKind("esp", "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", 16)
"""EFI system partition (UEFI specification 13.3)."""
BIOS_BOOT = PartitionKind("bios", "21686148-6449-6E6F-744E-656564454649", 1)
"""BIOS boot partition: where GRUB's core image lies on a GPT disk (GRUB manual)."""
PREP = PartitionKind("prep", "9E1A2D38-C612-4316-AA26-8B49521E5A8B", 8)
"""PReP boot partition: Open Firmware loads it as it stands (PowerPC Reference Platform)."""

PARTITIONS_OF = {"uefi": ESP, "uefi-unsigned": ESP, "bios": BIOS_BOOT, "prep": PREP}
"""Boot method -> the partition it needs."""


@dataclass(frozen=True)
class Partition:
    """A partition on the disk; start and size in bytes."""

    name: str
    type: str
    start: int
    size: int
    uuid: uuid.UUID


@dataclass(frozen=True)
class Layout:
    """A whole disk: its size in bytes and its partitions; the root filesystem is the last."""

    size: int
    uuid: uuid.UUID
    partitions: tuple[Partition, ...]

    def partition(self, name: str) -> Partition:
        """Return a partition by its name."""
        return next(part for part in self.partitions if part.name == name)

    @property
    def root(self) -> Partition:
        """The partition of the root filesystem."""
        return self.partition("root")


def plan_layout(
    boot: Sequence[str],
    disk_size: int,
    identifier: Callable[[str], uuid.UUID],
    esp_size: int = ESP.size,
) -> Layout:
    """Decide what lies where: boot partitions first, the root last so that it can grow.

    Args:
        boot: The boot methods; without any there is no table either.
        disk_size: MiB.
        identifier: Derives identifiers from a purpose.
        esp_size: MiB of the EFI system partition.

    Raises:
        BuildError: A boot method is unknown, two exclude each other, or the disk is too small.
    """
    if not boot:
        return _bare(disk_size, identifier)
    unknown = [method for method in boot if method not in PARTITIONS_OF]
    if unknown:
        raise BuildError(
            f"the disk stage knows no boot method {', '.join(unknown)}",
            hint=f"known: {', '.join(PARTITIONS_OF)}",
        )
    kinds = [PARTITIONS_OF[method] for method in boot]
    kinds = [replace(kind, size=esp_size) if kind is ESP else kind for kind in kinds]
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise BuildError(
                f"two boot methods want the partition {kind.name} for themselves",
                hint=f"the boot methods are {', '.join(boot)}",
            )
    partitions, at = [], MIB
    for kind in kinds:
        partitions.append(
            Partition(kind.name, kind.type, at, kind.size * MIB, identifier(kind.name))
        )
        at += kind.size * MIB
    root_size = (disk_size - 1) * MIB - at  # the last MiB holds the backup table
    if root_size < 16 * MIB:
        raise BuildError(f"a disk of {disk_size} MiB leaves no room for a root filesystem")
    partitions.append(Partition("root", ROOT_TYPE, at, root_size, identifier("root")))
    return Layout(disk_size * MIB, identifier("disk"), tuple(partitions))


def _bare(disk_size: int, identifier: Callable[[str], uuid.UUID]) -> Layout:
    """Return the layout of a partition image: the root filesystem and nothing else."""
    size = disk_size * MIB
    root = Partition("root", ROOT_TYPE, 0, size, identifier("root"))
    return Layout(size, identifier("disk"), (root,))


def write_table(layout: Layout, disk: Path, tools: Tools, log: Path) -> None:
    """Write the GPT into a disk file of the right size; a lone filesystem needs none.

    Raises:
        CommandError: sfdisk refuses the layout.
    """
    if layout.root.start == 0:
        return
    lines = ["label: gpt", f"label-id: {layout.uuid}", "unit: sectors", "first-lba: 34"]
    lines += [
        f"start={part.start // SECTOR}, size={part.size // SECTOR}, type={part.type}, "
        f"uuid={part.uuid}, name={json.dumps(part.name)}"
        for part in layout.partitions
    ]
    run.run(
        [*tools.command("sfdisk"), "--quiet", "--no-reread", "--no-tell-kernel", disk],
        stdin="\n".join(lines) + "\n",
        log=log,
    )
