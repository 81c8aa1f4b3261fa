from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefactory.errors import BuildError
from imagefactory.run import run
from imagefactory.tree import (
    RootTree,
    TreeBuilder,
    append_file,
    check_tar,
    list_command,
    merged,
    ordered,
    read_labels,
    read_listing,
    tar_command,
    write_labels,
    write_listing,
)


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


def tar_of(directory: Path, work: Path, base: list[bytes] | None = None) -> Path:
    """Make a tar of a directory as a builder does."""
    run(list_command(directory, work / "listing"))
    write_listing(ordered(read_listing(work / "listing"), base or ()), work / "listing")
    run(tar_command(directory, work / "tar", work / "listing", 1_000_000))
    return work / "tar"


def write_files(directory: Path) -> None:
    """Write a small tree with what trees hold besides plain files."""
    (directory / "usr/bin").mkdir(parents=True)
    su = directory / "usr/bin/su"
    su.write_bytes(b"su")
    su.chmod(0o4755)
    (directory / "etc").mkdir()
    (directory / "etc/hard").hardlink_to(su)
    (directory / "etc/soft").symlink_to("../usr/" + 40 * "long/")
    (directory / ("etc/" + 120 * "n")).mkdir()
    (directory / ("etc/" + 120 * "n") / (120 * "m")).write_bytes(b"deep")
    (directory / "-option").write_bytes(b"")
    (directory / "new\nline").write_bytes(b"")
    os.mkfifo(directory / "etc/fifo")
    with (directory / "etc/sparse").open("wb") as stream:
        stream.truncate(100_000)
    os.utime(directory / "etc/sparse", ns=(5, 999_999_999_999))
    os.utime(directory / "etc/soft", ns=(5, 5_000_000_000_000_000), follow_symlinks=False)


def test_a_directory_becomes_the_same_tar_every_time(tmp_path: Path) -> None:
    written = set()
    for number in range(2):
        work = tmp_path / str(number)
        write_files(work / "tree")
        written.add(tar_of(work / "tree", work).read_bytes())
        written.add(tar_of(work / "tree", work).read_bytes())
    assert len(written) == 1
    with tarfile.open(tmp_path / "0/tar") as archive:
        members = {member.name: member for member in archive}
    names = ["usr", "usr/bin", "usr/bin/su", "-option", "etc", "etc/fifo", "etc/hard"]
    long = "etc/" + 120 * "n"
    assert list(members) == [
        *names, long, f"{long}/{120 * 'm'}", "etc/soft", "etc/sparse", "new\nline"
    ]  # fmt: skip
    assert members["usr/bin/su"].mode == 0o4755
    assert (members["etc/hard"].islnk(), members["etc/hard"].linkname) == (True, "usr/bin/su")
    assert members["etc/soft"].linkname == "../usr/" + 40 * "long/"
    assert members["etc/soft"].mtime == 1_000_000
    assert members["etc/sparse"].mtime == 999
    assert members["etc/fifo"].isfifo()
    assert {(member.uname, member.gname) for member in members.values()} == {("", "")}
    assert check_tar(tmp_path / "0/tar") == list(members)


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    name = "caf\udce9"
    (tree / name).write_bytes(b"1")
    assert check_tar(tar_of(tree, tmp_path)) == [name]
    with tarfile.open(tmp_path / "tar") as archive:
        assert archive.getmember(name).pax_headers["hdrcharset"] == "BINARY"


def test_attributes_are_kept(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"1")
    try:
        os.setxattr(tree / "file", "user.note", b"kept")
    except OSError:
        pytest.skip("this filesystem has no extended attributes")
    with tarfile.open(tar_of(tree, tmp_path)) as archive:
        assert archive.getmember("file").pax_headers["SCHILY.xattr.user.note"] == "kept"


def test_what_customisation_added_comes_last() -> None:
    base = [b"etc", b"etc/a", b"usr", b"usr/b", b"usr/z", b"var", b"var/gone"]
    names = [b"var", b"usr/new", b"usr/z", b"etc/new", b"etc", b"usr", b"etc/a", b"usr/b", b"opt"]
    assert ordered(names, base) == [
        *(b"usr", b"usr/b", b"usr/z", b"etc", b"etc/a", b"var"),
        *(b"usr/new", b"etc/new", b"opt"),
    ]


def test_what_is_left_out_takes_along_what_is_below_it() -> None:
    names = [b"var", b"var/log", b"var/log/a", b"var/log/a/b", b"var/logs", b"tmp", b"tmp/x"]
    assert ordered(names, exclude=["var/log", "tmp/*"]) == [b"tmp", b"var", b"var/logs"]


NAMES = st.lists(st.sampled_from([b"usr", b"a", b"-", b"z"]), min_size=1, max_size=4)


@given(st.sets(NAMES.map(b"/".join)), st.sets(NAMES.map(b"/".join)), st.booleans())
def test_parents_come_before_children(tree: set[bytes], base: set[bytes], cut: bool) -> None:
    def whole(names: set[bytes]) -> set[bytes]:
        return {b"/".join(n.split(b"/")[:i]) for n in names for i in range(1, 5)}

    everything = whole(tree)
    order = ordered(everything, whole(base), ["*z*"] if cut else [])
    assert set(order) == {name for name in everything if not (cut and b"z" in name)}
    for at, name in enumerate(order):
        parent = name.rpartition(b"/")[0]
        assert not parent or parent in order[:at]


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([member("/etc")], "no path inside the tree"),
        ([member("../etc")], "no path inside the tree"),
        ([member("a", tarfile.DIRTYPE), member("a/../b")], "no path inside the tree"),
        ([member("a/b")], "its parent is no directory"),
        ([member("a", tarfile.SYMTYPE, "/"), member("a/b")], "its parent is no directory"),
        ([member("a"), member("./a")], "in the tree twice"),
        ([member("a", tarfile.LNKTYPE, "b"), member("b")], "hard link to nothing"),
        ([member("a", tarfile.DIRTYPE), member("b", tarfile.LNKTYPE, "a")], "hard link to nothing"),
    ],
)
def test_an_unsound_tar_is_refused(
    members: list[tarfile.TarInfo], complaint: str, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "tar", "w") as archive:
        for info in members:
            archive.addfile(info)
    with pytest.raises(BuildError, match=complaint):
        check_tar(tmp_path / "tar")


def test_a_sound_tar_is_read_with_or_without_a_dot(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tar", "w") as archive:
        for info in (member("./", tarfile.DIRTYPE), member("./a/", tarfile.DIRTYPE)):
            archive.addfile(info)
        archive.addfile(member("a/b"))
        archive.addfile(member("./c", tarfile.LNKTYPE, "./a/b"))
        archive.addfile(member("a", tarfile.DIRTYPE))
    assert check_tar(tmp_path / "tar") == ["a", "a/b", "c"]


def test_a_cut_tar_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "tar", "w") as archive:
        info = member("a")
        info.size = 100_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    content = (tmp_path / "tar").read_bytes()
    (tmp_path / "tar").write_bytes(content[:50_000])
    with pytest.raises(BuildError, match="not a whole tar"):
        check_tar(tmp_path / "tar")


def test_labels_are_read_as_they_were_written(tmp_path: Path) -> None:
    labels = {b"": b"a:b:root_t:s0", "etc/ö x\n".encode(): b"a:b:etc_t:s0"}
    write_labels(labels, tmp_path / "labels")
    assert read_labels(tmp_path / "labels") == labels
