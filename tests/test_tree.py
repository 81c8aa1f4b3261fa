from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefactory.errors import BuildError
from imagefactory.tree import RootTree, TreeBuilder, append_file, merged


def small_tree() -> TreeBuilder:
    tree = TreeBuilder()
    tree.add_file("./bin/zsh", b"z", 0o755)
    tree.add_file("etc/config", b"c")
    tree.add_link("bin/sh", "zsh")
    tree.add_directory("tmp", 0o1777)
    return tree


def test_the_tar_is_sorted_owned_by_root_and_of_one_time(tmp_path: Path) -> None:
    small_tree().write(tmp_path / "tar", 1234)
    with tarfile.open(tmp_path / "tar") as archive:
        members = archive.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {
        (0, 0, "root", "root", 1234)
    }
    kinds = {member.name: (member.mode, member.linkname) for member in members}
    assert kinds["bin"] == (0o777, "usr/bin")
    assert kinds["usr/bin/sh"] == (0o777, "zsh")
    assert kinds["tmp"] == (0o1777, "")
    assert kinds["usr/bin/zsh"] == (0o755, "")


def test_the_same_tree_is_the_same_bytes_in_whatever_order_it_came(tmp_path: Path) -> None:
    small_tree().write(tmp_path / "one", 5)
    other = TreeBuilder()
    other.add_directory("tmp", 0o1777)
    other.add_link("usr/bin/sh", "zsh")
    other.add_file("/etc/config", b"c")
    other.add_file("/usr/bin/zsh", b"z", 0o755)
    other.write(tmp_path / "two", 5)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("bin/sh", "usr/bin/sh"),
        ("./sbin//init", "usr/sbin/init"),
        ("/lib64/ld.so", "usr/lib64/ld.so"),
        ("usr/bin/sh", "usr/bin/sh"),
        ("library/x", "library/x"),
        ("bin", "bin"),
    ],
)
def test_paths_are_merged_into_usr(path: str, clean: str) -> None:
    assert merged(path) == clean


@given(st.lists(st.sampled_from(["", ".", "..", "a", "bin", "..."]), min_size=1).map("/".join))
def test_no_path_leads_out(path: str) -> None:
    try:
        clean = merged(path)
    except BuildError:
        return
    assert not clean.startswith("/")
    assert ".." not in clean.split("/")


@pytest.mark.parametrize("path", ["", ".", "/", "./"])
def test_the_root_itself_is_no_entry(path: str) -> None:
    with pytest.raises(BuildError, match="root cannot be a file"):
        TreeBuilder().add_link(path, "/tmp")


def test_an_empty_directory_may_become_a_link() -> None:
    tree = TreeBuilder()
    tree.add_directory("var/run")
    tree.add_link("var/run", "/run")
    assert tree.entries["var/run"].target == "/run"


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("file", "usr/bin/file"),
        ("../bin/file", "usr/bin/file"),
        ("/bin/file", "usr/bin/file"),
        ("link", None),
        ("nothing", None),
        ("../../../../../../bin/file", "usr/bin/file"),
    ],
)
def test_links_are_followed_inside_the_tree(target: str, found: str | None) -> None:
    tree = TreeBuilder()
    tree.add_file("bin/file", b"")
    tree.add_link("usr/bin/link", target)
    assert tree.resolve("/bin/link") == found


def test_modes_change_only_what_is_there() -> None:
    tree = small_tree()
    tree.set_mode("bin/zsh", 0o4755)
    assert tree.entries["usr/bin/zsh"].mode == 0o4755
    with pytest.raises(BuildError, match="`modes` names etc/none"):
        tree.set_mode("etc/none", 0o600)


def test_a_file_can_be_appended_to_a_finished_tree(tmp_path: Path) -> None:
    small_tree().write(tmp_path / "tar", 5)
    append_file(RootTree(tmp_path / "tar", "", (), 5), "boot/grub/grub.cfg", b"boot\n")
    with tarfile.open(tmp_path / "tar") as archive:
        assert archive.getnames()[-2:] == ["boot/grub", "boot/grub/grub.cfg"]
        member = archive.extractfile("boot/grub/grub.cfg")
        assert member
        assert member.read() == b"boot\n"
