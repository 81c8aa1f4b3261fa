from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from imagefactory.vendor import unpack as unpacking
from imagefactory.vendor.errors import VendorError
from imagefactory.vendor.unpack import unpack, unpacked_name

CONTENT = b"disk" * 300_000 + bytes(5 << 20) + b"end" + bytes(3 << 20)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".xz": lzma.compress,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    "": bytes,
}


@pytest.mark.parametrize("ending", PACKERS)
def test_what_is_compressed_comes_out_as_it_was(ending: str, tmp_path: Path) -> None:
    source = tmp_path / f"disk.raw{ending}"
    source.write_bytes(PACKERS[ending](CONTENT))
    unpack(source, tmp_path / "out", source.name)
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert (tmp_path / "out").stat().st_blocks * 512 < len(CONTENT) - (4 << 20)
    assert unpacked_name(source.name) == "disk.raw"


@pytest.mark.parametrize("ending", [".xz", ".gz", ".bz2"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_what_is_damaged_is_told(ending: str, damage: str, tmp_path: Path) -> None:
    content = bytearray(PACKERS[ending](bytes(range(256)) * 9000))
    if damage == "cut":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 255
    (tmp_path / "disk").write_bytes(content)
    with pytest.raises(VendorError, match="disk cannot be unpacked"):
        unpack(tmp_path / "disk", tmp_path / "out", "disk")


def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "LARGEST", 1 << 20)
    (tmp_path / "disk").write_bytes(lzma.compress(bytes(1 << 26)))
    with pytest.raises(VendorError, match="unpacks to more than"):
        unpack(tmp_path / "disk", tmp_path / "out", "disk")
    assert (tmp_path / "out").stat().st_size <= 1 << 20
