"""Firmware found through QEMU's JSON descriptors, as libvirt finds it.

The rules are those of docs/interop/firmware.json in QEMU: three directories of descriptors,
read in the order of their file names; a file in a more specific directory hides its namesake;
an empty file hides as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from imagefactory.boot.nova import SecureBoot
from imagefactory.data import config_home
from imagefactory.errors import HostError, PropertyError

FLASH_BYTES = (("virt-*", 64 << 20),)
"""QEMU's virt machines have two flash banks of a fixed size and want files just as large."""


@dataclass(frozen=True)
class FirmwareFiles:
    """Flash contents ready for one guest."""

    executable: Path
    executable_format: str
    variables: Path | None
    variables_format: str
    requires_smm: bool


@dataclass(frozen=True)
class Firmware:
    """One descriptor, reduced to what a guest needs."""

    description: str
    executable: Path
    executable_format: str
    template: Path | None
    template_format: str
    features: frozenset[str]
    machines: tuple[str, ...]
    """Patterns of the machine types that it is for."""

    @property
    def secure(self) -> bool:
        """Whether this firmware enforces Secure Boot from its first start."""
        return {"secure-boot", "enrolled-keys"} <= self.features


@dataclass(frozen=True)
class Wanted:
    """What a guest asks of its firmware."""

    architecture: str
    """QEMU's name, the tail of qemu-system-*."""
    machine: str
    """The canonical machine type."""
    secure_boot: SecureBoot
    stateless: bool
    package: str
    """Named when no firmware fits."""


def directories() -> tuple[Path, ...]:
    """Return the descriptor directories, the most specific first."""
    return (
        config_home() / "qemu/firmware",
        Path("/etc/qemu/firmware"),
        Path("/usr/share/qemu/firmware"),
    )


def find(wanted: Wanted, where: Sequence[Path] | None = None) -> Firmware:
    """Choose the first UEFI firmware that fits the guest and whose files exist.

    Raises:
        HostError: None is installed, or none with the keys that Secure Boot needs.
        PropertyError: Secure Boot exists here, but not for this machine type.
    """
    known = installed(wanted.architecture, where, stateless=wanted.stateless)
    fitting = [
        firmware
        for firmware in known
        if any(fnmatchcase(wanted.machine, pattern) for pattern in firmware.machines)
    ]
    for accept in _preferences(wanted.secure_boot):
        for firmware in fitting:
            if accept(firmware):
                return firmware
    if wanted.secure_boot == "required" and known:
        raise _no_secure_boot(wanted, known)
    raise HostError(
        f"no UEFI firmware is installed for {wanted.architecture}, machine {wanted.machine}",
        hint=f"install the package {wanted.package}",
    )


def installed(
    architecture: str, where: Sequence[Path] | None = None, *, stateless: bool = False
) -> tuple[Firmware, ...]:
    """Return the UEFI firmware of an architecture whose files exist, in the order of choice.

    Args:
        architecture: QEMU's name.
        where: Directories of descriptors, the most specific first; unset: QEMU's.
        stateless: Whether to take what has no variables of its own, instead of what has.

    Raises:
        HostError: A descriptor is not JSON.
    """
    found = []
    for descriptor in _descriptors(directories() if where is None else where):
        # What has another shape is no descriptor, or one of a future kind.
        with contextlib.suppress(LookupError, TypeError, AttributeError):
            found += _usable(descriptor, architecture, "stateless" if stateless else "split")
    return tuple(found)


def _no_secure_boot(wanted: Wanted, known: Sequence[Firmware]) -> HostError | PropertyError:
    machines = {pattern for firmware in known if firmware.secure for pattern in firmware.machines}
    if machines:
        return PropertyError(
            f"os_secure_boot=required is not possible on the machine {wanted.machine}",
            hint=f"machines with Secure Boot: {', '.join(sorted(machines))}; "
            "set hw_machine_type (q35 on x86)",
        )
    return HostError(
        f"os_secure_boot=required: no UEFI firmware with enrolled keys is installed for "
        f"{wanted.architecture}; there is {', '.join(str(one.executable) for one in known)}",
        hint=f"a release of {wanted.package} that has one comes with a descriptor with the "
        "features secure-boot and enrolled-keys in /usr/share/qemu/firmware",
    )


def prepare(firmware: Firmware, machine: str, directory: Path) -> FirmwareFiles:
    """Make a guest's own copy of the variable store, in the size its flash wants."""
    size = next((size for pattern, size in FLASH_BYTES if fnmatchcase(machine, pattern)), 0)
    executable = firmware.executable
    if firmware.executable_format == "raw" and executable.stat().st_size < size:
        executable = _copy(executable, directory / "firmware.fd", size)
    variables = None
    if firmware.template is not None:
        padded = size if firmware.template_format == "raw" else 0
        variables = _copy(firmware.template, directory / "variables.fd", padded)
    return FirmwareFiles(
        executable=executable,
        executable_format=firmware.executable_format,
        variables=variables,
        variables_format=firmware.template_format,
        requires_smm="requires-smm" in firmware.features,
    )


def _copy(source: Path, target: Path, size: int) -> Path:
    shutil.copyfile(source, target)
    target.chmod(0o600)
    if target.stat().st_size < size:
        os.truncate(target, size)
    return target


def _preferences(policy: SecureBoot) -> list[Any]:
    def secure(firmware: Firmware) -> bool:
        return firmware.secure

    def plain(firmware: Firmware) -> bool:
        return "secure-boot" not in firmware.features

    def unenforced(firmware: Firmware) -> bool:
        return not firmware.features & {"enrolled-keys", "requires-smm"}

    chosen = {
        "required": [secure],
        "optional": [secure, plain, unenforced],
        "disabled": [plain, unenforced],
    }
    return chosen[policy]


def _descriptors(where: Sequence[Path]) -> list[dict[str, Any]]:
    chosen: dict[str, Path] = {}
    for directory in where:
        for path in directory.glob("*.json"):
            chosen.setdefault(path.name, path)
    found = []
    for _, path in sorted(chosen.items()):
        text = path.read_text(encoding="utf-8")
        if text.strip():
            found.append(_parse(path, text))
    return found


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        descriptor = json.loads(text)
    except ValueError as error:
        raise HostError(
            f"the firmware descriptor {path} is not JSON: {error}",
            hint="reinstall the firmware package it belongs to",
        ) from None
    return descriptor if isinstance(descriptor, dict) else {}


def _usable(descriptor: dict[str, Any], architecture: str, mode: str) -> list[Firmware]:
    mapping = descriptor["mapping"]
    machines = [
        pattern
        for target in descriptor["targets"]
        if target["architecture"] == architecture
        for pattern in target["machines"]
    ]
    suits = (
        "uefi" in descriptor["interface-types"]
        and mapping["device"] == "flash"
        and mapping.get("mode", "split") == mode
        and machines
    )
    if not suits:
        return []
    executable, template = mapping["executable"], mapping.get("nvram-template")
    firmware = Firmware(
        description=str(descriptor.get("description", "")),
        executable=Path(executable["filename"]),
        executable_format=executable.get("format", "raw"),
        template=Path(template["filename"]) if template else None,
        template_format=template.get("format", "raw") if template else "raw",
        features=frozenset(descriptor.get("features", [])),
        machines=tuple(machines),
    )
    files = [firmware.executable, *([firmware.template] if firmware.template else [])]
    return [firmware] if all(file.is_file() for file in files) else []
