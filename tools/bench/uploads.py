"""An upload to a real Glance, beside what sends the same bytes to it, and what must be done anyway.

Keystone and Glance run on this machine and hash what they get, so their processors are ours, too.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import openstack

from imagefactory import run
from imagefactory.devcloud import cloud
from imagefactory.devcloud.place import NAME, Place
from imagefactory.glance.newimage import NewImage
from imagefactory.glance.stored import MARK_ARCH, MARK_DIGEST, MARK_IMAGE
from imagefactory.glance.upload import upload
from imagefactory.progress import Stages
from tools.bench.measure import Figure, Stopwatch, timed
from tools.bench.table import Row

SIZE = 512 << 20
"""Bytes of the image: that of a cloud image that somebody waits for."""

_TIMEOUT = 3600.0
_PIECE = 1 << 20

_NOTE = (
    f"{SIZE >> 20} MiB of noise, declared raw. Glance hashes it (MD5 and SHA-512) on this machine, "
    "too. Ours is the whole of it: log in, look what is there, create, send while it is "
    "hashed, compare `os_hash_value`, name and publish."
)


def rows(work: Path, cache: Path, rounds: int) -> Iterator[Row]:
    """Yield all rows.

    Args:
        work: An empty directory.
        cache: Where the services' programs are kept.
        rounds: How often each is repeated.
    """
    disk = work / "disk.raw"
    with disk.open("wb") as stream:
        for _ in range(SIZE // _PIECE):
            stream.write(os.urandom(_PIECE))
    copy = work / "copy"
    hashed = tuple(timed(lambda: _copy(disk, copy)) for _ in range(rounds))
    copy.unlink()
    yield Row("upload/cp", "cp and sha512sum of the same file", hashed, SIZE)
    with _devcloud(work / "devcloud", cache):
        curl = tuple(_curl(disk) for _ in range(rounds))
        against = ("cp and sha512sum", "upload/cp")
        what = "curl -T into a record that is there, with a token that is there"
        yield Row("upload/curl", what, curl, SIZE, (against,), note=_NOTE)
        ours = tuple(_ours(disk) for _ in range(rounds))
        what = "imagefactory's whole upload"
        both = (("curl -T", "upload/curl"), against)
        yield Row("upload/ours", what, ours, SIZE, both, note=_NOTE)


@contextlib.contextmanager
def _devcloud(directory: Path, cache: Path) -> Iterator[None]:
    place = Place(directory)
    variable = "OS_CLIENT_CONFIG_FILE"
    before = os.environ.get(variable)
    cloud.up(place, cache, Stages())
    os.environ[variable] = str(place.clouds_yaml)
    try:
        yield
    finally:
        os.environ.pop(variable)
        if before is not None:
            os.environ[variable] = before
        cloud.down(place, Stages(), delete=True)


def _copy(disk: Path, copy: Path) -> None:
    run.run(["cp", "--reflink=never", disk, copy], timeout=_TIMEOUT)
    run.run(["sha512sum", copy], timeout=_TIMEOUT)


def _curl(disk: Path) -> Figure:
    """Time curl alone: what comes before and after it is not in the figure."""
    with openstack.connect(NAME) as glance:
        image = glance.image.create_image("curl", disk_format="raw", container_format="bare")
        url = f"{str(glance.image.get_endpoint()).rstrip('/')}/images/{image.id}/file"
        command = ["curl", "--fail", "--silent", "--show-error", "--upload-file", str(disk)]
        command += ["--header", "Content-Type: application/octet-stream", "--noproxy", "*"]
        command += ["--header", "@-", url]
        watch = Stopwatch()
        run.run(command, stdin=f"X-Auth-Token: {glance.auth_token}\n", timeout=_TIMEOUT)
        figure = watch.read()
        glance.image.delete_image(image.id)
    return figure


def _ours(disk: Path) -> Figure:
    image = NewImage(
        disk,
        "bench",
        {"architecture": "aarch64"},
        {MARK_IMAGE: "bench", MARK_ARCH: "aarch64", MARK_DIGEST: uuid.uuid4().hex},
        tested=True,
        disk_format="raw",
    )
    watch = Stopwatch()
    done = upload(image, cloud=NAME)
    figure = watch.read()
    with openstack.connect(NAME) as glance:
        glance.image.delete_image(done.id)
    return figure
