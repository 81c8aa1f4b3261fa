"""Bring one image into a cloud: private until Glance's own hash of it is ours, and never half.

What a reader of the cloud sees is either the older build or the whole, verified new one.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from pathlib import Path

from filelock import FileLock
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from imagefactory.data import cache_directory
from imagefactory.errors import CloudError
from imagefactory.glance.client import Glance
from imagefactory.glance.failures import RefusedError, WrongStateError
from imagefactory.glance.login import connect
from imagefactory.glance.newimage import NewImage, check
from imagefactory.glance.reconcile import (
    Activate,
    Amend,
    Copy,
    Leave,
    Reconciliation,
    Remove,
    Step,
    Wanted,
    lease,
    names_set,
    reconcile,
)
from imagefactory.glance.stored import (
    MARK_ARCH,
    MARK_BUILT,
    MARK_DIGEST,
    MARK_IMAGE,
    MARK_LEASE,
    MARK_LINE,
    MARK_PART,
    MARK_SET,
    MARK_TESTED,
    Stored,
)
from imagefactory.glance.target import Rotation
from imagefactory.glance.transport import HASH, Progress, Transfer, Transport, Waiting, hash_of

SILENCE = 600.0
"""Seconds that a cloud may take to answer; one that hashes a large image into Ceph needs many."""


class OlderBuildError(CloudError):
    """The cloud has a newer build than the one that was to be uploaded."""


class UntestedImageError(CloudError):
    """An image was to be uploaded that no boot test has passed."""


@dataclass(frozen=True)
class Uploaded:
    """An image that stands in the cloud, verified.

    Args:
        id: Glance's id of it; empty if it was only planned.
        name: Its name.
        size: The bytes of the file.
        os_hash_value: Glance's hash of it, equal to ours.
        seconds: How long it all took.
        visibility: Who sees it.
        sent: False: it had been there already and nothing was sent.
        warnings: What nova will not like.
        steps: What was done, or would be.
        left: What could not be done, and why.
    """

    id: str
    name: str
    size: int
    os_hash_value: str
    seconds: float
    visibility: str
    sent: bool
    warnings: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manner:
    """How to go about an upload.

    Attributes:
        rotation: What becomes of older builds.
        allow_untested: Take an image that no boot test passed; it is marked so.
        allow_older: Take the place of a newer build.
        region: One of the cloud's regions; unset: the one that clouds.yaml names.
        progress: Told how far the sending is.
        announce: Told of what went wrong and is tried again.
        silence: Seconds after which a cloud that says nothing counts as gone.
        attempts: How often what may pass is tried.
        pause: Seconds before the second attempt; they double from one to the next, up to a minute.
        budget: Seconds for all attempts together.
        stopping: Set when it shall end soon.
        transport: The way that the data takes.
        approve: Called with the id of an image that is verified and not yet seen, and the
            cloud's name; what it raises removes the image.
        retire: Older builds give up their name, and go; False: they stay as they are for now.
        dry_run: Only decide what would be done.
    """

    rotation: Rotation = field(default_factory=Rotation)
    transport: Transport = field(default_factory=Transport)
    allow_untested: bool = False
    allow_older: bool = False
    region: str | None = None
    progress: Progress | None = None
    announce: Callable[[str], None] = lambda text: None
    silence: float = SILENCE
    attempts: int = 6
    pause: float = 0.5
    budget: float = 4 * 3600.0
    stopping: threading.Event = field(default_factory=threading.Event)
    approve: Callable[[str, str], None] = lambda image_id, cloud: None
    retire: bool = True
    dry_run: bool = False


def upload(image: NewImage, *, cloud: str, manner: Manner | None = None) -> Uploaded:
    """Bring a cloud to have this image, and no other of its name.

    An image with the same bytes is brought in line, nothing is sent. Else it is created under
    its dated name, private, sent while it is hashed, fetched again and compared; then it gets
    its name and is seen, in one request; then older builds give up theirs. What fails in a way
    that may pass is tried again, with what is there by then. When it fails for good before it
    is verified, or on Ctrl-C, the half image is deleted.

    Args:
        image: What to upload.
        cloud: Its name in clouds.yaml; ``envvars`` for the OS_* variables.
        manner: How.

    Raises:
        UntestedImageError: The image is not tested and that is not allowed.
        OlderBuildError: The cloud has a newer build, and that is not allowed.
        PropertyError: nova or Glance would refuse the properties.
        UnsafeDiskError: The file is not what it is declared to be, or not safe.
        ConfigError: There is no such cloud, or its configuration cannot be read.
        CloudError: The cloud refused, could not be reached, or has not what was sent.
    """
    manner = manner or Manner()
    began = time.monotonic()
    if not (image.tested or manner.allow_untested):
        raise UntestedImageError(
            f"{image.name} has not passed a boot test",
            hint="test it (`imagefactory test`), or allow it with --allow-untested: "
            f"the image then carries {MARK_TESTED}=no",
        )
    warnings = check(image)
    with (
        connect(cloud, manner.silence, manner.region) as glance,
        _alone(f"{cloud}-{manner.region or ''}-{_of(image)}") as host,
    ):
        work = _Work(glance, image, image.wanted, manner, host)
        if manner.dry_run:
            found = work.decide()
            record, steps = found.current, [str(step) for step in found.steps]
            work.left += work.namesakes()
        else:
            record, steps = work.bring()
    return Uploaded(
        id=record.id if record else "",
        name=image.name,
        size=work.wanted.size,
        os_hash_value=record.hash if record else "",
        seconds=time.monotonic() - began,
        visibility=record.visibility if record else image.visibility,
        sent=work.sent,
        warnings=tuple(warnings),
        steps=tuple(steps),
        left=tuple(work.left),
    )


def _of(image: NewImage) -> str:
    marks = (image.marker.get(name, "") for name in (MARK_IMAGE, MARK_ARCH, MARK_LINE, MARK_PART))
    return "-".join(marks)


@contextlib.contextmanager
def _alone(what: str) -> Iterator[str]:
    """Keep other runs of this host away, and say who this host is.

    Who shares the lock shares the name: what a run of that name has begun, and it holds no lock
    any more, is left over. Containers that share a host's name, but no directory, do not.
    """
    directory = cache_directory() / "uploads"
    directory.mkdir(parents=True, exist_ok=True)
    with FileLock(directory / f"{what.replace('/', '_')}.lock"):
        name = directory / "host"
        with FileLock(directory / "host.lock"):
            if not name.exists():
                name.write_text(uuid.uuid4().hex, encoding="ascii")
        yield name.read_text(encoding="ascii")


@dataclass
class _Work:
    """One image and one cloud, from the first look to the last step."""

    glance: Glance
    image: NewImage
    wanted: Wanted
    manner: Manner
    host: str
    sent: bool = False
    left: list[str] = field(default_factory=list)

    def bring(self) -> tuple[Stored, list[str]]:
        """Do all that has to be done, again while what fails may pass."""
        retrying = Retrying(
            stop=stop_after_attempt(self.manner.attempts) | stop_after_delay(self.manner.budget),
            wait=wait_exponential_jitter(multiplier=self.manner.pause, max=60),
            retry=retry_if_exception(self._passing),
            before_sleep=self._tell,
            sleep=sleep_using_event(self.manner.stopping),
            reraise=True,
        )
        return retrying(self._bring_once)

    @cached_property
    def _transfer(self) -> Transfer:
        """The way to the cloud; one for all attempts, for they share one budget."""
        waiting = Waiting(self.manner.budget, self.manner.stopping)
        return Transfer(self.glance, self.manner.transport, waiting, self._tell_progress)

    def _tell_progress(self, sent: int, total: int) -> None:
        self._go_on()
        if self.manner.progress:
            self.manner.progress(sent, total)

    def decide(self) -> Reconciliation:
        """Look at what the cloud has, and decide what has to be done."""
        marker = self.image.marker
        found = self.glance.find({name: marker[name] for name in (MARK_IMAGE, MARK_ARCH)})
        same = {name: marker.get(name) for name in (MARK_LINE, MARK_PART)}
        decided = reconcile(
            self.wanted,
            [
                image
                for image in found
                if {name: image.properties.get(name) for name in same} == same
            ],
            self.manner.rotation,
            datetime.now(UTC),
            self.host,
            self._transfer.stores,
        )
        newer = decided.newer
        if newer and not (self.manner.allow_older or MARK_PART in marker):
            raise OlderBuildError(
                f"the cloud has a newer build of {self.wanted.name}: {newer.id}, of {newer.built}",
                hint="is the newest build whole (`imagefactory show`)? --allow-older takes the "
                "cloud back to this one",
            )
        return decided if self.manner.retire else replace(decided, after=())

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        self.manner.announce(f"{error}; again in {pause:.0f} s")

    def _bring_once(self) -> tuple[Stored, list[str]]:
        self.left.clear()
        done: list[str] = []
        found = self.decide()
        self._take(found.before, done)
        if found.current is None:
            new_id = self._send()
            done.append(f"sent {self.wanted.size} bytes as {new_id}")
            # Once more: somebody else may have sent the same in the meantime, or a newer one.
            try:
                found = self.decide()
            except OlderBuildError as error:
                _take_back(self.glance, new_id, error)
                raise
        if found.current is None:
            raise WrongStateError("the image that was sent and verified is gone")
        if MARK_LEASE in found.current.properties:  # nobody has shown it yet
            self._approve(found.current.id)
        self._take(found.present, done)
        if self.image.members:
            self.glance.offer(found.current.id, self.image.members)
        record = self.glance.get(found.current.id)
        self._take(found.after, done)
        self.left += self.namesakes()
        return record, done

    def namesakes(self) -> list[str]:
        """Tell of the project's images that are not ours and have the name."""
        return [
            f"image {one.id} is not ours and has the name {one.name}, too: who asks by name finds "
            "two"
            for one in self.glance.find({"name": self.wanted.name})
            if MARK_IMAGE not in one.properties
        ]

    def _approve(self, image_id: str) -> None:
        try:
            self.manner.approve(image_id, self.glance.cloud)
        except BaseException as error:
            _take_back(self.glance, image_id, error)
            raise

    def _take(self, steps: Iterable[Step], done: list[str]) -> None:
        for step in steps:
            self._go_on()
            if isinstance(step, Leave):
                self.left.append(str(step))
                continue
            try:
                used = self._in_use(step.image) if isinstance(step, Remove) else ""
                if used:
                    self.left.append(f"{step}: not done, {used}")
                    continue
                self._take_one(step)
            except RefusedError as error:
                self._forgive(step, error)
            else:
                done.append(str(step))

    def _in_use(self, image: Stored) -> str:
        """Say what still needs an image; empty: nothing does."""
        if image.unfinished:
            return ""
        if MARK_PART in image.properties and self.glance.starts_others(image.id):
            return "images are started with it"
        return "servers are made of it" if self.glance.in_use(image.id) else ""

    def _go_on(self) -> None:
        if self.manner.stopping.is_set():
            raise KeyboardInterrupt

    def _take_one(self, step: Step) -> None:
        if isinstance(step, Amend):
            action = f"changing image {step.image.id}"
            operations = [change.operation for change in step.changes]
            self.glance.amend(step.image.id, operations, action)
        elif isinstance(step, Activate):
            self.glance.activate(step.image.id, active=step.active)
        elif isinstance(step, Remove):
            self.glance.delete(step.image.id)
        elif isinstance(step, Copy):
            self._transfer.copy(step.image.id, step.stores)

    def _forgive(self, step: Step, error: RefusedError) -> None:
        """Old images that will not go are told of; that the new one is not as it should be fails.

        409: servers or volumes are made of it, in stores that know (Ceph). 403: it is protected,
        or the role does not allow it.
        """
        stays = {HTTPStatus.CONFLICT, HTTPStatus.FORBIDDEN}
        if isinstance(step, Amend) and error.status == HTTPStatus.FORBIDDEN:
            shown = {change.path: change.value for change in step.changes}
            if "visibility" in shown:
                raise _unseen(error, step.image.id, str(shown["visibility"])) from None
        if not isinstance(step, Remove | Activate) or error.status not in stays:
            raise error
        self.left.append(f"{step}: not done, {error.message}")

    def _send(self) -> str:
        # An id of our own choosing: the image can be deleted even when the answer is lost.
        image_id = str(uuid.uuid4())
        marker = self.image.marker
        fields = {
            **self.wanted.properties,
            **self.wanted.fields,
            MARK_SET: names_set(self.wanted),
            MARK_LEASE: lease(self.host, datetime.now(UTC), self.manner.budget),
            "id": image_id,
            "name": self.image.dated(marker.get(MARK_BUILT, "new"), marker[MARK_DIGEST]),
            "visibility": "private",
        }
        try:
            self.glance.create(fields)
        except RefusedError:
            raise  # there is nothing to take back
        except BaseException as error:
            _take_back(self.glance, image_id, error)
            raise
        try:
            digest = self._transfer.bring(image_id, self.image.disk)
            self._go_on()
            _verify(self.glance.get(image_id), self.image.disk, digest)
        except BaseException as error:
            _take_back(self.glance, image_id, error)
            raise
        self.sent = True
        return image_id

    def _passing(self, error: BaseException) -> bool:
        passing = isinstance(error, CloudError) and error.transient
        return passing and not self.manner.stopping.is_set()


