from __future__ import annotations

import io
from pathlib import Path

import pycdlib
import pytest

from imagefactory.boot.instance import InstanceData, config_drive, nocloud
from imagefactory.boot.seed import CONFIG_DRIVE_LABEL, NOCLOUD_LABEL, write

Facade = str


def content(path: Path, name: str, names: Facade) -> bytes:
    image = pycdlib.PyCdlib()
    image.open(str(path))
    buffer = io.BytesIO()
    image.get_file_from_iso_fp(buffer, **{names: f"/{name}"})
    image.close()
    return buffer.getvalue()


@pytest.mark.parametrize("names", ["rr_path", "joliet_path"])
def test_every_file_is_there_under_both_kinds_of_names(
    instance: InstanceData, tmp_path: Path, names: Facade
) -> None:
    files = config_drive(instance)
    write(tmp_path / "drive.iso", files, CONFIG_DRIVE_LABEL)
    for name, expected in files.items():
        assert content(tmp_path / "drive.iso", name, names) == expected


@pytest.mark.parametrize("label", [CONFIG_DRIVE_LABEL, NOCLOUD_LABEL])
def test_the_label_is_what_guests_look_for(
    instance: InstanceData, tmp_path: Path, label: str
) -> None:
    write(tmp_path / "seed.iso", nocloud(instance), label)
    # ECMA-119 8.4.7: the volume identifier stands at byte 40 of the descriptor in sector 16.
    at = 16 * 2048 + 40
    assert (tmp_path / "seed.iso").read_bytes()[at : at + 32].decode().strip() == label
