"""Whether KVM can be believed on this host.

``/dev/kvm`` may exist, open and answer, and still not run guests: nested clouds offer KVM
without hardware behind it, which interprets a 64-bit guest instruction by instruction. Firmware
in 16 and 32 bits starts, then a kernel would unpack itself for hours. So KVM is believed once a
real guest ran on it: the first boot on a host tries the image itself under KVM with a short
budget for the kernel's first line (``Trial``), and the verdict is remembered until the host
boots again, or gets another kernel, emulator or device.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from imagefactory.arch import ArchProfiles
from imagefactory.boot.machine import Emulator
from imagefactory.data import cache_directory

Choice = Literal["auto", "kvm", "tcg"]
Belief = Literal["works", "broken", "unproven", "absent"]

KVM_DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

TRIAL_SHARE = 0.1
"""Share of the emulation's boot budget in which an unproven KVM must show a kernel."""

KVM_SHARE = 0.4
"""Share of the emulation's budgets that remains with KVM."""


@dataclass(frozen=True)
class Verdict:
    """What is known about KVM here, and from what."""

    belief: Belief
    reason: str


@dataclass(frozen=True)
class Host:
    """What a verdict holds for: another value of any of these, and it is void."""

    boot_id: str
    kernel: str
    machine: str
    emulator: str
    emulator_version: str
    device: str

    @classmethod
    def here(cls, emulator: Emulator, device: Path = KVM_DEVICE) -> Host:
        """Describe this host."""
        binary = Path(emulator.binary).stat()
        node = device.stat() if device.exists() else None
        return cls(
            boot_id=BOOT_ID.read_text(encoding="ascii").strip(),
            kernel=platform.release(),
            machine=platform.machine(),
            emulator=f"{emulator.binary} {binary.st_size} {binary.st_mtime_ns}",
            emulator_version=emulator.version,
            device=f"{device} {node.st_rdev} {node.st_ino}" if node else f"{device} absent",
        )

    @property
    def digest(self) -> str:
        """A name for the file of the verdict."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


def recall(
    architecture: str,
    profiles: ArchProfiles,
    emulator: Emulator,
    *,
    device: Path = KVM_DEVICE,
    cache: Path | None = None,
) -> Verdict:
    """Tell what is known about KVM for guests of an architecture."""
    machine = platform.machine()
    host_names = {
        name
        for profile in profiles.profiles
        for name in (profile.name, *profile.aliases)
        if machine in (profile.name, *profile.aliases)
    }
    if architecture not in host_names:
        return Verdict("absent", f"a {machine} host does not run {architecture} guests by itself")
    if not os.access(device, os.R_OK | os.W_OK):
        return Verdict("absent", f"{device} is not there, or not open to this user")
    path = _verdict_file(emulator, device, cache)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Verdict(stored["belief"], stored["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        return Verdict("unproven", "no guest has run on it since the host booted")


def remember(
    verdict: Verdict, emulator: Emulator, *, device: Path = KVM_DEVICE, cache: Path | None = None
) -> None:
    """Keep a verdict until the host boots again; a cache that cannot be written is no error."""
    path = _verdict_file(emulator, device, cache)
    host = Host.here(emulator, device)
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = asdict(verdict) | {"host": asdict(host)}
        fresh.write_text(json.dumps(content, indent=1), encoding="utf-8")
        fresh.replace(path)
    except OSError:
        return


def _verdict_file(emulator: Emulator, device: Path, cache: Path | None) -> Path:
    digest = Host.here(emulator, device).digest
    return (cache_directory() / "kvm" if cache is None else cache) / f"{digest}.json"
