"""What a command line names - architectures, images, builds - found on this host."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagefactory import template
from imagefactory.arch import ArchProfile, ArchProfiles
from imagefactory.catalog import Build, Catalog
from imagefactory.data import SearchPath
from imagefactory.errors import ConfigError, UnknownNameError
from imagefactory.glance.target import Visibility
from imagefactory.packages.mirrors import NONE, Mirrors
from imagefactory.plan import BuildPlan, check_exists, make_plan
from imagefactory.sources import Sources


@dataclass(frozen=True)
class Workbench:
    """The places every command works with, and what is found there."""

    path: SearchPath
    catalog: Catalog
    cache: Path

    @functools.cached_property
    def profiles(self) -> ArchProfiles:
        """All arch profiles."""
        return ArchProfiles.load(self.path)

    def chosen(self, names: Sequence[str]) -> tuple[ArchProfile, ...]:
        """The profiles that ``--arch`` names; all when it was not given."""
        return self.profiles.select(tuple(names) or ("all",))

    def profiles_of(self, image: str, architectures: Sequence[str]) -> tuple[ArchProfile, ...]:
        """The profiles asked for; without any, or with all, those the image exists for."""
        item, _ = template.load(self.path, image)
        chosen = self.chosen(architectures)
        if _named(architectures):
            return chosen
        return tuple(profile for profile in chosen if item.exists_for(profile.name))

    def orders(
        self, images: Sequence[str], architectures: Sequence[str]
    ) -> tuple[tuple[str, ArchProfile], ...]:
        """Each image with each architecture asked for, once.

        Raises:
            UnknownNameError: No image or architecture has that name.
            ConfigError: An image does not exist for an architecture that was named.
            YamlMistakesError: A template has mistakes.
        """
        wanted = {}
        for image in images:
            item, _ = template.load(self.path, image)
            for profile in self.profiles_of(image, architectures):
                check_exists(item, profile)
                wanted[image, profile.name] = profile
        return tuple((image, profile) for (image, _), profile in wanted.items())

    def plan(
        self,
        image: str,
        profile: ArchProfile,
        mirrors: Mirrors = NONE,
        *,
        offline: bool = False,
    ) -> tuple[BuildPlan, Sources]:
        """Resolve an image for an architecture.

        Raises:
            ImageFactoryError: See `make_plan`.
        """
        item, file = template.load(self.path, image)
        sources = Sources.of(item, file, profile, self.cache, mirrors, offline=offline)
        return make_plan(item, file, profile, sources), sources

    def is_described(self, image: str) -> bool:
        """Whether a template describes an image; one that was adopted is in the catalog alone."""
        return image in self.path.yaml_files("templates")

    def visibility_of(self, image: str) -> Visibility:
        """Who shall see an image in a cloud: as its template says."""
        if not self.is_described(image):
            return "private"
        return template.load(self.path, image)[0].visibility

    @property
    def images(self) -> tuple[str, ...]:
        """All images: those that templates describe, and those that only the catalog has."""
        return tuple(sorted({*self.path.yaml_files("templates"), *self.catalog.images()}))

    def builds(self, image: str, architectures: Sequence[str]) -> list[Build]:
        """The newest build of each architecture asked for.

        Raises:
            ConfigError: One of those that were named was never built, or none was.
            UnknownNameError: No image has that name.
        """
        if image not in self.images:
            raise UnknownNameError("image", image, self.images)
        adopted = not self.is_described(image)
        builds = []
        for profile in (
            self.chosen(architectures) if adopted else self.profiles_of(image, architectures)
        ):
            build = self.catalog.latest(image, profile.name)
            if build:
                builds.append(build)
            elif _named(architectures):
                raise ConfigError(
                    f"{image} was never built for {profile.name}",
                    hint=f"imagefactory build {image} --arch {profile.name}",
                )
        if not builds:
            raise ConfigError(
                f"there is no build of {image} in {self.catalog.directory}",
                hint=f"imagefactory build {image} --arch ARCH",
            )
        return builds


def _named(architectures: Sequence[str]) -> bool:
    """Whether architectures were asked for one by one."""
    return bool(architectures) and "all" not in {name.lower() for name in architectures}
