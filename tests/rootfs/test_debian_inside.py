from __future__ import annotations

import os
from pathlib import Path

from imagefactory import tree
from imagefactory.rootfs.debian_inside import _UNPACK
from imagefactory.run import run


def test_a_base_out_of_the_cache_has_the_times_of_a_fresh_one(tmp_path: Path) -> None:
    fresh, unpacked = tmp_path / "fresh", tmp_path / "unpacked"
    (fresh / "a/c").mkdir(parents=True)
    (fresh / "a.b").touch()  # sorts between `a` and `a/c`
    for path in (fresh / "a/c", fresh / "a.b", fresh / "a"):
        os.utime(path, (1000, 1000))
    listing, tar = tmp_path / "listing", tmp_path / "base.tar"
    tree.write_listing([b"a", b"a.b", b"a/c"], listing)
    assert tree.ordered(tree.read_listing(listing)) == [b"a", b"a.b", b"a/c"]
    run(tree.tar_command(fresh, tar, listing, 2000))
    unpacked.mkdir()
    run([*_UNPACK, "-C", unpacked, "-f", tar])
    times = {str(p.relative_to(unpacked)): p.stat().st_mtime for p in unpacked.rglob("*")}
    assert times == {"a": 1000, "a.b": 1000, "a/c": 1000}
