"""Images as they shall stand in a cloud: a file, and what its record shall say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from imagefactory import scs
from imagefactory.catalog import Build
from imagefactory.errors import PropertyError
from imagefactory.glance.inspect import inspect
from imagefactory.glance.reconcile import Wanted
from imagefactory.glance.stored import (
    MARK_ARCH,
    MARK_BUILT,
    MARK_DIGEST,
    MARK_IMAGE,
    MARK_LINE,
    MARK_PART,
    MARK_PREFIX,
    MARK_TESTED,
    TIME_FORMAT,
)
from imagefactory.glance.target import CloudTarget, Visibility, fill_name
from imagefactory.glance.transport import hash_of
from imagefactory.properties import validate

Part = Literal["kernel", "ramdisk"]

_PARTS: Mapping[Part, str] = {"kernel": "aki", "ramdisk": "ari"}
"""Glance's names of their formats, as Ironic's documentation and nova's AMIs have them."""

_CONTAINERS = {"ami": "ami"}
"""Disk format -> container format, where that is not ``bare``."""

_PER_BUILD = {"date": "{date}", "digest": "{digest}"}


@dataclass(frozen=True)
class NewImage:
    """An image as it shall stand in the cloud.

    Args:
        disk: The file.
        name: The image's name.
        properties: The set that ``properties.derive`` returns, min_disk and min_ram included.
        marker: Our own properties, ``imagefactory_*``; image, architecture and digest must be
            among them.
        tested: The boot test has passed.
        visibility: Who sees the image once it is verified.
        disk_format: Glance's name of the file's format.
        container_format: Glance's name of what is around it.
        dated_name: The name of older builds, with ``{date}`` and ``{digest}`` of each.
        protected: Whether Glance shall refuse to delete it.
        members: Projects that a shared image is offered to.
    """

    disk: Path
    name: str
    properties: Mapping[str, str]
    marker: Mapping[str, str]
    tested: bool
    visibility: Visibility = "private"
    disk_format: str = "qcow2"
    container_format: str = "bare"
    dated_name: str = "{digest}"
    protected: bool = False
    members: tuple[str, ...] = ()

    @classmethod
    def of_build(
        cls,
        build: Build,
        target: CloudTarget,
        visibility: Visibility,
        disk: Path | None = None,
        started_with: Mapping[str, str] | None = None,
    ) -> NewImage:
        """Describe a build of the catalog as an image for a cloud.

        Args:
            build: The build.
            target: The cloud.
            visibility: Who sees the image, unless the target says it.
            disk: The build's disk in the format that the target wants; unset: as it is.
            started_with: ``kernel_id`` and ``ramdisk_id`` of a partition image.
        """
        words = words_of(build)
        overriding = {"min_disk": target.min_disk, "min_ram": target.min_ram}
        numbers = {key: str(value) for key, value in overriding.items() if value is not None}
        return cls(
            disk=disk or build.disk,
            name=fill_name(target.name, words),
            dated_name=fill_name(target.dated_name, {**words, **_PER_BUILD}),
            properties={
                **descriptive(build, words["date"], target.url),
                **build.properties,
                **(started_with or {}),
                **target.properties,
                **numbers,
            },
            marker={
                MARK_IMAGE: build.image,
                MARK_ARCH: build.architecture,
                MARK_DIGEST: build.digest,
                MARK_BUILT: words["date"],
                **({MARK_LINE: target.line} if target.line else {}),
            },
            tested=build.verdict == "passed",
            visibility=target.visibility or visibility,
            disk_format=target.format,
            container_format=_CONTAINERS.get(target.format, "bare"),
            protected=target.protected,
            members=target.members,
        )

    def part(self, part: Part, file: Path) -> NewImage:
        """Describe the kernel or the ramdisk of this image as an image of its own."""
        disk_format = _PARTS[part]
        kept = ("architecture", "os_distro", "os_version", "os_type")
        return replace(
            self,
            disk=file,
            name=f"{self.name}-{part}",
            dated_name=f"{self.dated_name}-{part}",
            properties={name: self.properties[name] for name in kept if name in self.properties},
            marker={**self.marker, MARK_PART: part},
            disk_format=disk_format,
            container_format=disk_format,
        )

    @property
    def all_properties(self) -> dict[str, str]:
        """The properties with our marker among them."""
        tested = "yes" if self.tested else "no"
        return {**self.properties, **self.marker, MARK_TESTED: tested}

    def dated(self, built: str, digest: str) -> str:
        """Return the name of a build that is not the newest."""
        return fill_name(self.dated_name, {"date": built, "digest": digest[:12]})

    @property
    def wanted(self) -> Wanted:
        """What the cloud shall have; the file is read once for each of Glance's algorithms."""
        plain = self.all_properties
        numbers = ("min_disk", "min_ram")
        return Wanted(
            name=self.name,
            dated=self.dated,
            size=self.disk.stat().st_size,
            fields={
                "disk_format": self.disk_format,
                "container_format": self.container_format,
                **{name: int(plain.get(name, "0")) for name in numbers},
            },
            properties={name: value for name, value in plain.items() if name not in numbers},
            visibility=self.visibility,
            protected=self.protected,
            has_hash=lambda algorithm, value: (
                bool(value) and value == hash_of(self.disk, algorithm)
            ),
        )


def descriptive(build: Build, date: str, url: str | None) -> dict[str, str]:
    """Return what scs-0102 wants users to be told, as far as a build knows it."""
    template = build.manifest.get("record", {}).get("template", {})
    return scs.told(
        datetime.strptime(date, TIME_FORMAT),
        str(template.get("description") or build.image),
        build.properties.get("os_admin_user", "none"),
        url if url and "{" not in url else "private",
    )


def words_of(build: Build) -> dict[str, str]:
    """Return what may stand in braces in names and addresses."""
    built = datetime.fromisoformat(str(build.manifest["built"])).astimezone(UTC)
    return {
        "image": build.image,
        "arch": build.architecture,
        "distro": build.properties.get("os_distro", ""),
        "version": build.properties.get("os_version", ""),
        "date": built.strftime(TIME_FORMAT),
        "digest": build.digest[:12],
    }


def check(image: NewImage) -> list[str]:
    """Refuse what nova or Glance would refuse, before anything is sent.

    Returns:
        What nova will not like.

    Raises:
        PropertyError: The properties are wrong.
        UnsafeDiskError: The file is not what it is declared to be, or not safe.
    """
    strangers = [name for name in image.marker if not name.startswith(MARK_PREFIX)]
    missing = [name for name in (MARK_IMAGE, MARK_ARCH, MARK_DIGEST) if not image.marker.get(name)]
    if strangers or missing:
        raise PropertyError(
            f"the marker of {image.name} must hold {MARK_IMAGE}, {MARK_ARCH}, {MARK_DIGEST} and "
            f"names that begin with {MARK_PREFIX} only; it holds "
            f"{', '.join(image.marker) or 'nothing'}"
        )
    warnings = validate(image.all_properties)
    virtual_size = inspect(image.disk, image.disk_format)
    promised = int(image.properties.get("min_disk", "0"))
    if promised and virtual_size > promised << 30:
        raise PropertyError(
            f"min_disk={promised}: the disk of {image.name} is {virtual_size} bytes, more than "
            f"{promised} GiB",
            hint=f"set min_disk={-(-virtual_size // (1 << 30))}",
        )
    return warnings
