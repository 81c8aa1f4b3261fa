"""Where two disks of one layout differ: which partition, how much of it, which files."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagefactory import run, treediff
from imagefactory.disk.layout import MIB, Layout
from imagefactory.errors import CommandError
from imagefactory.packages.tools import Tools

_BLOCK = 4096
"""Bytes: what is counted as one difference."""

_CHUNK = 4 * MIB

ROOT, ESP = "root", "esp"
"""The partitions whose files are looked at."""


@dataclass(frozen=True)
class Region:
    """A part of a disk: bytes from its start to its end."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Files:
    """The files of a partition of two disks that differ, below two directories."""

    first: Path
    second: Path
    differences: tuple[treediff.Difference, ...]


@dataclass(frozen=True)
class Report:
    """Where two disks differ: in words, and the files that can be looked at."""

    words: tuple[str, ...]
    files: tuple[Files, ...] = ()


def regions(layout: Layout) -> tuple[Region, ...]:
    """Name every part of a disk, in its order."""
    first = layout.partitions[0].start
    last = layout.root.start + layout.root.size
    return (
        Region("the boot sector and the partition table", 0, first),
        *(Region(part.name, part.start, part.start + part.size) for part in layout.partitions),
        Region("the partition table's copy", last, layout.size),
    )


def compare(
    first: Path, second: Path, layout: Layout, tools: Tools, work: Path, log: Path
) -> Report:
    """Tell where two disk images (qcow2) of one layout differ.

    Args:
        first: A disk.
        second: Another one.
        layout: What lies where on them.
        tools: Host programs (debugfs, mtools).
        work: An empty directory; it holds the files that are named in the end.
        log: Where the programs' output is kept.

    Raises:
        CommandError: One of them is no disk image.
    """
    raw = [_raw(disk, work / f"{name}.raw", log) for disk, name in _named(first, second)]
    sizes = [file.stat().st_size for file in raw]
    if sizes[0] != sizes[1]:
        return Report((f"the disks have {sizes[0]} and {sizes[1]} bytes",))
    words: list[str] = []
    files = []
    for region in regions(layout):
        blocks = list(_differing(raw[0], raw[1], region))
        if not blocks:
            continue
        words.append(
            f"{region.name}: {len(blocks)} blocks of {_BLOCK} bytes differ, "
            f"the first at byte {blocks[0]} of the disk"
        )
        found = _files(raw, region, tools, work / region.name, log)
        if found:
            files.append(found)
            words += [f"{region.name}: {difference}" for difference in found.differences]
            if not found.differences:
                words.append(
                    f"{region.name}: all files are the same; times, attributes or places differ"
                )
    if not words:
        words.append("the disks hold the same; how they are compressed differs")
    return Report(tuple(words), tuple(files))


def _named(first: Path, second: Path) -> tuple[tuple[Path, str], tuple[Path, str]]:
    return (first, "first"), (second, "second")


def _raw(disk: Path, target: Path, log: Path) -> Path:
    program = run.need("qemu-img", "qemu-utils")
    run.run([program, "convert", "-f", "qcow2", "-O", "raw", disk, target], log=log)
    return target


def _differing(first: Path, second: Path, region: Region) -> Iterator[int]:
    """Yield where on the disk each block lies that differs."""
    with first.open("rb") as one, second.open("rb") as other:
        for start in range(region.start, region.end, _CHUNK):
            length = min(_CHUNK, region.end - start)
            chunks = []
            for stream in (one, other):
                stream.seek(start)
                chunks.append(stream.read(length))
            if chunks[0] == chunks[1]:
                continue
            for at in range(0, length, _BLOCK):
                if chunks[0][at : at + _BLOCK] != chunks[1][at : at + _BLOCK]:
                    yield start + at


def _files(raw: list[Path], region: Region, tools: Tools, work: Path, log: Path) -> Files | None:
    """Take the files out of a region of both disks; None if it has none that can be read."""
    extract = {ROOT: _extract_ext4, ESP: _extract_fat}.get(region.name)
    if extract is None:
        return None
    trees, tars = [], []
    for disk, name in _named(*raw):
        tree = work / name
        tree.mkdir(parents=True)
        try:
            extract(disk, region.start, tree, tools, log)
        except CommandError:  # so damaged that nobody reads it: the blocks were told
            return None
        trees.append(tree)
        tars.append(work / f"{name}.tar")
        with tarfile.open(tars[-1], "w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(tree, ".")
    return Files(trees[0], trees[1], treediff.compare(tars[0], tars[1]))


def _extract_ext4(disk: Path, start: int, tree: Path, tools: Tools, log: Path) -> None:
    # Without root, debugfs cannot give the files their owners, and goes on.
    words = [*tools.command("debugfs"), "-R", f'rdump / "{tree}"', f"{disk}?offset={start}"]
    run.run(words, log=log)


def _extract_fat(disk: Path, start: int, tree: Path, tools: Tools, log: Path) -> None:
    words = [*tools.command("mtools", "mcopy"), "-s", "-n", "-i", f"{disk}@@{start}", "::/"]
    run.run([*words, tree], env={"MTOOLS_SKIP_CHECK": "1"}, log=log)
