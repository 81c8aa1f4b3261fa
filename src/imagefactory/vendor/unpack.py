"""Images that are published compressed."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from imagefactory.vendor.errors import VendorError

_OPENERS: dict[bytes, tuple[str, Callable[[Any], Any]]] = {
    b"\xfd7zXZ\0": (".xz", lzma.open),
    b"\x1f\x8b": (".gz", gzip.open),
    b"BZh": (".bz2", bz2.open),
}
"""First bytes -> the name's ending, and what reads it (xz file format 2.1.1.1, RFC 1952, bzip2)."""

LARGEST = 1 << 40
"""Bytes that are unpacked at most: no cloud has so large an image."""

_PIECE = 1 << 20


def unpacked_name(name: str) -> str:
    """Return a file's name without the ending that says how it is compressed."""
    for ending, _ in _OPENERS.values():
        name = name.removesuffix(ending)
    return name


def unpack(source: Path, target: Path, name: str) -> None:
    """Put an image's own bytes into a file, with holes where they are zero.

    Raises:
        VendorError: It is damaged, or larger than any image.
    """
    with source.open("rb") as stream:
        first = stream.read(max(map(len, _OPENERS)))
        stream.seek(0)
        known = (opener for magic, (_, opener) in _OPENERS.items() if first.startswith(magic))
        opener = next(known, contextlib.nullcontext)
        try:
            with opener(stream) as plain:
                _copy(plain, target, name)
        except (lzma.LZMAError, zlib.error, EOFError, OSError) as why:
            if isinstance(why, OSError) and why.errno:  # the system's own; bz2 and gzip set none
                raise
            raise VendorError(f"{name} cannot be unpacked: {why}") from None


def _copy(plain: IO[bytes], target: Path, name: str) -> None:
    size = 0
    with target.open("wb") as stream:
        while piece := plain.read(_PIECE):
            size += len(piece)
            if size > LARGEST:
                raise VendorError(f"{name} unpacks to more than {LARGEST >> 30} GiB")
            if piece.count(0) == len(piece):
                stream.seek(len(piece), os.SEEK_CUR)
            else:
                stream.write(piece)
        stream.truncate(size)
