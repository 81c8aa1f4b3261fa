"""Compressed clusters kept from one build to the next.

A build whose customisation changed shares nearly all clusters with the one before; hashing and
checking them is several times faster than compressing them.

A cache is one file, a pack: the compressed clusters in the order of the disk, then their index,
then a footer of fixed length. It is replaced as a whole by the clusters of the newest disk, so
it never grows beyond one image. Nothing in it is believed: a pack of another compressor is
passed over, and so is one whose footer or index is damaged; each cluster is checked before it
is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MAGIC = b"imagefactory clusters 1\n"
_HASH = 32
_CHECK = 16
_ENTRY = struct.Struct(f"<{_HASH}sQI{_CHECK}s")
"""Hash of the plain cluster; offset, length and hash of the compressed one."""
_FOOTER = struct.Struct(f"<QI{_HASH}s{_HASH}s{len(_MAGIC)}s")
"""Offset of the index, number of its entries, its hash, hash of what it was compressed with."""


class Kept(NamedTuple):
    """A compressed cluster, with the hashes of the plain and of the compressed content."""

    packed: bytes
    key: bytes
    check: bytes


class ClusterCache:
    """The clusters of the disk before, and a pack under construction for the next.

    `get` may be called from any thread, `put` from one.
    """

    def __init__(self, old: bytes | mmap.mmap, compressor: bytes, new: BinaryIO) -> None:
        self._old = old
        self._known = _index(old, compressor)
        self._compressor = compressor
        self._new = new
        self._entries: dict[bytes, tuple[int, int, bytes]] = {}
        self._at = 0

    def get(self, cluster: bytes, compress: Callable[[bytes], bytes]) -> Kept:
        """Return a cluster as it was compressed before; otherwise compress it."""
        key = hashlib.sha256(cluster).digest()
        found = self._known.get(key)
        if found is not None:
            offset, length, check = found
            packed = self._old[offset : offset + length]
            if _check(packed) == check:
                return Kept(packed, key, check)
        packed = compress(cluster)
        return Kept(packed, key, _check(packed))

    def put(self, cluster: Kept) -> None:
        """Keep a compressed cluster for the next disk."""
        if cluster.key not in self._entries:
            self._entries[cluster.key] = (self._at, len(cluster.packed), cluster.check)
            self._new.write(cluster.packed)
            self._at += len(cluster.packed)

    def finish(self) -> None:
        """Write the index and the footer."""
        index = b"".join(_ENTRY.pack(key, *entry) for key, entry in self._entries.items())
        digest = hashlib.sha256(index).digest()
        footer = _FOOTER.pack(self._at, len(self._entries), digest, self._compressor, _MAGIC)
        self._new.write(index + footer)


@contextlib.contextmanager
def opened(pack: Path, compressor: str) -> Iterator[ClusterCache]:
    """Open a cache; its pack is replaced when the block ends without an error.

    Builds may share a pack at the same time: each reads the one it found, the last to end stays.

    Args:
        pack: The file; it need not exist yet.
        compressor: All that the compressed bytes depend on besides the content.
    """
    pack.parent.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(compressor.encode()).digest()
    with tempfile.TemporaryDirectory(dir=pack.parent) as scratch:
        new = Path(scratch) / pack.name
        with _mapped(pack) as old, new.open("wb") as stream:
            cache = ClusterCache(old, name, stream)
            yield cache
            cache.finish()
        new.replace(pack)


@contextlib.contextmanager
def _mapped(pack: Path) -> Iterator[bytes | mmap.mmap]:
    if not pack.is_file() or not pack.stat().st_size:  # nothing of no length can be mapped
        yield b""
        return
    with pack.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as old:
        yield old


def _index(pack: bytes | mmap.mmap, compressor: bytes) -> dict[bytes, tuple[int, int, bytes]]:
    """Read a pack's index; none of a pack that is not whole or not of this compressor."""
    end = len(pack) - _FOOTER.size
    if end < 0:
        return {}
    at, count, digest, name, magic = _FOOTER.unpack_from(pack, end)
    index = pack[at:end]
    whole = len(index) == count * _ENTRY.size and hashlib.sha256(index).digest() == digest
    if magic != _MAGIC or name != compressor or not whole:
        return {}
    return {
        key: (offset, length, check) for key, offset, length, check in _ENTRY.iter_unpack(index)
    }


def _check(packed: bytes) -> bytes:
    return hashlib.sha256(packed).digest()[:_CHECK]
