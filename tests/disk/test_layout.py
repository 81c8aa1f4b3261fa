from __future__ import annotations

import json
import re
import shutil
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefactory.disk.layout import MIB, PARTITIONS_OF, SECTOR, Layout, plan_layout, write_table
from imagefactory.errors import BuildError
from imagefactory.packages.tools import Tools
from imagefactory.run import need, run


def identifier(purpose: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, purpose)


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """This host's sfdisk with its loader and libraries, as if it came out of packages."""
    program = need("sfdisk", "fdisk")
    for path in (str(program), *re.findall(r"/\S+", run(["ldd", program]).stdout)):
        target = tmp_path / "tools" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return Tools(tmp_path / "tools")


@pytest.mark.parametrize("boot", [["uefi"], ["prep"], ["uefi", "bios"], ["uefi-unsigned", "bios"]])
def test_the_table_on_the_disk_is_the_planned_one(
    boot: list[str], tools: Tools, tmp_path: Path
) -> None:
    layout = plan_layout(boot, 112, identifier)
    disk = tmp_path / "a disk"
    with disk.open("wb") as stream:
        stream.truncate(layout.size)
    write_table(layout, disk, tools, tmp_path / "log")
    run(["sfdisk", "--verify", disk])
    table = json.loads(run(["sfdisk", "--json", disk]).stdout)["partitiontable"]
    assert (table["label"], table["id"].lower()) == ("gpt", str(layout.uuid))
    found = [
        (p["name"], p["type"], p["start"] * SECTOR, p["size"] * SECTOR, p["uuid"].lower())
        for p in table["partitions"]
    ]
    assert found == [(p.name, p.type, p.start, p.size, str(p.uuid)) for p in layout.partitions]
    first = disk.read_bytes()
    write_table(layout, disk, tools, tmp_path / "log")
    assert disk.read_bytes() == first


def test_a_partition_image_is_its_root_filesystem_and_has_no_table(
    tools: Tools, tmp_path: Path
) -> None:
    layout = plan_layout([], 112, identifier)
    (root,) = layout.partitions
    assert (root.name, root.start, root.size, layout.size) == ("root", 0, 112 * MIB, 112 * MIB)
    disk = tmp_path / "disk"
    disk.touch()
    write_table(layout, disk, tools, tmp_path / "log")
    assert disk.read_bytes() == b""


METHODS = st.lists(st.sampled_from(["uefi", "bios", "prep"]), unique=True, min_size=1)


@given(METHODS, st.integers(44, 5000))
def test_partitions_lie_in_a_row_and_the_root_is_the_last(boot: list[str], size: int) -> None:
    layout = plan_layout(boot, size, identifier)
    at = MIB
    for part in layout.partitions:
        assert part.start == at
        at += part.size
    assert at == layout.size - MIB  # which the backup table needs
    assert layout.partitions[-1] == layout.root
    assert len({part.uuid for part in layout.partitions} | {layout.uuid}) == len(boot) + 2


def the_layout(boot: list[str], size: int = 112) -> Layout:
    return plan_layout(boot, size, identifier)


@pytest.mark.parametrize("size", [1, 17, 33])
def test_a_disk_without_room_is_refused(size: int) -> None:
    with pytest.raises(BuildError, match=f"a disk of {size} MiB leaves no room"):
        the_layout(["uefi"], size)


def test_an_unknown_boot_method_is_named_with_the_known() -> None:
    with pytest.raises(BuildError, match="knows no boot method telepathy") as caught:
        the_layout(["uefi", "telepathy"])
    assert all(name in caught.value.hint for name in PARTITIONS_OF)


@pytest.mark.parametrize("boot", [["uefi", "uefi-unsigned"], ["bios", "bios"]])
def test_two_methods_for_one_partition_are_refused(boot: list[str]) -> None:
    with pytest.raises(BuildError, match="two boot methods want the partition"):
        the_layout(boot)
