"""The twin of a foreign tree of RPM packages: the same programs, of this machine's architecture.

As of Debian's (twin.py), its programs are those of accelerated.yaml, out of packages of the same
version, and no scriptlet runs. But distributions of this family have the libraries of every
architecture in one directory, usr/lib64, where the tree's own are. The twin's are kept apart: in
its loader, and in programs with a search path of their own, the names of those directories are
replaced by `attachment.LIBRARIES`. So the tree shows nothing of the twin to its programs.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagefactory.arch import ArchProfile
from imagefactory.cache import Store
from imagefactory.errors import PackageError
from imagefactory.packages import deb, rpm
from imagefactory.packages.dnf import Dnf, Wish
from imagefactory.packages.pool import Package
from imagefactory.sandbox import elfedit, safelist
from imagefactory.sandbox.attachment import LIBRARIES, LOADER
from imagefactory.sandbox.twin import Twin

_KEPT = Path("usr/lib")
"""Where the twin's root has all its libraries, side by side."""


def make(
    tree: Mapping[str, str],
    lists: Dnf,
    host: ArchProfile,
    target: ArchProfile,
    cache: Path,
) -> Twin:
    """Make the twin of a tree, unless the cache has it.

    Args:
        tree: The packages of the foreign tree: name -> epoch, version and release.
        lists: The lists of the same repositories for this machine's architecture.
        host: This machine's architecture.
        target: The tree's architecture.
        cache: The directory of all caches.

    Raises:
        PackageError: The distribution does not exist for this machine, or cannot be had.
    """
    groups = [group for group in safelist.safe_programs().groups if group.suits(host, target)]
    names = sorted({name for group in groups for name in group.rpm if name in tree})
    lists.refresh()
    packages = lists.resolve(Wish(tuple(names)))
    left_out = tuple(
        f"{package}: the tree has {tree[package.name]}"
        for package in packages
        if package.name in names and tree[package.name] != package.version
    )

    def fill(directory: Path) -> None:
        lists.fetch(packages)
        maker = _Maker(tree, groups, host, directory)
        for package in packages:
            maker.take(package, lists.pool.take(package))
        maker.finish()

    key = _key(tree, packages, host, target)
    return Twin(Store(cache, "twins").obtain(key, fill), packages, left_out)


def _key(
    tree: Mapping[str, str], packages: Sequence[Package], host: ArchProfile, target: ArchProfile
) -> str:
    known = {package.name: tree.get(package.name) for package in packages}
    code = (safelist.LIST, Path(__file__), Path(elfedit.__file__))
    parts = [package.sha256 for package in packages]
    parts += [json.dumps(known, sort_keys=True), host.model_dump_json(), target.model_dump_json()]
    parts += [file.read_text("utf-8") for file in code]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class _Maker:
    """Puts one twin together."""

    def __init__(
        self,
        tree: Mapping[str, str],
        groups: Sequence[safelist.Group],
        host: ArchProfile,
        directory: Path,
    ) -> None:
        self._tree, self._groups, self._directory = tree, groups, directory
        folders = ["lib64", "usr/lib64"]
        if host.names.multiarch:
            folders += [f"lib/{host.names.multiarch}", f"usr/lib/{host.names.multiarch}"]
        self._searched = tuple(f"/{folder}/" for folder in folders)
        self._holding = tuple(Path(folder) for folder in folders if folder.startswith("usr/"))
        self._root = directory / "root"
        (self._root / _KEPT).mkdir(parents=True)
        self._allowed: set[str] = set()
        self._emulated: set[str] = set()
        self._loader = ""

    def take(self, package: Package, file: Path) -> None:
        """Take what the twin needs out of a package."""
        same = self._tree.get(package.name) == package.version
        with rpm.opened(file) as archive:
            for member in archive.getmembers():
                self._take_member(package, archive, member, same=same)

    def finish(self) -> None:
        """Write what `attachment` reads.

        Raises:
            PackageError: No package brought a loader.
        """
        loader = self._root / self._loader
        if not self._loader or not loader.exists():
            raise PackageError("the packages of the twin bring no dynamic loader")
        real = loader.resolve()
        real.write_bytes(elfedit.searching(real.read_bytes(), self._searched, LIBRARIES))
        lines = [*(f"!{call}" for call in sorted(self._emulated)), *sorted(self._allowed)]
        (self._directory / "allow").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        (self._directory / "libraries").write_text(f"{_KEPT}\n", "utf-8")
        (self._directory / "loader").write_text(f"{self._loader}\n", "utf-8")
        (self._directory / "apart").touch()

    def _take_member(
        self, package: Package, archive: tarfile.TarFile, member: tarfile.TarInfo, *, same: bool
    ) -> None:
        path = _merged(member.name)
        if any(path.is_relative_to(folder) for folder in self._holding):
            if fnmatch.fnmatchcase(path.name, "l[di]*.so*"):
                self._take_library(archive, member, path.name)
        elif same and (member.isreg() or member.islnk()) and not member.mode & 0o6000:
            self._take_program(package, archive, member, path)

    def _take_library(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> None:
        target = self._root / _KEPT / name
        if target.is_symlink() or target.exists():
            return
        if member.issym():
            linked = Path(member.linkname).name
            if linked != name:
                target.symlink_to(linked)
        elif member.isreg() or member.islnk():
            with target.open("wb") as stream:
                shutil.copyfileobj(io.BytesIO(deb.read(archive, member)), stream)
            target.chmod(0o755)

    def _take_program(
        self, package: Package, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path
    ) -> None:
        for group in self._groups:
            globs = group.rpm.get(package.name, ())
            if str(path) in group.exceptions or not any(
                fnmatch.fnmatchcase(str(path), glob) for glob in globs
            ):
                continue
            started = elfedit.with_loader(deb.read(archive, member), LOADER)
            if started is None:
                return  # a script: the tree has the same
            content, loader = started
            paths = elfedit.search_paths(content)
            self._loader = str(_KEPT / Path(loader).name)
            file = self._root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(elfedit.searching(content, paths, LIBRARIES))
            file.chmod(0o755)
            self._allowed.add(f"/{path}")
            self._emulated.update(
                "\t".join((f"/{path}", *call[1:]))
                for call in group.emulated_calls
                if call[0] == str(path)
            )


def _merged(name: str) -> Path:
    """Where a package's file lies in a tree with merged /usr."""
    plain = Path(name.removeprefix("./").lstrip("/"))
    if ".." in plain.parts:
        raise PackageError(f"the twin's packages have a file {name}")
    if plain.parts[:1] in {(name,) for name in ("bin", "sbin", "lib", "lib64")}:
        return Path("usr") / plain
    return plain
