from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tenacity

from imagefactory.cache import in_use
from imagefactory.vendor import download
from imagefactory.vendor.download import Fetched, fetch, forget, public, read
from imagefactory.vendor.errors import VendorError
from tests.vendor.servers import Publisher, publisher

PIECE = download._PIECE
CONTENT = random.Random(1).randbytes(3_000_000)

Fetch = Callable[[str], Fetched]


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Path]:
    with in_use(tmp_path / "cache"):
        yield tmp_path / "cache"


@pytest.fixture
def patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again as often, but at once."""
    monkeypatch.setattr(download._patiently, "wait", tenacity.wait_none())


def test_a_file_is_fetched_once(server: Publisher, cache: Path) -> None:
    address = server.add("disk.qcow2", CONTENT)
    told: list[tuple[int, int]] = []
    fetched = fetch(address, cache, lambda done, total: told.append((done, total)))
    assert fetched.file.read_bytes() == CONTENT
    assert (fetched.name, fetched.private) == ("disk.qcow2", False)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    told.clear()
    again = fetch(address, cache, lambda done, total: told.append((done, total)))
    assert (again.file, told) == (fetched.file, [])


def test_a_newer_file_at_the_same_address_is_fetched(server: Publisher, cache: Path) -> None:
    address = server.add("disk.qcow2", CONTENT)
    first = fetch(address, cache)
    server.add("disk.qcow2", CONTENT[::-1])
    os.utime(server.directory / "disk.qcow2", (1, 1))
    second = fetch(address, cache)
    assert second.file.read_bytes() == CONTENT[::-1]
    assert first.file.read_bytes() == CONTENT


@pytest.mark.usefixtures("patiently")
def test_it_goes_on_where_the_wire_broke(server: Publisher, cache: Path) -> None:
    address = server.add("disk.qcow2", CONTENT)
    server.cut_after += [1_000_000, 500_000]
    assert fetch(address, cache).file.read_bytes() == CONTENT
    ranges = [wanted for _, wanted in server.asked]
    first, second = 1_000_000 // PIECE * PIECE, 500_000 // PIECE * PIECE
    assert ranges == ["", f"bytes={first}-", f"bytes={first + second}-"]


@pytest.mark.usefixtures("patiently")
def test_the_next_run_goes_on(server: Publisher, cache: Path) -> None:
    address = server.add("disk.qcow2", CONTENT)
    server.cut_after += [1_000_000, *[0] * 20]
    with pytest.raises(VendorError, match="could not be fetched"):
        fetch(address, cache)
    server.cut_after.clear()
    server.asked.clear()
    assert fetch(address, cache).file.read_bytes() == CONTENT
    begun = 1_000_000 // PIECE * PIECE
    assert server.asked == [("/disk.qcow2", ""), ("/disk.qcow2", f"bytes={begun}-")]
    assert [path.suffix for path in (cache / "downloads").iterdir()] == [".qcow2"]


@pytest.mark.usefixtures("patiently")
def test_without_a_time_nothing_is_put_together(server: Publisher, cache: Path) -> None:
    server.timeless = True
    address = server.add("disk.qcow2", CONTENT)
    server.cut_after += [1_000_000]
    assert fetch(address, cache).file.read_bytes() == CONTENT
    assert {wanted for _, wanted in server.asked} == {""}


@pytest.mark.usefixtures("patiently")
def test_a_server_in_trouble_is_asked_again(server: Publisher, cache: Path) -> None:
    address = server.add("disk.qcow2", CONTENT)
    server.refusals += [503, 429]
    assert fetch(address, cache).file.read_bytes() == CONTENT
    server.refusals += [500] * 20
    with pytest.raises(VendorError, match="the server answered 500"):
        fetch(f"{server.url}/other", cache)


def test_what_is_not_there_is_said_at_once(server: Publisher, cache: Path) -> None:
    with pytest.raises(VendorError, match="404 Not Found"):
        fetch(f"{server.url}/nothing", cache)
    assert len(server.asked) == 1
    with pytest.raises(VendorError, match="there is no file"):
        fetch("/nonexistent/disk", cache)
    with pytest.raises(VendorError, match="names no file"):
        fetch(f"{server.url}/", cache)


@pytest.mark.usefixtures("patiently")
def test_a_server_that_is_not_there_is_told_without_secrets(cache: Path) -> None:
    with pytest.raises(VendorError) as caught:
        fetch("http://me:canary@127.0.0.1:9/disk?signature=canary", cache)
    assert "canary" not in caught.value.message
    assert "cannot be reached" in caught.value.message


def test_an_address_is_shown_without_its_secrets() -> None:
    shown = public("https://me:canary@example.org:8443/a/disk?signature=canary#x")
    assert shown == "https://example.org:8443/a/disk"


def test_a_file_of_this_host_stays_where_it_is(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(CONTENT)
    fetched = fetch(str(tmp_path / "disk.raw"), cache)
    assert fetched == Fetched(tmp_path / "disk.raw", "disk.raw", private=True)
    forget(fetched, cache)
    assert fetched.file.exists()


def test_what_is_forgotten_is_fetched_anew(server: Publisher, cache: Path) -> None:
    address = server.add("disk.qcow2", CONTENT)
    forget(fetch(address, cache), cache)
    server.asked.clear()
    fetch(address, cache)
    assert server.asked


def test_small_files_are_small(server: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(server.add("SUMS", b"text")) == (b"text", False)
    monkeypatch.setattr(download, "_SMALL", 1000)
    with pytest.raises(VendorError, match="larger than"):
        read(server.add("SUMS", CONTENT))


def test_tls_keeps_everybody_out_but_not_after_a_detour(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, server: Publisher
) -> None:
    with publisher(tmp_path / "safe", tls=True) as safe:
        address = safe.add("SUMS", b"text")
        with pytest.raises(VendorError, match="certificate is not trusted"):
            read(address)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "tls.crt"))
        assert read(address) == (b"text", True)
        open_one = server.add("SUMS", b"other")
        safe_url, safe.url = safe.url, server.url
        assert read(f"{safe_url}/moved/SUMS") == (b"other", False)
        assert open_one.startswith("http://")
        assert fetch(address, cache).private
