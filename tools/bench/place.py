"""Where the benchmark works: a cache of its own, with the packages that the user's has.

Nothing of the user's changes but for packages that were downloaded, which their cache is given.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from imagefactory import run
from imagefactory.arch import ArchProfile
from imagefactory.cache import Store
from imagefactory.catalog import Catalog
from imagefactory.data import SearchPath, cache_directory
from imagefactory.errors import ImageFactoryError
from imagefactory.packages import tools
from imagefactory.packages.local import write_index
from imagefactory.packages.mirrors import Mirrors
from imagefactory.plan import BuildPlan, make_plan
from imagefactory.sources import Sources, host_deb_architecture
from imagefactory.template import ImageTemplate, load
from imagefactory.workbench import Workbench

DEFAULT_DIRECTORY = "/var/tmp"  # noqa: S108 (mkdtemp makes the name; hier(7): large files go here)
"""For lack of TMPDIR: on a disk, as a person's own result would be."""

_DOWNLOADS = ("pool", "apt")
"""The kinds of a cache's entries that come from the network."""


@dataclass(frozen=True)
class PackageSet:
    """The packages of one image for one architecture, fetched."""

    plan: BuildPlan
    sources: Sources
    view: Path
    """The same packages, and no others, as a repository of files."""

    @property
    def names(self) -> tuple[str, ...]:
        """What is to be installed: everything, by name."""
        return tuple(package.name for package in self.plan.image_packages)


@dataclass(frozen=True)
class Place:
    """The benchmark's own directory, and what it works with.

    Attributes:
        work: The directory; whoever may read a package may read what is in it.
        workbench: Templates and profiles, with the benchmark's own cache.
        image: The template whose packages are measured.
        rounds: How often what is fast is repeated.
        offline: Nothing is asked from the network.
    """

    work: Path
    workbench: Workbench
    image: str
    rounds: int
    mirrors: Mirrors
    offline: bool = False

    @property
    def cache(self) -> Path:
        """The benchmark's own cache."""
        return self.workbench.cache

    @property
    def host(self) -> ArchProfile:
        """This machine's architecture."""
        return self.workbench.profiles.get(host_deb_architecture())

    @property
    def template(self) -> ImageTemplate:
        """The image's template."""
        return load(self.workbench.path, self.image)[0]

    def packages(self, profile: ArchProfile, kernel: str | None = None) -> PackageSet:
        """Resolve and fetch an image's packages, with another kernel if one is named.

        Raises:
            ImageFactoryError: They cannot be had.
        """
        item, file = load(self.workbench.path, self.image)
        if kernel:
            item = item.model_copy(update={"kernel": kernel})
        sources = Sources.of(item, file, profile, self.cache, self.mirrors, offline=self.offline)
        plan = make_plan(item, file, profile, sources)
        sources.fetch(*plan.to_fetch)
        tools.unpack(plan.disk_tools, sources.disk_tools.pool, self.cache)
        view = self.work / f"packages-{plan.kernel.name}"
        if not view.exists():
            _show(plan, sources, view)
        return PackageSet(plan, sources, view)

    def with_path(self, directory: Path) -> Place:
        """Return the same place, where templates are sought in one more directory first."""
        path = SearchPath((directory, *self.workbench.path.directories))
        return replace(self, workbench=replace(self.workbench, path=path))

    def forget(self, *, keep: Iterable[str] = _DOWNLOADS) -> None:
        """Empty the benchmark's cache, but for some kinds of entries."""
        for directory in self.cache.iterdir():
            if directory.is_dir() and directory.name not in keep:
                shutil.rmtree(directory)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Hand out an empty directory for one round."""
        with tempfile.TemporaryDirectory(dir=self.work) as directory:
            path = Path(directory)
            path.chmod(0o755)
            yield path


def warm(packages: PackageSet) -> None:
    """Bring the packages into the page cache."""
    for file in packages.view.glob("*.deb"):
        file.read_bytes()


@contextlib.contextmanager
def opened(
    image: str, paths: Sequence[Path], rounds: int, mirrors: Mirrors, *, offline: bool
) -> Iterator[Place]:
    """Make the place, and leave nothing of it behind."""
    parent = os.environ.get("TMPDIR") or DEFAULT_DIRECTORY
    work = Path(tempfile.mkdtemp(prefix="imagefactory-bench-", dir=parent))
    try:
        work.chmod(0o755)  # mmdebstrap reads packages as another user where it has no root
        cache = work / "cache/imagefactory"
        users = cache_directory()
        _seed(users, cache)
        try:
            path = SearchPath.default(paths)
            workbench = Workbench(path, Catalog(work / "catalog"), cache)
            yield Place(work, workbench, image, rounds, mirrors, offline)
        finally:
            _give_back(cache, users)
    finally:
        _remove(work)


def _seed(users: Path, cache: Path) -> None:
    """Take over packages by their names alone, and package lists as copies: those change."""
    (cache / "pool").mkdir(parents=True)
    for file in (users / "pool").glob("*.deb"):
        target = cache / "pool" / file.name
        try:
            target.hardlink_to(file)
        except OSError:  # another filesystem
            shutil.copy2(file, target)
    if (users / "apt").is_dir():
        # Lists of repositories of files are links, and the repository may be gone.
        skip = shutil.ignore_patterns("download")
        shutil.copytree(users / "apt", cache / "apt", symlinks=True, ignore=skip)


def _give_back(cache: Path, users: Path) -> None:
    pool = Store(users, "pool")
    for file in (cache / "pool").glob("*.deb"):
        if not pool.path(file.name).exists():
            pool.add(file.name, file)


def _show(plan: BuildPlan, sources: Sources, view: Path) -> None:
    view.mkdir()
    shown = {}
    for package in plan.image_packages:
        version = package.version.replace(":", "%3a")
        link = view / f"{package.name}_{version}_{package.architecture}.deb"
        link.symlink_to(sources.image.pool.take(package))
        shown[link] = package.sha256
    write_index(shown, view)


def _remove(work: Path) -> None:
    """Remove the directory; never through a mount that an interrupted program has left."""
    mounts = _mounts_below(work)
    for mounted in sorted(mounts, reverse=True):
        with contextlib.suppress(ImageFactoryError):
            run.run(["umount", "--lazy", "--", mounted])
    if not _mounts_below(work):
        shutil.rmtree(work, ignore_errors=True)


def _mounts_below(work: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    mounted = (line.split()[4].encode().decode("unicode_escape") for line in lines)
    return [path for path in mounted if path.startswith(f"{work}/")]
