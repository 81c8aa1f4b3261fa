"""Downloaded packages, of whatever kind: kept by their content, checked whenever they are used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagefactory.cache import Store
from imagefactory.errors import PackageError


@dataclass(frozen=True, order=True)
class Package:
    """One binary package of a repository; size in bytes.

    Its checksum is what the repository lists: SHA-256, or SHA-512 (openSUSE's repositories).
    """

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    depends: str = ""
    sha512: str = ""

    @property
    def checksum(self) -> tuple[str, str]:
        """The kind of the checksum, as hashlib calls it, and its hexadecimal digits."""
        return ("sha512", self.sha512) if self.sha512 else ("sha256", self.sha256)

    def is_in(self, file: Path) -> bool:
        """Whether a file holds the package: whether its checksum is the package's."""
        kind, digits = self.checksum
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, kind).hexdigest() == digits

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


@dataclass(frozen=True)
class Pool:
    """Downloaded packages, named by their content: safe to share, never out of date."""

    directory: Path
    suffix: str = "deb"
    """Of the files; some programs want to see it."""

    @property
    def _store(self) -> Store:
        return Store(self.directory.parent, self.directory.name)

    def path(self, package: Package) -> Path:
        """Return where the package is, or would be."""
        return self._store.path(self._key(package))

    def missing(self, packages: Iterable[Package]) -> tuple[Package, ...]:
        """Return those packages that are not in the pool; the others are marked as used."""
        return tuple(package for package in packages if not self._store.get(self._key(package)))

    def to_fetch(self, packages: Iterable[Package], *, offline: bool) -> tuple[Package, ...]:
        """Return those packages that have to be fetched.

        Raises:
            PackageError: There are some, and nothing may be fetched.
        """
        missing = self.missing(packages)
        if missing and offline:
            raise PackageError(
                f"offline: not in the cache: {', '.join(map(str, missing))}",
                hint="run the same once without --offline",
            )
        return missing

    def add(self, file: Path, package: Package) -> None:
        """Take a downloaded file in.

        Raises:
            PackageError: The file is not what the signed package list says.
        """
        if not package.is_in(file):
            raise PackageError(f"{package}: the downloaded file has a wrong checksum")
        self._store.add(self._key(package), file)

    def take(self, package: Package) -> Path:
        """Hand out a package's file, checked again.

        Raises:
            PackageError: The file is gone, or was damaged since it was stored and is removed.
        """
        path = self._store.get(self._key(package))
        if path is None:
            raise PackageError(
                f"{package}: the cached file is gone",
                hint="start the build again: it will be fetched anew",
            )
        if not package.is_in(path):
            path.unlink(missing_ok=True)
            raise PackageError(
                f"{package}: the cached file was damaged and has been removed",
                hint="start the build again: it will be fetched anew",
            )
        return path

    def _key(self, package: Package) -> str:
        return f"{package.checksum[1]}.{self.suffix}"


class Lists(Protocol):
    """The lists of packages of some repositories, for one architecture."""

    pool: Pool
    architecture: str
    offline: bool

    @property
    def identity(self) -> str:
        """A name that no other lists have."""

    @property
    def names(self) -> tuple[str, ...]:
        """What people call its repositories."""

    @property
    def age(self) -> float | None:
        """Seconds since the lists were fetched; None if they never were."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """What could not be read and is not required, each with the reason."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where its packages come from."""

    @property
    def unsigned(self) -> tuple[str, ...]:
        """Those of the addresses whose packages are taken as they are."""

    def refresh(self) -> None:
        """Bring the lists up to date, unless that was done minutes ago."""

    def fetch(self, packages: Iterable[Package]) -> None:
        """Download those packages that the pool lacks."""
