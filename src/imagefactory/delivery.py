"""Builds go to clouds: to several at once, to each of them one after the other."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from imagefactory import run
from imagefactory.cache import Store, in_use
from imagefactory.catalog import Build
from imagefactory.errors import CloudError, CommandError, ImageFactoryError, of_system
from imagefactory.glance.newimage import NewImage, words_of
from imagefactory.glance.target import CloudTarget, Visibility, fill_name
from imagefactory.glance.transport import Progress, Transport
from imagefactory.glance.upload import Manner, Uploaded, upload
from imagefactory.schedule import side_by_side

_CONVERSION = 3600.0
"""Seconds for the largest disk."""

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
        dry_run: Only look, and say what would be done.
    """

    cache: Path
    transfers: Transfers
    announce: Callable[[str], None] = lambda text: None
    allow_untested: bool = False
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
        target = delivery.target
        image = NewImage.of_build(delivery.build, target, delivery.visibility)
        image = replace(image, disk=self._in_format(delivery.build, target.format))
        return upload(
            image,
            cloud=target.cloud or delivery.cloud,
            manner=Manner(
                rotation=target.rotation,
                transport=_transport(target, delivery.build, image.disk),
                region=target.region,
                budget=target.budget,
                progress=progress,
                announce=lambda text: self.announce(f"{delivery.subject}: {text}"),
                stopping=stopping,
                approve=_hooks(target.after_upload, image),
                allow_untested=self.allow_untested,
                dry_run=self.dry_run,
            ),
        )

    def _in_format(self, build: Build, wanted: str) -> Path:
        """Return the build's disk in a format; made once, and kept in the cache with its holes."""
        kept = build.manifest["disk"]
        if kept["format"] == wanted:
            return build.disk
        command: list[str | Path] = ["qemu-img", "convert", "-f", str(kept["format"]), "-O", wanted]

        def convert(target: Path) -> None:
            run.run([*command, build.disk, target], timeout=_CONVERSION)

        return Store(self.cache, "formats").obtain(f"{kept['sha256']}.{wanted}", convert)


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
            except (CommandError, LookupError, ValueError) as error:
                told = error.message if isinstance(error, ImageFactoryError) else str(error)
                raise CloudError(
                    f"after_upload: {told}",
                    hint="the command of factory.yaml does not approve the image, so it was "
                    "removed",
                ) from None

    return approve
