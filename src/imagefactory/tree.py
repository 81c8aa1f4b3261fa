"""A root filesystem as a tar: owned by no host user, the same bytes on every host."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imagefactory.errors import BuildError

_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Top-level directories that are links into /usr (Debian's usr-merge, from bookworm on)."""


@dataclass(frozen=True)
class RootTree:
    """A finished tree.

    Attributes:
        tar: The tree, sorted, all owned by root, all times equal.
        kernel: Path of the kernel inside the tree.
        initramfs: Paths inside the tree; joined by the bootloader they are the initramfs.
        epoch: The time of every file, seconds since 1970.
    """

    tar: Path
    kernel: str
    initramfs: tuple[str, ...]
    epoch: int


def append_file(tree: RootTree, path: str, content: bytes) -> None:
    """Add one more file, and its directory, to a finished tree."""
    with tarfile.open(tree.tar, "a", format=tarfile.GNU_FORMAT) as archive:
        for name, entry in ((posixpath.dirname(path), Entry(0o755)), (path, Entry(0o644, content))):
            archive.addfile(*_member(name, entry, tree.epoch))


@dataclass(frozen=True)
class Entry:
    """One file, link or directory of a tree under construction."""

    mode: int
    content: bytes | None = None
    target: str | None = None

    @property
    def is_directory(self) -> bool:
        """Neither content nor target: a directory."""
        return self.content is None and self.target is None


class TreeBuilder:
    """Collects entries under usr-merged paths, refuses what would leave the tree, writes a tar."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def add(self, path: str, entry: Entry) -> None:
        """Add or replace an entry.

        Raises:
            BuildError: The path leads out of the tree or through a link, or would put
                something else in the place of a directory that holds files.
        """
        path = merged(path)
        if not path:
            raise BuildError("the tree's own root cannot be a file or a link")
        self._add_parents(path)
        before = self.entries.get(path)
        replaces_directory = before and before.is_directory and not entry.is_directory
        if replaces_directory and any(name.startswith(f"{path}/") for name in self.entries):
            raise BuildError(f"{path} is a directory that holds files; nothing can replace it")
        self.entries[path] = entry

    def add_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self.add(path, Entry(mode, content=content))

    def add_link(self, path: str, target: str) -> None:
        """Add a symbolic link; its target is taken as it stands."""
        self.add(path, Entry(0o777, target=target))

    def add_directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory."""
        self.add(path, Entry(mode))

    def set_mode(self, path: str, mode: int) -> None:
        """Change the mode of an entry.

        Raises:
            BuildError: There is no such entry.
        """
        path = merged(path)
        if path not in self.entries:
            raise BuildError(f"`modes` names {path}, which is not in the tree")
        entry = self.entries[path]
        self.entries[path] = Entry(mode, entry.content, entry.target)

    def resolve(self, path: str) -> str | None:
        """Follow symbolic links inside the tree; None when they lead nowhere."""
        path = merged(path)
        for _ in range(16):
            entry = self.entries.get(path)
            if entry is None or entry.target is None:
                return path if entry else None
            path = merged(posixpath.join("/", posixpath.dirname(path), entry.target))
        return None

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield path and content of each regular file."""
        for path, entry in self.entries.items():
            if entry.content is not None:
                yield path, entry.content

    def write(self, tar: Path, epoch: int) -> None:
        """Write the tar: sorted, owned by root, every time the same."""
        for name in _MERGED:
            if any(path.startswith(f"usr/{name}/") for path in self.entries):
                self.entries[name] = Entry(0o777, target=f"usr/{name}")
        with tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as archive:
            for path in sorted(self.entries):
                info, content = _member(path, self.entries[path], epoch)
                archive.addfile(info, content)

    def _add_parents(self, path: str) -> None:
        for parent in _parents(path):
            entry = self.entries.setdefault(parent, Entry(0o755))
            if not entry.is_directory:
                raise BuildError(f"{path}: its parent {parent} is not a directory")


def merged(path: str) -> str:
    """Normalise a path of a package into the tree's: no leading slash, /bin as usr/bin.

    Raises:
        BuildError: The path leads out of the tree.
    """
    if ".." in path.split("/") and not path.startswith("/"):
        raise BuildError(f"the path {path!r} leads out of the tree")
    clean = posixpath.normpath("/" + path).lstrip("/")
    first, slash, _ = clean.partition("/")
    return f"usr/{clean}" if first in _MERGED and slash else clean


def _parents(path: str) -> Iterable[str]:
    parts = path.split("/")[:-1]
    return ("/".join(parts[: count + 1]) for count in range(len(parts)))


def _member(path: str, entry: Entry, epoch: int) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    info = tarfile.TarInfo(path)
    info.mtime, info.mode, info.uname, info.gname = epoch, entry.mode, "root", "root"
    if entry.content is not None:
        info.size = len(entry.content)
        return info, io.BytesIO(entry.content)
    if entry.target is not None:
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
    else:
        info.type = tarfile.DIRTYPE
    return info, None
