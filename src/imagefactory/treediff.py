"""Compare two trees, given as tars, entry by entry.

Compared are type, mode, owner (as numbers), link target, size, content, device numbers and
extended attributes; not times, which two runs of maintainer scripts cannot share, and not the
order of the entries.
"""

from __future__ import annotations

import fnmatch
import hashlib
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from imagefactory.errors import BuildError

_XATTR = "SCHILY.xattr."
"""How GNU tar, libarchive and star write extended attributes into pax headers."""

_KINDS = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symbolic link",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}


@dataclass(frozen=True)
class Entry:
    """What a tar says of one path."""

    kind: str
    mode: int
    owner: tuple[int, int]
    """User and group."""
    target: str
    """Of a symbolic link."""
    device: tuple[int, int]
    size: int
    content: str
    """SHA-256 of a file; a hard link has that of the file it is."""
    attributes: tuple[tuple[str, str], ...]
    """Extended attributes, sorted."""


@dataclass(frozen=True, order=True)
class Difference:
    """One path in which two trees differ."""

    path: str
    what: str
    """A field of `Entry`, or ``missing``."""
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what} {self.first} / {self.second}"


def entries(tar: Path) -> dict[str, Entry]:
    """Read a tar (compressed or not) into a map from paths without a leading ``./``.

    Raises:
        BuildError: It is no tar, or a damaged one.
    """
    found: dict[str, Entry] = {}
    try:
        with tarfile.open(tar) as archive:
            for member in archive:
                path = _plain(member.name)
                if member.islnk():
                    found[path] = found[_plain(member.linkname)]
                else:
                    found[path] = _entry(archive, member)
    except (tarfile.TarError, KeyError, OSError) as error:
        raise BuildError(f"{tar} cannot be read as a tree: {error}") from None
    return found


def differences(first: Mapping[str, Entry], second: Mapping[str, Entry]) -> Iterator[Difference]:
    """Yield every difference of two trees, in the order of the paths."""
    for path in sorted(first.keys() | second.keys()):
        one, other = first.get(path), second.get(path)
        if one is None or other is None:
            yield Difference(path, "missing", *("-" if x is None else x.kind for x in (one, other)))
        elif one != other:
            for field in fields(Entry):
                values = getattr(one, field.name), getattr(other, field.name)
                if values[0] != values[1]:
                    yield Difference(path, field.name, *(_written(field.name, x) for x in values))


def compare(first: Path, second: Path, but: Iterable[str] = ()) -> tuple[Difference, ...]:
    """Compare two tars; paths that match one of the globs ``but`` may have other content.

    Such a path must still exist in both, with the same type, mode and owner.

    Raises:
        BuildError: One of them cannot be read.
    """
    globs = tuple(but)
    return tuple(
        difference
        for difference in differences(entries(first), entries(second))
        if difference.what not in {"size", "content"}
        or not any(fnmatch.fnmatchcase(difference.path, glob) for glob in globs)
    )


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    kind = _KINDS.get(member.type, f"type {member.type!r}")
    content = ""
    if kind == "file":
        stream = archive.extractfile(member)
        content = "" if stream is None else hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    return Entry(
        kind=kind,
        mode=member.mode,
        owner=(member.uid, member.gid),
        target=member.linkname if member.issym() else "",
        device=(member.devmajor, member.devminor) if member.isdev() else (0, 0),
        size=member.size if kind == "file" else 0,
        content=content,
        attributes=tuple(
            sorted(
                (key.removeprefix(_XATTR), value)
                for key, value in member.pax_headers.items()
                if key.startswith(_XATTR)
            )
        ),
    )


def _plain(name: str) -> str:
    return name.removeprefix("./").strip("/") or "."


def _written(field: str, value: object) -> str:
    return f"{value:04o}" if field == "mode" else str(value)
