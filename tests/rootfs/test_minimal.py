from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath
from imagefactory.errors import BuildError
from imagefactory.packages.pool import Package
from imagefactory.plan import BuildPlan
from imagefactory.rootfs.minimal import (
    CONFIG,
    _add_own_files,
    _add_with_libraries,
    _check_programs,
)
from imagefactory.template import load
from imagefactory.tree import TreeBuilder
from tests.rootfs.elves import header_only

KERNEL = Package("linux-image-6.1.0-9", "6.1-1", "ppc64el", "0" * 64, 0)


@pytest.fixture
def plan() -> BuildPlan:
    path = SearchPath.default()
    template, file = load(path, "minimal")
    profile = ArchProfiles.load(path).get("ppc64le")
    return BuildPlan(template, file, profile, (), KERNEL, (), (), {}, (), 0, "0" * 64)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (header_only(62), "64-bit little-endian program for ELF machine 62"),
        (header_only(21, endian="big"), "64-bit big-endian program for ELF machine 21"),
        (b"\x7fELF", "usr/bin/tool: this is not a whole ELF file"),
    ],
)
def test_a_program_of_another_machine_is_refused(
    plan: BuildPlan, content: bytes, complaint: str
) -> None:
    tree = TreeBuilder()
    tree.add_file("usr/bin/tool", content)
    with pytest.raises(BuildError, match=complaint):
        _check_programs(tree, plan)


def test_programs_of_the_machine_scripts_and_the_kernels_own_files_are_well(
    plan: BuildPlan,
) -> None:
    tree = TreeBuilder()
    tree.add_file("usr/bin/tool", header_only(21))
    tree.add_file("usr/bin/script", b"#!/bin/sh\n")
    tree.add_file("lib/modules/6.1/kernel/x.ko", header_only(0))
    tree.add_file("boot/vmlinux", header_only(0))
    _check_programs(tree, plan)


def test_missing_libraries_and_loaders_are_told_at_once(plan: BuildPlan) -> None:
    tree = TreeBuilder()
    tree.add_file("usr/bin/sort", Path("/usr/bin/sort").read_bytes())
    with pytest.raises(BuildError, match=r"needs /lib.*ld-.*needs libc\.so\.6"):
        _check_programs(tree, plan)


def test_a_program_of_the_initramfs_brings_what_it_needs() -> None:
    tree = TreeBuilder()
    tree.add_file("usr/bin/script", b"#!/bin/sh\n")
    pairs: dict[str, str] = {}
    _add_with_libraries(pairs, tree, "bin/script")
    assert pairs == {"bin/script": "usr/bin/script"}
    with pytest.raises(BuildError, match="the initramfs needs bin/none"):
        _add_with_libraries(pairs, tree, "bin/none")
    tree.add_file("usr/bin/sort", Path("/usr/bin/sort").read_bytes())
    with pytest.raises(BuildError, match="the initramfs needs /lib"):
        _add_with_libraries(pairs, tree, "bin/sort")


def test_our_own_files_take_only_the_executable_bit(plan: BuildPlan, tmp_path: Path) -> None:
    overlay = tmp_path / "minimal"
    (overlay / "etc").mkdir(parents=True)
    for name, mode in (("plain", 0o600), ("script", 0o700), ("open", 0o666)):
        (overlay / "etc" / name).write_text(name)
        (overlay / "etc" / name).chmod(mode)
    (overlay / "etc/link").symlink_to("plain")
    assert plan.template.minimal
    recipe = plan.template.minimal.model_copy(update={"modes": {}})
    template = plan.template.model_copy(update={"minimal": recipe})
    tree = TreeBuilder()
    _add_own_files(tree, replace(plan, template=template, template_file=tmp_path / "x.yaml"))
    modes = {name: tree.entries[f"etc/{name}"].mode for name in ("plain", "script", "open")}
    assert modes == {"plain": 0o644, "script": 0o755, "open": 0o644}
    assert tree.entries["etc/link"].target == "plain"
    assert b"DEFAULT_USER=cloud\n" in (tree.entries[CONFIG].content or b"")
