from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.catalog import now
from imagefactory.data import SearchPath
from imagefactory.errors import ConfigError, UnknownNameError
from imagefactory.imagetest import Subject, describe


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk.qcow2").touch()
    return tmp_path / "disk.qcow2"


def described(disk: Path, *architectures: str, **more: Any) -> Subject:
    return describe(disk, architectures, ArchProfiles.load(SearchPath.default()), **more)


def write_manifest(disk: Path, file: str = "disk.qcow2") -> None:
    properties = {"architecture": "ppc64le", "hw_disk_bus": "scsi"}
    plan = {"image": "i", "architecture": "ppc64le", "digest": "d", "properties": properties}
    content = {"plan": plan, "built": now(), "disk": {"file": file, "size": 1}, "seconds": {}}
    (disk.parent / "manifest.json").write_text(json.dumps(content))


def test_a_foreign_disk_takes_the_profiles_properties(disk: Path) -> None:
    subject = described(disk, "arm64", changes=["hw_disk_bus=scsi"], memory=1024)
    assert subject.properties["architecture"] == "aarch64"
    assert subject.properties["hw_disk_bus"] == "scsi"
    assert subject.properties["min_ram"] == "1024"
    assert [case.datasource for case in subject.cases] == ["config-drive"]


def test_our_own_build_says_itself_what_it_is(disk: Path) -> None:
    write_manifest(disk)
    assert described(disk).properties == {"architecture": "ppc64le", "hw_disk_bus": "scsi"}
    assert described(disk, "ppc64el").properties["architecture"] == "ppc64le"
    with pytest.raises(ConfigError, match="was built for ppc64le"):
        described(disk, "x86_64")


@pytest.mark.parametrize("text", ["{}", "[]", "not JSON", '{"plan": {"properties": 1}}'])
def test_another_programs_manifest_means_nothing(disk: Path, text: str) -> None:
    (disk.parent / "manifest.json").write_text(text)
    assert described(disk, "amd64").properties["architecture"] == "x86_64"


def test_the_manifest_of_another_disk_means_nothing(disk: Path) -> None:
    write_manifest(disk, "other.qcow2")
    assert described(disk, "amd64").properties["architecture"] == "x86_64"


@pytest.mark.parametrize("architectures", [(), ("amd64", "arm64"), ("all",)])
def test_a_foreign_disk_needs_one_architecture(disk: Path, architectures: tuple[str, ...]) -> None:
    told = "for one architecture, not for" if architectures else "does not say which architecture"
    with pytest.raises(ConfigError, match=told):
        described(disk, *architectures)


def test_an_unknown_architecture_is_named(disk: Path) -> None:
    with pytest.raises(UnknownNameError, match="'vax'"):
        described(disk, "vax")


@pytest.mark.parametrize("change", ["", "key", "=value"])
def test_a_property_is_a_key_and_a_value(disk: Path, change: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        described(disk, "amd64", changes=[change])


def test_properties_can_come_from_a_file(disk: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"architecture": "x86_64", "hw_qemu_guest_agent": true, "min_ram": 256}')
    properties = described(disk, properties_file=file).properties
    assert (properties["hw_qemu_guest_agent"], properties["min_ram"]) == ("true", "256")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "is not JSON"), ("[1]", "JSON object"), ('{"a": [1]}', "property a has no plain value")],
)
def test_a_useless_file_of_properties_is_told(disk: Path, text: str, complaint: str) -> None:
    file = disk.with_name("p.json")
    file.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        described(disk, "amd64", properties_file=file)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.qcow2", "qcow2"), ("a.img", "qcow2"), ("a.raw", "raw")]
)
def test_the_format_is_told_by_the_suffix(tmp_path: Path, name: str, kind: str) -> None:
    assert described(tmp_path / name, "amd64").format == kind
    assert described(tmp_path / name, "amd64", disk_format="raw").format == "raw"
