from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from imagefactory.data import sha256_of
from imagefactory.errors import CommandError, PackageError
from imagefactory.packages.pool import Package, Pool
from imagefactory.packages.tools import Tools, unpack
from imagefactory.run import run
from tests.debs import Member, forge_deb, link, make_deb


def pooled(cache: Path, *debs: Path) -> tuple[tuple[Package, ...], Pool]:
    """Put packages into a pool, as apt would."""
    pool, packages = Pool(cache / "pool"), []
    for deb in debs:
        package = Package(deb.stem, "1", "amd64", sha256_of(deb), deb.stat().st_size)
        pool.add(deb, package)
        packages.append(package)
    return tuple(packages), pool


def with_libraries(program: str) -> dict[str, bytes]:
    """A program of this host with all that it is linked to."""
    paths = re.findall(r"/\S+", run(["ldd", program]).stdout)
    return {path.lstrip("/"): Path(path).read_bytes() for path in (program, *paths)}


def test_a_program_runs_by_its_own_loader_and_libraries(tmp_path: Path) -> None:
    deb = make_deb(tmp_path, "coreutils", with_libraries("/usr/bin/sort"))
    tools = unpack(*pooled(tmp_path / "a cache", deb), tmp_path / "a cache")
    command = tools.command("sort")
    assert Path(command[0]).is_relative_to(tools.directory)
    assert command[-1] == str(tools.directory / "usr/bin/sort")
    assert run(command, stdin="b\na\n").stdout == "a\nb\n"


def test_a_set_is_unpacked_once(tmp_path: Path) -> None:
    packages, pool = pooled(tmp_path, make_deb(tmp_path, "data"))
    first = unpack(packages, pool, tmp_path)
    pool.path(packages[0]).unlink()
    assert unpack(packages, pool, tmp_path) == first


def test_a_damaged_package_leaves_no_half_set(tmp_path: Path) -> None:
    packages, pool = pooled(tmp_path, make_deb(tmp_path, "data"))
    pool.path(packages[0]).write_bytes(b"rotten")
    with pytest.raises(PackageError, match="damaged"):
        unpack(packages, pool, tmp_path)
    assert list((tmp_path / "tools").iterdir()) == []


def test_no_packages_are_no_tools(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="brings the program 'mke2fs'"):
        unpack((), Pool(tmp_path / "pool"), tmp_path).command("mke2fs")


def test_a_script_needs_no_loader(tmp_path: Path) -> None:
    deb = make_deb(tmp_path, "script", {"usr/bin/hello": b"#!/bin/sh\necho hello\n"})
    tools = unpack(*pooled(tmp_path, deb), tmp_path)
    assert run(tools.command("hello")).stdout == "hello\n"


def test_a_program_without_its_loader_is_told(tmp_path: Path) -> None:
    tools = Tools(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sort").write_bytes(Path("/usr/bin/sort").read_bytes())
    with pytest.raises(PackageError, match="the tool packages lack ld-"):
        tools.command("sort")


@pytest.mark.parametrize("name", ["../../../evil", "./../../../evil", "/evil-of-a-test"])
def test_nothing_is_unpacked_outside(tmp_path: Path, name: str) -> None:
    deb = forge_deb(tmp_path / "hostile.deb", [(name, b"evil")])
    with contextlib.suppress(CommandError):  # refusing it is as good
        unpack(*pooled(tmp_path / "cache", deb), tmp_path / "cache")
    outside = [path for path in tmp_path.rglob("evil*") if "tools" not in path.parts]
    assert outside == []
    assert not Path("/evil-of-a-test").exists()


def test_nothing_is_unpacked_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    members: list[Member] = [link("./way", str(outside)), ("./way/evil", b"evil")]
    packages, pool = pooled(tmp_path, forge_deb(tmp_path / "hostile.deb", members))
    with pytest.raises(CommandError, match="dpkg-deb"):
        unpack(packages, pool, tmp_path)
    assert list(outside.iterdir()) == []
