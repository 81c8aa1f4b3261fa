from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagefactory.disk import qcow2
from imagefactory.disk.qcow2 import Compression
from imagefactory.run import run

CLUSTER = qcow2.SMALL.cluster
QUICK = Compression(1)
PIECES = st.lists(
    st.tuples(
        st.integers(0, 63),
        st.sampled_from(["zero", "random", "text", "barely", "last byte"]),
    ),
    max_size=30,
)
BITS = st.sampled_from([12, 16, 17, 18, 21])


def fill(kind: str, dice: random.Random) -> bytes:
    match kind:
        case "random":
            return dice.randbytes(CLUSTER)
        case "text":
            return (f"{dice.random()} line\n".encode() * 8000)[:CLUSTER]
        case "barely":  # random but for a little: about as long packed as plain
            return dice.randbytes(CLUSTER - 16 - dice.randrange(40)).ljust(CLUSTER, b"\0")
        case "last byte":
            return bytes(CLUSTER - 1) + b"\1"
        case _:
            return bytes(CLUSTER)


def proven(raw: Path, target: Path, compression: Compression = QUICK) -> None:
    """Write it with a cold, a warm and no cache: the same bytes, and sound ones.

    QEMU must find no fault and no difference, Glance's check no danger.
    """
    from oslo_utils.imageutils import format_inspector

    cache = raw.parent / "clusters/pack"
    cache.unlink(missing_ok=True)
    written = set()
    for pack in (cache, cache, None):
        qcow2.write(raw, target, compression, pack)
        written.add(target.read_bytes())
    assert len(written) == 1
    check = json.loads(run(["qemu-img", "check", "--output=json", target]).stdout)
    assert check["check-errors"] == 0
    assert not {"leaks", "corruptions"} & set(check)
    run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, target])
    inspector = format_inspector.detect_file_format(str(target))
    assert inspector is not None
    assert str(inspector) == "qcow2"
    inspector.safety_check()
    assert inspector.virtual_size == raw.stat().st_size


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(PIECES, st.integers(1, 64 * CLUSTER // 512), st.integers(0, 2**32), BITS)
def test_any_disk_is_the_same_disk_as_qcow2(
    tmp_path: Path, pieces: list[tuple[int, str]], sectors: int, seed: int, bits: int
) -> None:
    dice = random.Random(seed)
    raw = tmp_path / "raw"
    with raw.open("wb") as stream:
        for at, kind in pieces:
            stream.seek(at * CLUSTER)
            stream.write(fill(kind, dice))
        stream.truncate(sectors * 512)
    proven(raw, tmp_path / "disk.qcow2", Compression(1, bits))


def test_a_disk_that_needs_two_second_level_tables(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    with raw.open("wb") as stream:
        for mebibyte in (0, 511, 512, 600):
            stream.seek((mebibyte << 20) + 70_000)
            stream.write(random.Random(mebibyte).randbytes(200_000))
        stream.truncate(601 << 20)
    proven(raw, tmp_path / "disk.qcow2")


def test_an_empty_disk_is_next_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(4 << 20))
    proven(tmp_path / "raw", tmp_path / "disk.qcow2")
    assert (tmp_path / "disk.qcow2").stat().st_size <= 5 * CLUSTER


def test_it_is_smaller_than_what_qemu_img_makes(tmp_path: Path) -> None:
    raw, ours, theirs = tmp_path / "raw", tmp_path / "ours", tmp_path / "theirs"
    raw.write_bytes(Path("/usr/bin/qemu-img").read_bytes().ljust(4 << 20, b"\0"))
    proven(raw, ours, qcow2.SMALL)
    options = "compression_type=zstd"
    run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, theirs])
    assert ours.stat().st_size < theirs.stat().st_size


@pytest.mark.parametrize("name", qcow2.COMPRESSIONS)
def test_every_named_compression_is_sound(name: str, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(Path("/usr/bin/qemu-img").read_bytes().ljust(4 << 20, b"\0"))
    proven(raw, tmp_path / "disk.qcow2", qcow2.COMPRESSIONS[name])


def test_what_was_compressed_before_is_not_compressed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, cache, dice = tmp_path / "raw", tmp_path / "pack", random.Random(3)
    content = bytearray(b"".join(fill("text", dice) for _ in range(40)))
    raw.write_bytes(content)
    qcow2.write(raw, tmp_path / "first", QUICK, cache)
    content[7 * CLUSTER] ^= 1
    raw.write_bytes(content)
    asked = []

    class Counting:
        def __init__(self, level: int) -> None:
            self.compressor = real(level)

        def compress(self, data: bytes) -> bytes:
            asked.append(data)
            return self.compressor.compress(data)

    real = zstandard.ZstdCompressor
    monkeypatch.setattr(zstandard, "ZstdCompressor", Counting)
    qcow2.write(raw, tmp_path / "second", QUICK, cache)
    assert asked == [content[7 * CLUSTER : 8 * CLUSTER]]


def test_a_failed_write_leaves_the_cache_as_it_was(tmp_path: Path) -> None:
    raw, cache = tmp_path / "raw", tmp_path / "pack"
    raw.write_bytes(random.Random(1).randbytes(CLUSTER))
    qcow2.write(raw, tmp_path / "disk", QUICK, cache)
    before = cache.read_bytes()
    raw.write_bytes(random.Random(2).randbytes(CLUSTER))
    with pytest.raises(OSError, match="No space left"):
        qcow2.write(raw, Path("/dev/full"), QUICK, cache)
    assert cache.read_bytes() == before
    assert list(tmp_path.glob("tmp*")) == []


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(random.Random(1).randbytes(CLUSTER))
    with pytest.raises(OSError, match="No space left"):
        qcow2.write(tmp_path / "raw", Path("/dev/full"))
