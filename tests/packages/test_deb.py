from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from imagefactory.errors import BuildError, PackageError
from imagefactory.packages import deb
from imagefactory.rootfs.minimal import _add_package
from imagefactory.tree import TreeBuilder
from tests.debs import Member, forge_deb, link, make_deb, special


def added(file: Path, *patterns: str) -> TreeBuilder:
    tree = TreeBuilder()
    _add_package(tree, "hostile", file, patterns)
    return tree


def test_files_are_read_with_their_modes(tmp_path: Path) -> None:
    file = make_deb(tmp_path, "honest", {"usr/bin/tool": b"#!/bin/sh\n"})
    with deb.opened(file) as archive:
        (member,) = deb.matching(archive.getmembers(), "usr/bin/*", "honest")
        assert deb.read(archive, member) == b"#!/bin/sh\n"
        assert member.mode == 0o755


@pytest.mark.parametrize("pattern", ["bin/tool", "usr/bin/tool", "bin/*", "*/tool"])
def test_bin_and_usr_bin_are_one_directory(tmp_path: Path, pattern: str) -> None:
    old = forge_deb(tmp_path / "old.deb", [("./bin/tool", b"x")])
    new = forge_deb(tmp_path / "new.deb", [("./usr/bin/tool", b"x")])
    assert added(old, pattern).entries == added(new, pattern).entries
    assert "usr/bin/tool" in added(old, pattern).entries


def test_a_glob_that_matches_nothing_is_a_mistake(tmp_path: Path) -> None:
    file = make_deb(tmp_path, "honest")
    with pytest.raises(PackageError, match=r"the package hostile has no file usr/none\*"):
        added(file, "usr/none*")


def test_a_directory_is_not_what_a_glob_asks_for(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="has no file"):
        added(make_deb(tmp_path, "honest"), "usr/share")


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("../evil", "*evil"), ("./../evil", "*evil"), ("usr/../../evil", "*evil")],
)
def test_a_member_that_leads_out_is_refused(tmp_path: Path, name: str, pattern: str) -> None:
    file = forge_deb(tmp_path / "x.deb", [(name, b"evil")])
    with pytest.raises(BuildError, match="leads out of the tree"):
        added(file, pattern)


def test_an_absolute_member_stays_inside(tmp_path: Path) -> None:
    file = forge_deb(tmp_path / "x.deb", [("/etc/evil", b"evil")])
    assert set(added(file, "*evil").entries) == {"etc", "etc/evil"}


def test_a_file_through_a_link_is_refused(tmp_path: Path) -> None:
    file = forge_deb(tmp_path / "x.deb", [link("./etc/way", "/tmp"), ("./etc/way/evil", b"x")])
    with pytest.raises(BuildError, match="its parent etc/way is not a directory"):
        added(file, "etc/*")


def test_a_link_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    file = forge_deb(tmp_path / "x.deb", [("./etc/way/good", b"x"), link("./etc/way", "/tmp")])
    with pytest.raises(BuildError, match="etc/way is a directory that holds files"):
        added(file, "etc/*")


@pytest.mark.parametrize("kind", [tarfile.BLKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused(tmp_path: Path, kind: bytes) -> None:
    file = forge_deb(tmp_path / "x.deb", [special("./dev/sda", kind)])
    with pytest.raises(BuildError, match="dev/sda is neither a file nor a link"):
        added(file, "dev/*")


def test_a_hard_link_is_the_file_it_names(tmp_path: Path) -> None:
    members: list[Member] = [
        ("./usr/bin/one", b"content"),
        link("./usr/bin/two", "./usr/bin/one", b"1"),
    ]
    tree = added(forge_deb(tmp_path / "x.deb", members), "usr/bin/two")
    assert tree.entries["usr/bin/two"].content == b"content"


def test_a_hard_link_to_nothing_is_refused(tmp_path: Path) -> None:
    file = forge_deb(tmp_path / "x.deb", [link("./usr/bin/two", "/etc/shadow", b"1")])
    with pytest.raises(PackageError, match="a link to what is not there"):
        added(file, "usr/bin/two")


def test_names_of_any_length_and_bytes_survive(tmp_path: Path) -> None:
    long = "usr/share/" + "/".join(["x" * 200] * 10)
    strange = b"usr/share/\xff\n".decode(errors="surrogateescape")
    tree = added(forge_deb(tmp_path / "x.deb", [(long, b"1"), (strange, b"2")]), "usr/share/*")
    tree.write(tmp_path / "tar", 0)
    with tarfile.open(tmp_path / "tar") as archive:
        assert {long, strange} <= set(archive.getnames())


@pytest.mark.parametrize("content", [b"", b"rubbish", b"!<arch>\n"])
def test_what_is_no_package_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.deb"
    file.write_bytes(content)
    with pytest.raises(PackageError, match=r"x\.deb cannot be unpacked"), deb.opened(file):
        pass
    with pytest.raises(PackageError, match=r"x\.deb is not a Debian package"):
        deb.built_at(file)


def test_a_cut_archive_is_told(tmp_path: Path) -> None:
    file = make_deb(tmp_path, "honest", {"usr/share/large": bytes(100_000)})
    file.write_bytes(file.read_bytes()[:-50_000])
    with pytest.raises(PackageError, match="cannot be unpacked"), deb.opened(file):
        pass


def test_the_time_of_building_is_in_the_header(tmp_path: Path) -> None:
    assert deb.built_at(forge_deb(tmp_path / "x.deb", [])) == 1_700_000_000
