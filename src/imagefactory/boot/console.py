"""Reads a serial console as it is written: milestones, and signs that a boot has failed.

Pure but for the ``changed`` event: bytes go in with the time of their arrival, what they mean
comes out. The patterns are data; a new firmware or distribution is a new line in a table.
"""

from __future__ import annotations

import asyncio
import codecs
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from imagefactory.boot.report import SECOND, Failure

MILESTONE_PATTERNS: tuple[tuple[str, str], ...] = (
    ("firmware", r"SeaBIOS \(version|UEFI firmware|BdsDxe:|\bSLOF\b|OpenSBI v|U-Boot \d"),
    (
        "bootloader",
        (
            r"Booting from Hard Disk|BdsDxe: starting Boot|GRUB loading|Welcome to GRUB|GNU GRUB"
            r"|Loading Linux|Loading initial ramdisk|Booting `|systemd-boot|SYSLINUX \d"
            r"|Successfully loaded"
        ),
    ),
    (
        "kernel",
        (
            r"EFI stub:|Linux version \d|Booting Linux on physical CPU|\[ +0\.000000\]"
            r"|OF stdout device is|Preparing to boot Linux version"
        ),
    ),
    (
        "userspace",
        (
            r"Run /(?:sbin/)?init as init process|imagefactory-init:|systemd\[1\]:"
            r"|Welcome to (?!GRUB).*!"
            r"|Begin: Running /scripts|dracut-|cloud-init\[\d+\]|/etc/init\.d/"
        ),
    ),
    ("login", r"\blogin: ?$"),
)
"""Milestone, and what its first sign on a console looks like; later ones imply earlier ones."""

FATAL_PATTERNS: tuple[tuple[Failure, str], ...] = (
    (
        "root not found",
        (
            r"imagefactory-init: PANIC no root|VFS: Unable to mount root fs"
            r"|Gave up waiting for root"
            r"|ALERT! .* does not exist|Cannot open root device|dracut.*: Could not boot"
            r"|Warning: /dev/disk/.* does not exist"
        ),
    ),
    ("kernel panic", r"Kernel panic - not syncing|imagefactory-init: PANIC"),
    (
        "no kernel",
        # Other complaints of GRUB (a missing font, a search that fails first) heal.
        (
            r"grub rescue>|error: you need to load the kernel first|Minimal BASH-like line editing"
            r"|error: .*vmlinu\S* not found"
        ),
    ),
    (
        "no bootloader",
        (
            r"No bootable device|BdsDxe: No bootable option|UEFI Interactive Shell"
            r"|E3407: Load failed|Not a bootable device|No Operating System found"
        ),
    ),
)
"""Failures that cannot heal. In order: the cause stands before what follows from it."""

_NOISE = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-B0-2]|[=>c78])|[\x00\x07\x0e\x0f]")
_MILESTONES = tuple((name, re.compile(pattern)) for name, pattern in MILESTONE_PATTERNS)
_FATAL = tuple((name, re.compile(pattern)) for name, pattern in FATAL_PATTERNS)

_new_decoder = codecs.getincrementaldecoder("utf-8")

KEPT_LINES = 200


@dataclass
class Console:
    """What is known of one boot from what was printed."""

    announce: Callable[[str, float], None] = lambda name, seconds: None
    milestones: dict[str, float] = field(default_factory=dict)
    fatal: Failure | None = None
    fatal_line: str = ""
    last_output: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    earlier: dict[str, float] = field(default_factory=dict)
    """Milestones of the starts before the present one."""
    starts: int = 1
    _lines: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    _partial: dict[str, str] = field(default_factory=dict)
    _decoders: dict[str, codecs.IncrementalDecoder] = field(default_factory=dict)

    def feed(self, data: bytes, at: float, source: str = "serial") -> None:
        """Take in what arrived from one source (the serial port, the firmware's own log)."""
        self.last_output = at
        decoder = self._decoders.setdefault(source, _new_decoder("replace"))
        text = _NOISE.sub("", self._partial.get(source, "") + decoder.decode(data))
        lines = re.split(r"[\r\n]+", text)
        for line in lines[:-1]:
            if line.strip():
                self._lines.append(line.rstrip())
                self._look(line, at)
        # A prompt has no newline; an endless line must not be searched for ever.
        self._partial[source] = lines[-1][-1024:]
        self._look(lines[-1], at)
        self.changed.set()

    def reached(self, milestone: str, at: float) -> None:
        """Note a milestone that was seen elsewhere (SSH, the emulator's end)."""
        if milestone not in self.milestones:
            self.milestones[milestone] = round(at, 2)
            self.announce(f"{self._prefix}{milestone}", at)

    def start_over(self) -> None:
        """Keep what was seen and look for it anew: the machine starts a second time."""
        self.earlier = self.all_milestones()
        self.starts += 1
        self.milestones = {}
        self.fatal, self.fatal_line, self.last_output = None, "", 0.0
        self._lines.clear()
        self._partial.clear()

    def all_milestones(self) -> dict[str, float]:
        """Return the milestones of all starts; those of a second one have SECOND before them."""
        return self.earlier | {f"{self._prefix}{name}": at for name, at in self.milestones.items()}

    @property
    def _prefix(self) -> str:
        return SECOND if self.starts > 1 else ""

    def tail(self, count: int = 25) -> tuple[str, ...]:
        """Return the last lines printed, the unfinished one included."""
        lines = [*self._lines, *(part for part in self._partial.values() if part.strip())]
        return tuple(lines[-count:])

    def _look(self, line: str, at: float) -> None:
        for name, pattern in _MILESTONES:
            if name not in self.milestones and pattern.search(line):
                self.reached(name, at)
        for failure, pattern in _FATAL:
            if not pattern.search(line):
                continue
            if self._outranks(failure):
                self.fatal, self.fatal_line = failure, line.strip()
            elif line.strip().startswith(self.fatal_line):
                self.fatal_line = line.strip()  # the rest of a line that came in two parts

    def _outranks(self, failure: Failure) -> bool:
        order = [name for name, _ in FATAL_PATTERNS]
        if failure == "no bootloader" and "bootloader" in self.milestones:
            # Firmware that tries one more device after the system has started says so, too.
            return "kernel" not in self.milestones and self.fatal is None
        return self.fatal is None or order.index(failure) < order.index(self.fatal)
