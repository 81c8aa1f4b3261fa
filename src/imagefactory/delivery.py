"""Builds go to clouds: to several at once, to each of them one after the other."""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from imagefactory import run
from imagefactory.cache import Store, in_use
from imagefactory.catalog import Build
from imagefactory.errors import CloudError, CommandError, ConfigError, ImageFactoryError, of_system
from imagefactory.glance.inspect import UnsafeDiskError
from imagefactory.glance.newimage import NewImage, Part, words_of
from imagefactory.glance.target import CloudTarget, Visibility, fill_name
from imagefactory.glance.transport import Progress, Transport
from imagefactory.glance.upload import Manner, Uploaded, upload
from imagefactory.schedule import side_by_side

_CONVERSION = 3600.0
"""Seconds for the largest disk."""

_AS_FILES = {"ami": "raw"}
"""Glance's name of a format -> that of what its file holds, where they are not one."""

_NOT_YET = str(uuid.UUID(int=0))
"""The id of an image that is only planned."""

Transfers = Callable[[str], AbstractContextManager[Progress]]
"""Shows how far a sending is, under a name."""


@dataclass(frozen=True)
class Delivery:
    """One build and one cloud.

    Attributes:
        build: Of the catalog.
        cloud: What people call the cloud.
        target: Which it is, and how it wants the image.
        visibility: Who sees the image, unless the target says it.
    """

    build: Build
    cloud: str
    target: CloudTarget
    visibility: Visibility

    @property
    def subject(self) -> str:
        """What people call it."""
        return f"{self.build.image} {self.build.architecture} to {self.cloud}"


@dataclass(frozen=True)
class Delivered:
    """What became of a delivery."""

    delivery: Delivery
    uploaded: Uploaded | None = None
    error: ImageFactoryError | None = None


@dataclass(frozen=True)
class Courier:
    """How deliveries are made.

    Attributes:
        cache: Where disks in another format are kept.
        transfers: Shows how far each is.
        announce: Told what goes wrong and is tried again.
        allow_untested: Take builds that no boot test passed.
        allow_older: Let them take the place of newer ones.
        dry_run: Only look, and say what would be done.
    """

    cache: Path
    transfers: Transfers
    announce: Callable[[str], None] = lambda text: None
    allow_untested: bool = False
    allow_older: bool = False
    dry_run: bool = False

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Delivered]:
        """Make all deliveries; one that fails does not stop the others."""
        stopping = threading.Event()
        lanes: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            lanes.setdefault(delivery.cloud, []).append(delivery)

        def lane(of_one_cloud: Sequence[Delivery]) -> list[Delivered]:
            return [self._deliver(one, stopping) for one in of_one_cloud]

        works = [functools.partial(lane, of_one) for of_one in lanes.values()]
        with in_use(self.cache):
            done = side_by_side(works, stopping.set)
        made = [one for outcome in done if isinstance(outcome, list) for one in outcome]
        order = {id(delivery): number for number, delivery in enumerate(deliveries)}
        return sorted(made, key=lambda one: order[id(one.delivery)])

    def _deliver(self, delivery: Delivery, stopping: threading.Event) -> Delivered:
        try:
            with self.transfers(delivery.subject) as progress:
                done = self._upload(delivery, progress, stopping)
        except ImageFactoryError as error:
            return Delivered(delivery, error=error)
        except OSError as error:
            return Delivered(delivery, error=of_system(error))
        return Delivered(delivery, done)

    def _upload(
        self, delivery: Delivery, progress: Progress, stopping: threading.Event
    ) -> Uploaded:
        build, target = delivery.build, delivery.target
        if target.format == "ami" and not build.kernel:
            raise ConfigError(
                f"{delivery.subject}: `format: ami` is for images with a kernel of their own",
                hint="build it with `shape: partition`, or choose qcow2 or raw",
            )
        if changed := build.changed_files():
            raise UnsafeDiskError(
                f"{', '.join(changed)} in {build.directory} is not what was built: it is gone, or "
                "has other bytes than the manifest says",
                hint="build the image again",
            )
        disk = self._in_format(build, target.format)

        def bring(image: NewImage, **differing: Any) -> Uploaded:
            manner = Manner(
                rotation=target.rotation,
                transport=_transport(target, build, image.disk),
                region=target.region,
                budget=target.budget,
                progress=progress,
                announce=lambda text: self.announce(f"{delivery.subject}: {text}"),
                stopping=stopping,
                allow_untested=self.allow_untested,
                allow_older=self.allow_older,
                dry_run=self.dry_run,
            )
            manner = replace(manner, **differing)
            return upload(image, cloud=target.cloud or delivery.cloud, manner=manner)

        def whole(started_with: Mapping[str, str]) -> NewImage:
            return NewImage.of_build(build, target, delivery.visibility, disk, started_with)

        parts = {f"{part}_id": whole({}).part(part, file) for part, file in _parts(build).items()}
        # The old kernel goes after the image that is started with it, the new one comes before.
        first = {key: bring(image, retire=False) for key, image in parts.items()}
        image = whole({key: done.id or _NOT_YET for key, done in first.items()})
        main = bring(image, approve=_hooks(target.after_upload, image))
        last = {} if self.dry_run else {key: bring(image) for key, image in parts.items()}
        return _together(main, [*first.values()], [*last.values()])

    def _in_format(self, build: Build, wanted: str) -> Path:
        """Return the build's disk in a format; made once, and kept in the cache with its holes."""
        kept = build.manifest["disk"]
        wanted = _AS_FILES.get(wanted, wanted)
        if kept["format"] == wanted:
            return build.disk
        command: list[str | Path] = ["qemu-img", "convert", "-f", str(kept["format"]), "-O", wanted]

        def convert(target: Path) -> None:
            run.run([*command, build.disk, target], timeout=_CONVERSION)

        return Store(self.cache, "formats").obtain(f"{kept['sha256']}.{wanted}", convert)


