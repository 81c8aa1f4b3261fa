from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from imagefactory.cache import in_use, prune
from imagefactory.errors import ConfigError, PackageError
from imagefactory.packages import apt as module
from imagefactory.packages.apt import Apt, preferences
from imagefactory.packages.pool import Package
from tests.debs import Archive, Key


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "a cache"  # a home may have a blank in its name


def ask(archive: Archive, cache: Path, *more: Archive) -> Apt:
    """An apt whose lists are fresh."""
    apt = Apt([archive.repository(), *(other.repository() for other in more)], "amd64", cache)
    apt.refresh()
    return apt


def make_old(apt: Apt, seconds: float = 3600.0) -> None:
    moment = time.time() - seconds
    os.utime(apt._root / "refreshed", (moment, moment))


def pool_of(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "pool").glob("*"))


def test_packages_are_found_resolved_fetched_and_taken(archive: Archive, cache: Path) -> None:
    apt = ask(archive, cache)
    packages = apt.resolve(["program"])
    assert [str(package) for package in packages] == ["library=1:2.0", "program=1.0"]
    apt.fetch(packages)
    assert apt.pool.missing(packages) == ()
    assert apt.pool.take(packages[1]).read_bytes() == archive.debs[0].read_bytes()
    assert apt.left_out == ()


def test_a_package_that_is_not_there_is_named_with_its_suites(
    archive: Archive, cache: Path
) -> None:
    apt = ask(archive, cache)
    for question in (["nowhere"], ["program", "nowhere", "library"]):
        with pytest.raises(PackageError, match="no package nowhere for amd64 in stable"):
            apt.find(question)
    with pytest.raises(PackageError, match="nowhere"):
        apt.resolve(["nowhere"])


def test_a_name_is_never_an_option(archive: Archive, cache: Path) -> None:
    with pytest.raises(PackageError, match="no package -oDebug::NoLocking=1"):
        ask(archive, cache).find(["-oDebug::NoLocking=1"])


def test_a_kernels_metapackage_is_followed(archive: Archive, cache: Path) -> None:
    apt = ask(archive, cache)
    assert str(apt.kernel("linux-image-cloud")) == "linux-image-6.1.0-9-cloud=6.1-1"
    assert apt.kernel("linux-image-6.1.0-9-cloud") == apt.kernel("linux-image-cloud")


def test_the_newest_version_of_all_suites_wins(
    archive: Archive, keys: tuple[Key, Key], cache: Path, tmp_path: Path
) -> None:
    updates = Archive(tmp_path / "updates", keys[0], "stable-updates")
    updates.add("program", version="1.1")
    updates.publish()
    assert str(ask(archive, cache, updates).find(["program"])[0]) == "program=1.1"


def test_an_unsigned_repository_is_refused(
    keys: tuple[Key, Key], cache: Path, tmp_path: Path
) -> None:
    unsigned = Archive(tmp_path / "mirror", keys[0])
    unsigned.add("program")
    unsigned.publish(sign=False)
    with pytest.raises(PackageError, match="is not signed") as caught:
        ask(unsigned, cache)
    assert caught.value.log
    assert caught.value.log.exists()


