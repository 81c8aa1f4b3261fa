from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from imagefactory.rootfs.rpm_inside import _settle_database


def test_a_database_is_whole_in_one_file_that_can_be_read_without_writing(tmp_path: Path) -> None:
    file = tmp_path / "rpmdb.sqlite"
    writer = sqlite3.connect(file)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("CREATE TABLE packages (name)")
    writer.execute("INSERT INTO packages VALUES ('setup')")
    writer.commit()
    writer.close()
    _settle_database(file)
    assert [path.name for path in tmp_path.iterdir()] == ["rpmdb.sqlite"]
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as reader:
        assert reader.execute("SELECT name FROM packages").fetchall() == [("setup",)]
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert [path.name for path in tmp_path.iterdir()] == ["rpmdb.sqlite"]


def test_what_is_no_database_of_this_kind_is_left_alone(tmp_path: Path) -> None:
    _settle_database(tmp_path / "rpmdb.sqlite")
    assert list(tmp_path.iterdir()) == []
