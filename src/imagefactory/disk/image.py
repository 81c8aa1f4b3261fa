"""From a tree to a finished disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from imagefactory.data import sha256_of
from imagefactory.disk import apart, bootloader, filesystem, layout, qcow2
from imagefactory.identifiers import ROOT_FILESYSTEM
from imagefactory.packages.tools import Tools
from imagefactory.plan import BuildPlan
from imagefactory.tree import RootTree, append_file, read_labels


@dataclass(frozen=True)
class Disk:
    """A finished disk image; sizes in bytes."""

    path: Path
    format: str
    size: int
    virtual_size: int
    apart: apart.Apart | None = None
    """Kernel and ramdisk, where the disk has no bootloader."""

    @cached_property
    def sha256(self) -> str:
        """Of the file, once it is finished."""
        return sha256_of(self.path)

    def moved_to(self, directory: Path) -> Disk:
        """Move the files into another directory of the same filesystem."""
        return replace(
            self,
            path=self.path.rename(directory / self.path.name),
            apart=self.apart.moved_to(directory) if self.apart else None,
        )


def inherited_label(labels: Mapping[bytes, bytes], path: str) -> bytes:
    """Return the label of a file that was added: its directory's, as a running kernel does it."""
    folders = PurePosixPath(path).parents
    above = (b"" if folder == PurePosixPath() else os.fsencode(folder) for folder in folders)
    return next(labels[folder] for folder in above if folder in labels)


def make_disk(
    plan: BuildPlan,
    tree: RootTree,
    package_file: Callable[..., Path],
    disk_tools: Tools,
    boot_tools: Tools,
    work: Path,
    cache: Path | None = None,
) -> Disk:
    """Write partition table, filesystems and bootloaders into a file, and that as qcow2.

    Args:
        plan: What to build.
        tree: What the root filesystem holds.
        package_file: Finds a package's verified file.
        disk_tools: Host programs that write filesystems.
        boot_tools: Host programs of the image's own release that write its bootloader.
        work: A directory for the result.
        cache: The directory of all caches; with it, the next build of this image and
            architecture compresses only what changed.

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
        tree.boot_files or bootloader.unpack_boot_packages(plan, package_file, work),
        disk_tools,
        boot_tools,
        work,
        log,
        tree.epoch,
    )
    for method in plan.boot:
        bootloader.install(method, job, raw)
    beside, written = None, ""
    if not plan.boot:
        beside = apart.write(tree, work, plan.name)
    elif plan.template.bootloader.menu == "entries":
        grub = bootloader.grub_configuration(plan, tree.kernel, tree.initramfs)
        written = bootloader.configuration_path(plan)
        append_file(tree, written, grub.encode())
    filesystem.make_ext4(
        raw,
        plan_of_disk.root,
        tree.tar,
        plan.identifier(ROOT_FILESYSTEM),
        tree.epoch,
        disk_tools,
        log,
    )
    if tree.labels:
        labels = read_labels(tree.labels)
        if written:
            labels[os.fsencode(written)] = inherited_label(labels, written)
        filesystem.label_ext4(raw, plan_of_disk.root, labels, tree.epoch, disk_tools, work, log)
    finished = work / f"{plan.name}.qcow2"
    pack = cache / "clusters" / plan.name if cache else None
    qcow2.write(raw, finished, qcow2.COMPRESSIONS[plan.template.compression], pack)
    raw.unlink()
    return Disk(finished, "qcow2", finished.stat().st_size, plan_of_disk.size, beside)
