"""The package lists that a plan is resolved from: the image's, and those of the build's tools."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from imagefactory import run
from imagefactory.arch import ArchProfile
from imagefactory.errors import PackageError
from imagefactory.packages import local, local_rpm
from imagefactory.packages.apt import Apt
from imagefactory.packages.dnf import Dnf
from imagefactory.packages.mirrors import NONE, Mirrors
from imagefactory.packages.pool import Lists, Package
from imagefactory.rpmtree import RpmRepository, RpmTree
from imagefactory.template import DebianTree, ImageTemplate, Repository, beside


@dataclass(frozen=True)
class Sources:
    """The package lists a plan is resolved from."""

    image: Apt | Dnf
    disk_tools: Apt
    boot_tools: Apt

    @classmethod
    def of(
        cls,
        template: ImageTemplate,
        template_file: Path,
        profile: ArchProfile,
        cache_directory: Path,
        mirrors: Mirrors = NONE,
        *,
        offline: bool = False,
    ) -> Sources:
        """Name the package lists of an image; nothing is fetched yet.

        Args:
            template: The image.
            template_file: Beside it lie the image's own packages, if it has any.
            profile: The architecture.
            cache_directory: The directory of all caches.
            mirrors: What is asked in the place of the template's mirrors.
            offline: Only what was fetched before is taken.

        Raises:
            ConfigError: The directory of the image's own packages holds none.
        """
        host = host_deb_architecture()
        own: tuple[Repository, ...] = ()
        if isinstance(template.recipe, DebianTree) and template.recipe.local_packages:
            directory = beside(template_file, template.recipe.local_packages)
            own = (local.repository_of(directory, cache_directory),)
        repositories, _ = mirrors.of(template, profile.names.deb)
        of_the_host, tool_repositories = mirrors.of(template, host)
        tools = Apt(tool_repositories, host, cache_directory, offline=offline)
        if isinstance(template.recipe, RpmTree):
            recipe = template.recipe
            every = recipe.all_repositories
            here: tuple[RpmRepository, ...] = ()
            if recipe.local_packages:
                directory = beside(template_file, recipe.local_packages)
                here = (local_rpm.repository_of(directory, cache_directory),)
            image = Dnf(
                (*mirrors.of_rpm(every, profile.names.rpm), *here),
                {key: beside(template_file, key.file) for one in every for key in one.keys},
                profile.names.rpm,
                template.distribution.release,
                cache_directory,
                platform=recipe.platform,
                offline=offline,
            )
            return cls(image, tools, tools)
        return cls(
            Apt((*repositories, *own), profile.names.deb, cache_directory, offline=offline),
            tools,
            Apt((*of_the_host, *own), host, cache_directory, offline=offline),
        )

    @property
    def debian(self) -> Apt:
        """The image's lists, of an image of Debian packages.

        Raises:
            PackageError: It is none.
        """
        if not isinstance(self.image, Apt):
            raise PackageError("the image is not made of Debian packages")
        return self.image

    @property
    def rpm(self) -> Dnf:
        """The image's lists, of an image of RPM packages.

        Raises:
            PackageError: It is none.
        """
        if not isinstance(self.image, Dnf):
            raise PackageError("the image is not made of RPM packages")
        return self.image

    def refresh(self) -> None:
        """Bring all package lists up to date, side by side.

        Raises:
            PackageError: A repository cannot be reached, or its signature is wrong.
        """
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda lists: lists.refresh(), self._all))

    @property
    def left_out(self) -> tuple[str, ...]:
        """What could not be read and is not required."""
        return tuple(dict.fromkeys(line for apt in self._all for line in apt.left_out))

    @property
    def mirrors(self) -> tuple[str, ...]:
        """Where packages come from, each address once."""
        return tuple(dict.fromkeys(address for lists in self._all for address in lists.addresses))

    @property
    def apart(self) -> tuple[Lists, ...]:
        """Each repository by itself, once: the image's, then its tools'."""
        lists: list[Apt | Dnf] = [self.image, self.disk_tools, self.boot_tools]
        parts: list[Lists] = [part for one in lists for part in one.apart]
        return tuple({part.identity: part for part in parts}.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is not as it should be: suites left out, lists that may be out of date."""
        unsigned = (
            f"{address} is not signed: its packages are taken as they are"
            for address in self.image.unsigned
            if not address.startswith("file:")
        )
        warnings = (*self.left_out, *unsigned)
        if not self.image.offline:
            return warnings
        age = max(apt.age or 0.0 for apt in self._all)
        return (*warnings, f"offline: the package lists are {_in_words(age)} old")

    @property
    def _all(self) -> tuple[Lists, ...]:
        every: tuple[Lists, ...] = (self.image, self.disk_tools, self.boot_tools)
        return tuple(dict.fromkeys(every))

    def missing(
        self,
        image: Iterable[Package],
        disk_tools: Iterable[Package],
        boot_tools: Iterable[Package],
    ) -> tuple[Package, ...]:
        """Return what of a plan the pool lacks."""
        return (
            *self.image.pool.missing(image),
            *self.disk_tools.pool.missing(disk_tools),
            *self.boot_tools.pool.missing(boot_tools),
        )

    def fetch(
        self,
        image: Iterable[Package],
        disk_tools: Iterable[Package],
        boot_tools: Iterable[Package],
    ) -> None:
        """Download whatever a plan names and the pool lacks.

        Raises:
            PackageError: A download failed or did not match its checksum.
        """
        self.image.fetch(image)
        self.disk_tools.fetch(disk_tools)
        self.boot_tools.fetch(boot_tools)


@cache
def host_deb_architecture() -> str:
    """Return what Debian calls this host's architecture."""
    return run.run(["dpkg", "--print-architecture"]).stdout.strip()


def _in_words(seconds: float) -> str:
    """Tell an age as people do."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "less than a minute"
