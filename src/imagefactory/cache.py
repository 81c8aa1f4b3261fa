"""The cache: entries of several kinds, each by its key, the least recently used pruned first.

Everything in it can be fetched or made again. ``CACHE/KIND/KEY`` is an entry, a file or a
directory; the time of its last use is its own mtime. Hidden names are the cache's own business:

- ``.users/``: a locked file per `in_use` block, whose mtime is when the block began. Entries
  used since the oldest of them began are never pruned. The kernel drops the lock with the
  process, so what a killed one left protects nothing.
- ``.lock``: held shared while an entry is marked as used, alone while one is taken away.
- ``.locks/``: one lock per key, held by whoever makes the entry.
- ``.trash/``: entries on their way out.

An entry that some program holds a shared lock on (flock of the file or directory itself) stays
as well: for what runs for weeks, and shall not keep everything else from being pruned.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from imagefactory.errors import ConfigError

DEFAULT_SIZE = 20 * 10**9
"""Bytes that the cache may have after a build; ``IMAGEFACTORY_CACHE_SIZE`` says otherwise."""

KINDS = {
    "pool": "downloaded packages",
    "apt": "package lists",
    "dnf": "package lists of RPM repositories",
    "tools": "programs of the build",
    "twins": "native twins of foreign trees",
    "launchers": "what runs them in a foreign tree",
    "trees": "trees before their customisation",
    "downloads": "images of others, and parts of them",
    "clusters": "compressed disks, for the next build",
    "local": "packages from beside a template",
    "kernels": "compressed kernels",
    "kvm": "whether KVM works here",
    "services": "Keystone and Glance of the devcloud",
}
"""What the kinds of entries hold; others may exist."""

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_SCRATCH = ".new-"


class Store:
    """The entries of one kind; safe for any number of threads and processes.

    An entry that `get`, `making` or `obtain` returned stays there as long as the `in_use` block
    around it lasts. It must be removable by whoever runs this, and never changed in place. The
    mtime of the entry itself (not of what a directory holds) is its last use.

    Args:
        cache: The directory of all caches.
        kind: The name of the directory below it.
    """

    def __init__(self, cache: Path, kind: str) -> None:
        self.directory = cache / kind
        self._cache = cache

    def path(self, key: str) -> Path:
        """Return where an entry is, or would be; it is not marked as used."""
        if not _KEY.fullmatch(key) or key.endswith(".lock"):
            raise ValueError(f"{key!r} cannot be the key of a cache's entry")
        return self.directory / key

    def get(self, key: str) -> Path | None:
        """Return an entry and mark it as used; None if there is none."""
        path = self.path(key)
        if not self._cache.is_dir():
            return None
        with _locked(self._cache, fcntl.LOCK_SH):
            try:
                os.utime(path, follow_symlinks=False)
            except FileNotFoundError:
                return None
            except OSError:  # a shared cache: it is another user's, and so is its pruning
                return path if path.exists() else None
        return path

    def add(self, key: str, source: Path) -> Path:
        """Move a file or a directory in, as a whole; somebody may have added the same before.

        The source is gone afterwards. It is best made in `scratch`; from another filesystem it
        is copied.
        """
        target = self.path(key)
        self.directory.mkdir(parents=True, exist_ok=True)
        os.utime(source)  # its last use is now, whenever its content was made
        try:
            _rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with self.scratch() as scratch:
                copy = scratch / key
                if source.is_dir():
                    shutil.copytree(source, copy, symlinks=True)
                else:
                    shutil.copyfile(source, copy)
                os.utime(copy)
                _rename(copy, target)
            _remove(source)
        return target

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Hand out an empty directory, on the entries' filesystem, to make an entry in."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self.directory))
        try:
            yield path
        finally:
            _remove(path)

    @contextlib.contextmanager
    def making(self, key: str) -> Iterator[Path | None]:
        """Return an entry, or None to the one who is to make it; others wait for that meanwhile.

        ::

            with store.making(key) as found:
                if found is None:
                    found = store.add(key, made)
        """
        found = self.get(key)
        if found is not None:
            yield found
            return
        locks = self._cache / ".locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{self.directory.name}-{key}.lock"):
            yield self.get(key)

    def obtain(self, key: str, make: Callable[[Path], object]) -> Path:
        """Return an entry; if there is none, it is made first, by one of those who ask for it.

        Args:
            key: Its name.
            make: Writes a file or a directory to the path that it is given.
        """
        with self.making(key) as found:
            if found is not None:
                return found
            with self.scratch() as scratch:
                make(scratch / key)
                return self.add(key, scratch / key)


@contextlib.contextmanager
def in_use(cache: Path) -> Iterator[None]:
    """Keep everybody from pruning what is used within this block.

    Raises:
        ConfigError: The cache cannot be written to.
    """
    users = cache / ".users"
    try:
        users.mkdir(parents=True, exist_ok=True)
        with _locked(cache, fcntl.LOCK_SH):  # nobody takes it for a dead one's before its lock
            descriptor, name = tempfile.mkstemp(dir=users)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        raise unwritable(cache, error) from None
    try:
        yield
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(descriptor)


_SHARED = ("pool", "apt", "dnf", ".lock", ".locks", ".users")
"""What `emptied` leaves as it is: packages and their lists, and who uses them."""


@contextlib.contextmanager
def emptied(cache: Path, directory: Path) -> Iterator[Path]:
    """Make a cache that holds nothing but downloaded packages, which are checked when taken.

    For what has to be made anew, whatever was made before. The packages are those of another
    cache, so they are not downloaded again, and those that are stay there; all else is gone
    when the block is left, and that cache has nothing of it.

    Args:
        cache: The directory of all caches; an `in_use` block of it lasts longer than this one.
        directory: Where the new one is made.
    """
    directory.mkdir(parents=True)
    try:
        for name in _SHARED:
            if name != ".lock":
                (cache / name).mkdir(parents=True, exist_ok=True)
            (directory / name).symlink_to((cache / name).absolute())
        yield directory
    finally:
        _remove(directory)


def unwritable(cache: Path, error: OSError) -> ConfigError:
    """Say that the cache cannot be written to, and what to do."""
    return ConfigError(
        f"the cache {cache} cannot be written to: {error.strerror}",
        hint="choose another place: XDG_CACHE_HOME=DIR imagefactory ...",
    )


@dataclass(frozen=True)
class Entry:
    """One entry of the cache: bytes on the disk, seconds since 1970 of its last use."""

    kind: str
    key: str
    size: int
    used: float


@dataclass(frozen=True)
class Pruned:
    """What was taken out, and what had to stay because it is in use: bytes on the disk."""

    removed: tuple[Entry, ...]
    kept_in_use: tuple[Entry, ...]
    left: int


def entries(cache: Path) -> tuple[Entry, ...]:
    """List all entries, by kind and key."""
    found = []
    for directory in _visible(cache):
        for path in _visible(directory):
            with contextlib.suppress(FileNotFoundError):  # pruned by somebody while we look
                used = path.lstat().st_mtime
                found.append(Entry(directory.name, path.name, disk_usage(path), used))
    return tuple(found)


def summary(cache: Path) -> list[dict[str, Any]]:
    """Return for each kind how many entries it has, their bytes, when they were used."""
    by_kind: dict[str, list[Entry]] = {}
    for entry in entries(cache):
        by_kind.setdefault(entry.kind, []).append(entry)
    return [
        {
            "kind": kind,
            "holds": KINDS.get(kind, ""),
            "entries": len(found),
            "bytes": sum(entry.size for entry in found),
            "oldest_use": _iso(min(entry.used for entry in found)),
            "newest_use": _iso(max(entry.used for entry in found)),
        }
        for kind, found in by_kind.items()
    ]


def _iso(used: float) -> str:
    return datetime.fromtimestamp(used, UTC).isoformat(timespec="seconds")


def prune(
    cache: Path,
    *,
    max_size: int | None = None,
    older_than: float | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Take out what was not used for longest, but nothing that is in use.

    Args:
        cache: The directory of all caches.
        max_size: Bytes that may stay.
        older_than: Seconds; what was not used for as long goes in any case.
        dry_run: Only tell what would go.
    """
    if not cache.is_dir():
        return Pruned((), (), 0)
    with _locked(cache, fcntl.LOCK_EX):
        protected_since = _oldest_use(cache)
    if not dry_run:
        _sweep(cache, protected_since)
    found = sorted(entries(cache), key=lambda entry: (entry.used, entry.kind, entry.key))
    left = sum(entry.size for entry in found)
    now = time.time()
    removed: list[Entry] = []
    kept: list[Entry] = []
    for entry in found:
        too_old = older_than is not None and now - entry.used > older_than
        too_much = max_size is not None and left > max_size
        if not (too_old or too_much):
            continue
        if entry.used >= protected_since or not _goes(cache, entry, dry_run=dry_run):
            kept.append(entry)
            continue
        removed.append(entry)
        left -= entry.size
    if not dry_run:
        _empty(cache / ".trash")
    return Pruned(tuple(removed), tuple(kept), left)


