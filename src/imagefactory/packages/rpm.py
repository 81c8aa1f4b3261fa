"""Reading the files of an .rpm without installing it and without running anything of it."""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from imagefactory import run
from imagefactory.errors import CommandError, PackageError

_UNPACK_TIMEOUT = 600.0


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
