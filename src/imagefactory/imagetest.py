"""Boot tests of any disk: what to boot and how, from what the caller says and what is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagefactory.arch import ArchProfiles
from imagefactory.boot import BootReport, boot_test
from imagefactory.catalog import Build, now, read_build
from imagefactory.errors import ConfigError, PropertyError
from imagefactory.glance.stored import MARK_PREFIX
from imagefactory.properties import validate
from imagefactory.schedule import Schedule
from imagefactory.template import BootCase

_FORMATS = {".qcow2": "qcow2", ".img": "qcow2", ".raw": "raw"}


@dataclass(frozen=True)
class Subject:
    """A disk that is to be boot-tested: its format, its image properties, its boots."""

    disk: Path
    format: str
    properties: dict[str, str]
    cases: tuple[BootCase, ...]
    kernel: Path | None = None
    ramdisk: Path | None = None


def describe(  # noqa: PLR0913
    disk: Path,
    architectures: Sequence[str],
    profiles: ArchProfiles,
    *,
    disk_format: str | None = None,
    properties_file: Path | None = None,
    changes: Sequence[str] = (),
    datasources: Sequence[str] = (),
    reboot: bool = False,
    memory: int | None = None,
    kernel: Path | None = None,
    ramdisk: Path | None = None,
) -> Subject:
    """Find out what a disk is: by its manifest if it is our build, by what is said otherwise.

    Raises:
        ConfigError: The architecture is not known or not the build's own, or a property is not
            KEY=VALUE.
        PropertyError: nova would refuse the properties.
    """
    properties = _starting_point(disk, architectures, profiles, properties_file)
    properties = with_changes(properties, changes)
    if memory:
        properties["min_ram"] = str(memory)
    build = _build_of(disk)
    if build and not kernel:
        kernel, ramdisk = build.kernel, ramdisk or build.ramdisk
    # nova gives emulated guests no config drive.
    usual = "openstack" if properties.get("hw_emulation_architecture") else "config-drive"
    cases = tuple(
        BootCase.model_validate(
            # Nobody can log in, let alone reboot, where there is no datasource.
            {"name": name, "datasource": name, "reboot": reboot and name != "none"}
        )
        for name in (datasources or (usual,))
    )
    chosen = disk_format or _FORMATS.get(disk.suffix, "qcow2")
    return Subject(disk, chosen, properties, cases, kernel, ramdisk)


def with_changes(properties: Mapping[str, str], changes: Sequence[str]) -> dict[str, str]:
    """Change properties as a command line says.

    Args:
        properties: What they are without it.
        changes: ``KEY=VALUE`` each.

    Raises:
        ConfigError: A change is no such words, or of a mark that uploads make.
        PropertyError: nova would refuse what comes out.
    """
    changed = dict(properties)
    for change in changes:
        key, equals, value = change.partition("=")
        if not (key and equals):
            raise ConfigError(f"--property takes KEY=VALUE, not {change!r}")
        if key.startswith(MARK_PREFIX):
            raise ConfigError(
                f"{key} is a mark of imagefactory's uploads, which make it themselves"
            )
        changed[key] = value
    try:
        validate(changed)
    except PropertyError as error:
        error.hint = "`-p KEY=VALUE` says another value" if changes else error.hint
        raise
    return changed


def run(
    subject: Subject,
    evidence: Path,
    profiles: ArchProfiles,
    *,
    accelerator: Literal["auto", "kvm", "tcg"],
    schedule: Schedule,
    announce: Callable[[str, str], None],
    budget: float | None = None,
    patience: float = 1.0,
) -> BootReport:
    """Boot it; a boot that fails is a report, not an error.

    Args:
        subject: What to boot, and how.
        evidence: A directory for logs and pictures.
        profiles: All architectures.
        accelerator: auto takes KVM only where it proved that it works.
        schedule: Room for guests.
        announce: Told what happens.
        budget: Seconds from power-on to SSH; None: the profile's.
        patience: Times that budget.
    """
    return boot_test(
        subject.disk,
        subject.properties,
        subject.cases,
        evidence,
        profiles=profiles,
        accelerator=accelerator,
        disk_format=subject.format,
        kernel=subject.kernel,
        ramdisk=subject.ramdisk,
        progress=lambda case, text: announce(f"boot test: {case}", text),
        room=schedule.guest,
        jobs=schedule.jobs,
        budget=budget,
        patience=patience,
    )


def evidence_directory(catalog: Path, disk: Path) -> Path:
    """Name a fresh directory for the evidence of a test."""
    return catalog / ".tests" / f"{disk.stem}-{now()[:19].replace(':', '')}"


def _starting_point(
    disk: Path, architectures: Sequence[str], profiles: ArchProfiles, file: Path | None
) -> dict[str, str]:
    if file:
        return _properties_of(file)
    chosen = profiles.select(tuple(architectures))
    build = _build_of(disk)
    if build:
        if [profile.name for profile in chosen] not in ([], [build.architecture]):
            raise ConfigError(
                f"{disk.name} was built for {build.architecture}",
                hint=f"leave --arch out, or say --arch {build.architecture}",
            )
        return build.properties
    if len(chosen) != 1:
        told = "does not say which architecture it is for"
        raise ConfigError(
            f"{disk.name} is for one architecture, not for {len(chosen)}"
            if chosen
            else f"{disk.name} {told}",
            hint="name one: --arch aarch64",
        )
    return dict(chosen[0].properties)


def _build_of(disk: Path) -> Build | None:
    """The build a disk belongs to; another program's manifest.json is none of ours."""
    build = read_build(disk.parent)
    return build if build and build.disk.name == disk.name else None


def _properties_of(file: Path) -> dict[str, str]:
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ConfigError(f"{file} does not hold a JSON object of properties")
    return {key: _as_property(key, value, file) for key, value in given.items()}


def _as_property(key: str, value: object, file: Path) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(f"{file}: the property {key} has no plain value")