def _parts(build: Build) -> dict[Part, Path]:
    known: dict[Part, Path | None] = {"kernel": build.kernel, "ramdisk": build.ramdisk}
    return {part: file for part, file in known.items() if file}


def _together(main: Uploaded, before: Sequence[Uploaded], after: Sequence[Uploaded]) -> Uploaded:
    """Tell of an image and of what it is started with as of one upload."""
    every = [*before, main, *after]
    return replace(
        main,
        size=sum(one.size for one in (*before, main)),
        seconds=sum(one.seconds for one in every),
        sent=any(one.sent for one in every),
        steps=tuple(_named(one, step, main) for one in every for step in one.steps),
        left=tuple(_named(one, text, main) for one in every for text in one.left),
    )


def _named(one: Uploaded, text: str, main: Uploaded) -> str:
    return text if one.name == main.name else f"{one.name}: {text}"


def _transport(target: CloudTarget, build: Build, disk: Path) -> Transport:
    words = {**words_of(build), "file": disk.name}
    return Transport(
        target.method,
        () if target.stores == "all" else target.stores,
        target.stores == "all",
        fill_name(target.url, words) if target.url else "",
    )


def _hooks(commands: Sequence[Sequence[str]], image: NewImage) -> Callable[[str, str], None]:
    """Return what runs an operator's commands on an image that is verified and not yet seen."""

    def approve(image_id: str, cloud: str) -> None:
        words = {"id": image_id, "name": image.name, "cloud": cloud}
        env = {f"IMAGEFACTORY_{key.upper()}": value for key, value in words.items()}
        for command in commands:
            try:
                run.run([word.format_map(words) for word in command], env=env, timeout=_CONVERSION)
            except CommandError as error:
                raise CloudError(
                    f"after_upload: {error.message}",
                    hint="the command of factory.yaml does not approve the image, so it was "
                    "removed",
                ) from None

    return approve
