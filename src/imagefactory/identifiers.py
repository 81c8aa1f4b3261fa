"""Which identifiers a disk's filesystems get, so that files in the tree can name them too.

The disk stage writes the filesystems, a builder of trees writes /etc/fstab; neither knows the
other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

ROOT_FILESYSTEM = "root filesystem"
"""The purpose that the root filesystem's UUID is derived from."""

ESP_FILESYSTEM = "esp filesystem"
"""The purpose that the ESP's volume serial number is derived from."""


def fat_serial(identity: uuid.UUID) -> str:
    """Return the volume serial number of a FAT filesystem as blkid and fstab spell it.

    Like ``ABCD-1234``: the last 32 bits of the identifier that the filesystem is made with.
    """
    digits = f"{identity.int & 0xFFFFFFFF:08X}"
    return f"{digits[:4]}-{digits[4:]}"


def fstab(identifier: Callable[[str], uuid.UUID], esp: str | None = None) -> str:
    """Return an ``/etc/fstab`` that names the filesystems of our disk.

    Args:
        identifier: Derives an identifier from a purpose (`BuildPlan.identifier`).
        esp: Where the ESP is mounted, on a disk that has one.
    """
    root = identifier(ROOT_FILESYSTEM)
    lines = [f"UUID={root} / ext4 rw,discard,errors=remount-ro 0 1"]
    if esp is not None:
        serial = fat_serial(identifier(ESP_FILESYSTEM))
        lines.append(f"UUID={serial} {esp} vfat umask=0077 0 0")
    return "\n".join(lines) + "\n"
