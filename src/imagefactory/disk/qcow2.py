"""Writing qcow2 with strong compression: qemu-img has no way to ask zstd for more than level 3.

Layout and numbers are those of QEMU's docs/interop/qcow2.txt, version 3. The data comes first
and the tables after it, so that one pass over the disk is enough. The result depends on the
disk's bytes and the compressor alone: the same every time, with and without a cache.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import zstandard

from imagefactory.disk import clusters
from imagefactory.disk.clusters import ClusterCache, Kept


@dataclass(frozen=True)
class Compression:
    """How hard a disk is compressed.

    Attributes:
        level: zstd's, 1 to 22. qemu-img's is 3.
        cluster_bits: Cluster size as a power of two, from 9 to 21 (512 bytes to 2 MiB); qemu-img's
            is 16. Each cluster is compressed for itself: larger ones come out smaller, a guest
            that reads a little of one waits until all of it is unpacked, and each of the five
            tables takes at least one.
    """

    level: int
    cluster_bits: int = 16

    @property
    def cluster(self) -> int:
        """Bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def compressor(self) -> str:
        """Everything that compressed bytes depend on besides the content."""
        version = ".".join(map(str, zstandard.ZSTD_VERSION))
        return f"zstd {version}, level {self.level}, clusters of {self.cluster} bytes"


FAST = Compression(3, 18)
BALANCED = Compression(7, 18)
SMALL = Compression(19, 16)

COMPRESSIONS = {"fast": FAST, "balanced": BALANCED, "small": SMALL}
"""What templates may ask for by name."""

_SECTOR = 512
_HEADER_LENGTH = 112
_INCOMPATIBLE_COMPRESSION_TYPE = 1 << 3
_COMPRESSION_ZSTD = 1
_COPIED = 1 << 63
_COMPRESSED = 1 << 62
_PORTION = 1 << 20
"""Bytes of the disk that one thread reads and compresses at a time."""
_WAITING = 8
"""Portions per thread that may wait to be written in order: what bounds the memory used."""


def write(
    raw: Path, target: Path, compression: Compression = SMALL, cache: Path | None = None
) -> None:
    """Write a raw disk as a compressed qcow2 file.

    Args:
        raw: The disk; its holes are not read.
        target: The file to create.
        compression: How hard to compress.
        cache: A file that keeps the compressed clusters for the next disk of its kind
            (`imagefactory.disk.clusters`).
    """
    size = raw.stat().st_size
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(raw.open("rb"))
        stream = stack.enter_context(target.open("wb"))
        kept = None
        if cache is not None:
            kept = stack.enter_context(clusters.opened(cache, compression.compressor))
        image = _Image(stream, size, compression.cluster_bits)
        for portion in _compressed(source, size, compression, kept):
            for cluster in portion:
                image.add(*cluster)
        image.finish()


