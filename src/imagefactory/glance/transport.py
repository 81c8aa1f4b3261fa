"""The ways that an image's data takes into a cloud's stores."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Literal

from imagefactory.errors import CloudError
from imagefactory.glance.client import Glance
from imagefactory.glance.failures import WrongStateError
from imagefactory.glance.stored import Stored

HASH = "sha512"
"""Glance's default hashing_algorithm."""

_PIECE = 1 << 20
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds between two looks at what a cloud is working on; the last one again and again."""

Method = Literal["direct", "glance-direct", "web-download"]
Progress = Callable[[int, int], None]
"""Called with the bytes sent and the bytes there are."""


@dataclass(frozen=True)
class Transport:
    """The way that is chosen.

    Attributes:
        method: ``direct``: the data is sent with a PUT. ``glance-direct``: it is sent to a
            staging area, and the cloud imports it from there. ``web-download``: the cloud
            fetches it itself.
        stores: Those that shall have it; empty: the cloud's default one.
        all_stores: Every store that the cloud has.
        url: Where the cloud fetches it.
    """

    method: Method = "direct"
    stores: tuple[str, ...] = ()
    all_stores: bool = False
    url: str = ""


@dataclass
class Waiting:
    """Waits for a cloud, until its time is over.

    Attributes:
        budget: Seconds from now on.
        stopping: Set when it shall end soon.
    """

    budget: float
    stopping: threading.Event
    _until: float = field(init=False)

    def __post_init__(self) -> None:
        self._until = time.monotonic() + self.budget

    def looks(self) -> Iterator[None]:
        """Yield when it is time to look again.

        Raises:
            CloudError: The time is over.
            KeyboardInterrupt: It shall end.
        """
        number = 0
        while True:
            yield
            pause = _PAUSES[min(number, len(_PAUSES) - 1)]
            number += 1
            if time.monotonic() + pause > self._until:
                raise CloudError(
                    f"the cloud was not done within {self.budget:.0f} s",
                    hint="the log of the cloud's image service tells what it does; `budget:` is "
                    "how long it may take",
                )
            if self.stopping.wait(pause):
                raise KeyboardInterrupt


@dataclass
class Transfer:
    """Brings data to a cloud.

    Attributes:
        glance: The cloud.
        transport: The way.
        waiting: For what the cloud does by itself.
        progress: Told how far the sending is.
    """

    glance: Glance
    transport: Transport
    waiting: Waiting
    progress: Progress | None = None

    @cached_property
    def stores(self) -> tuple[str, ...]:
        """The stores that shall have the image; none: whichever the cloud chooses.

        Raises:
            CloudError: The cloud has not what was named.
        """
        if not (self.transport.all_stores or self.transport.stores):
            return ()
        known = self.glance.stores()
        strangers = [store for store in self.transport.stores if store not in known]
        if strangers:
            raise CloudError(
                f"the cloud has no store {', '.join(strangers)}",
                hint=f"it has: {', '.join(known) or 'one without a name'}",
            )
        return known if self.transport.all_stores else self.transport.stores

    def bring(self, image_id: str, disk: Path) -> str:
        """Bring a file's data to an image that has none, and wait until it is there.

        Returns:
            The SHA-512 of what was read; empty if nothing was.

        Raises:
            CloudError: The cloud refused, or failed, or took too long.
        """
        stores = self.stores
        if self.transport.method == "web-download":
            uri = self.transport.url
            self.glance.start_import(image_id, {"name": "web-download", "uri": uri}, stores)
            self._settle(image_id, stores)
            return ""
        with disk.open("rb") as stream:
            data = HashedStream(stream, self.progress)
            if self.transport.method == "direct":
                self.glance.send(image_id, data, stores[0] if stores else None)
            else:
                self.glance.stage(image_id, data)
        if self.transport.method == "glance-direct":
            self.glance.start_import(image_id, {"name": "glance-direct"}, stores)
            self._settle(image_id, stores)
        elif stores[1:]:
            self.copy(image_id, stores[1:])
        return data.digest

    def copy(self, image_id: str, stores: Sequence[str]) -> None:
        """Have the cloud copy an image to more of its stores, and wait until it is there."""
        self.glance.start_import(image_id, {"name": "copy-image"}, stores)
        self._settle(image_id, stores)

    def _settle(self, image_id: str, stores: Sequence[str]) -> Stored:
        for _ in self.waiting.looks():
            record = self.glance.get(image_id)
            if record.failed_stores or record.status in {"killed", "deleted"}:
                where = ", ".join(sorted(record.failed_stores)) or "its store"
                raise WrongStateError(
                    f"the cloud could not bring image {image_id} to {where}: {record.message}"
                )
            if record.status == "active" and set(stores) <= record.stores:
                return record
        raise AssertionError("the looks end with an error")


def hash_of(disk: Path, algorithm: str) -> str:
    """Return a file's hash, hexadecimal; nothing by an algorithm that is not known here."""
    if algorithm not in hashlib.algorithms_available:
        return ""
    status = disk.stat()
    return _read_hash(disk, algorithm, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _read_hash(disk: Path, algorithm: str, _size: int, _time: int) -> str:
    with disk.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


class HashedStream:
    """A file that is hashed and counted while it is read, once."""

    def __init__(self, stream: IO[bytes], progress: Progress | None) -> None:
        self._stream = stream
        self._progress = progress or (lambda _sent, _total: None)
        self._size = stream.seek(0, 2)
        stream.seek(0)
        self._hash = hashlib.new(HASH)
        self._sent = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """Yield the whole content.

        There is no ``read``: urllib3 would call it for 16 KiB at a time, which takes twice the
        processor time for a fast cloud.

        Raises:
            CloudError: The file has become shorter.
        """
        while left := self._size - self._sent:
            piece = self._stream.read(min(_PIECE, left))
            if not piece:
                raise CloudError("the file became shorter while it was sent", hint="send it again")
            self._hash.update(piece)
            self._sent += len(piece)
            self._progress(self._sent, self._size)
            yield piece

    @property
    def digest(self) -> str:
        """The hash of what has been read."""
        return self._hash.hexdigest()
