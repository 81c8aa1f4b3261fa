"""Kernel and ramdisk as files of their own, for machines that are started without a bootloader.

nova hands them to QEMU when an image has ``kernel_id`` and ``ramdisk_id``; Ironic sends them over
the network.
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass, replace
from pathlib import Path

from imagefactory.tree import RootTree, read_files

_XZ = b"\xfd7zXZ\x00"
"""The magic number of xz (The .xz File Format, 2.1.1.1)."""

_ALIGNMENT = 4
"""Bytes: a cpio archive of the kernel's begins there, and so pads GRUB what it joins."""


@dataclass(frozen=True)
class Apart:
    """The two files."""

    kernel: Path
    ramdisk: Path

    def moved_to(self, directory: Path) -> Apart:
        """Move them into another directory of the same filesystem."""
        return replace(
            self,
            kernel=self.kernel.rename(directory / self.kernel.name),
            ramdisk=self.ramdisk.rename(directory / self.ramdisk.name),
        )


def write(tree: RootTree, directory: Path, name: str) -> Apart:
    """Write a tree's kernel and its whole initramfs into a directory.

    Raises:
        BuildError: The tree has them not.
    """
    kernel, *pieces = read_files(tree, (tree.kernel, *tree.initramfs))
    if kernel.startswith(_XZ):  # GRUB reads that, firmware does not
        kernel = lzma.decompress(kernel)
    files = Apart(directory / f"{name}.kernel", directory / f"{name}.ramdisk")
    files.kernel.write_bytes(kernel)
    files.ramdisk.write_bytes(b"".join(piece + bytes(-len(piece) % _ALIGNMENT) for piece in pieces))
    return files
