"""What both standards' documents tell of an image, in neither's words."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from packageurl import PackageURL

from imagefactory.packages.installed import Installed
from imagefactory.packages.pool import Package

TOOL = "imagefactory"

_ADDRESS = re.compile(r"(.*?)\s*<([A-Za-z0-9._+-]+@[A-Za-z0-9.-]+)>")
"""Debian policy 5.6.2: a name and, in angle brackets, an address."""


@dataclass(frozen=True)
class Supplier:
    """Who gave a package away; empty what is not known."""

    name: str
    email: str = ""


@dataclass(frozen=True)
class Item:
    """A package that is in an image.

    Attributes:
        purl: Its package URL, which no other item has.
        checksum: Of the package's file, see `Package.checksum`; None: the file is not known.
    """

    package: Installed
    purl: PackageURL
    checksum: tuple[str, str] | None

    @property
    def supplier(self) -> Supplier | None:
        """Its vendor or maintainer."""
        told = self.package.supplier
        found = _ADDRESS.fullmatch(told)
        if found and found[1]:
            return Supplier(found[1], found[2])
        return Supplier(told) if told else None


@dataclass(frozen=True)
class Image:
    """An image.

    Attributes:
        distribution: Its short id, the image property os_distro.
        version: The distribution's.
        file: The name of the disk's file.
        sha256: Of that file.
        epoch: When it was made, seconds since 1970.
        identity: Of what its documents tell: with other contents it is another.
    """

    name: str
    distribution: str
    version: str
    architecture: str
    file: str
    sha256: str
    epoch: int
    identity: uuid.UUID
    items: tuple[Item, ...]

    @cached_property
    def moment(self) -> datetime:
        """The epoch as a time."""
        return datetime.fromtimestamp(self.epoch, UTC)


def items(
    packages: Iterable[Installed], known: Iterable[Package], distribution: str, version: str
) -> tuple[Item, ...]:
    """Tell of each installed package what it is called in the world.

    Args:
        packages: What is installed.
        known: Packages whose files' checksums are known.
        distribution: Its short id.
        version: Its version.
    """
    checksums = {(one.name, one.version, one.architecture): one.checksum for one in known}
    found: dict[str, Item] = {}
    for package in packages:
        purl = _purl(package, distribution, version)
        checksum = checksums.get((package.name, package.full_version, package.architecture))
        found.setdefault(purl.to_string(), Item(package, purl, checksum))
    return tuple(found[key] for key in sorted(found))


def _purl(package: Installed, distribution: str, version: str) -> PackageURL:
    """Make a package's URL, as the specification of its type says.

    `upstream`, the source package, is in no specification; scanners look for it, because
    distributions' advisories speak of source packages.
    """
    qualifiers = {
        "arch": package.architecture,
        "distro": f"{distribution}-{version}",
        "epoch": package.epoch,
        "upstream": _upstream(package),
    }
    given = {key: value for key, value in qualifiers.items() if value}
    # PackageURL leaves a slash as it is; no package manager takes a name that has one.
    plain = package.name.replace("/", "_")
    name = plain.lower() if package.kind == "deb" else plain
    return PackageURL(package.kind, distribution.lower(), name, package.version, given)


def _upstream(package: Installed) -> str:
    if package.kind == "rpm":
        known = package.source and package.source_version
        return f"{package.source}-{package.source_version}.src.rpm" if known else ""
    if package.source_version != package.version:
        return f"{package.source}@{package.source_version}"
    return package.source if package.source != package.name else ""
