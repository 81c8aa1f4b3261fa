"""Config drives and NoCloud seeds: small ISO 9660 images with Joliet and Rock Ridge names."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pycdlib

CONFIG_DRIVE_LABEL = "config-2"
NOCLOUD_LABEL = "cidata"


def write(path: Path, files: Mapping[str, bytes], label: str) -> None:
    """Write an ISO image, as nova's configdrive.py lets mkisofs do (-J -r -V label)."""
    image = pycdlib.PyCdlib()
    image.new(interchange_level=4, joliet=3, rock_ridge="1.09", vol_ident=label)
    made: set[PurePosixPath] = {PurePosixPath("/")}
    for name, content in sorted(files.items()):
        place = PurePosixPath("/") / name
        for directory in reversed(place.parents):
            if directory not in made:
                made.add(directory)
                image.add_directory(
                    str(directory), rr_name=directory.name, joliet_path=str(directory)
                )
        image.add_fp(
            io.BytesIO(content),
            len(content),
            str(place),
            rr_name=place.name,
            joliet_path=str(place),
            file_mode=0o100444,
        )
    image.write(str(path))
    image.close()
