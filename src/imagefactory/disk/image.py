"""From a tree to a finished disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from imagefactory.disk import bootloader, filesystem, layout, qcow2
from imagefactory.packages.tools import Tools
from imagefactory.plan import BuildPlan
from imagefactory.tree import RootTree, append_file

_COPY_CHUNK = 1 << 20


@dataclass(frozen=True)
class Disk:
    """A finished disk image; sizes in bytes."""

    path: Path
    format: str
    size: int
    virtual_size: int

    def moved_to(self, directory: Path) -> Disk:
        """Move the file into another directory of the same filesystem."""
        return replace(self, path=self.path.rename(directory / self.path.name))


def make_disk(
    plan: BuildPlan,
    tree: RootTree,
    package_file: Callable[..., Path],
    disk_tools: Tools,
    boot_tools: Tools,
    work: Path,
) -> Disk:
    """Write partition table, filesystems and bootloaders into a file, and that as qcow2.

    Raises:
        BuildError: Something does not fit or is missing.
    """
    log = work / "disk.log"
    plan_of_disk = layout.plan_layout(
        plan.boot, plan.template.disk_size, plan.identifier, plan.template.esp_size
    )
    raw = work / "disk.raw"
    with raw.open("wb") as stream:
        stream.truncate(plan_of_disk.size)
    layout.write_table(plan_of_disk, raw, disk_tools, log)
    job = bootloader.Job(
        plan,
        plan_of_disk,
        bootloader.unpack_boot_packages(plan, package_file, work),
        disk_tools,
        boot_tools,
        work,
        log,
        tree.epoch,
    )
    for method in plan.boot:
        bootloader.install(method, job, raw)
    grub = bootloader.grub_configuration(plan, tree.kernel, tree.initramfs)
    append_file(tree, bootloader.CONFIGURATION, grub.encode())
    root = work / "root.ext4"
    filesystem.make_ext4(
        root,
        tree.tar,
        plan_of_disk.root.size,
        plan.identifier("root filesystem"),
        tree.epoch,
        disk_tools,
        log,
    )
    _copy_sparsely(root, raw, plan_of_disk.root.start)
    root.unlink()
    finished = work / f"{plan.name}.qcow2"
    qcow2.write(raw, finished)
    raw.unlink()
    return Disk(finished, "qcow2", finished.stat().st_size, plan_of_disk.size)


def _copy_sparsely(source: Path, disk: Path, offset: int) -> None:
    """Copy a partition into the disk; holes stay holes."""
    with source.open("rb") as reader, disk.open("r+b") as writer:
        at = offset
        while chunk := reader.read(_COPY_CHUNK):
            if chunk.strip(b"\0"):
                writer.seek(at)
                writer.write(chunk)
            at += len(chunk)
