"""Where package lists are kept: one directory of the cache for each set of repositories."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from imagefactory.cache import Store, unwritable
from imagefactory.data import write_whole
from imagefactory.errors import HostError, PackageError
from imagefactory.packages.pool import Package

FRESH_SECONDS = 900
"""Package lists younger than this are not asked for again."""

SPACE_NEEDED = 128 << 20
"""Bytes that must be free for package lists; apt may wait for ever on a full disk."""


class Lists:
    """The package lists of some repositories, as they were last fetched.

    Args:
        cache: The directory of all caches.
        kind: Who reads them: ``apt`` or ``dnf``.
        asked: All that decides what they hold.
    """

    def __init__(self, cache: Path, kind: str, asked: str) -> None:
        self.cache = cache
        self._kind = kind
        self.directory = cache / kind / hashlib.sha256(asked.encode()).hexdigest()[:16]
        self._stamp = self.directory / "refreshed"
        self._note = self.directory / "left-out"

    @property
    def age(self) -> float | None:
        """Seconds since they were fetched; None if they never were."""
        try:
            return max(0.0, time.time() - self._stamp.stat().st_mtime)
        except FileNotFoundError:
            return None

    @property
    def fresh(self) -> bool:
        """Whether they were fetched minutes ago."""
        try:
            # A stamp of the future is a clock that was set back: it says nothing.
            return 0 <= time.time() - self._stamp.stat().st_mtime < FRESH_SECONDS
        except FileNotFoundError:
            return False

    def refreshed(self) -> None:
        """Note that they are of this moment."""
        self._stamp.touch()

    @property
    def left_out(self) -> tuple[str, ...]:
        """Repositories that could not be read and are not required, each with the reason."""
        if not self._note.exists():
            return ()
        return tuple(self._note.read_text(encoding="utf-8").splitlines())

    def leave_out(self, reasons: Iterable[str]) -> None:
        """Note which repositories were left out, each with the reason."""
        self._note.write_text("".join(f"{reason}\n" for reason in reasons), encoding="utf-8")

    def lock(self) -> FileLock:
        """Return the lock that whoever reads or changes them holds."""
        return FileLock(self.directory / "lock")

    def require(self, what: str) -> None:
        """See that they were ever fetched.

        Args:
            what: Names the repositories.

        Raises:
            PackageError: They were not.
        """
        if self.age is None:
            raise PackageError(
                f"offline: the package lists of {what} were never fetched",
                hint="run the same once without --offline",
            )

    def prepare(self, folders: Iterable[str], files: Iterable[tuple[str, str]]) -> None:
        """Make the directory, and mark it as used.

        Args:
            folders: Directories that shall be there.
            files: Path and content of files that shall be there.

        Raises:
            ConfigError: The cache cannot be written.
            HostError: Its disk is full.
        """
        try:
            for folder in folders:
                (self.directory / folder).mkdir(parents=True, exist_ok=True)
            for name, content in files:
                write_whole(self.directory / name, content.encode())
        except OSError as error:
            raise unwritable(self.cache, error) from None
        Store(self.cache, self._kind).get(self.directory.name)  # marks them as used
        if shutil.disk_usage(self.directory).free < SPACE_NEEDED:
            raise HostError(
                f"the disk of the cache {self.cache} is full",
                hint="make room, or choose another place: XDG_CACHE_HOME=DIR imagefactory ...",
            )

    def remembered(
        self, key: Callable[[], Path], ask: Callable[[], tuple[Package, ...]]
    ) -> tuple[Package, ...]:
        """Ask once per state of the lists: to load them takes half a second and more.

        Args:
            key: Names the file of the answer that the lists give as they are now.
            ask: Finds the answer.
        """
        with self.lock():  # another process may be changing the lists
            note = key()
            with contextlib.suppress(OSError, ValueError, TypeError):
                return tuple(Package(**fields) for fields in json.loads(note.read_bytes()))
            answer = ask()
            write_whole(note, json.dumps([asdict(package) for package in answer]).encode())
            return answer

    def emptied(self, name: str) -> Path:
        """Return a directory in which nothing is, not even what a killed process left."""
        directory = self.directory / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory
