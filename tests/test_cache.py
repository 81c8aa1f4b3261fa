from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagefactory import cache as module
from imagefactory.cache import (
    Store,
    allowed_size,
    emptied,
    entries,
    in_use,
    parse_age,
    parse_size,
    prune,
)
from imagefactory.errors import ConfigError

DAY = 86400


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def add(store: Store, key: str, *, size: int = 4096, days_ago: float = 0) -> Path:
    with store.scratch() as scratch:
        (scratch / key).write_bytes(os.urandom(size))
        path = store.add(key, scratch / key)
    used = time.time() - days_ago * DAY
    os.utime(path, (used, used))
    return path


def keys(cache: Path) -> list[str]:
    return [entry.key for entry in entries(cache)]


def test_what_was_added_is_there_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    store = Store(cache, "trees")
    assert store.get("a") is None
    source = tmp_path / "source"
    source.write_text("content")
    path = store.add("a", source)
    assert path == store.get("a") == store.path("a") == cache / "trees/a"
    assert path.read_text() == "content"
    assert not source.exists()
    assert store.get("b") is None


def test_a_directory_is_an_entry_and_the_first_one_stays(cache: Path, tmp_path: Path) -> None:
    store = Store(cache, "trees")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        store.add("key", tmp_path / name)
        assert not (tmp_path / name).exists()
    assert (store.path("key") / "file").read_text() == "first"


def test_from_another_filesystem_it_is_copied(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if self.parent == tmp_path:
            raise OSError(18, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    store = Store(cache, "trees")
    (tmp_path / "file").write_text("content")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to("/nonexistent")
    assert store.add("file", tmp_path / "file").read_text() == "content"
    assert (store.add("tree", tmp_path / "tree") / "link").is_symlink()
    assert sorted(path.name for path in store.directory.iterdir()) == ["file", "tree"]
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "../a", ".hidden", "a.lock", "a b"])
def test_a_key_is_no_path(cache: Path, key: str) -> None:
    with pytest.raises(ValueError, match="cannot be the key"):
        Store(cache, "trees").path(key)


def test_one_makes_it_and_the_others_wait_for_that(cache: Path) -> None:
    made = []
    together = threading.Barrier(4)

    def make(path: Path) -> None:
        made.append(path)
        path.mkdir()
        (path / "file").write_text("content")

    def ask(_: int) -> str:
        together.wait(10)
        return (Store(cache, "trees").obtain("key", make) / "file").read_text()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == ["content"] * 4
    assert len(made) == 1


def test_making_that_fails_leaves_nothing_and_the_next_one_makes_it(cache: Path) -> None:
    store = Store(cache, "trees")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.obtain("key", fail)
    assert list(store.directory.iterdir()) == []
    with store.making("key") as found:
        assert found is None
    assert store.obtain("key", lambda path: path.write_text("whole")).read_text() == "whole"


def test_the_least_recently_used_goes_first(cache: Path) -> None:
    store, other = Store(cache, "pool"), Store(cache, "tools")
    add(store, "old", days_ago=3)
    add(other, "older", days_ago=4)
    add(store, "new", days_ago=1)
    add(store, "found-again", days_ago=9)
    assert store.get("found-again")
    size = sum(entry.size for entry in entries(cache))
    done = prune(cache, max_size=size - 1)
    assert [entry.key for entry in done.removed] == ["older"]
    done = prune(cache, max_size=size // 2)
    assert [entry.key for entry in done.removed] == ["old"]
    assert done.left == size // 2
    assert keys(cache) == ["found-again", "new"]
    assert list((cache / ".trash").iterdir()) == []


def test_what_is_too_old_goes_whatever_room_there_is(cache: Path) -> None:
    store = Store(cache, "pool")
    add(store, "old", days_ago=31)
    add(store, "new", days_ago=29)
    told = prune(cache, older_than=30 * DAY, dry_run=True)
    assert [entry.key for entry in told.removed] == ["old"]
    assert keys(cache) == ["new", "old"]
    assert prune(cache, older_than=30 * DAY) == told
    assert keys(cache) == ["new"]


def test_what_is_in_use_stays(cache: Path) -> None:
    store = Store(cache, "pool")
    add(store, "used", days_ago=9)
    add(store, "unused", days_ago=1)
    with in_use(cache):
        assert store.get("used")
        done = prune(cache, max_size=0)
        assert [entry.key for entry in done.removed] == ["unused"]
        assert [entry.key for entry in done.kept_in_use] == ["used"]
        assert keys(cache) == ["used"]
    prune(cache, max_size=0)
    assert keys(cache) == []


def test_the_oldest_user_counts_and_a_dead_one_does_not(cache: Path) -> None:
    store = Store(cache, "pool")
    add(store, "entry")
    words = "import os, sys; from pathlib import Path; from imagefactory.cache import in_use\n"
    words += "with in_use(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", words, cache], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout
        assert other.stdout.readline() == b"in\n"
        assert store.get("entry")
        with in_use(cache):
            assert prune(cache, max_size=0).removed == ()
        assert prune(cache, max_size=0).removed == ()
    finally:
        other.kill()
        other.communicate()
    assert len(list((cache / ".users").iterdir())) == 1
    assert [entry.key for entry in prune(cache, max_size=0).removed] == ["entry"]
    assert list((cache / ".users").iterdir()) == []


