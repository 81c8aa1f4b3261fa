"""Writing qcow2 with strong compression: qemu-img has no way to ask zstd for more than level 3.

Layout and numbers are those of QEMU's docs/interop/qcow2.txt, version 3. The data comes first
and the tables after it, so that one pass over the disk is enough. The result depends on the
disk's bytes and the compressor alone: the same every time.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import zstandard

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
"""64 KiB, qcow2's usual cluster: larger ones compress better but pad the tables more."""

LEVEL = 19
"""zstd's level: on a kernel 10 to 14 % smaller than level 3, which is qemu-img's."""

_SECTOR = 512
_HEADER_LENGTH = 112
_INCOMPATIBLE_COMPRESSION_TYPE = 1 << 3
_COMPRESSION_ZSTD = 1
_COPIED = 1 << 63
_COMPRESSED = 1 << 62
_SECTORS_SHIFT = 62 - (CLUSTER_BITS - 8)
_ENTRIES = CLUSTER // 8
_COUNTS = CLUSTER // 2
_ZEROES = bytes(CLUSTER)
_BATCH = 512
"""Clusters that are compressed side by side before they are written in order."""


def write(raw: Path, target: Path) -> None:
    """Write a raw disk as a compressed qcow2 file.

    Args:
        raw: The disk.
        target: The file to create.
    """
    size = raw.stat().st_size
    l1_length = -(-size // (CLUSTER * _ENTRIES))
    with raw.open("rb") as source, target.open("wb") as stream:
        image = _Image(stream, first_free=1 + _clusters(l1_length * 8))
        for index, data, packed in _compressed(source):
            image.add(index, data, packed)
        image.finish(size, l1_length)


class _Image:
    """A qcow2 file while it is written: where the next bytes go, and who uses which cluster."""

    def __init__(self, stream: BinaryIO, first_free: int) -> None:
        self.stream = stream
        self.counts = [1] * first_free
        self.at = first_free * CLUSTER
        self.l2: dict[int, list[int]] = {}

    def add(self, index: int, data: bytes, packed: bytes) -> None:
        """Store one cluster of the disk, compressed if that makes it smaller."""
        table = self.l2.setdefault(index // _ENTRIES, [0] * _ENTRIES)
        if len(packed) >= CLUSTER:
            table[index % _ENTRIES] = self.append_cluster(data) | _COPIED
            return
        offset, last = self.at, self.at + len(packed) - 1
        self._write(offset, packed)
        sectors = last // _SECTOR - offset // _SECTOR
        table[index % _ENTRIES] = offset | (sectors << _SECTORS_SHIFT) | _COMPRESSED
        self.counts += [0] * (last // CLUSTER + 1 - len(self.counts))
        for cluster in range(offset // CLUSTER, last // CLUSTER + 1):
            self.counts[cluster] += 1
        self.at = last + 1

    def append_cluster(self, data: bytes) -> int:
        """Store whole clusters at the next cluster boundary; return their offset."""
        offset = len(self.counts) * CLUSTER
        self._write(offset, data)
        self.counts += [1] * _clusters(len(data))
        self.at = len(self.counts) * CLUSTER
        return offset

    def finish(self, size: int, l1_length: int) -> None:
        """Write the tables behind the data, and the header."""
        l1 = [0] * l1_length
        for index, table in sorted(self.l2.items()):
            l1[index] = self.append_cluster(_words(table)) | _COPIED
        self._write(CLUSTER, _words(l1))
        # The reference counts count their own clusters too: how many, is a fixed point.
        blocks = tables = 0
        while True:
            total = len(self.counts) + blocks + tables
            wanted = -(-total // _COUNTS), _clusters(-(-total // _COUNTS) * 8)
            if wanted == (blocks, tables):
                break
            blocks, tables = wanted
        first_block = len(self.counts) * CLUSTER
        self.counts += [1] * (blocks + tables)
        self._write(first_block, struct.pack(f">{len(self.counts)}H", *self.counts))
        refcount_table = first_block + blocks * CLUSTER
        offsets = [first_block + number * CLUSTER for number in range(blocks)]
        self._write(refcount_table, _words(offsets))
        self._write(0, _header(size, l1_length, refcount_table, tables))
        self.stream.truncate(len(self.counts) * CLUSTER)

    def _write(self, offset: int, data: bytes) -> None:
        self.stream.seek(offset)
        self.stream.write(data)


def _compressed(source: BinaryIO) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield (number, content, compressed content) of each cluster that is not all zeroes."""
    clusters = _clusters_of(source)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        while batch := list(islice(clusters, _BATCH)):
            packed = pool.map(_pack, (data for _, data in batch))
            for (index, data), small in zip(batch, packed, strict=True):
                yield index, data, small


def _pack(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL).compress(data)


def _clusters_of(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    index = 0
    while data := source.read(CLUSTER):
        data = data.ljust(CLUSTER, b"\0")
        if data != _ZEROES:
            yield index, data
        index += 1


def _header(size: int, l1_length: int, refcount_table: int, refcount_clusters: int) -> bytes:
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQIIB7x",
        b"QFI\xfb",
        3,  # version
        0,  # backing file: none
        0,
        CLUSTER_BITS,
        size,
        0,  # encryption: none
        l1_length,
        CLUSTER,  # the L1 table stands right behind the header
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


def _words(values: list[int]) -> bytes:
    return struct.pack(f">{len(values)}Q", *values)


def _clusters(size: int) -> int:
    return -(-size // CLUSTER)
