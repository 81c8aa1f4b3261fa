from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefactory.errors import BuildError
from imagefactory.rootfs.initramfs import add_initramfs
from imagefactory.tree import TreeBuilder


def joined(tree: TreeBuilder, pieces: tuple[str, ...]) -> bytes:
    """Join the pieces as GRUB's initrd command does: each padded to four bytes."""
    contents = [tree.entries[path].content or b"" for path in pieces]
    return b"".join(content + bytes(-len(content) % 4) for content in contents)


def unpacked(archive: bytes) -> list[tuple[str, int, bytes]]:
    """Read a newc archive as the kernel does (init/initramfs.c): name, mode, content."""
    found: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701", f"no header at byte {at}"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name[-1:] == b"\0"
        at += 110 + name_size
        at += -at % 4
        if name == b"TRAILER!!!\0":
            assert at == len(archive)
            return found
        content = archive[at : at + size]
        assert len(content) == size
        found.append((name[:-1].decode(errors="surrogateescape"), mode, content))
        at += size
        at += -at % 4


NAMES = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1),
    min_size=1,
    max_size=4,
).map(lambda parts: "/".join(f"d{part}" for part in parts))


@given(st.lists(st.binary(max_size=70), max_size=12), st.data())
def test_the_pieces_are_one_archive_whatever_the_sizes(
    contents: list[bytes], data: st.DataObject
) -> None:
    names = [f"{data.draw(NAMES)}/{number}" for number in range(len(contents))]
    tree = TreeBuilder()
    for number, content in enumerate(contents):
        tree.add_file(f"srv/{number}", content)
    pieces = add_initramfs(tree, [(name, f"srv/{i}") for i, name in enumerate(names)])
    files = unpacked(joined(tree, pieces))
    plain = {name: content for name, mode, content in files if mode == 0o100755}
    assert plain == dict(zip(names, contents, strict=True))
    seen: set[str] = {""}
    for name, mode, _ in files:
        assert name.rpartition("/")[0] in seen, "a directory comes before what is in it"
        if mode == 0o040755:
            assert name not in seen
            seen.add(name)


def test_real_files_are_not_stored_twice() -> None:
    tree = TreeBuilder()
    tree.add_file("usr/bin/busybox", b"b" * 5000)
    pieces = add_initramfs(tree, [("bin/busybox", "usr/bin/busybox")])
    assert pieces == ("boot/initramfs/00", "usr/bin/busybox", "boot/initramfs/01")


@pytest.mark.parametrize("source", ["nowhere", "usr/bin/link", "usr/bin"])
def test_what_is_no_file_is_refused(source: str) -> None:
    tree = TreeBuilder()
    tree.add_link("usr/bin/link", "other")
    with pytest.raises(BuildError, match=f"the initramfs needs {source}, which is no file"):
        add_initramfs(tree, [("init", source)])
