"""Pictures of the guest's display, always PNG."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from pathlib import Path

from qemu.qmp import QMPClient, QMPError


async def save(monitor: QMPClient, path: Path) -> bool:
    """Take a picture; False where the guest has no display that QEMU can read."""
    with contextlib.suppress(QMPError):
        await monitor.execute("screendump", {"filename": str(path), "format": "png"})
        return path.exists()
    # QEMU before 7.1, or built without libpng.
    plain = path.with_suffix(".ppm")
    try:
        await monitor.execute("screendump", {"filename": str(plain)})
        path.write_bytes(png_from_ppm(plain.read_bytes()))
    except (QMPError, OSError, ValueError):
        return False
    finally:
        plain.unlink(missing_ok=True)
    return True


def png_from_ppm(data: bytes) -> bytes:
    """Convert a binary PPM (P6, 8 bits) into a PNG.

    Raises:
        ValueError: It is no such picture.
    """
    header = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", data)
    if header is None:
        raise ValueError("not a binary PPM picture")
    width, height = int(header[1]), int(header[2])
    pixels = data[header.end() :]
    row = width * 3
    if len(pixels) < row * height:
        raise ValueError("the PPM picture ends early")
    # Each row starts with its filter type, 0: none.
    lines = b"".join(b"\0" + pixels[at : at + row] for at in range(0, row * height, row))
    # 8 bits, colour type 2 (RGB), and the only compression, filter and no interlacing.
    head = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content)
        for kind, content in ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack("!I", len(content)) + kind + content + struct.pack("!I", checksum)
