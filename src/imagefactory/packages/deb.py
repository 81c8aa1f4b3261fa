"""Reading the files of a .deb without installing it and without running anything of it."""

from __future__ import annotations

import contextlib
import fnmatch
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from imagefactory import run
from imagefactory.errors import PackageError


@contextlib.contextmanager
def opened(deb: Path) -> Iterator[tarfile.TarFile]:
    """Open the file archive of a package for reading.

    Raises:
        CommandError: The file is not a package.
    """
    with tempfile.TemporaryFile() as plain:
        with run.started(["dpkg-deb", "--fsys-tarfile", deb], stdout=plain) as process:
            _, err = process.communicate(timeout=run.DEFAULT_TIMEOUT)
        if process.returncode != 0:
            raise PackageError(f"{deb.name} cannot be unpacked: {err.strip()}")
        plain.seek(0)
        with tarfile.open(fileobj=plain, mode="r:") as archive:
            yield archive


def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Read one regular file of an open package."""
    stream = archive.extractfile(member)
    if stream is None:
        raise PackageError(f"{member.name} is not a regular file")
    return stream.read()


def matching(
    members: Sequence[tarfile.TarInfo], pattern: str, package: str
) -> tuple[tarfile.TarInfo, ...]:
    """Return the files and links that a glob names; /bin and /usr/bin are one directory.

    Raises:
        PackageError: Nothing matches; a recipe that takes nothing is a mistake.
    """
    wanted = _plain(pattern)
    found = tuple(
        member
        for member in members
        if not member.isdir() and fnmatch.fnmatchcase(_plain(member.name), wanted)
    )
    if not found:
        raise PackageError(
            f"the package {package} has no file {pattern}",
            hint="the template's `minimal: packages:` names it",
        )
    return found


def built_at(deb: Path) -> int:
    """Return when a package was built: the time in its archive header (deb(5), ar format)."""
    with deb.open("rb") as stream:
        header = stream.read(68)
    if header[:8] != b"!<arch>\n":
        raise PackageError(f"{deb.name} is not a Debian package")
    return int(header[24:36])


def _plain(path: str) -> str:
    return path.removeprefix("./").removeprefix("usr/")