def _oldest_use(cache: Path) -> float:
    """When the oldest of the blocks that are running began; those of dead processes go."""
    oldest = float("inf")
    for path in (cache / ".users").glob("*"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            began = path.stat().st_mtime
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                oldest = min(oldest, began)
            else:
                path.unlink(missing_ok=True)
    return oldest


def _goes(cache: Path, entry: Entry, *, dry_run: bool) -> bool:
    if _held(cache / entry.kind / entry.key):
        return False
    return dry_run or _take_away(cache, entry)


def _held(path: Path) -> bool:
    """Whether a program holds a lock on an entry."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # gone, or not ours to open: then it is not ours to remove either
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _take_away(cache: Path, entry: Entry) -> bool:
    """Take an entry out unless somebody uses it, or has used it since it was looked at."""
    path = cache / entry.kind / entry.key
    trash = cache / ".trash"
    trash.mkdir(exist_ok=True)
    with _locked(cache, fcntl.LOCK_EX):
        try:
            used = path.lstat().st_mtime
            if used != entry.used or used >= _oldest_use(cache):
                return False
            path.rename(trash / uuid.uuid4().hex)
        except FileNotFoundError:
            return True
        except PermissionError:  # another user's
            return False
    return True


def _sweep(cache: Path, protected_since: float) -> None:
    """Remove what killed processes left half made, and locks that nobody holds."""
    for directory in _visible(cache):
        for path in directory.glob(f"{_SCRATCH}*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < min(protected_since, time.time() - _DAY):
                    _remove(path)
    for path in (cache / ".locks").glob("*.lock"):
        # Whoever waits for it still works: `add` bears that two have made the same.
        with contextlib.suppress(Timeout, OSError), FileLock(path, timeout=0):
            path.unlink(missing_ok=True)


def _empty(directory: Path) -> None:
    for path in directory.glob("*"):
        _remove(path)


def _visible(directory: Path) -> list[Path]:
    try:
        paths = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path for path in paths if path.name[0] != "." and path.suffix != ".lock"]


def disk_usage(path: Path) -> int:
    """Bytes on the disk; what has several names counts once."""
    blocks: dict[int, int] = {}
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            with contextlib.suppress(OSError):
                status = Path(folder, name).lstat()
                blocks[status.st_ino] = status.st_blocks
    own = path.lstat()
    blocks[own.st_ino] = own.st_blocks
    return 512 * sum(blocks.values())


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        _remove(source)  # a directory that somebody else added first


def _remove(path: Path) -> None:
    """Remove a file or a tree, also one whose directories may not be written to."""
    if path.is_dir() and not path.is_symlink():
        for folder, names, _ in os.walk(path):
            for name in names:
                with contextlib.suppress(OSError):
                    inner = Path(folder, name)
                    if not inner.is_symlink():
                        inner.chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(cache: Path, how: int) -> Iterator[None]:
    with (cache / ".lock").open("ab") as stream:
        fcntl.flock(stream, how)
        yield


_HOUR = 3600
_DAY = 24 * _HOUR
_SECONDS = {"h": _HOUR, "d": _DAY, "w": 7 * _DAY}
_PREFIXES = "KMGT"


def parse_size(text: str) -> int:
    """Read a size as people write it: 500M, 1.5G, 10GiB (powers of 1024), 20GB (of 1000).

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(?:([KMGT])(iB|B)?|B)?", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a size: say 500M, 10G or 20GB")
    number, prefix, unit = match.groups()
    base = 1000 if (unit or "").upper() == "B" else 1024
    return int(float(number) * base ** (_PREFIXES.index(prefix.upper()) + 1 if prefix else 0))


def parse_age(text: str) -> int:
    """Read an age in seconds as people write it: 12h, 30d, 2w.

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"([0-9]+) ?([hdw])", text)
    if not match:
        raise ValueError(f"{text!r} is not an age: say 12h, 30d or 2w")
    return int(match[1]) * _SECONDS[match[2]]


def allowed_size() -> int:
    """Return how many bytes the cache may keep after a build.

    Raises:
        ConfigError: ``IMAGEFACTORY_CACHE_SIZE`` is not a size.
    """
    text = os.environ.get("IMAGEFACTORY_CACHE_SIZE")
    if not text:
        return DEFAULT_SIZE
    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigError(f"IMAGEFACTORY_CACHE_SIZE: {error}") from None
