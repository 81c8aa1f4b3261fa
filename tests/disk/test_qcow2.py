from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagefactory.disk import qcow2
from imagefactory.run import run

CLUSTER = qcow2.CLUSTER
PIECES = st.lists(
    st.tuples(
        st.integers(0, 63),
        st.sampled_from(["zero", "random", "text", "barely", "last byte"]),
    ),
    max_size=30,
)


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


def proven(raw: Path, target: Path) -> None:
    """Write it twice; QEMU must find no fault and no difference, Glance's check no danger."""
    from oslo_utils.imageutils import format_inspector

    qcow2.write(raw, target)
    first = target.read_bytes()
    qcow2.write(raw, target)
    assert target.read_bytes() == first
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
@given(PIECES, st.integers(1, 64 * CLUSTER // 512), st.integers(0, 2**32))
def test_any_disk_is_the_same_disk_as_qcow2(
    tmp_path: Path, pieces: list[tuple[int, str]], sectors: int, seed: int
) -> None:
    dice = random.Random(seed)
    raw = tmp_path / "raw"
    with raw.open("wb") as stream:
        for at, kind in pieces:
            stream.seek(at * CLUSTER)
            stream.write(fill(kind, dice))
        stream.truncate(sectors * 512)
    proven(raw, tmp_path / "disk.qcow2")


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
    proven(raw, ours)
    options = "compression_type=zstd"
    run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, theirs])
    assert ours.stat().st_size < theirs.stat().st_size


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(random.Random(1).randbytes(CLUSTER))
    with pytest.raises(OSError, match="No space left"):
        qcow2.write(tmp_path / "raw", Path("/dev/full"))
