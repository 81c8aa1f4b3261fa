"""Reading the files of a .deb without installing it and without running anything of it."""

from __future__ import annotations

import contextlib
import fnmatch
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from imagefactory import run
from imagefactory.errors import CommandError, PackageError

_UNPACK_TIMEOUT = 600.0


@contextlib.contextmanager
def opened(deb: Path) -> Iterator[tarfile.TarFile]:
    """Open the file archive of a package for reading.

    Raises:
        PackageError: The file is not a package, or its archive is damaged.
    """
    with tempfile.TemporaryFile() as plain:
        with run.started(["dpkg-deb", "--fsys-tarfile", deb], stdout=plain) as process:
            try:
                _, err = process.communicate(timeout=_UNPACK_TIMEOUT)
            except subprocess.TimeoutExpired:
                raise PackageError(f"{deb.name} cannot be unpacked: it takes too long") from None
        if process.returncode != 0:
            raise PackageError(f"{deb.name} cannot be unpacked: {err.strip()}")
        plain.seek(0)
        with _archive(plain, deb.name) as archive:
            yield archive


def _archive(plain: IO[bytes], name: str) -> tarfile.TarFile:
    try:
        archive = tarfile.open(fileobj=plain, mode="r:")  # noqa: SIM115 (the caller closes it)
        archive.getmembers()  # reads all headers, so that damage shows here
    except tarfile.TarError as error:
        raise PackageError(f"{name} cannot be unpacked: {error}") from None
    return archive


def read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Read one regular file of an open package."""
    try:
        stream = archive.extractfile(member)
    except KeyError:
        raise PackageError(f"{member.name} is a link to what is not there") from None
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


def control(deb: Path) -> str:
    """Return a package's control file, what dpkg's database would say of it (deb-control(5)).

    Raises:
        PackageError: The file is not a package.
    """
    try:
        return run.run(["dpkg-deb", "--field", deb]).stdout
    except CommandError as error:
        raise PackageError(f"{deb.name} cannot be read: {error.message}") from None


def built_at(deb: Path) -> int:
    """Return when a package was built: the time in its archive header (deb(5), ar format)."""
    with deb.open("rb") as stream:
        header = stream.read(68)
    built = header[24:36].strip()
    if header[:8] != b"!<arch>\n" or not built.isdigit():
        raise PackageError(f"{deb.name} is not a Debian package")
    return int(built)


def _plain(path: str) -> str:
    return path.removeprefix("./").removeprefix("usr/")
