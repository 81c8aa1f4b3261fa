from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imagefactory.boot.firmware import Wanted, directories, find, prepare
from imagefactory.boot.nova import SecureBoot
from imagefactory.errors import HostError, PropertyError


class Shelf:
    """A directory of firmware descriptors with their files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.system = root / "usr"
        self.local = root / "etc"
        for directory in (self.system, self.local):
            directory.mkdir()

    @property
    def where(self) -> list[Path]:
        return [self.local, self.system]

    def put(self, name: str, directory: Path | None = None, **changes: Any) -> None:
        code, variables = self.root / f"{name}.code", self.root / f"{name}.vars"
        code.write_bytes(b"code")
        variables.write_bytes(b"variables")
        descriptor = {
            "description": name,
            "interface-types": changes.pop("interfaces", ["uefi"]),
            "mapping": {
                "device": "flash",
                "executable": {"filename": str(code), "format": "raw"},
                "nvram-template": {"filename": str(variables), "format": "raw"},
                **changes.pop("mapping", {}),
            },
            "targets": [
                {
                    "architecture": changes.pop("architecture", "x86_64"),
                    "machines": changes.pop("machines", ["pc-i440fx-*", "pc-q35-*"]),
                }
            ],
            "features": changes.pop("features", []),
            "tags": [],
        }
        target = (directory or self.system) / f"{name}.json"
        target.write_text(json.dumps(descriptor))

    def find(
        self,
        machine: str = "pc-q35-7.2",
        secure_boot: SecureBoot = "disabled",
        *,
        stateless: bool = False,
    ) -> str:
        wanted = Wanted("x86_64", machine, secure_boot, stateless, "ovmf")
        return find(wanted, self.where).description


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


ENROLLED: dict[str, Any] = {
    "features": ["secure-boot", "enrolled-keys", "requires-smm"],
    "machines": ["pc-q35-*"],
}


def test_the_first_by_name_wins(shelf: Shelf) -> None:
    shelf.put("60-later")
    shelf.put("50-earlier")
    assert shelf.find() == "50-earlier"


def test_without_secure_boot_the_plain_firmware_is_taken_though_it_comes_later(
    shelf: Shelf,
) -> None:
    shelf.put("40-enrolled", **ENROLLED)
    shelf.put("60-plain")
    assert shelf.find() == "60-plain"
    assert shelf.find(secure_boot="required") == "40-enrolled"
    assert shelf.find(secure_boot="optional") == "40-enrolled"


def test_optional_secure_boot_does_without_where_there_is_none(shelf: Shelf) -> None:
    shelf.put("40-enrolled", **ENROLLED)
    shelf.put("60-plain")
    assert shelf.find("pc-i440fx-7.2", "optional") == "60-plain"


def test_secure_boot_on_the_wrong_machine_is_the_images_mistake(shelf: Shelf) -> None:
    shelf.put("40-enrolled", **ENROLLED)
    with pytest.raises(PropertyError, match="not possible on the machine pc-i440fx"):
        shelf.find("pc-i440fx-7.2", "required")


def test_secure_boot_needs_a_firmware_with_keys(shelf: Shelf) -> None:
    shelf.put("50-empty", features=["secure-boot"])
    shelf.put("60-plain")
    with pytest.raises(HostError, match="no UEFI firmware with enrolled keys") as caught:
        shelf.find(secure_boot="required")
    assert "60-plain.code" in caught.value.message
    assert "ovmf" in caught.value.hint


@pytest.mark.parametrize("content", ["[]", '{"targets": 5}', '{"targets": [], "mapping": []}'])
def test_what_is_no_descriptor_is_passed_over(shelf: Shelf, content: str) -> None:
    (shelf.system / "10-odd.json").write_text(content)
    shelf.put("60-plain")
    assert shelf.find() == "60-plain"


def test_missing_firmware_names_the_package(shelf: Shelf) -> None:
    shelf.put("arm", architecture="aarch64", machines=["virt-*"])
    with pytest.raises(HostError, match="no UEFI firmware is installed for x86_64") as caught:
        shelf.find()
    assert "ovmf" in caught.value.hint


def test_a_descriptor_whose_files_are_gone_does_not_count(shelf: Shelf) -> None:
    shelf.put("50-gone")
    (shelf.root / "50-gone.code").unlink()
    shelf.put("60-plain")
    assert shelf.find() == "60-plain"


@pytest.mark.parametrize(
    "changes",
    [
        {"interfaces": ["bios"]},
        {"mapping": {"device": "memory"}},
        {"mapping": {"mode": "combined"}},
        {"architecture": "i386"},
        {"machines": ["microvm"]},
    ],
)
def test_a_descriptor_for_something_else_is_passed_over(
    shelf: Shelf, changes: dict[str, Any]
) -> None:
    shelf.put("50-other", **changes)
    shelf.put("60-plain")
    assert shelf.find() == "60-plain"


def test_stateless_guests_get_stateless_firmware(shelf: Shelf) -> None:
    shelf.put("50-plain")
    shelf.put("60-stateless", mapping={"mode": "stateless"})
    assert shelf.find(stateless=True) == "60-stateless"
    assert shelf.find() == "50-plain"


def test_the_administrators_descriptor_hides_its_namesake(shelf: Shelf) -> None:
    shelf.put("50-one", machines=["none"])
    shelf.put("60-two")
    shelf.put("50-one", shelf.local)
    assert shelf.find() == "50-one"


def test_an_empty_descriptor_only_hides(shelf: Shelf) -> None:
    shelf.put("50-one")
    shelf.put("60-two")
    (shelf.local / "50-one.json").write_text("")
    assert shelf.find() == "60-two"


def test_a_broken_descriptor_is_named(shelf: Shelf) -> None:
    (shelf.system / "50-bad.json").write_text("{")
    with pytest.raises(HostError, match=r"50-bad\.json is not JSON"):
        shelf.find()


def test_the_users_directory_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/x")
    assert directories()[0] == Path("/x/qemu/firmware")


def test_the_variable_store_is_a_private_copy(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("50-plain")
    found = find(Wanted("x86_64", "pc-q35-7.2", "disabled", False, "ovmf"), shelf.where)
    work = tmp_path / "work"
    work.mkdir()
    files = prepare(found, "pc-q35-7.2", work)
    assert files.variables is not None
    assert files.variables.parent == work
    assert files.variables.read_bytes() == b"variables"
    assert files.executable == found.executable


def test_flash_of_a_fixed_size_is_filled_up(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("50-arm", architecture="aarch64", machines=["virt-*"])
    found = find(Wanted("aarch64", "virt-7.2", "disabled", False, "x"), shelf.where)
    work = tmp_path / "work"
    work.mkdir()
    files = prepare(found, "virt-7.2", work)
    assert files.variables is not None
    assert files.variables.stat().st_size == files.executable.stat().st_size == 64 << 20
    assert files.executable.parent == work
