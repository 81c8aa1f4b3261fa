"""What has to happen in a cloud so that it has an image as it should be: decided, not done.

Everything that is decided here is of values: what is wanted, what the cloud has, what time it
is. `--dry-run` shows the steps, `glance.upload` takes them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from imagefactory.glance.stored import (
    MARK_BUILT,
    MARK_DIGEST,
    MARK_PREFIX,
    MARK_SET,
    TIME_FORMAT,
    Stored,
)
from imagefactory.glance.target import Rotation


@dataclass(frozen=True)
class Wanted:
    """An image as it shall stand in a cloud.

    Attributes:
        name: Its name; that of every older build until now.
        dated: Makes the name of an older build of when it was built and of its digest.
        size: Bytes.
        fields: Core fields: disk_format, container_format, min_disk, min_ram.
        properties: Our marks among them.
        visibility: Who sees it.
        protected: Whether Glance shall refuse to delete it.
        has_hash: Whether the file's hash by an algorithm is this one.
    """

    name: str
    dated: Callable[[str, str], str]
    size: int
    fields: Mapping[str, object]
    properties: Mapping[str, str]
    visibility: str
    protected: bool
    has_hash: Callable[[str, str], bool]

    def has_bytes_of(self, stored: Stored) -> bool:
        """Whether a stored image's data is this image's, byte for byte."""
        return (
            stored.size == self.size
            and stored.fields["disk_format"] == self.fields["disk_format"]
            and self.has_hash(stored.hash_algorithm, stored.hash)
        )


@dataclass(frozen=True)
class Change:
    """One line of a JSON patch (RFC 6902) of an image's record."""

    path: str
    value: object
    was: object = None

    @property
    def operation(self) -> dict[str, Any]:
        """Return it as Glance takes it."""
        path = "/" + self.path.replace("~", "~0").replace("/", "~1")
        if self.value is None:
            return {"op": "remove", "path": path}
        return {"op": "add" if self.was is None else "replace", "path": path, "value": self.value}

    def __str__(self) -> str:
        if self.value is None:
            return f"without {self.path}"
        return f"{self.path}={self.value}"


@dataclass(frozen=True)
class Send:
    """The image is not there: its data is sent."""

    def __str__(self) -> str:
        return "send the image, verify it, then let it be seen"


@dataclass(frozen=True)
class Amend:
    """A record is brought in line; no data is sent."""

    image: Stored
    changes: tuple[Change, ...]
    why: str

    def __str__(self) -> str:
        return f"{self.why} {self.image.id}: {', '.join(map(str, self.changes))}"


@dataclass(frozen=True)
class Activate:
    """An image that was deactivated can be read by all again, or the other way round."""

    image: Stored
    active: bool

    def __str__(self) -> str:
        return f"{'reactivate' if self.active else 'deactivate'} {self.image}"


@dataclass(frozen=True)
class Copy:
    """The cloud copies an image to more of its stores."""

    image: Stored
    stores: tuple[str, ...]

    def __str__(self) -> str:
        return f"copy {self.image.id} to {', '.join(self.stores)}"


@dataclass(frozen=True)
class Remove:
    """An image goes."""

    image: Stored
    why: str

    def __str__(self) -> str:
        return f"delete {self.image}: {self.why}"


@dataclass(frozen=True)
class Leave:
    """An image stays as it is, though it would have gone."""

    image: Stored
    why: str

    def __str__(self) -> str:
        return f"leave {self.image}: {self.why}"


Step = Send | Amend | Activate | Copy | Remove | Leave


@dataclass(frozen=True)
class Reconciliation:
    """The steps, in the order in which they are safe for readers of the cloud.

    Attributes:
        current: The stored image that is, or becomes, the newest build; None: it is sent.
        before: Room is made: what killed runs have left.
        present: The newest build is brought in line and shown.
        after: Older builds give up the name, and go when their time has come.
    """

    current: Stored | None
    before: tuple[Step, ...] = ()
    present: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    newer: Stored | None = None
    """A build that readers have now and that is newer than the one that is wanted."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of them."""
        return (*self.before, *self.present, *self.after)

    @property
    def idle(self) -> bool:
        """Whether all is as it should be."""
        return all(isinstance(step, Leave) for step in self.steps)


def reconcile(
    wanted: Wanted,
    stored: Sequence[Stored],
    rotation: Rotation,
    now: datetime,
    host: str,
    stores: Sequence[str] = (),
) -> Reconciliation:
    """Decide what has to happen.

    Args:
        wanted: The image.
        stored: The images of one's own project that carry its marks.
        rotation: What becomes of older builds.
        now: The time.
        host: Who we are: nobody else on this host is sending (there is a lock), so what this
            host has begun is left over.
        stores: Those that shall have its data.
    """
    before = tuple(
        _of_leftover(image, now, host)
        for image in stored
        if image.unfinished or image.status == "killed"
    )
    whole = [image for image in stored if image.status in {"active", "deactivated"}]
    same = sorted(
        (image for image in whole if wanted.has_bytes_of(image)),
        key=lambda image: (image.name != wanted.name, image.created, image.id),
    )
    current, twins = (same[0], same[1:]) if same else (None, [])
    present = (Send(),) if current is None else tuple(_in_line(current, wanted, stores))
    others = sorted(
        (image for image in whole if image not in same),
        key=lambda image: (image.built, image.created),
        reverse=True,
    )
    after = (
        *itertools.chain.from_iterable(
            _gone(image, wanted, rotation, "the same bytes are there twice") for image in twins
        ),
        *_of_old(others, wanted, rotation, now),
    )
    built = wanted.properties.get(MARK_BUILT, "")
    newer = next((one for one in others if one.name == wanted.name and one.built > built), None)
    return Reconciliation(current, before, present, after, newer if built else None)


