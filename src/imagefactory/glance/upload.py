"""Upload one image: private until Glance's own hash of it is ours, and never half.

What a reader of the cloud sees is either nothing or the whole, verified image.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from imagefactory.catalog import Build
from imagefactory.errors import CloudError, PropertyError
from imagefactory.glance.client import Glance, connect
from imagefactory.glance.inspect import inspect
from imagefactory.properties import validate

MARK_PREFIX = "imagefactory_"
"""Properties that begin so are ours; only images that carry them are ever touched."""
MARK_IMAGE, MARK_ARCH = "imagefactory_image", "imagefactory_arch"
MARK_DIGEST, MARK_TESTED = "imagefactory_digest", "imagefactory_tested"

SILENCE = 600.0
"""Seconds that a cloud may take to answer; one that hashes a large image into Ceph needs many."""

_PIECE = 1 << 20
_HASH = "sha512"  # Glance's default hashing_algorithm

Visibility = Literal["private", "shared", "community", "public"]
Progress = Callable[[int, int], None]
"""Called with the bytes sent and the bytes there are."""


class UntestedImageError(CloudError):
    """An image was to be uploaded that no boot test has passed."""


@dataclass(frozen=True)
class NewImage:
    """An image as it shall stand in the cloud.

    Args:
        disk: The file.
        name: The image's name.
        properties: The set that ``properties.derive`` returns, min_disk and min_ram included.
        marker: Our own properties, ``imagefactory_*``; the digest must be among them.
        tested: The boot test has passed.
        visibility: Who sees the image once it is verified.
        disk_format: Glance's name of the file's format.
    """

    disk: Path
    name: str
    properties: Mapping[str, str]
    marker: Mapping[str, str]
    tested: bool
    visibility: Visibility = "private"
    disk_format: str = "qcow2"

    @classmethod
    def of_build(cls, build: Build, name: str | None, visibility: Visibility) -> NewImage:
        """Describe a build of the catalog as an image for a cloud."""
        return cls(
            disk=build.disk,
            name=name or f"{build.image}-{build.architecture}",
            properties=build.properties,
            marker={
                MARK_IMAGE: build.image,
                MARK_ARCH: build.architecture,
                MARK_DIGEST: build.digest,
            },
            tested=build.verdict == "passed",
            visibility=visibility,
            disk_format=str(build.manifest["disk"]["format"]),
        )

    @property
    def all_properties(self) -> dict[str, str]:
        """The properties with our marker among them."""
        tested = "yes" if self.tested else "no"
        return {**self.properties, **self.marker, MARK_TESTED: tested}

    @property
    def fields(self) -> dict[str, object]:
        """The image's record as Glance keeps it: core fields have types, properties are text."""
        plain = self.all_properties
        return {
            **plain,
            "name": self.name,
            "disk_format": self.disk_format,
            "container_format": "bare",
            "min_disk": int(plain.get("min_disk", "0")),
            "min_ram": int(plain.get("min_ram", "0")),
        }


@dataclass(frozen=True)
class Uploaded:
    """An image that stands in the cloud, verified.

    Args:
        id: Glance's id of it.
        name: Its name.
        size: The bytes of the file.
        os_hash_value: Glance's hash of it, equal to ours.
        seconds: How long it all took.
        visibility: Who sees it.
        sent: False: it had been there already and nothing was sent.
        warnings: What nova will not like.
    """

    id: str
    name: str
    size: int
    os_hash_value: str
    seconds: float
    visibility: str
    sent: bool
    warnings: tuple[str, ...] = ()


def upload(
    image: NewImage,
    *,
    cloud: str,
    allow_untested: bool = False,
    progress: Progress | None = None,
    timeout: float = SILENCE,
) -> Uploaded:
    """Bring an image into a cloud, unless the same one is there already.

    The image is created private with all its properties, sent while it is hashed, fetched
    again and compared; then it becomes visible. When anything fails before that, or on Ctrl-C,
    the half image is deleted. When only the last step is refused (``public`` asks for an
    administrator in most clouds) the verified image stays, private, and the next call takes
    it up from there.

    Args:
        image: What to upload.
        cloud: Its name in clouds.yaml; ``envvars`` for the OS_* variables.
        allow_untested: Take an image that no boot test passed; it is marked so.
        progress: Told how far the sending is.
        timeout: Seconds of silence after which the cloud counts as gone.

    Raises:
        UntestedImageError: The image is not tested and that is not allowed.
        PropertyError: nova or Glance would refuse the properties.
        UnsafeDiskError: The file is not what it is declared to be, or not safe.
        ConfigError: There is no such cloud, or its configuration cannot be read.
        CloudError: The cloud refused, could not be reached, or has not what was sent.
    """
    began = time.monotonic()
    if not (image.tested or allow_untested):
        raise UntestedImageError(
            f"{image.name} has not passed a boot test",
            hint="test it (`imagefactory test`), or allow it with --allow-untested: "
            f"the image then carries {MARK_TESTED}=no",
        )
    warnings = _check(image)
    with connect(cloud, timeout) as glance:
        record = _already_there(glance, image)
        sent = record is None
        if record is None:
            record = _send(glance, image, progress)
        if record["visibility"] == "private" != image.visibility:
            _publish(glance, record["id"], image.visibility)
            record["visibility"] = image.visibility
    return Uploaded(
        id=record["id"],
        name=record["name"],
        size=record["size"],
        os_hash_value=record["os_hash_value"],
        seconds=time.monotonic() - began,
        visibility=record["visibility"],
        sent=sent,
        warnings=tuple(warnings),
    )