class _Image:
    """A qcow2 file while it is written: where the next bytes go, and who uses which cluster."""

    def __init__(self, stream: BinaryIO, size: int, cluster_bits: int) -> None:
        self.stream = stream
        self.size = size
        self.bits = cluster_bits
        self.cluster = 1 << cluster_bits
        self.entries = self.cluster // 8
        self.sectors_shift = 62 - (cluster_bits - 8)
        self.l1_length = -(-size // (self.cluster * self.entries))
        first_free = 1 + self._clusters(self.l1_length * 8)
        self.counts = [1] * first_free
        self.at = first_free * self.cluster
        self.l2: dict[int, list[int]] = {}

    def add(self, index: int, data: bytes, packed: bytes) -> None:
        """Store one cluster of the disk, compressed if that makes it smaller."""
        table = self.l2.setdefault(index // self.entries, [0] * self.entries)
        if len(packed) >= self.cluster:
            table[index % self.entries] = self.append_cluster(data) | _COPIED
            return
        offset, last = self.at, self.at + len(packed) - 1
        self._write(offset, packed)
        sectors = last // _SECTOR - offset // _SECTOR
        table[index % self.entries] = offset | (sectors << self.sectors_shift) | _COMPRESSED
        self.counts += [0] * (last // self.cluster + 1 - len(self.counts))
        for cluster in range(offset // self.cluster, last // self.cluster + 1):
            self.counts[cluster] += 1
        self.at = last + 1

    def append_cluster(self, data: bytes) -> int:
        """Store whole clusters at the next cluster boundary; return their offset."""
        offset = len(self.counts) * self.cluster
        self._write(offset, data)
        self.counts += [1] * self._clusters(len(data))
        self.at = len(self.counts) * self.cluster
        return offset

    def finish(self) -> None:
        """Write the tables behind the data, and the header."""
        l1 = [0] * self.l1_length
        for index, table in sorted(self.l2.items()):
            l1[index] = self.append_cluster(_words(table)) | _COPIED
        self._write(self.cluster, _words(l1))
        # The reference counts count their own clusters too: how many, is a fixed point.
        blocks = tables = 0
        while True:
            total = len(self.counts) + blocks + tables
            needed = -(-total // (self.cluster // 2))
            wanted = needed, self._clusters(needed * 8)
            if wanted == (blocks, tables):
                break
            blocks, tables = wanted
        first_block = len(self.counts) * self.cluster
        self.counts += [1] * (blocks + tables)
        self._write(first_block, struct.pack(f">{len(self.counts)}H", *self.counts))
        refcount_table = first_block + blocks * self.cluster
        offsets = [first_block + number * self.cluster for number in range(blocks)]
        self._write(refcount_table, _words(offsets))
        self._write(0, self._header(refcount_table, tables))
        self.stream.truncate(len(self.counts) * self.cluster)

    def _header(self, refcount_table: int, refcount_clusters: int) -> bytes:
        header = struct.pack(
            ">4sIQIIQIIQQIIQQQQIIB7x",
            b"QFI\xfb",
            3,  # version
            0,  # backing file: none
            0,
            self.bits,
            self.size,
            0,  # encryption: none
            self.l1_length,
            self.cluster,  # the L1 table stands right behind the header
            refcount_table,
            refcount_clusters,
            0,  # snapshots: none
            0,
            _INCOMPATIBLE_COMPRESSION_TYPE,
            0,  # compatible features
            0,  # autoclear features
            4,  # reference counts of 16 bits
            _HEADER_LENGTH,
            _COMPRESSION_ZSTD,
        )
        return header + struct.pack(">II", 0, 0)  # the end of the header extensions

    def _clusters(self, size: int) -> int:
        return -(-size // self.cluster)

    def _write(self, offset: int, data: bytes) -> None:
        self.stream.seek(offset)
        self.stream.write(data)


class _Cluster(NamedTuple):
    """A cluster that is not all zeroes: its number, content and compressed content."""

    number: int
    data: bytes
    packed: bytes


def _compressed(
    source: BinaryIO, size: int, compression: Compression, cache: ClusterCache | None
) -> Iterator[list[_Cluster]]:
    """Yield the disk's clusters in order; a thread per processor reads and compresses them."""
    threads = len(os.sched_getaffinity(0))
    packer = _Packer(source.fileno(), compression, cache)
    starts = _portions(source.fileno(), size, compression.cluster)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[list[tuple[_Cluster, Kept | None]]]] = deque()
        waiting.extend(pool.submit(packer.pack, at) for at in islice(starts, threads * _WAITING))
        while waiting:
            portion = waiting.popleft().result()
            waiting.extend(pool.submit(packer.pack, at) for at in islice(starts, 1))
            for _, kept in portion:
                if cache and kept:
                    cache.put(kept)
            yield [cluster for cluster, _ in portion]


class _Packer:
    """Reads and compresses portions of a disk, in any thread."""

    def __init__(self, source: int, compression: Compression, cache: ClusterCache | None) -> None:
        self._source = source
        self._cluster = compression.cluster
        self._level = compression.level
        self._cache = cache
        self._zeroes = bytes(self._cluster)
        self._of_thread = threading.local()

    def pack(self, portion: range) -> list[tuple[_Cluster, Kept | None]]:
        """Return the clusters of a portion, and what the cache should keep of them."""
        found = []
        for at in portion:
            data = os.pread(self._source, self._cluster, at).ljust(self._cluster, b"\0")
            if data == self._zeroes:
                continue
            kept = self._cache.get(data, self._compress) if self._cache is not None else None
            packed = kept.packed if kept else self._compress(data)
            found.append((_Cluster(at // self._cluster, data, packed), kept))
        return found

    def _compress(self, data: bytes) -> bytes:
        # Making a compressor costs more than some clusters take; each serves one thread only.
        try:
            compressor = self._of_thread.compressor
        except AttributeError:
            compressor = zstandard.ZstdCompressor(level=self._level)
            self._of_thread.compressor = compressor
        packed: bytes = compressor.compress(data)
        return packed


def _portions(source: int, size: int, cluster: int) -> Iterator[range]:
    """Yield the offsets of all clusters that are not holes of the file, portion by portion."""
    length = max(_PORTION, cluster)
    begin = 0
    while begin < size:
        try:
            data = os.lseek(source, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # nothing but a hole up to the end
        first = max(begin, data - data % cluster)
        end = os.lseek(source, data, os.SEEK_HOLE)
        begin = min(end + -end % cluster, size + -size % cluster)
        for at in range(first, begin, length):
            yield range(at, min(at + length, begin), cluster)


def _words(values: list[int]) -> bytes:
    return struct.pack(f">{len(values)}Q", *values)
