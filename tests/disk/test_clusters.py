from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagefactory.disk import clusters

CONTENTS = [b"one" * 100, b"two" * 5, b"three", b""]


def compress(content: bytes) -> bytes:
    return b"<" + content + b">"


def refuse(content: bytes) -> bytes:
    raise AssertionError(f"{content!r} was compressed again")


def filled(pack: Path, contents: list[bytes] = CONTENTS, compressor: str = "c") -> Path:
    with clusters.opened(pack, compressor) as cache:
        for content in contents:
            cache.put(cache.get(content, compress))
    return pack


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return filled(tmp_path / "below/pack")


def test_what_was_kept_is_found_again(pack: Path) -> None:
    with clusters.opened(pack, "c") as cache:
        for content in CONTENTS:
            assert cache.get(content, refuse).packed == compress(content)


def test_only_the_newest_disk_is_kept(pack: Path) -> None:
    filled(pack, [b"four", b"four"])
    filled(pack, [b"four"])
    before = pack.read_bytes()
    assert before.count(b"<four>") == 1
    assert b"<three>" not in before
    assert [path.name for path in pack.parent.iterdir()] == ["pack"]


def test_the_same_clusters_make_the_same_pack(pack: Path) -> None:
    before = pack.read_bytes()
    filled(pack)
    assert pack.read_bytes() == before


def test_another_compressor_finds_nothing(pack: Path) -> None:
    with clusters.opened(pack, "d") as cache, pytest.raises(AssertionError):
        cache.get(CONTENTS[0], refuse)


def test_an_error_leaves_the_old_pack(pack: Path) -> None:
    before = pack.read_bytes()
    with pytest.raises(AssertionError), clusters.opened(pack, "c") as cache:
        cache.put(cache.get(b"new", refuse))
    assert pack.read_bytes() == before


def test_two_builds_at_once_do_not_disturb_each_other(pack: Path) -> None:
    with clusters.opened(pack, "c") as cache:
        filled(pack, [b"other"])
        for content in CONTENTS:
            cache.put(cache.get(content, refuse))
    with clusters.opened(pack, "c") as cache:
        assert cache.get(CONTENTS[0], refuse)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_brings_wrong_bytes(tmp_path: Path, data: st.DataObject) -> None:
    pack = filled(tmp_path / "pack")
    content = bytearray(pack.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    pack.write_bytes(content)
    with clusters.opened(pack, "c") as cache:
        for content_of_cluster in CONTENTS:
            assert cache.get(content_of_cluster, compress).packed == compress(content_of_cluster)
