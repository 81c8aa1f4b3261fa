#!/usr/bin/env python3
"""Measure the disk stage with a real tree, against what else there is.

    .venv/bin/python tools/bench/disk.py TREE.tar [MiB of the disk]

Everything is in the page cache; each figure is the fastest of several runs, because other work on
the machine can only make one slower.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from imagefactory import template
from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath, cache_directory
from imagefactory.disk import filesystem, layout, qcow2
from imagefactory.packages import tools
from imagefactory.packages.tools import Tools
from imagefactory.plan import Sources, host_deb_architecture
from imagefactory.run import run

RUNS = 3


@dataclass(frozen=True)
class Row:
    """One figure: seconds on the clock and of the processors, bytes of what was written."""

    what: str
    seconds: float
    processor: float
    size: int

    def __str__(self) -> str:
        """Return the row of a table."""
        return f"{self.what:44} {self.seconds:7.2f} {self.processor:7.2f} {self.size / 1e6:8.1f}"


def rows(tar: Path, disk_tools: Tools, work: Path, mebibytes: int = 3072) -> Iterator[Row]:
    """Yield all figures of one tree: filesystem, qcow2 by compression, and their rivals."""
    raw = work / "disk.raw"
    yield measured("cp of the tree's tar", work / "copy", partial(copy, tar, work / "copy"))
    yield measured("ext4, in place", raw, partial(fill, raw, tar, disk_tools, mebibytes))
    yield from compressions(raw, work)
    yield from rivals(raw, work)


def compressions(raw: Path, work: Path) -> Iterator[Row]:
    """Yield what each compression takes and gives: without, with a cold and with a warm cache."""
    target, cache = work / "ours.qcow2", work / "clusters"

    def write(compression: qcow2.Compression, pack: Path | None) -> None:
        qcow2.write(raw, target, compression, pack)

    def write_cold(compression: qcow2.Compression) -> None:
        cache.unlink(missing_ok=True)
        write(compression, cache)

    for name, chosen in qcow2.COMPRESSIONS.items():
        label = f"{name} (level {chosen.level}, {chosen.cluster >> 10} KiB)"
        runs = RUNS if chosen.level < 10 else 1  # the slow ones need no second look
        yield measured(label, target, partial(write, chosen, None), runs)
        yield measured(f"{name}, cold cache", target, partial(write_cold, chosen), runs)
        yield measured(f"{name}, warm cache", target, partial(write, chosen, cache))


def rivals(raw: Path, work: Path) -> Iterator[Row]:
    """Yield what qemu-img takes for the same disk, with as many threads as it can use."""
    target = work / "theirs.qcow2"
    for size in ("64k", "256k"):
        options = f"compression_type=zstd,cluster_size={size}"
        command = ["qemu-img", "convert", "-m", "16", "-W", "-c", "-f", "raw", "-O", "qcow2"]
        command += ["-o", options, str(raw), str(target)]
        yield measured(f"qemu-img -c -o {options}", target, partial(run, command))


def measured(what: str, result: Path, work: Callable[[], object], runs: int = RUNS) -> Row:
    """Do it several times and return the fastest."""
    figures = []
    for _ in range(runs):
        began, used = time.monotonic(), sum(os.times()[:4])
        work()
        figures.append((time.monotonic() - began, sum(os.times()[:4]) - used))
    return Row(what, *min(figures), result.stat().st_size)


def copy(source: Path, target: Path) -> None:
    """Copy a file as cp does, but never by sharing its blocks."""
    target.unlink(missing_ok=True)
    run(["cp", "--reflink=never", source, target])


def fill(raw: Path, tar: Path, disk_tools: Tools, mebibytes: int) -> None:
    """Make a disk of one partition that holds the tree."""
    identity = uuid.UUID(int=1)
    plan = layout.plan_layout(["uefi"], mebibytes, lambda _: identity)
    raw.unlink(missing_ok=True)
    with raw.open("wb") as stream:
        stream.truncate(plan.size)
    log = raw.with_suffix(".log")
    filesystem.make_ext4(raw, plan.root, tar, identity, 1_700_000_000, disk_tools, log)


def disk_tools_of(image: str = "minimal") -> Tools:
    """Fetch the host programs that an image's template names."""
    path, cache = SearchPath.default(), cache_directory()
    recipe, _ = template.load(path, image)
    host = ArchProfiles.load(path).get(host_deb_architecture())
    source = Sources.of(recipe, host, cache).disk_tools
    source.refresh()
    packages = source.resolve(recipe.tool_packages)
    source.fetch(packages)
    return tools.unpack(packages, source.pool, cache)


def main() -> None:
    """Print one table."""
    tar, *size = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        sys.stdout.write(f"{'':44} {'clock':>7} {'CPU':>7} {'MB':>8}\n")
        for row in rows(Path(tar), disk_tools_of(), Path(work), *map(int, size)):
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
