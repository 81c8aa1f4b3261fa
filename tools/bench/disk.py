"""The disk stage with a real tree: the filesystem beside cp, the qcow2 beside qemu-img."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from imagefactory.disk import filesystem, layout, qcow2
from imagefactory.packages.tools import Tools
from imagefactory.run import run
from tools.bench.measure import timed
from tools.bench.table import Row

_TIMEOUT = 3600.0

_SLOW_LEVEL = 10
"""Levels of zstd from here on take minutes for a whole disk; once is enough."""

_QEMU_CLUSTERS = ("64k", "256k")
"""qemu-img's default, and what our larger disks have."""

_COPY = ("cp", "disk/cp")
_QEMU_IMG = (
    "qemu-img, its default clusters of 64 KiB",
    f"disk/qemu-img/{_QEMU_CLUSTERS[0]}",
)


def rows(tar: Path, disk_tools: Tools, work: Path, mebibytes: int, rounds: int) -> Iterator[Row]:
    """Yield all rows of one tree.

    Args:
        tar: The tree.
        disk_tools: The programs that write filesystems.
        work: An empty directory.
        mebibytes: Size of the disk.
        rounds: How often what is fast is repeated.
    """
    raw, copied = work / "disk.raw", work / "copy"
    yield _measured("disk/cp", "cp of the tree's tar", copied, partial(_copy, tar, copied), rounds)
    copied.unlink()
    filled = _measured(
        "disk/ext4",
        "ext4 with the whole tree, in its place on the disk",
        raw,
        partial(_fill, raw, tar, disk_tools, mebibytes),
        rounds,
        (_COPY,),
    )
    yield filled
    yield from _rivals(raw, work, rounds)
    yield from _compressions(raw, work, rounds)


def _compressions(raw: Path, work: Path, rounds: int) -> Iterator[Row]:
    """Yield what each compression takes and gives: without, with a cold and with a warm cache."""
    target, cache = work / "ours.qcow2", work / "clusters"

    def write(compression: qcow2.Compression, pack: Path | None) -> None:
        qcow2.write(raw, target, compression, pack)

    def write_cold(compression: qcow2.Compression) -> None:
        cache.unlink(missing_ok=True)
        write(compression, cache)

    for name, chosen in qcow2.COMPRESSIONS.items():
        ways: tuple[tuple[str, str, Callable[[], object], bool], ...] = (
            ("alone", "", partial(write, chosen, None), chosen.level < _SLOW_LEVEL),
            ("cold", ", cache cold", partial(write_cold, chosen), chosen.level < _SLOW_LEVEL),
            ("warm", ", cache warm", partial(write, chosen, cache), True),
        )
        called = f"qcow2, ours: {name} (zstd {chosen.level}, {chosen.cluster >> 10} KiB)"
        for way, told, work_of, fast in ways:
            key, what = f"disk/{name}/{way}", f"{called}{told}"
            count = rounds if fast else 1
            yield _measured(key, what, target, work_of, count, (_QEMU_IMG,))


def _rivals(raw: Path, work: Path, rounds: int) -> Iterator[Row]:
    """Yield what qemu-img takes for the same disk, with as many threads as it can use."""
    target = work / "theirs.qcow2"
    for size in _QEMU_CLUSTERS:
        options = f"compression_type=zstd,cluster_size={size}"
        command = ["qemu-img", "convert", "-m", "16", "-W", "-c", "-f", "raw", "-O", "qcow2"]
        command += ["-o", options, str(raw), str(target)]
        key, what = f"disk/qemu-img/{size}", f"qcow2: qemu-img convert -c -o {options}"
        compared = () if key == _QEMU_IMG[1] else (_QEMU_IMG,)
        convert = partial(run, command, timeout=_TIMEOUT)
        yield _measured(key, what, target, convert, rounds, compared)


def _measured(
    key: str,
    what: str,
    result: Path,
    work: Callable[[], object],
    rounds: int,
    against: tuple[tuple[str, str], ...] = (),
) -> Row:
    figures = tuple(timed(work) for _ in range(rounds))
    sizes = key.startswith("disk/") and bool(against) and against[0] == _QEMU_IMG
    return Row(key, what, figures, result.stat().st_size, against, sizes)


def _copy(source: Path, target: Path) -> None:
    """Copy a file as cp does, but never by sharing its blocks."""
    target.unlink(missing_ok=True)
    run(["cp", "--reflink=never", source, target])


def _fill(raw: Path, tar: Path, disk_tools: Tools, mebibytes: int) -> None:
    """Make a disk of one partition that holds the tree."""
    identity = uuid.UUID(int=1)
    plan = layout.plan_layout(["uefi"], mebibytes, lambda _: identity)
    raw.unlink(missing_ok=True)
    with raw.open("wb") as stream:
        stream.truncate(plan.size)
    log = raw.with_suffix(".log")
    filesystem.make_ext4(raw, plan.root, tar, identity, 1_700_000_000, disk_tools, log)
