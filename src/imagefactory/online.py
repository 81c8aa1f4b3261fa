"""What templates want from the network, asked for: repositories, their keys, names of packages.

Nothing is built. Of each repository of RPM packages one small package is fetched besides the lists,
since it is packages that are signed there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from imagefactory import template
from imagefactory.arch import ArchProfile
from imagefactory.errors import ImageFactoryError, PackageError
from imagefactory.packages.dnf import Dnf
from imagefactory.packages.mirrors import NONE, Mirrors
from imagefactory.packages.pool import Lists
from imagefactory.sources import Sources
from imagefactory.workbench import Workbench

_AT_ONCE = 4
"""Templates that are asked for side by side; most of the time goes into waiting for mirrors."""


@dataclass(frozen=True)
class Source:
    """One repository.

    Attributes:
        name: Its id, or its suite.
        address: Where it was looked for.
        architecture: Whose packages were asked for, by the repository's name of it.
        wrong: Why it cannot be used; empty: it can.
    """

    name: str
    address: str
    architecture: str
    wrong: str = ""

    @property
    def well(self) -> bool:
        """Whether packages can be had from it."""
        return not self.wrong


@dataclass(frozen=True)
class Finding:
    """What was found of one template and architecture.

    Attributes:
        image: The template.
        architecture: Nova's name of it.
        packages: How many the image would have; 0 if that could not be found out.
        sources: Its repositories, those of its tools last.
        wrong: What is wrong besides: names that resolve to nothing, signatures.
        warnings: What a build would warn of, repositories that were left out among it.
        exit_code: Of the error that a build would end with.
    """

    image: str
    architecture: str
    packages: int
    sources: tuple[Source, ...]
    wrong: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    exit_code: int = 0

    @property
    def well(self) -> bool:
        """Whether a build would get all that it needs."""
        return not self.wrong and all(source.well for source in self.sources)


@dataclass
class Prober:
    """Asks, and asks nobody twice.

    Args:
        bench: Where templates and caches are.
        mirrors: What is asked in the place of the templates' mirrors.
    """

    bench: Workbench
    mirrors: Mirrors = NONE
    _known: dict[str, str] = field(default_factory=dict)
    _asking: threading.Lock = field(default_factory=threading.Lock)

    def findings(self, orders: Iterable[tuple[str, ArchProfile]]) -> list[Finding]:
        """Ask for each template and architecture, in their order."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda order: self.finding(*order), orders))

    def finding(self, image: str, profile: ArchProfile) -> Finding:
        """Ask for one: all together as a build would; one by one where that fails."""
        item, file = template.load(self.bench.path, image)
        try:
            sources = Sources.of(item, file, profile, self.bench.cache, self.mirrors)
        except ImageFactoryError as error:
            return Finding(image, profile.name, 0, (), (error.message,), exit_code=error.exit_code)
        parts = sources.apart
        try:
            plan, sources = self.bench.plan(image, profile, self.mirrors)
            lists = sources.image
            wrong = lists.probe(plan.image_packages) if isinstance(lists, Dnf) else ()
            return Finding(
                image,
                profile.name,
                len(plan.image_packages),
                tuple(map(_as_it_should_be, parts)),
                wrong,
                plan.warnings,
                PackageError.exit_code if wrong else 0,
            )
        except ImageFactoryError as error:
            asked = tuple(map(self._ask, parts))
            # What a repository lacks is told there; the message is about all of them.
            told = () if any(not source.well for source in asked) else (error.message,)
            return Finding(image, profile.name, 0, asked, told, exit_code=error.exit_code)

    def _ask(self, lists: Lists) -> Source:
        found = _as_it_should_be(lists)
        with self._asking:
            if lists.identity not in self._known:
                self._known[lists.identity] = _refreshed(lists)
        return Source(found.name, found.address, found.architecture, self._known[lists.identity])


def _refreshed(lists: Lists) -> str:
    try:
        lists.refresh()
    except ImageFactoryError as error:
        return error.message
    return ""


def _as_it_should_be(lists: Lists) -> Source:
    (name,), (address,) = lists.names, lists.addresses
    return Source(name, address, lists.architecture)