def changes(image: Stored, wanted: Wanted) -> tuple[Change, ...]:
    """Tell what a record has otherwise than it should."""
    target: dict[str, object] = {**wanted.properties, MARK_SET: names_set(wanted)}
    found: dict[str, object] = dict(image.properties)
    for name in ("min_disk", "min_ram"):
        target[name], found[name] = wanted.fields[name], image.fields[name]
    target |= {"name": wanted.name, "os_hidden": False, "protected": wanted.protected}
    found |= {"name": image.name, "os_hidden": image.hidden, "protected": image.protected}
    target["visibility"], found["visibility"] = wanted.visibility, image.visibility
    stale = sorted(name for name in image.ours if name in found and name not in target)
    return (
        *(Change(name, None, found[name]) for name in stale),
        *(
            Change(name, value, found.get(name))
            for name, value in sorted(target.items())
            if found.get(name) != value
        ),
    )


def names_set(wanted: Wanted) -> str:
    """Name the properties that we give an image, for `MARK_SET`."""
    return " ".join(sorted(n for n in wanted.properties if not n.startswith(MARK_PREFIX)))


def lease(host: str, now: datetime, seconds: float) -> str:
    """Say for `MARK_LEASE` who sends an image, and for how long at most."""
    until = (now + timedelta(seconds=seconds)).astimezone(UTC)
    return f"{host} {until.strftime(TIME_FORMAT)}"


def _in_line(image: Stored, wanted: Wanted, stores: Sequence[str]) -> Iterator[Step]:
    missing = tuple(store for store in stores if store not in image.stores)
    if missing:
        yield Copy(image, missing)
    if image.status == "deactivated":
        yield Activate(image, active=True)
    found = changes(image, wanted)
    if found:
        yield Amend(image, found, "bring in line")


def _of_leftover(image: Stored, now: datetime, host: str) -> Step:
    held = image.lease
    if held and held[0] != host and held[1] > now:
        return Leave(image, f"{held[0]} is sending it, until {held[1]:%Y-%m-%d %H:%M} UTC at most")
    if image.protected:
        return Leave(image, f"{image.status}, but protected")
    return Remove(image, f"{image.status}: a run that did not end has left it")


def _of_old(
    images: Sequence[Stored], wanted: Wanted, rotation: Rotation, now: datetime
) -> Iterator[Step]:
    """Decide what becomes of older builds, the newest first."""
    for number, image in enumerate(images):
        if _expired(image, number, rotation, now):
            yield from _gone(image, wanted, rotation, "its time is over")
        else:
            yield from _retired(image, wanted, rotation)


def _gone(image: Stored, wanted: Wanted, rotation: Rotation, why: str) -> Iterator[Step]:
    # It gives up the name in any case: it may be in use, and stay.
    yield from _retired(image, wanted, rotation)
    if image.protected and not _protected_by_us(image, wanted):
        yield Leave(image, f"{why}, but it is protected")
    else:
        yield Remove(image, why)


def _expired(image: Stored, number: int, rotation: Rotation, now: datetime) -> bool:
    if rotation.keep is None and rotation.keep_days is None:
        return False
    among_kept = rotation.keep is not None and number < rotation.keep
    young = False
    if rotation.keep_days is not None:
        built = datetime.strptime(image.built, TIME_FORMAT).replace(tzinfo=UTC)
        young = now - built < timedelta(days=rotation.keep_days)
    return not (among_kept or young)


def _retired(image: Stored, wanted: Wanted, rotation: Rotation) -> Iterator[Step]:
    changed = []
    if image.name == wanted.name:
        digest = image.properties.get(MARK_DIGEST, "")
        changed.append(Change("name", wanted.dated(image.built, digest), image.name))
        if _protected_by_us(image, wanted):
            changed.append(Change("protected", False, True))
    if rotation.old == "hide" and not image.hidden:
        changed.append(Change("os_hidden", True, False))
    if changed:
        yield Amend(image, tuple(changed), "retire")
    if rotation.old == "deactivate" and image.status == "active":
        yield Activate(image, active=False)


def _protected_by_us(image: Stored, wanted: Wanted) -> bool:
    """Whether its protection is the newest build's, which moves on with the name."""
    return image.protected and wanted.protected and image.name == wanted.name
