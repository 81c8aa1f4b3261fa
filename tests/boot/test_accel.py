from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.boot import accel
from imagefactory.boot.accel import Verdict, recall, remember
from imagefactory.boot.machine import Emulator


@pytest.fixture
def emulator(tmp_path: Path) -> Emulator:
    binary = tmp_path / "qemu-system-any"
    binary.write_text("")
    return Emulator(str(binary), "7.2.22", {}, frozenset())


@pytest.fixture
def device(tmp_path: Path) -> Path:
    node = tmp_path / "kvm"
    node.touch()
    return node


@pytest.fixture
def native(profiles: ArchProfiles) -> str:
    return profiles.get(platform.machine()).name


def test_kvm_is_unproven_until_a_guest_ran(
    profiles: ArchProfiles, emulator: Emulator, device: Path, native: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    seen = recall(native, profiles, emulator, device=device, cache=cache)
    assert seen.belief == "unproven"
    remember(Verdict("works", "a guest booted"), emulator, device=device, cache=cache)
    seen = recall(native, profiles, emulator, device=device, cache=cache)
    assert seen == Verdict("works", "a guest booted")


def test_a_guest_of_another_architecture_has_no_kvm(
    profiles: ArchProfiles, emulator: Emulator, device: Path, native: str, tmp_path: Path
) -> None:
    for name in profiles.names:
        seen = recall(name, profiles, emulator, device=device, cache=tmp_path)
        assert (seen.belief == "absent") == (name != native)


def test_without_the_device_there_is_no_kvm(
    profiles: ArchProfiles, emulator: Emulator, native: str, tmp_path: Path
) -> None:
    seen = recall(native, profiles, emulator, device=tmp_path / "none", cache=tmp_path)
    assert seen.belief == "absent"


def test_a_verdict_ends_with_the_hosts_boot(
    profiles: ArchProfiles,
    emulator: Emulator,
    device: Path,
    native: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remember(Verdict("works", ""), emulator, device=device, cache=tmp_path)
    other = tmp_path / "boot_id"
    other.write_text("another boot\n")
    monkeypatch.setattr(accel, "BOOT_ID", other)
    assert recall(native, profiles, emulator, device=device, cache=tmp_path).belief == "unproven"


def test_a_verdict_ends_with_the_emulator(
    profiles: ArchProfiles, emulator: Emulator, device: Path, native: str, tmp_path: Path
) -> None:
    remember(Verdict("broken", ""), emulator, device=device, cache=tmp_path)
    newer = replace(emulator, version="8.0")
    assert recall(native, profiles, newer, device=device, cache=tmp_path).belief == "unproven"
    Path(emulator.binary).write_text("rebuilt")
    assert recall(native, profiles, emulator, device=device, cache=tmp_path).belief == "unproven"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"belief": "works"}'])
def test_a_spoilt_cache_counts_for_nothing(
    profiles: ArchProfiles,
    emulator: Emulator,
    device: Path,
    native: str,
    tmp_path: Path,
    content: str,
) -> None:
    cache = tmp_path / "cache"
    remember(Verdict("works", ""), emulator, device=device, cache=cache)
    for path in cache.glob("*.json"):
        path.write_text(content)
    assert recall(native, profiles, emulator, device=device, cache=cache).belief == "unproven"


def test_a_cache_that_cannot_be_written_is_no_error(emulator: Emulator, device: Path) -> None:
    remember(Verdict("works", ""), emulator, device=device, cache=Path("/proc/none"))


def test_the_file_says_for_what_it_holds(emulator: Emulator, device: Path, tmp_path: Path) -> None:
    remember(Verdict("broken", "why"), emulator, device=device, cache=tmp_path / "cache")
    (path,) = (tmp_path / "cache").glob("*.json")
    content = json.loads(path.read_text())
    assert content["reason"] == "why"
    assert content["host"]["kernel"] == platform.release()


def test_the_cache_follows_xdg(
    emulator: Emulator, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    remember(Verdict("works", ""), emulator, device=device)
    assert len(list((tmp_path / "imagefactory/kvm").glob("*.json"))) == 1
