from __future__ import annotations

import struct
import zlib

import pytest

from imagefactory.boot.screenshot import png_from_ppm


def test_a_ppm_becomes_a_png_with_the_same_pixels() -> None:
    pixels = bytes(range(2 * 3 * 3))
    png = png_from_ppm(b"P6\n2 3\n255\n" + pixels)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack("!II", png[16:24]) == (2, 3)
    at = png.index(b"IDAT")
    (length,) = struct.unpack("!I", png[at - 4 : at])
    rows = zlib.decompress(png[at + 4 : at + 4 + length])
    assert rows == b"".join(b"\0" + pixels[row * 6 : row * 6 + 6] for row in range(3))


@pytest.mark.parametrize("data", [b"", b"P5\n1 1\n255\n0", b"P6\n9 9\n255\nshort"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="picture"):
        png_from_ppm(data)
