"""Look into a disk file the way Glance and nova will, before anything is sent."""

from __future__ import annotations

import logging
from pathlib import Path

from oslo_utils.imageutils import format_inspector

from imagefactory.errors import CloudError

# What the inspectors find is told in our own errors; without a handler Python would print it too.
logging.getLogger("oslo_utils").addHandler(logging.NullHandler())

_CONTENT = {"raw": ("raw", "gpt"), "ami": ("raw",)}
"""Declared format -> what its bytes may be detected as, where that is not the format alone.

Glance would take a qcow2 that is declared raw; nova then refuses to boot it.
"""


_NO_DISKS = ("aki", "ari")
"""Kernels and ramdisks: bytes that Glance keeps as they are, and looks into as little. (An x86
kernel ends its first sector as a boot sector does, without a table of partitions.)"""


def format_of(disk: Path) -> str:
    """Return what a disk file holds: qcow2, or raw for whatever is no known format.

    Raises:
        UnsafeDiskError: It cannot be read.
    """
    try:
        found = format_inspector.detect_file_format(str(disk))
    except (OSError, format_inspector.ImageFormatError) as error:
        raise UnsafeDiskError(f"{disk} cannot be read: {error}") from None
    return next((kind for kind, held in _CONTENT.items() if str(found) in held), str(found))


class UnsafeDiskError(CloudError):
    """A disk file is not what it is declared to be, or may not be given to a cloud."""


def inspect(disk: Path, disk_format: str) -> int:
    """Run the check that Glance runs on every upload (oslo.utils' format inspector).

    Returns:
        The virtual size in bytes.

    Raises:
        UnsafeDiskError: The file is empty, of another format, refers to other files, or is
            broken.
    """
    try:
        if not disk.stat().st_size:
            raise UnsafeDiskError(f"{disk} is empty", hint="build the image again")
        if disk_format in _NO_DISKS:
            return disk.stat().st_size
        found = format_inspector.detect_file_format(str(disk))
    except OSError as error:
        raise UnsafeDiskError(f"{disk} cannot be read: {error.strerror}") from None
    except format_inspector.ImageFormatError as error:
        raise UnsafeDiskError(f"{disk} looks like several formats at once: {error}") from None
    content = str(found or "nothing known")
    if found is None or content not in _CONTENT.get(disk_format, (disk_format,)):
        raise UnsafeDiskError(
            f"{disk} is declared {disk_format} but holds {content}",
            hint=f"convert it: qemu-img convert -O {disk_format} {disk.name} ...",
        )
    return _check(disk, found)


def _check(disk: Path, inspector: format_inspector.FileInspector) -> int:
    try:
        inspector.safety_check()
    except format_inspector.SafetyCheckFailed as error:
        found = ", ".join(f"{name} ({why})" for name, why in error.failures.items())
        raise UnsafeDiskError(
            f"{disk} does not pass the safety checks that Glance makes: {found}",
            hint="an image must stand alone: qemu-img convert writes one without backing "
            "or data files",
        ) from None
    except format_inspector.ImageFormatError as error:
        raise UnsafeDiskError(f"{disk} is damaged: {error}", hint="build it again") from None
    # Where the file is the disk itself, the inspector knows only what it has read of it.
    itself = str(inspector) in _CONTENT["raw"]
    return disk.stat().st_size if itself else inspector.virtual_size
