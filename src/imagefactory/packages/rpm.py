"""Reading an .rpm, its files and what it says, without installing or running anything of it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from imagefactory import run
from imagefactory.errors import CommandError, PackageError

_UNPACK_TIMEOUT = 600.0

_ACCOUNT = re.compile(r"(?:user|group|groupmember)\([^)]*\)")


@contextlib.contextmanager
def opened(rpm: Path) -> Iterator[tarfile.TarFile]:
    """Open the files of a package for reading, as a tar.

    Raises:
        HostError: The program of the package rpm is not there.
        PackageError: The file is not a package, or it is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="imagefactory-") as directory:
        link = Path(directory, "package.rpm")
        link.symlink_to(rpm.absolute())
        try:
            # It writes beside what it reads.
            words: list[str | Path] = [run.need("rpm2archive", "rpm"), "--nocompression", link]
            run.run(words, timeout=_UNPACK_TIMEOUT)
            with tarfile.open(f"{link}.tar") as archive:
                archive.getmembers()  # reads all headers, so that damage shows here
                yield archive
        except (CommandError, tarfile.TarError, FileNotFoundError) as error:
            raise PackageError(f"{rpm.name} cannot be unpacked: {error}") from None


def accounts(rpms: Sequence[Path]) -> tuple[str, ...]:
    """Return the users and groups that packages want made for them, lines of sysusers.d(5).

    ``Provides: user(NAME) = LINE``, the line in base64 and padded with zeros: what rpm 4.19 and
    newer make accounts of before they unpack a package (its macro ``%add_sysuser``, its lib/psm.c).

    Raises:
        CommandError: One of the files is no package.
    """
    said = _query("[%{PROVIDENAME}\t%{PROVIDEVERSION}\n]", rpms)
    pairs = (line.partition("\t") for line in said.splitlines())
    lines = (_decoded(value) for name, _, value in pairs if _ACCOUNT.fullmatch(name))
    return tuple(sorted({line for line in lines if line}))


def bringing(path: str, rpms: Sequence[Path]) -> tuple[Path, ...]:
    """Name those packages that hold a file.

    Raises:
        CommandError: One of them is none.
    """
    found = []
    for line in _query("[%{=PKGID}\t%{FILENAMES}\n]", rpms).splitlines():
        identity, _, name = line.partition("\t")
        if name == path:
            found.append(identity)
    known = _query("%{PKGID}\n", rpms).splitlines()
    return tuple(rpm for rpm, identity in zip(rpms, known, strict=True) if identity in found)


def _query(form: str, rpms: Sequence[Path]) -> str:
    words: list[str | Path] = [run.need("rpm", "rpm"), "--query", "--queryformat", form]
    return run.run([*words, "--package", *rpms]).stdout


def _decoded(value: str) -> str:
    """Return the line that a version stands for; empty if it stands for none."""
    try:
        line = base64.b64decode(value, validate=True).rstrip(b"\0").decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return line if line.isprintable() else ""
