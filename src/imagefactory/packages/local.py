"""Packages that lie in a directory, shown to apt as a repository."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from debian.arfile import ArError
from debian.debfile import DebError, DebFile

from imagefactory.cache import Store
from imagefactory.data import sha256_of
from imagefactory.errors import ConfigError, PackageError
from imagefactory.template import Repository

PRIORITY = 1001
"""apt_preferences(5): above 1000 a package is taken even if others have a newer version."""

LABEL = "imagefactory-local"
"""By its host, apt could not tell this directory from any other ``file:`` repository."""


def repository_of(directory: Path, cache: Path) -> Repository:
    """Make a repository of a directory of .deb files; it is trusted as the directory is.

    Raises:
        ConfigError: The directory holds no packages.
        PackageError: A file is not a package.
    """
    files = sorted(directory.glob("*.deb"))
    if not files:
        raise ConfigError(
            f"{directory} holds no .deb files",
            hint="`local_packages:` names a directory of packages beside the template",
        )
    sums = {file: sha256_of(file) for file in files}
    text = "".join(f"{checksum} {file.name}\n" for file, checksum in sums.items())
    key = hashlib.sha256(text.encode()).hexdigest()[:32]

    def make(target: Path) -> None:
        target.mkdir()
        for file in files:  # copies: the user's directory may change while a build runs
            (target / file.name).write_bytes(file.read_bytes())
        write_index({target / name.name: checksum for name, checksum in sums.items()}, target)
        _write_release(target)

    made = Store(cache, "local").obtain(key, make)
    return Repository(
        suite="./",
        mirror=f"file://{made}",
        components=(),
        trusted=True,
        priority=PRIORITY,
        label=LABEL,
    )


def write_index(files: Mapping[Path, str], directory: Path) -> None:
    """Write the index (``Packages``) of package files that lie in a directory.

    Args:
        files: File -> its SHA-256.
        directory: Where they lie.

    Raises:
        PackageError: A file is not a package.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        stanzas = pool.map(_stanza, files, files.values(), itertools.repeat(directory))
    (directory / "Packages").write_text("\n".join(stanzas), encoding="utf-8")


def _write_release(directory: Path) -> None:
    index = directory / "Packages"
    line = f" {sha256_of(index)} {index.stat().st_size} {index.name}"
    (directory / "Release").write_text(f"Label: {LABEL}\nSHA256:\n{line}\n", encoding="utf-8")


def _stanza(file: Path, checksum: str, directory: Path) -> str:
    try:
        with DebFile(str(file)) as archive:
            stanza = archive.debcontrol()
    except (ArError, DebError, OSError, ValueError, LookupError) as error:
        raise PackageError(f"{file.name} is not a Debian package: {error}") from None
    stanza["Filename"] = f"./{file.relative_to(directory)}"
    stanza["Size"] = str(file.stat().st_size)
    stanza["SHA256"] = checksum
    return str(stanza)
