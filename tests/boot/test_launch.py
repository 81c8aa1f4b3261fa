"""What is decided before a machine starts; needs qemu-img and the emulators, boots nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.boot import boot_test
from imagefactory.errors import ConfigError, PropertyError
from imagefactory.run import run
from imagefactory.template import BootCase

CASE = BootCase(name="one", datasource="config-drive")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"])
    return path


def refuse(
    disk: Path, profiles: ArchProfiles, properties: dict[str, str], *cases: BootCase
) -> None:
    evidence = disk.parent / "evidence"
    try:
        boot_test(disk, properties, cases or (CASE,), evidence, profiles=profiles)
    finally:
        assert not evidence.exists(), "nothing may have started"


def test_every_mistake_in_the_properties_shows_before_the_first_boot(
    disk: Path, profiles: ArchProfiles
) -> None:
    good = BootCase(name="good", datasource="none")
    bad = BootCase(name="bad", datasource="none", properties={"hw_disk_bus": "ide"})
    properties = {"architecture": "x86_64", "hw_machine_type": "q35"}
    with pytest.raises(PropertyError, match="no IDE bus"):
        refuse(disk, profiles, properties, good, bad)


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({}, "architecture"),
        ({"architecture": "arm64"}, "architecture"),
        ({"architecture": "x86_64", "hw_machine_type": "pc-9999"}, "hw_machine_type=pc-9999"),
        (
            {
                "architecture": "x86_64",
                "hw_machine_type": "pc",
                "hw_firmware_type": "uefi",
                "os_secure_boot": "required",
            },
            "os_secure_boot=required is not possible on the machine pc-i440fx",
        ),
        (
            {"architecture": "x86_64", "hw_emulation_architecture": "ppc64le"},
            "excludes a config drive",
        ),
    ],
)
def test_a_machine_that_cannot_be_is_refused(
    disk: Path, profiles: ArchProfiles, properties: dict[str, str], message: str
) -> None:
    with pytest.raises(PropertyError, match=message):
        refuse(disk, profiles, properties)


def test_an_image_without_a_boot_for_its_architecture_is_refused(
    disk: Path, profiles: ArchProfiles
) -> None:
    elsewhere = BootCase(name="arm", datasource="none", architectures=("aarch64",))
    with pytest.raises(ConfigError, match="no boot test is meant for"):
        refuse(disk, profiles, {"architecture": "x86_64"}, elsewhere)


def test_a_missing_disk_is_named(tmp_path: Path, profiles: ArchProfiles) -> None:
    with pytest.raises(ConfigError, match="there is no disk"):
        refuse(tmp_path / "none.qcow2", profiles, {"architecture": "x86_64"})


def test_a_disk_of_another_format_is_not_guessed_at(tmp_path: Path, profiles: ArchProfiles) -> None:
    raw = tmp_path / "raw.qcow2"
    raw.write_bytes(b"\0" * 4096)
    with pytest.raises(ConfigError, match="not readable as qcow2") as caught:
        refuse(raw, profiles, {"architecture": "x86_64"})
    assert "--format raw" in caught.value.hint


@pytest.mark.parametrize("path", ["/dev/null", "/dev", "empty"])
def test_what_is_no_file_with_content_is_no_disk(
    path: str, tmp_path: Path, profiles: ArchProfiles
) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="is not a disk image"):
        refuse(tmp_path / path, profiles, {"architecture": "x86_64"})
