from __future__ import annotations

import itertools
import re
import shutil
import uuid
from pathlib import Path

import pytest

from imagefactory.disk.difference import compare, regions
from imagefactory.disk.layout import MIB, Layout, plan_layout
from imagefactory.errors import CommandError
from imagefactory.packages.tools import Tools
from imagefactory.run import need, run

LAYOUT = plan_layout(["uefi", "prep"], 64, lambda purpose: uuid.uuid5(uuid.NAMESPACE_URL, purpose))


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """This host's debugfs with its loader and libraries, as if it came out of packages."""
    program = need("debugfs", "e2fsprogs")
    for path in (str(program), *re.findall(r"/\S+", run(["ldd", program]).stdout)):
        target = tmp_path / "tools" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return Tools(tmp_path / "tools")


def disk(directory: Path, files: dict[str, str], size: int = 64) -> Path:
    """A disk with a root filesystem, whose files have the times at which they were written."""
    directory.mkdir()
    tree = directory / "tree"
    for name, text in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    raw = directory / "raw"
    with raw.open("wb") as stream:
        stream.truncate(size * MIB)
    root = LAYOUT.root
    seed = uuid.uuid5(uuid.NAMESPACE_URL, "seed")
    options = f"offset={root.start},hash_seed={seed},lazy_itable_init=0"
    words: list[str | Path] = [
        "-q",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-U",
        str(seed),
        "-E",
        options,
        "-d",
        tree,
        raw,
    ]
    run(
        [need("mke2fs", "e2fsprogs"), *words, str(root.size // 4096)],
        env={"SOURCE_DATE_EPOCH": "1", "E2FSPROGS_FAKE_TIME": "1"},
    )
    return compressed(raw)


def altered(image: Path, directory: Path, changed: dict[int, bytes]) -> Path:
    """The same disk with bytes of one's own at some places."""
    directory.mkdir()
    raw = directory / "raw"
    shutil.copy(image.parent / "raw", raw)
    with raw.open("r+b") as stream:
        for at, content in changed.items():
            stream.seek(at)
            stream.write(content)
    return compressed(raw)


def compressed(raw: Path) -> Path:
    image = raw.parent / "disk.qcow2"
    run([need("qemu-img", "qemu-utils"), "convert", "-c", "-O", "qcow2", raw, image])
    return image


def compared(first: Path, second: Path, tools: Tools, layout: Layout = LAYOUT) -> tuple[str, ...]:
    work = first.parent / "work"
    work.mkdir()
    return compare(first, second, layout, tools, work, work / "log").words


def test_the_regions_cover_the_whole_disk() -> None:
    found = regions(LAYOUT)
    assert [region.name for region in found[1:-1]] == ["esp", "prep", "root"]
    assert found[0].start == 0
    assert found[-1].end == LAYOUT.size
    assert all(one.end == other.start for one, other in itertools.pairwise(found))


def test_a_changed_file_is_named(tmp_path: Path, tools: Tools) -> None:
    one = disk(tmp_path / "1", {"etc/a": "1", "etc/b": "2"})
    other = disk(tmp_path / "2", {"etc/a": "1", "etc/b": "3", "etc/c": ""})
    words = compared(one, other, tools)
    assert words[0].startswith("root: ")
    assert words[1].startswith("root: etc/b: content")
    assert words[2] == "root: etc/c: missing - / file"


def test_partitions_without_files_are_told_by_their_blocks(tmp_path: Path, tools: Tools) -> None:
    prep = LAYOUT.partition("prep").start
    changed = {0: b"x", prep + 4095: b"xx", LAYOUT.size - 1: b"x"}
    one = disk(tmp_path / "1", {"a": ""})
    other = altered(one, tmp_path / "2", changed)
    seen = "blocks of 4096 bytes differ, the first at byte"
    assert compared(one, other, tools) == (
        f"the boot sector and the partition table: 1 {seen} 0 of the disk",
        f"prep: 2 {seen} {prep} of the disk",
        f"the partition table's copy: 1 {seen} {LAYOUT.size - 4096} of the disk",
    )


def test_another_compression_of_the_same_is_told(tmp_path: Path, tools: Tools) -> None:
    one = disk(tmp_path / "1", {"a": ""})
    other = tmp_path / "plain.qcow2"
    run([need("qemu-img", "qemu-utils"), "convert", "-O", "qcow2", one, other])
    (told,) = compared(one, other, tools)
    assert "how they are compressed differs" in told


def test_disks_of_two_sizes_are_told(tmp_path: Path, tools: Tools) -> None:
    one, other = disk(tmp_path / "1", {"a": ""}), disk(tmp_path / "2", {"a": ""}, size=65)
    (told,) = compared(one, other, tools)
    assert told == f"the disks have {64 * MIB} and {65 * MIB} bytes"


def test_what_is_no_disk_is_refused(tmp_path: Path, tools: Tools) -> None:
    one = disk(tmp_path / "1", {"a": ""})
    other = tmp_path / "text"
    other.write_text("text")
    with pytest.raises(CommandError):
        compared(one, other, tools)
