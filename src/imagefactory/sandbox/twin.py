"""The twin of a foreign tree: the same programs, of this machine's architecture.

accelerated.yaml says which programs the twin may run in place of the foreign ones. They and the
libraries of their architecture are taken out of the packages; no maintainer script runs, so
that a twin costs seconds.

A program is taken only when its package has the *same version* in both architectures. A rebuild
of one architecture alone (binNMU, a version that ends in ``+b1``) has the same source and counts
as the same.

The programs are changed in one place, or two:

* PT_INTERP names `LOADER`, a link that `attachment.attach` makes: so the kernel starts them
  as they are, with their own argv[0] and /proc/self/exe, in trees that have no /lib64.
* dpkg's programs know their own architecture. It is one pointer in their data, set by one
  relocation, to a string; the relocation is made to point to the foreign architecture's name,
  written into the padding of the same segment. Where it is not exactly so the program is left
  out, and emulated.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagefactory.arch import ArchProfile
from imagefactory.cache import Store
from imagefactory.errors import BuildError, PackageError
from imagefactory.packages import deb
from imagefactory.packages.apt import Apt
from imagefactory.packages.pool import Package
from imagefactory.sandbox.attachment import LOADER
from imagefactory.sandbox.elfedit import retargeted, with_loader
from imagefactory.sandbox.safelist import LIST, Group, safe_programs
from imagefactory.template import Repository


@dataclass(frozen=True)
class Twin:
    """A twin in the cache.

    Its directory holds ``root`` (programs and libraries), ``allow`` (the launcher's list),
    ``loader`` and ``libraries`` (paths below root; the latter is mounted at the same path of the
    tree, unless there is a file ``apart`` beside it).
    """

    directory: Path
    packages: tuple[Package, ...]
    left_out: tuple[str, ...]
    """Packages of the tree whose programs stay emulated, each with the reason."""


def requirements(tree: Iterable[str], host: ArchProfile, target: ArchProfile) -> tuple[str, ...]:
    """Name the packages of a foreign tree that its twin is made of, without dependencies."""
    safe = safe_programs()
    owners = {
        package
        for group in safe.groups
        if group.suits(host, target)
        for package in group.packages()
    }
    return tuple(
        sorted(
            name
            for name in set(tree)
            if name in owners or fnmatch.fnmatchcase(name, safe.perl_modules)
        )
    )


def same_version(one: str, other: str) -> bool:
    """Whether two versions are built from the same source (Debian policy 5.6.12.1: binNMUs)."""
    return re.sub(r"\+b\d+$", "", one) == re.sub(r"\+b\d+$", "", other)


def make(
    tree: Mapping[str, str],
    repositories: Sequence[Repository],
    host: ArchProfile,
    target: ArchProfile,
    cache: Path,
    *,
    offline: bool = False,
) -> Twin:
    """Make the twin of a tree, unless the cache has it.

    Args:
        tree: The packages of the foreign tree: name -> version.
        repositories: Where they come from.
        host: This machine's architecture.
        target: The tree's architecture.
        cache: The directory of all caches.
        offline: Only what was fetched before is taken.

    Raises:
        PackageError: The repositories do not have the packages for this machine.
        BuildError: A profile does not name its library directory.
    """
    triplet = host.names.multiarch
    if triplet is None:
        raise BuildError(f"the profile {host.name} names no library directory (multiarch)")
    names = requirements(tree, host, target)
    apt, packages, left_out = _resolved(repositories, names, tree, host, cache, offline=offline)
    required = [repository for repository in repositories if repository.required]
    if left_out and 0 < len(required) < len(repositories):
        # A suite may be read for this machine and not for the tree's: then it is newer here.
        without = _resolved(required, names, tree, host, cache, offline=offline)
        if len(without[2]) < len(left_out):
            apt, packages, left_out = without
    key = _key(tree, packages, host, target)
    libraries = Path("usr/lib") / triplet

    def fill(directory: Path) -> None:
        apt.fetch(packages)
        _Maker(tree, host, target, directory, libraries).make(apt, packages)

    return Twin(Store(cache, "twins").obtain(key, fill), packages, left_out)


def _resolved(
    repositories: Sequence[Repository],
    names: tuple[str, ...],
    tree: Mapping[str, str],
    host: ArchProfile,
    cache: Path,
    *,
    offline: bool,
) -> tuple[Apt, tuple[Package, ...], tuple[str, ...]]:
    """Find the packages of a twin, and those whose programs have another version than the tree."""
    apt = Apt(repositories, host.names.deb, cache, offline=offline)
    apt.refresh()
    wanted, absent = _available(apt, names)
    packages = tuple(
        package
        for package in apt.resolve(wanted)
        if package.architecture != "all"  # it holds nothing of a machine
    )
    left_out = [f"{name}: not for {host.name}" for name in absent]
    left_out += [
        f"{package}: the tree has {tree[package.name]}"
        for package in packages
        if package.name in wanted and not same_version(tree[package.name], package.version)
    ]
    return apt, packages, tuple(sorted(left_out))


def _available(apt: Apt, names: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Part the names into those that this machine's architecture has, and the others."""
    try:
        apt.find(names)
    except PackageError:
        there = tuple(name for name in names if _exists(apt, name))
        return there, tuple(name for name in names if name not in there)
    return names, ()


def _exists(apt: Apt, name: str) -> bool:
    try:
        apt.find([name])
    except PackageError:
        return False
    return True


def _key(
    tree: Mapping[str, str],
    packages: Sequence[Package],
    host: ArchProfile,
    target: ArchProfile,
) -> str:
    known = {package.name: tree.get(package.name) for package in packages}
    parts = [package.sha256 for package in packages]
    parts += [json.dumps(known, sort_keys=True), host.model_dump_json(), target.model_dump_json()]
    parts += [LIST.read_text("utf-8"), Path(__file__).read_text("utf-8")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


class _Maker:
    """Puts one twin together."""

    def __init__(
        self,
        tree: Mapping[str, str],
        host: ArchProfile,
        target: ArchProfile,
        directory: Path,
        libraries: Path,
    ) -> None:
        self._tree, self._target = tree, target
        self._directory, self._libraries = directory, libraries
        self._groups = [group for group in safe_programs().groups if group.suits(host, target)]
        self._host = host
        self._allowed: set[str] = set()
        self._emulated: set[str] = set()
        self._loader = ""

    def make(self, apt: Apt, packages: Sequence[Package]) -> None:
        root = self._directory / "root"
        (root / self._libraries).mkdir(parents=True)
        for package in packages:
            with deb.opened(apt.pool.take(package)) as archive:
                self._take(package, archive)
        # The twin must bring nothing that it has no loader for.
        if not (root / self._loader).exists() or not self._loader:
            raise PackageError("the packages of the twin bring no dynamic loader")
        lines = [*(f"!{call}" for call in sorted(self._emulated)), *sorted(self._allowed)]
        (self._directory / "allow").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        (self._directory / "libraries").write_text(f"{self._libraries}\n", "utf-8")
        (self._directory / "loader").write_text(f"{self._loader}\n", "utf-8")

    def _take(self, package: Package, archive: tarfile.TarFile) -> None:
        in_tree = package.name in self._tree
        same = in_tree and same_version(self._tree[package.name], package.version)
        for member in archive.getmembers():
            path = _merged(member.name)
            if path.is_relative_to(self._libraries):
                # A perl that finds more modules than the tree's would decide otherwise.
                module = path.relative_to(self._libraries).parts[:1] in {("perl",), ("perl5",)}
                if in_tree or not module:
                    self._extract(archive, member, path)
            elif same and (member.isreg() or member.islnk()) and not member.mode & 0o6000:
                self._take_program(package, archive, member, path)

    def _take_program(
        self, package: Package, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path
    ) -> None:
        for group in self._groups:
            calls = list(_matching(group, package.name, path))
            if not calls:
                continue
            content = deb.read(archive, member)
            started = with_loader(content, LOADER)
            if started is None:
                return  # a script: the tree has the same
            content, loader = started
            if group.retarget:
                changed = retargeted(content, self._host.names.deb, self._target.names.deb)
                if changed is None:
                    return
                content = changed
            self._loader = str(self._libraries / Path(loader).name)
            file = self._directory / "root" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(0o755)
            self._allowed.update(calls)
            self._emulated.update(
                "\t".join((f"/{path}", *call[1:]))
                for call in group.emulated_calls
                if call[0] == str(path)
            )

    def _extract(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        target = self._directory / "root" / path
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or target.exists():
            return
        if member.issym():
            target.symlink_to(member.linkname)
        elif member.isreg() or member.islnk():
            with target.open("wb") as stream:
                shutil.copyfileobj(io.BytesIO(deb.read(archive, member)), stream)
            target.chmod(0o755 if member.mode & 0o111 else 0o644)


def _merged(name: str) -> Path:
    """Where a package's file lies in a tree with merged /usr."""
    plain = Path(name.removeprefix("./").lstrip("/"))
    if ".." in plain.parts:
        raise PackageError(f"the twin's packages have a file {name}")
    return Path("usr") / plain if plain.parts[:1] in {("bin",), ("sbin",), ("lib",)} else plain


def _matching(group: Group, package: str, path: Path) -> Iterator[str]:
    """The lines of the launcher's list that a group has for a program."""
    if str(path) in group.exceptions:
        return
    if any(fnmatch.fnmatchcase(str(path), glob) for glob in group.programs.get(package, ())):
        yield f"/{path}"
    for call in group.calls.get(package, ()):
        if fnmatch.fnmatchcase(str(path), call[0]):
            words = (word.replace("{program}", path.name) for word in call[1:])
            yield "\t".join((f"/{path}", *words))
