"""A root filesystem as a tar: owned by no host user, the same bytes on every host.

Order: mke2fs gives out inodes and blocks in the order of the tar, so an entry that appears,
vanishes or changes its size moves everything behind it, and what moved is compressed anew (a
file of 10 KB in a tree of 540 MB: 5 % of the disk stays where it was if it comes at the front,
75 % in the middle, 99.5 % at the end). So what changes comes last: first what the base has in
/usr, sorted; then the rest of the base (/boot, /etc, /var ...); last what customisation added.
A change of the filesystem's UUID changes every checksum of its metadata: 13 % of the clusters of
64 KiB, 27 % of those of 256 KiB.

A tree that is a directory becomes such a tar by three steps: `list_command` and `tar_command`
are run where the directory's owners are seen as they should be in the image (as root of the
build's user namespace), `ordered` comes between them.
"""

from __future__ import annotations

import fnmatch
import io
import os
import posixpath
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
        execution: How the tree's programs were run while it was made, for the manifest.
    """

    tar: Path
    kernel: str
    initramfs: tuple[str, ...]
    epoch: int
    execution: str = "none"
    boot_files: Path | None = None
    """What its packages bring for the bootloader: its paths in the tree, and
    GRUBs that are linked already (``METHOD.core``)."""
    labels: Path | None = None
    """Its labels of SELinux, for `read_labels`; None: it has no policy."""
    packages: Path | None = None
    """What its package database holds, for `packages.installed.read`; None: it has no database."""


def write_labels(labels: Mapping[bytes, bytes], file: Path) -> None:
    """Keep labels of SELinux in a file: path in the tree (empty: the tree's root) -> label."""
    file.write_bytes(b"".join(b"%s\0%s\0" % pair for pair in labels.items()))


def read_labels(file: Path) -> dict[bytes, bytes]:
    """Read what `write_labels` has written."""
    words = iter(file.read_bytes().split(b"\0")[:-1])
    return dict(zip(words, words, strict=True))


def append_file(tree: RootTree, path: str, content: bytes) -> None:
    """Add one more file, and its directory, to a finished tree."""
    with tarfile.open(tree.tar, "a", format=tarfile.GNU_FORMAT) as archive:
        for name, entry in ((posixpath.dirname(path), Entry(0o755)), (path, Entry(0o644, content))):
            archive.addfile(*_member(name, entry, tree.epoch))


def read_files(tree: RootTree, paths: Sequence[str]) -> list[bytes]:
    """Return the contents of files of a finished tree.

    Raises:
        BuildError: It has no such file.
    """
    contents: dict[str, bytes] = {}
    with tarfile.open(tree.tar, "r:", errors="surrogateescape") as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            stream = archive.extractfile(member) if path in paths and member.isfile() else None
            if stream:
                contents[path] = stream.read()
    missing = [path for path in paths if path not in contents]
    if missing:
        raise BuildError(f"the tree has no file {', '.join(missing)}")
    return [contents[path] for path in paths]


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


def list_command(directory: Path, listing: Path) -> tuple[str, ...]:
    """Return the command that writes the names of all entries of a directory into a file.

    The names are relative, each followed by a NUL byte, in no order.
    """
    return ("find", str(directory), "-mindepth", "1", "-fprintf", str(listing), r"%P\0")


def ordered(
    names: Collection[bytes], base: Iterable[bytes] = (), exclude: Sequence[str] = ()
) -> list[bytes]:
    """Put names into the order of a tar (see the top of this module), parents before children.

    Args:
        names: The entries of the tree.
        base: Those that were there before the customisation.
        exclude: Patterns as of `fnmatch`, relative to the tree's root (``var/cache/apt/*``), of
            entries to leave out together with what is below them; ``*`` matches slashes too.
    """
    known = frozenset(base)

    def place(name: bytes) -> tuple[bool, bool, bytes]:
        return name not in known, name.partition(b"/")[0] != b"usr", name

    left_out = [re.compile(os.fsencode(fnmatch.translate(pattern))) for pattern in exclude]
    kept = [name for name in names if not any(pattern.match(name) for pattern in left_out)]
    if left_out:
        gone = frozenset(names) - frozenset(kept)
        kept = [name for name in kept if not any(above in gone for above in _above(name))]
    return sorted(kept, key=place)


def read_listing(listing: Path) -> list[bytes]:
    """Read the names that `list_command` or `write_listing` wrote."""
    return listing.read_bytes().split(b"\0")[:-1]


def write_listing(names: Iterable[bytes], listing: Path) -> None:
    """Write names for `tar_command`."""
    listing.write_bytes(b"".join(name + b"\0" for name in names))


def tar_command(directory: Path, tar: Path, listing: Path, epoch: int) -> tuple[str, ...]:
    """Return the command that writes a directory's entries into a tar, the same bytes every time.

    Owners are numbers, modes (setuid too), hard links, devices, capabilities and other extended
    attributes are kept; sockets are left out. A capability is read as the image needs it only
    inside the user namespace that it was set in (capabilities(7), "Namespaced file capabilities").

    Args:
        directory: The tree.
        tar: The file to create.
        listing: The names of the entries in the tar's order (`write_listing`).
        epoch: Times after it become it; seconds since 1970.
    """
    # GNU tar's manual, "Controlling Extended Headers": by default their names hold its process's
    # number. Without the record of the time, its whole seconds count.
    options = ["exthdr.name=%d/PaxHeaders/%f", "delete=atime", "delete=ctime", "delete=mtime"]
    if not _is_utf8(listing.read_bytes()):
        # Otherwise libarchive, which mke2fs reads with, refuses those names. It is not asked for
        # always, because it costs every entry 1 KiB of headers.
        options.append("hdrcharset:=BINARY")
    # Not --sparse: which holes a file has depends on the host's filesystem.
    return (
        *("tar", "--create", f"--file={tar}", f"--directory={directory}"),
        *("--no-recursion", "--null", "--verbatim-files-from", f"--files-from={listing}"),
        *(f"--mtime=@{epoch}", "--clamp-mtime", "--numeric-owner", "--format=posix"),
        f"--pax-option={','.join(options)}",
        *("--xattrs", "--xattrs-include=*", "--blocking-factor=2048"),
    )


def check_tar(tar: Path) -> list[str]:
    """Read a tar that another tool made, and refuse what no sound tree has.

    Returns:
        The entries' paths, in the tar's order.

    Raises:
        BuildError: It is no tar; or a path leads out of the tree or through something that is
            not a directory; or a hard link comes before its target; or a file is there twice.
    """
    kinds: dict[str, bytes] = {"": tarfile.DIRTYPE}
    try:
        with tarfile.open(tar, "r:", errors="surrogateescape") as archive:
            for member in archive:
                _check_member(member, kinds)
    except tarfile.TarError as error:
        raise BuildError(f"{tar} is not a whole tar: {error}") from error
    kinds.pop("")
    return list(kinds)


def _check_member(member: tarfile.TarInfo, kinds: dict[str, bytes]) -> None:
    path = member.name.removeprefix("./").rstrip("/")
    if path in {"", "."} and member.isdir():
        return
    shown = ascii(member.name)
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise BuildError(f"the path {shown} is no path inside the tree")
    parent = posixpath.dirname(path)
    if kinds.get(parent) != tarfile.DIRTYPE:
        raise BuildError(f"{shown}: its parent is no directory that comes before it")
    if path in kinds and not (member.isdir() and kinds[path] == tarfile.DIRTYPE):
        raise BuildError(f"{shown} is in the tree twice")
    kind = member.type
    if member.islnk():
        kind = kinds.get(member.linkname.removeprefix("./"), b"")
        if kind in {b"", tarfile.DIRTYPE}:
            raise BuildError(f"{shown} is a hard link to nothing that comes before it")
    kinds[path] = kind


def _is_utf8(names: bytes) -> bool:
    try:
        names.decode()
    except UnicodeDecodeError:
        return False
    return True


def _above(name: bytes) -> Iterator[bytes]:
    """Yield the directories that a name lies in, the nearest first."""
    while b"/" in name:
        name = name.rpartition(b"/")[0]
        yield name


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
