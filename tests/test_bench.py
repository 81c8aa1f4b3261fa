"""The benchmark's arithmetic and its table; what it measures is measured by `make bench`."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from tools.bench import __main__ as bench
from tools.bench import page, place, trees
from tools.bench.measure import Figure, Stopwatch, median, processor_time
from tools.bench.place import Place
from tools.bench.table import Group, Row, facts, markdown, plain, ratios

from imagefactory.arch import ArchProfiles
from imagefactory.catalog import Catalog
from imagefactory.data import SearchPath
from imagefactory.errors import BuildError
from imagefactory.packages.mirrors import NONE
from imagefactory.run import run
from imagefactory.workbench import Workbench

THEIRS = Row("theirs", "the others", (Figure(40.0, 60.0),), 200)
OURS = Row("ours", "this", (Figure(10.0, 15.0),), 150, (("theirs", "theirs"),))


def row_of(text: str, what: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {what}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_ratio_is_of_the_medians_on_the_clock() -> None:
    slow_once = Row("ours", "this", (Figure(90.0, 1.0), Figure(10.0, 2.0), Figure(12.0, 3.0)))
    row = Row("x", "x", (Figure(24.0, 0.0),), against=(("ours", "ours"),))
    (ratio,) = ratios(row, [slow_once, row])
    assert ratio.seconds == 2.0
    assert ratio.size is None


def test_sizes_are_compared_where_they_mean_something() -> None:
    sized = Row("ours", "this", OURS.figures, 150, OURS.against, sizes=True)
    (ratio,) = ratios(sized, [THEIRS, sized])
    assert ratio.size == 0.75
    assert "(0.75× the size)" in str(ratio)  # noqa: RUF001


@pytest.mark.parametrize("others", [[], [Row("theirs", "the others", note="failed: no disk")]])
def test_there_is_no_ratio_to_what_was_not_measured(others: list[Row]) -> None:
    assert list(ratios(OURS, [*others, OURS])) == []


def test_the_median_keeps_the_two_times_of_one_round_together() -> None:
    figures = [Figure(3.0, 30.0), Figure(1.0, 99.0), Figure(2.0, 20.0)]
    assert median(figures) == Figure(2.0, 20.0)
    assert median(figures[:2]) == Figure(1.0, 99.0)


def test_the_table_has_one_line_for_each_row() -> None:
    text = markdown([Group("a", "Trees", [THEIRS]), Group("b", "Images", [OURS])])
    assert row_of(text, "this") == [
        *("this", "10.00 s", "15.00 s", "0.0", "1", "**0.25×** theirs"),  # noqa: RUF001
    ]
    assert row_of(text, "the others")[-1] == ""
    assert text.index("**Trees**") < text.index("the others") < text.index("**Images**")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {7}


def test_ratios_reach_over_groups() -> None:
    row = Row("x", "x", (Figure(20.0, 1.0),), against=(("theirs", "theirs"), ("this", "ours")))
    text = markdown([Group("a", "A", [THEIRS, OURS]), Group("b", "B", [row])])
    assert row_of(text, "x")[-1] == "**0.50×** theirs; **2.00×** this"  # noqa: RUF001


def test_a_note_is_told_once_and_its_rows_point_to_it() -> None:
    noted = [Row(name, name, OURS.figures, note="Its network counts.") for name in "ab"]
    text = markdown([Group("a", "A", [*noted, Row("c", "c", OURS.figures, note="Another.")])])
    assert text.count("Its network counts.") == 1
    assert "| a [1] |" in text
    assert "| b [1] |" in text
    assert "| c [2] |" in text
    assert text.endswith("1. Its network counts.\n2. Another.\n")


def test_what_failed_is_a_row_that_says_why() -> None:
    failed = Row("dib", "the others", note="failed: a | b\nand more")
    text = markdown([Group("a", "A", [failed])])
    assert "| the others | | | | | failed: a \\| b and more |" in text
    assert plain(failed, [failed]) == "the others: failed: a | b\nand more"


def test_a_row_is_told_when_it_is_done() -> None:
    said = plain(OURS, [THEIRS, OURS])
    assert said.startswith("this ")
    assert "10.00 s" in said
    assert said.endswith("0.25× theirs")  # noqa: RUF001


def test_programs_get_every_round() -> None:
    (one, other) = facts([Group("a", "A", [THEIRS, OURS])])
    assert one["rounds"] == [[40.0, 60.0]]
    assert other["ratios"] == {"theirs": {"seconds": 0.25, "size": None}}
    assert (other["group"], other["key"], other["failed"]) == ("a", "ours", False)


def test_the_page_says_how_to_repeat_it_and_where_it_was_measured() -> None:
    text = page.page("debian-12", [Group("a", "A", [OURS])], [("memory", "24 GiB")])
    assert "`make bench`" in text
    assert "templates/debian-12.yaml" in text
    assert "| memory | 24 GiB |" in text
    assert "| this | 10.00 s |" in text


def test_a_group_brings_what_its_ratios_are_to() -> None:
    assert bench.wanted(["image"]) == ("native", "image")
    assert bench.wanted(["disk"]) == ("disk",)
    assert bench.wanted([]) == tuple(bench.GROUPS)


def test_the_processor_time_of_children_counts() -> None:
    watch = Stopwatch()
    run(["sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"])
    assert 0.0 < watch.read().processor < 60.0


def test_the_processor_time_of_a_running_grandchild_counts() -> None:
    # The stage before the last is read while the programs still run.
    import subprocess

    loop = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo done; read x'; true"
    before = processor_time()
    with subprocess.Popen(
        ["sh", "-c", loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert processor_time() > before
        process.communicate(b"\n")


def tar_of(path: Path, **files: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), int(time.time())
            archive.addfile(info, BytesIO(content))
    return path


def test_equal_trees_are_counted(tmp_path: Path) -> None:
    one, other = (tar_of(tmp_path / name, a=b"1", b=b"2") for name in ("one", "other"))
    row = trees.equality("aarch64", one, other)
    assert row.note == "2 entries compared, no differences"
    assert not row.failed


def test_a_difference_is_named_and_fails(tmp_path: Path) -> None:
    one, other = tar_of(tmp_path / "one", a=b"1"), tar_of(tmp_path / "other", a=b"2")
    row = trees.equality("aarch64", one, other)
    assert row.failed
    assert "1 differences: a: content" in row.note


@pytest.fixture
def here(tmp_path: Path) -> Place:
    path = SearchPath.default()
    workbench = Workbench(path, Catalog(tmp_path / "catalog"), tmp_path / "cache")
    return Place(tmp_path, workbench, "debian-12", 1, NONE)


def test_foreign_trees_are_compared_with_native_ones_of_the_same_kind(here: Place) -> None:
    profiles = ArchProfiles.load(SearchPath.default())
    kinds = {name: trees.kernel_kind(here, profiles.get(name)) for name in profiles.names}
    assert kinds == {"aarch64": "cloud", "ppc64le": "generic", "x86_64": "cloud"}


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache with one package."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    cache = tmp_path / "users/imagefactory"
    (cache / "pool").mkdir(parents=True)
    (cache / "pool/a.deb").write_bytes(b"a")
    (cache / "trees").mkdir()
    return cache


def test_nothing_stays_but_downloaded_packages(users: Path, tmp_path: Path) -> None:
    def interrupted() -> None:
        with place.opened("debian-12", [], 1, NONE, offline=True) as made:
            assert (made.cache / "pool/a.deb").read_bytes() == b"a"
            (made.cache / "pool/b.deb").write_bytes(b"b")
            (made.cache / "trees").mkdir()
            (made.cache / "trees/tree.tar").write_bytes(b"t")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {file.name for file in (users / "pool").iterdir()} == {"a.deb", "b.deb"}
    assert list((users / "trees").iterdir()) == []
    assert list(tmp_path.glob("imagefactory-bench-*")) == []


def test_a_cold_cache_still_has_the_packages(here: Place) -> None:
    for kind in ("pool", "apt", "trees", "twins"):
        (here.cache / kind).mkdir(parents=True)
    here.forget()
    assert {path.name for path in here.cache.iterdir()} == {"pool", "apt"}


def test_a_group_that_fails_leaves_the_others_their_rows(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_place: Place, _wish: bench.Wish) -> Iterator[Row]:
        yield THEIRS
        raise BuildError("no such tree")

    groups = {"a": ("A", failing), "b": ("B", lambda _place, _wish: iter([OURS]))}
    monkeypatch.setattr(bench, "GROUPS", groups)
    first, second = bench.measure(here, bench.Wish((), every=False), ["a", "b"])
    assert [row.key for row in first.rows] == ["theirs", "a/failed"]
    assert first.rows[1].failed
    assert second.rows == [OURS]
