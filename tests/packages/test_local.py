from __future__ import annotations

from pathlib import Path

import pytest
from debian.deb822 import Packages

from imagefactory.data import sha256_of
from imagefactory.errors import ConfigError, PackageError
from imagefactory.packages.apt import Apt
from imagefactory.packages.local import repository_of, write_index
from tests.debs import Archive, make_deb


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "debs"
    made.mkdir()
    return made


def add(directory: Path, name: str, **more: str) -> Path:
    deb = make_deb(directory.parent, name, **more)  # type: ignore[arg-type]
    return deb.rename(directory / deb.name)


def test_the_index_says_of_each_package_what_apt_asks_for(directory: Path) -> None:
    one, two = add(directory, "one", depends="two"), add(directory, "two", version="2:1")
    write_index({one: sha256_of(one), two: sha256_of(two)}, directory)
    with (directory / "Packages").open() as stream:
        stanzas = list(Packages.iter_paragraphs(stream, use_apt_pkg=False))
    assert [stanza["Package"] for stanza in stanzas] == ["one", "two"]
    assert stanzas[0]["Depends"] == "two"
    assert stanzas[1]["Version"] == "2:1"
    assert stanzas[0]["Filename"] == f"./{one.name}"
    assert (stanzas[0]["Size"], stanzas[0]["SHA256"]) == (str(one.stat().st_size), sha256_of(one))


@pytest.mark.parametrize("content", [b"", b"text", b"!<arch>\n"])
def test_a_file_that_is_no_package_is_named(
    directory: Path, tmp_path: Path, content: bytes
) -> None:
    (directory / "bad.deb").write_bytes(content)
    with pytest.raises(PackageError, match=r"bad\.deb is not a Debian package"):
        repository_of(directory, tmp_path / "cache")


def test_a_directory_without_packages_is_a_mistake(directory: Path, tmp_path: Path) -> None:
    (directory / "README").touch()
    with pytest.raises(ConfigError, match=r"holds no \.deb files"):
        repository_of(directory, tmp_path / "cache")


def test_a_local_package_wins_over_newer_ones_elsewhere(
    archive: Archive, directory: Path, tmp_path: Path
) -> None:
    """Even over those of a ``file:`` repository, which apt calls by the same (empty) origin."""
    cache = tmp_path / "cache"
    add(directory, "library", version="1:2.0~local", architecture="all")
    archive.add("library", version="1:9.0", architecture="all")
    archive.publish()
    without = Apt([archive.repository()], "amd64", cache)
    without.refresh()
    assert "library=1:9.0" in map(str, without.resolve(["library"]))
    for repositories in (
        [archive.repository(), repository_of(directory, cache)],
        [repository_of(directory, cache), archive.repository()],
    ):
        apt = Apt(repositories, "amd64", cache)
        apt.refresh()
        assert list(map(str, apt.find(["library"]))) == ["library=1:2.0~local"]
        packages = apt.resolve(["library"])
        assert list(map(str, packages)) == ["library=1:2.0~local"]
        apt.fetch(packages)
        assert apt.pool.missing(packages) == ()


def test_another_content_is_another_repository(directory: Path, tmp_path: Path) -> None:
    add(directory, "one")
    first = repository_of(directory, tmp_path / "cache")
    assert repository_of(directory, tmp_path / "cache") == first
    add(directory, "one", version="1.1")
    second = repository_of(directory, tmp_path / "cache")
    assert second.mirror != first.mirror
    assert (second.suite, second.trusted, second.components) == ("./", True, ())