def _unseen(error: CloudError, image_id: str, visibility: str) -> CloudError:
    return CloudError(
        f"{error.message}; the image is complete and verified, and stays private",
        hint=f"ask an administrator for `openstack image set --{visibility} {image_id}`, "
        "or choose another visibility; what is there is not sent again",
    )


def _verify(record: Stored, disk: Path, digest: str) -> None:
    """Compare what the cloud has with what was sent; ``digest`` is of what was read for it."""
    if record.status != "active":
        raise WrongStateError(
            f"the cloud has image {record.id} in the state {record.status!r}, not active"
        )
    size = disk.stat().st_size
    known = digest if digest and record.hash_algorithm == HASH else ""
    same = record.hash == (known or hash_of(disk, record.hash_algorithm))
    if record.size != size or not same:
        raise WrongStateError(
            f"the cloud holds other bytes than were sent: {record.size} bytes with "
            f"{record.hash_algorithm} {record.hash[:16]}..., the image has {size}"
            + (f" with {HASH} {digest[:16]}..." if digest else "")
        )


def _take_back(glance: Glance, image_id: str, error: BaseException) -> None:
    """Delete a half image and say so, in the error that made it one."""
    try:
        glance.delete(image_id)
        outcome = f"the half image {image_id} was deleted"
    except CloudError as failure:
        outcome = (
            f"the half image {image_id} may be left ({failure.message}); "
            f"delete it: openstack image delete {image_id}"
        )
    if isinstance(error, CloudError):
        error.message = f"{error.message}; {outcome}"
        error.args = (error.message,)
    else:
        error.add_note(outcome)