def _check(image: NewImage) -> list[str]:
    strangers = [name for name in image.marker if not name.startswith(MARK_PREFIX)]
    if strangers or not image.marker.get(MARK_DIGEST):
        raise PropertyError(
            f"the marker of {image.name} must hold {MARK_DIGEST} and names that begin with "
            f"{MARK_PREFIX} only; it holds {', '.join(image.marker) or 'nothing'}"
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


def _already_there(glance: Glance, image: NewImage) -> dict[str, Any] | None:
    """Find an active image with our marker, the same fields and, byte for byte, the same data."""
    size = image.disk.stat().st_size
    marks = {**image.marker, MARK_TESTED: image.all_properties[MARK_TESTED]}
    for record in glance.find({**marks, "status": "active"}):
        same_fields = all(record.get(name) == value for name, value in image.fields.items())
        if same_fields and record["size"] == size and _has_hash(record, image.disk, ""):
            return record
    return None


def _send(glance: Glance, image: NewImage, progress: Progress | None) -> dict[str, Any]:
    # An id of our own choosing: the image can be deleted even when the answer is lost.
    image_id = str(uuid.uuid4())
    try:
        glance.create({**image.fields, "id": image_id, "visibility": "private"})
        with image.disk.open("rb") as stream:
            data = _HashedStream(stream, progress)
            glance.send(image_id, data)
        record = glance.get(image_id)
        _verify(record, image.disk, data)
    except BaseException as error:
        _take_back(glance, image_id, error)
        raise
    return record


def _verify(record: dict[str, Any], disk: Path, data: _HashedStream) -> None:
    if record["status"] != "active":
        raise CloudError(
            f"the cloud has image {record['id']} in the state {record['status']!r}, not active",
            hint="the log of the cloud's image service tells more",
        )
    if record["size"] != len(data) or not _has_hash(record, disk, data.digest):
        raise CloudError(
            f"the cloud holds other bytes than were sent: {record['size']} bytes with "
            f"{record['os_hash_algo']} {str(record['os_hash_value'])[:16]}..., sent were "
            f"{len(data)} bytes with {_HASH} {data.digest[:16]}...",
            hint="something between here and the cloud's store damages data; try again",
        )


def _has_hash(record: dict[str, Any], disk: Path, digest: str) -> bool:
    """Compare Glance's hash with ours; a cloud set to another algorithm costs one more reading."""
    algorithm = str(record["os_hash_algo"])
    if algorithm not in hashlib.algorithms_available:
        return False
    if not digest or algorithm != _HASH:
        with disk.open("rb") as stream:
            digest = hashlib.file_digest(stream, algorithm).hexdigest()
    return bool(record["os_hash_value"] == digest)


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


def _publish(glance: Glance, image_id: str, visibility: str) -> None:
    try:
        glance.set_visibility(image_id, visibility)
    except CloudError as error:
        raise CloudError(
            f"{error.message}; the image is complete and verified, and stays private",
            hint=f"ask an administrator for `openstack image set --{visibility} {image_id}`, "
            "or choose another visibility; what is there is not sent again",
        ) from None


class _HashedStream:
    """A file that is hashed and counted while it is read, once."""

    def __init__(self, stream: IO[bytes], progress: Progress | None) -> None:
        self._stream = stream
        self._progress = progress or (lambda _sent, _total: None)
        self._size = stream.seek(0, 2)
        stream.seek(0)
        self._hash = hashlib.new(_HASH)
        self._sent = self._told = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(_PIECE):
            yield piece

    def read(self, size: int = -1, /) -> bytes:
        left = self._size - self._sent
        piece = self._stream.read(left if size < 0 else min(size, left))
        if left and not piece and size:
            raise CloudError("the file became shorter while it was sent", hint="send it again")
        self._hash.update(piece)
        self._sent += len(piece)
        if self._sent - self._told >= _PIECE or (piece and self._sent == self._size):
            self._told = self._sent
            self._progress(self._sent, self._size)
        return piece

    @property
    def digest(self) -> str:
        """The hash of what has been read."""
        return self._hash.hexdigest()