def test_a_host_that_allows_unsigned_repositories_does_not_count(
    keys: tuple[Key, Key], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned = Archive(tmp_path / "mirror", keys[0])
    unsigned.add("program")
    unsigned.publish(sign=False)
    host = tmp_path / "host.conf"
    host.write_text('Acquire::AllowInsecureRepositories "1"; Acquire::http::Proxy "http://p:1/";')
    monkeypatch.setenv("APT_CONFIG", str(host))
    module._proxies_of_the_host.cache_clear()
    with pytest.raises(PackageError, match="is not signed"):
        ask(unsigned, cache)
    settings = next((cache / "apt").glob("*/apt.conf")).read_text()
    module._proxies_of_the_host.cache_clear()
    assert 'Acquire::http::Proxy "http://p:1/";' in settings
    assert "Insecure" not in settings


def test_a_strangers_signature_is_refused(
    archive: Archive, keys: tuple[Key, Key], cache: Path
) -> None:
    archive.publish(signed_by=keys[1])
    with pytest.raises(PackageError, match="NO_PUBKEY"):
        ask(archive, cache)


def test_a_list_changed_after_signing_is_refused(archive: Archive, cache: Path) -> None:
    lists = archive.directory / "dists/stable/main/binary-amd64/Packages"
    lists.write_text(lists.read_text().replace("1.0", "6.6"))
    with pytest.raises(PackageError, match=r"Hash Sum mismatch|unexpected size"):
        ask(archive, cache)


@pytest.mark.parametrize("damage", ["byte flipped", "other size"])
def test_a_changed_package_never_reaches_the_pool(
    archive: Archive, cache: Path, damage: str
) -> None:
    apt = ask(archive, cache)
    deb = archive.debs[0]
    content = bytearray(deb.read_bytes())
    if damage == "byte flipped":
        content[-100] ^= 1
    else:
        content += b"\n"
    deb.write_bytes(bytes(content))
    with pytest.raises(PackageError, match=r"Hash Sum mismatch|unexpected size|wrong checksum"):
        apt.fetch(apt.find(["program", "library"]))
    assert f"{apt.find(['program'])[0].sha256}.deb" not in pool_of(cache)


def test_a_wrong_checksum_in_a_signed_list_is_refused(archive: Archive, cache: Path) -> None:
    lists = archive.directory / "dists/stable/main/binary-amd64/Packages"
    stanzas = lists.read_text().split("\n\n")
    stanzas[0] = stanzas[0].rstrip()[:-8] + "00000000"
    archive.publish_lists("\n\n".join(stanzas))
    apt = ask(archive, cache)
    with pytest.raises(PackageError, match=r"Hash Sum mismatch|wrong checksum"):
        apt.fetch(apt.find(["program"]))
    assert pool_of(cache) == []


def test_a_checksum_that_is_a_path_is_refused(archive: Archive, cache: Path) -> None:
    lists = archive.directory / "dists/stable/main/binary-amd64/Packages"
    text = lists.read_text()
    archive.publish_lists(text.replace("SHA256: ", "SHA256: ../"))
    with pytest.raises(PackageError, match="program"):
        ask(archive, cache).find(["program"])


def test_what_is_not_required_is_left_out_alone_and_told(
    archive: Archive, keys: tuple[Key, Key], cache: Path, tmp_path: Path
) -> None:
    healthy = Archive(tmp_path / "healthy", keys[0], "healthy")
    healthy.add("extra")
    healthy.publish()
    broken = Archive(tmp_path / "broken", keys[0], "broken")
    broken.publish(signed_by=keys[1])
    repositories = [
        archive.repository(),
        broken.repository(required=False),
        healthy.repository(required=False),
    ]
    apt = Apt(repositories, "amd64", cache)
    apt.refresh()
    (warning,) = apt.left_out
    assert warning.startswith("broken (amd64) left out: ")
    assert "broken" in warning
    assert [package.name for package in apt.find(["program", "extra"])] == ["program", "extra"]


def test_what_is_required_stays_required_beside_what_is_not(
    archive: Archive, keys: tuple[Key, Key], cache: Path, tmp_path: Path
) -> None:
    other = Archive(tmp_path / "gone", keys[0], "gone")
    archive.publish(signed_by=keys[1])
    apt = Apt([archive.repository(), other.repository(required=False)], "amd64", cache)
    with pytest.raises(PackageError, match="NO_PUBKEY"):
        apt.refresh()


def test_a_suite_that_recovers_is_used_again(
    archive: Archive, keys: tuple[Key, Key], cache: Path, tmp_path: Path
) -> None:
    other = Archive(tmp_path / "other", keys[0], "other")
    other.add("extra")
    apt = Apt([archive.repository(), other.repository(required=False)], "amd64", cache)
    apt.refresh()
    assert len(apt.left_out) == 1
    other.publish()
    make_old(apt)
    apt.refresh()
    assert not apt.left_out
    assert apt.find(["extra"])[0].name == "extra"


def test_a_keyring_that_does_not_exist_is_named(archive: Archive, cache: Path) -> None:
    repository = archive.repository(keyring=Path("/nonexistent/ring.gpg"))
    with pytest.raises(PackageError, match=r"/nonexistent/ring\.gpg does not exist"):
        Apt([repository], "amd64", cache).refresh()


def test_a_damaged_cached_file_is_removed_and_fetched_anew(archive: Archive, cache: Path) -> None:
    apt = ask(archive, cache)
    (package,) = apt.find(["program"])
    apt.fetch([package])
    apt.pool.path(package).write_bytes(b"rotten")
    with pytest.raises(PackageError, match="damaged and has been removed"):
        apt.pool.take(package)
    assert apt.pool.missing([package]) == (package,)
    with pytest.raises(PackageError, match="gone"):
        apt.pool.take(package)
    apt.fetch([package])
    assert apt.pool.take(package).exists()


def test_fetching_leaves_nothing_but_packages_in_the_pool(archive: Archive, cache: Path) -> None:
    apt = ask(archive, cache)
    packages = apt.find(["program", "library"])
    apt.fetch(packages)
    assert pool_of(cache) == sorted(f"{package.sha256}.deb" for package in packages)


def test_answers_are_remembered_until_the_lists_change(
    archive: Archive, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = ask(archive, cache)
    before = apt.find(["program"])
    with monkeypatch.context() as offline:
        offline.setenv("PATH", "/nonexistent")
        offline.setattr("imagefactory.run._search_path", lambda: "/nonexistent")
        assert apt.find(["program"]) == before
    archive.add("program", version="2.0")
    archive.publish()
    make_old(apt)
    apt.refresh()
    assert str(apt.find(["program"])[0]) == "program=2.0"
    assert len(list((apt._root / "answers").iterdir())) == 1


def test_a_damaged_answer_is_asked_again(archive: Archive, cache: Path) -> None:
    apt = ask(archive, cache)
    before = apt.find(["program"])
    for note in apt._root.glob("answers/*/*.json"):
        note.write_text('[{"name": 1}]')
    assert apt.find(["program"]) == before


def test_fresh_lists_are_not_asked_for_again_but_those_of_the_future_are(
    archive: Archive, cache: Path
) -> None:
    apt = ask(archive, cache)
    archive.add("program", version="2.0")
    archive.publish()
    log = apt._root / "apt.log"
    log.unlink()
    apt.refresh()
    assert not log.exists()
    make_old(apt, -3600)
    apt.refresh()
    assert str(apt.find(["program"])[0]) == "program=2.0"


def test_a_refresh_makes_questions_wait(archive: Archive, cache: Path) -> None:
    apt = ask(archive, cache)
    asked = threading.Event()

    def question() -> tuple[Package, ...]:
        asked.set()
        return apt.find(["program"])

    with ThreadPoolExecutor(1) as pool:
        with FileLock(apt._root / "lock"):
            answer = pool.submit(question)
            assert asked.wait(10)
            assert not answer.done()
        assert answer.result(10)[0].name == "program"


def test_several_at_once_get_the_same(archive: Archive, cache: Path) -> None:
    def work(_: int) -> list[Path]:
        apt = ask(archive, cache)
        packages = apt.resolve(["program"])
        apt.fetch(packages)
        return [apt.pool.take(package) for package in packages]

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(work, range(4))
    assert all(other == first for other in others)


def test_a_cache_that_cannot_be_written_is_named(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written to: Not a directory") as caught:
        Apt([archive.repository()], "amd64", tmp_path / "file/cache").refresh()
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_a_keyring_that_apt_could_not_take_is_told(archive: Archive, cache: Path) -> None:
    with pytest.raises(PackageError, match="has blanks or brackets"):
        Apt([archive.repository(keyring=Path("/a key.gpg"))], "amd64", cache).refresh()


def test_offline_takes_what_was_fetched_and_nothing_else(archive: Archive, cache: Path) -> None:
    apt = ask(archive, cache)
    program, library = apt.find(["program", "library"])
    apt.fetch([program])
    archive.directory.rename(archive.directory.with_name("unreachable"))
    make_old(apt)

    offline = Apt([archive.repository()], "amd64", cache, offline=True)
    offline.refresh()
    assert offline.age
    assert offline.find(["program", "library"]) == (program, library)
    offline.fetch([program])
    with pytest.raises(PackageError, match=r"offline: not in the cache: library=1:2\.0$") as caught:
        offline.fetch([program, library])
    assert "once without --offline" in caught.value.hint


def test_offline_without_lists_says_what_to_do(archive: Archive, cache: Path) -> None:
    apt = Apt([archive.repository()], "amd64", cache, offline=True)
    with pytest.raises(PackageError, match=r"stable \(amd64\) were never fetched") as caught:
        apt.refresh()
    assert "once without --offline" in caught.value.hint
    assert apt.age is None


def test_what_is_used_is_marked_as_used(archive: Archive, cache: Path) -> None:
    apt = ask(archive, cache)
    packages = apt.find(["program"])
    apt.fetch(packages)
    with in_use(cache):
        apt.refresh()
        apt.fetch(packages)
        assert prune(cache, max_size=0).removed == ()
        assert apt.pool.take(packages[0]).exists()
    assert {entry.kind for entry in prune(cache, max_size=0).removed} == {"apt", "pool"}


def test_a_priority_is_for_a_label_or_for_a_host(archive: Archive) -> None:
    plain = archive.repository()
    labelled = plain.model_copy(update={"label": "Some Label", "priority": 1001})
    hosted = plain.model_copy(update={"mirror": "http://example.org:80/x", "priority": 90})
    assert preferences([plain, labelled, hosted]) == (
        "Package: *\nPin: release l=Some Label\nPin-Priority: 1001\n\n"
        'Package: *\nPin: origin "example.org"\nPin-Priority: 90\n'
    )