def test_an_entry_that_was_got_does_not_vanish_however_much_is_pruned(cache: Path) -> None:
    store = Store(cache, "pool")
    done = threading.Event()

    def use(number: int) -> None:
        for turn in range(50):
            with in_use(cache):
                key = f"k{(number + turn) % 5}"
                path = store.obtain(key, lambda path: path.write_bytes(b"x" * 5000))
                assert path.read_bytes() == b"x" * 5000

    def pruning() -> int:
        count = 0
        while not done.is_set():
            count += len(prune(cache, max_size=0).removed)
        return count

    with ThreadPoolExecutor(6) as pool:
        pruned = [pool.submit(pruning), pool.submit(pruning)]
        try:
            list(pool.map(use, range(4)))
        finally:
            done.set()
        assert all(future.exception() is None for future in pruned)


def test_what_was_left_half_made_goes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(cache, "trees")
    store.directory.mkdir(parents=True)
    for name, days in ((".new-old", 2), (".new-fresh", 0)):
        (store.directory / name / "tree").mkdir(parents=True)
        used = time.time() - days * DAY
        os.utime(store.directory / name, (used, used))
    (cache / ".trash/rest").mkdir(parents=True)
    with store.making("key"):
        prune(cache)
        assert len(list((cache / ".locks").iterdir())) == 1
    prune(cache)
    assert list((cache / ".locks").iterdir()) == []
    assert [path.name for path in store.directory.iterdir()] == [".new-fresh"]
    assert list((cache / ".trash").iterdir()) == []


def test_a_tree_that_may_not_be_written_to_can_be_pruned(cache: Path, tmp_path: Path) -> None:
    inner = tmp_path / "tree/closed"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    inner.chmod(0o500)
    Store(cache, "trees").add("key", tmp_path / "tree")
    assert len(prune(cache, max_size=0).removed) == 1
    assert list((cache / ".trash").iterdir()) == []


def test_sizes_are_what_the_disk_gives(cache: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as stream:
        stream.truncate(1 << 30)
    (tree / "data").write_bytes(os.urandom(100_000))
    (tree / "same").hardlink_to(tree / "data")
    Store(cache, "trees").add("key", tree)
    (entry,) = entries(cache)
    assert 100_000 <= entry.size < 150_000


def test_an_empty_cache_has_nothing_to_prune(cache: Path) -> None:
    assert prune(cache, max_size=0).removed == ()
    assert entries(cache) == ()
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written to"), in_use(tmp_path / "file/cache"):
        pass


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("123", 123),
        ("10G", 10 << 30),
        ("10GiB", 10 << 30),
        ("1.5m", 3 << 19),
        ("20GB", 20 * 10**9),
        ("7 kB", 7000),
        ("5B", 5),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "age"), [("0d", 0), ("12h", 43200), ("30d", 30 * DAY), ("2w", 14 * DAY)]
)
def test_ages_are_read_as_people_write_them(text: str, age: int) -> None:
    assert parse_age(text) == age


@pytest.mark.parametrize("read", [parse_size, parse_age])
@pytest.mark.parametrize("text", ["", "much", "-1G", "1X", "G", "1e3", "30 days", "1.G"])
def test_what_is_no_size_or_age_is_told(read: Callable[[str], int], text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an? (size|age): say"):
        read(text)


def test_the_environment_bounds_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGEFACTORY_CACHE_SIZE", raising=False)
    assert allowed_size() == module.DEFAULT_SIZE
    monkeypatch.setenv("IMAGEFACTORY_CACHE_SIZE", "1G")
    assert allowed_size() == 1 << 30
    monkeypatch.setenv("IMAGEFACTORY_CACHE_SIZE", "plenty")
    with pytest.raises(ConfigError, match="IMAGEFACTORY_CACHE_SIZE: 'plenty' is not a size"):
        allowed_size()


def test_an_emptied_cache_has_the_packages_and_nothing_that_was_made(
    cache: Path, tmp_path: Path
) -> None:
    package = add(Store(cache, "pool"), "package", days_ago=9)
    add(Store(cache, "trees"), "tree")
    with in_use(cache):
        with emptied(cache, tmp_path / "empty") as empty:
            assert Store(empty, "trees").get("tree") is None
            add(Store(empty, "trees"), "another")
            add(Store(empty, "pool"), "fetched")
            found = Store(empty, "pool").get("package")
            assert found is not None
            assert found.samefile(package)
        prune(cache, max_size=0)
        assert package.exists(), "what was used through the emptied cache is in use"
    assert keys(cache) == ["fetched", "package", "tree"]
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_a_program_holds_a_lock_on_stays_and_nothing_else(cache: Path, dry_run: bool) -> None:
    store = Store(cache, "services")
    held = add(store, "held", days_ago=9)
    add(store, "other", days_ago=1)
    descriptor = os.open(held, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    done = prune(cache, max_size=0, dry_run=dry_run)
    assert [entry.key for entry in done.removed] == ["other"]
    assert [entry.key for entry in done.kept_in_use] == ["held"]
    os.close(descriptor)
    assert len(prune(cache, max_size=0).removed) == (2 if dry_run else 1)
