"""Kernel and ramdisk of a tree as files of their own."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from imagefactory.disk import apart
from imagefactory.errors import BuildError
from imagefactory.rootfs.initramfs import add_initramfs
from imagefactory.run import need, run
from imagefactory.tree import RootTree, TreeBuilder


def tree_with(directory: Path, kernel: bytes) -> RootTree:
    tree = TreeBuilder()
    tree.add_file("boot/vmlinuz", kernel)
    tree.add_file("usr/lib/init", b"#!/bin/sh\n", 0o755)
    tree.add_file("usr/lib/odd", b"odd")
    pieces = add_initramfs(tree, (("init", "usr/lib/init"), ("lib/odd", "usr/lib/odd")))
    tar = directory / "root.tar"
    tree.write(tar, 0)
    return RootTree(tar, "boot/vmlinuz", pieces, 0)


def test_the_ramdisk_is_an_archive_that_cpio_reads(tmp_path: Path) -> None:
    need("cpio", "cpio")
    written = apart.write(tree_with(tmp_path, b"kernel"), tmp_path, "small")
    assert written.kernel.read_bytes() == b"kernel"
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    run(["cpio", "-i", "-d", "--quiet", "-F", written.ramdisk, "-D", unpacked])
    assert (unpacked / "init").read_bytes() == b"#!/bin/sh\n"
    assert (unpacked / "lib/odd").read_bytes() == b"odd"


def test_firmware_gets_the_kernel_uncompressed(tmp_path: Path) -> None:
    content = b"a kernel " * 1000
    packed = lzma.compress(content, check=lzma.CHECK_CRC32)
    written = apart.write(tree_with(tmp_path, packed), tmp_path, "small")
    assert written.kernel.read_bytes() == content


def test_a_tree_without_its_kernel_is_refused(tmp_path: Path) -> None:
    tree = tree_with(tmp_path, b"kernel")
    with pytest.raises(BuildError, match="boot/other"):
        apart.write(RootTree(tree.tar, "boot/other", tree.initramfs, 0), tmp_path, "small")
