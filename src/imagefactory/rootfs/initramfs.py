"""An initramfs that costs no space: cpio headers on the disk, contents from the tree's own files.

The kernel wants a cpio archive in the newc format (cpio(5), kernel: driver-api/early-userspace/
buffer-format.rst): header, name, content, each padded to four bytes. GRUB's ``initrd`` joins
any number of files and pads each to four bytes. So a sequence of header file, real file, header
file, real file ... is an archive, and no byte is stored twice. (GRUB's own ``newc:`` syntax
would do the same, but before 2.12 it writes names that current kernels refuse.)
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from imagefactory.errors import BuildError
from imagefactory.tree import TreeBuilder

DIRECTORY = "boot/initramfs"
"""Where the headers lie in the tree."""

_FILE = 0o100755
_FOLDER = 0o040755
_TRAILER = "TRAILER!!!"


def add_initramfs(tree: TreeBuilder, files: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Add the headers of an initramfs to a tree.

    Args:
        tree: The tree, which holds the real files already.
        files: Pairs of (path inside the initramfs, path of the real file in the tree).

    Returns:
        The paths of the tree's files that, joined by GRUB, are the initramfs.

    Raises:
        BuildError: A real file is not in the tree.
    """
    sequence: list[str] = []
    known: set[str] = set()
    for number, (inside, source) in enumerate(files):
        folders = [name for name in _parents(inside) if name not in known]
        known.update(folders)
        entry = tree.entries.get(source)
        if entry is None or entry.content is None:
            raise BuildError(f"the initramfs needs {source}, which is no file of the tree")
        content = entry.content
        header = b"".join(_header(name, _FOLDER, 0) for name in folders)
        sequence.append(_add_piece(tree, number, header + _header(inside, _FILE, len(content))))
        sequence.append(source)
    sequence.append(_add_piece(tree, len(sequence) // 2, _header(_TRAILER, 0, 0)))
    return tuple(sequence)


def _add_piece(tree: TreeBuilder, number: int, content: bytes) -> str:
    path = f"{DIRECTORY}/{number:02}"
    tree.add_file(path, content)
    return path


def _header(name: str, mode: int, size: int) -> bytes:
    """Return a newc header with its name: 13 fields of eight hexadecimal digits after the magic.

    c_ino, c_mode, c_uid, c_gid, c_nlink, c_mtime, c_filesize, c_devmajor, c_devminor,
    c_rdevmajor, c_rdevminor, c_namesize (with its NUL), c_check.
    """
    terminated = name.encode(errors="surrogateescape") + b"\0"
    fields = (0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(terminated), 0)
    header = b"070701" + b"".join(b"%08X" % value for value in fields) + terminated
    return header + bytes(-len(header) % 4)


def _parents(path: str) -> Iterator[str]:
    parent = posixpath.dirname(path)
    if parent:
        yield from _parents(parent)
        yield parent
