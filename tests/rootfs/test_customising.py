"""Steps of the customisation on a tree of our own, in a real namespace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagefactory import tree as tar
from imagefactory.errors import BuildError
from imagefactory.rootfs.customising import unpack
from imagefactory.run import run
from tests.rootfs.test_debian_inside import left, put, tree
from tests.sandbox.test_namespace import Inside, inside

__all__ = ["inside", "tree"]

HEADER = """
from imagefactory.rootfs.customising import Action, WholeFile, take
from imagefactory.sandbox.chroot import Chroot, rooted
tree = spec.with_name("tree")
chroot = Chroot(tree, {})
"""


def test_copies_have_the_modes_of_the_template_and_not_of_the_umask(
    inside: Inside, tree: Path, tmp_path: Path
) -> None:
    put(tmp_path, "source/plain", "source/sub/program")
    (tmp_path / "source/plain").chmod(0o666)
    (tmp_path / "source/sub/program").chmod(0o700)
    (tmp_path / "source/link").symlink_to("/nowhere")
    (tmp_path / "one").write_text("one")
    inside.run(
        HEADER + "os.umask(0o022)\n"
        "source = str(spec.with_name('source'))\n"
        "take(Action('copy', source, 'opt/all'), chroot)\n"
        "take(Action('copy', source, 'opt/all'), chroot)\n"
        "take(Action('copy', str(spec.with_name('one')), 'one', 0o4750), chroot)\n"
    )
    copied = tree / "opt/all"
    assert copied.stat().st_mode & 0o7777 == 0o755
    assert (copied / "plain").stat().st_mode & 0o7777 == 0o644
    assert (copied / "sub/program").stat().st_mode & 0o7777 == 0o755
    assert (copied / "link").readlink() == Path("/nowhere")
    assert (tree / "one").stat().st_mode & 0o7777 == 0o4750


def test_a_copy_follows_no_link_out_of_the_tree(inside: Inside, tree: Path, tmp_path: Path) -> None:
    put(tmp_path, "outside/etc", "data")
    (tree / "etc").symlink_to(tmp_path / "outside")
    (tree / "file").symlink_to(tmp_path / "outside/etc")
    inside.run(
        HEADER + "data = str(spec.with_name('data'))\n"
        "with rooted(tree):\n"
        f"    Path({str(tmp_path / 'outside')!r}).mkdir(parents=True)\n"
        "take(Action('copy', data, 'etc/new'), chroot)\n"
        "take(Action('copy', data, 'file'), chroot)\n"
    )
    assert left(tmp_path / "outside") == ["etc"]
    assert (tmp_path / "outside/etc").read_text() == "outside/etc"
    assert (tree / "file").read_text() == "data"
    assert (tree / str(tmp_path / "outside").lstrip("/") / "new").read_text() == "data"


def test_a_file_does_not_take_a_directorys_place(
    inside: Inside, tree: Path, tmp_path: Path
) -> None:
    put(tmp_path, "data", "tree/etc/kept")
    with pytest.raises(BuildError, match="cannot take the place of the directory /etc"):
        inside.run(
            HEADER + "from imagefactory.errors import BuildError\n"
            "try:\n"
            "    take(Action('copy', str(spec.with_name('data')), 'etc'), chroot)\n"
            "except BuildError as error:\n"
            "    tell('failure', error.message); sys.exit(1)\n"
        )
    assert (tree / "etc/kept").exists()


def test_a_base_out_of_the_cache_has_the_times_of_a_fresh_one(tmp_path: Path) -> None:
    fresh, unpacked = tmp_path / "fresh", tmp_path / "unpacked"
    (fresh / "a/c").mkdir(parents=True)
    (fresh / "a.b").touch()  # sorts between `a` and `a/c`
    for path in (fresh / "a/c", fresh / "a.b", fresh / "a"):
        os.utime(path, (1000, 1000))
    listing, base = tmp_path / "listing", tmp_path / "base.tar"
    tar.write_listing([b"a", b"a.b", b"a/c"], listing)
    assert tar.ordered(tar.read_listing(listing)) == [b"a", b"a.b", b"a/c"]
    run(tar.tar_command(fresh, base, listing, 2000))
    unpacked.mkdir()
    unpack(base, unpacked)
    times = {str(p.relative_to(unpacked)): p.stat().st_mtime for p in unpacked.rglob("*")}
    assert times == {"a": 1000, "a.b": 1000, "a/c": 1000}
