from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from imagefactory.errors import BuildError
from imagefactory.treediff import compare, entries


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def write(file: Path, *members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for item in members:
            info, content = item if isinstance(item, tuple) else (item, b"")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def test_the_same_tree_in_another_order_and_at_another_time_is_the_same(tmp_path: Path) -> None:
    one = write(tmp_path / "1", member("./a", mtime=1), (member("./b"), b"x"))
    other = write(tmp_path / "2", (member("b"), b"x"), member("a", mtime=2))
    assert compare(one, other) == ()


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("mode", {"mode": 0o600}),
        ("owner", {"uid": 5}),
        ("kind", {"type": tarfile.FIFOTYPE}),
        ("attributes", {"pax_headers": {"SCHILY.xattr.security.capability": "x"}}),
    ],
)
def test_every_trait_counts(tmp_path: Path, what: str, changed: Mapping[str, Any]) -> None:
    one = write(tmp_path / "1", member("a"))
    other = write(tmp_path / "2", member("a", **changed))
    assert what in [difference.what for difference in compare(one, other)]


def test_content_target_and_absence_count(tmp_path: Path) -> None:
    one = write(tmp_path / "1", (member("a"), b"1"), member("l", tarfile.SYMTYPE, linkname="a"))
    other = write(
        tmp_path / "2",
        (member("a"), b"2"),
        member("l", tarfile.SYMTYPE, linkname="b"),
        member("n", tarfile.DIRTYPE),
    )
    found = [(difference.path, difference.what) for difference in compare(one, other)]
    assert found == [("a", "content"), ("l", "target"), ("n", "missing")]
    assert [difference.path for difference in compare(one, other, ["a"])] == ["l", "n"]


def test_a_hard_link_is_the_file_that_it_names(tmp_path: Path) -> None:
    one = write(tmp_path / "1", (member("a"), b"x"), member("b", tarfile.LNKTYPE, linkname="a"))
    other = write(tmp_path / "2", (member("b"), b"x"), member("a", tarfile.LNKTYPE, linkname="b"))
    assert compare(one, other) == ()
    assert entries(one)["b"].size == 1


def test_what_is_no_tar_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing of the kind")
    with pytest.raises(BuildError):
        entries(tmp_path / "x")
