"""What system tests do over and over: run the command line, look at the host, be somebody else."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

MINUTES = 60
COMMAND = (sys.executable, "-m", "imagefactory")


@dataclass(frozen=True)
class BuiltImage:
    """A build of the catalog."""

    disk: Path
    manifest: dict[str, Any]

    @property
    def properties(self) -> dict[str, str]:
        return dict(self.manifest["plan"]["properties"])

    @classmethod
    def of(cls, disk: Path) -> BuiltImage:
        return cls(disk, json.loads((disk.parent / "manifest.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Factory:
    """The command line with a catalog of its own."""

    catalog: Path
    env: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = COMMAND

    def argv(self, *words: str | Path) -> list[str]:
        return [*self.command, "--catalog", str(self.catalog), *map(str, words)]

    def run(
        self, *words: str | Path, status: int = 0, timeout: float = 15 * MINUTES
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; an unexpected exit status fails with all that was said."""
        done = subprocess.run(
            self.argv(*words),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, **self.env},
            stdin=subprocess.DEVNULL,
        )
        told = f"{' '.join(done.args)}\nstatus {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == status, told
        return done

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a command; its progress can be read line by line from stderr."""
        return subprocess.Popen(
            self.argv(*words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **self.env},
        )

    def builds(self) -> list[Path]:
        return sorted(self.catalog.glob("*/*/*/manifest.json"))

    def work(self) -> list[Path]:
        return sorted(path for path in (self.catalog / ".work").glob("*") if path.is_dir())


def wait_for_line(process: subprocess.Popen[str], words: str) -> None:
    """Read a program's progress until a line holds some words."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if words in line:
            return
    raise AssertionError(f"it ended before it said {words!r}:\n{''.join(seen)}")


@dataclass(frozen=True)
class HostState:
    """What a build must leave as it found it."""

    mounts: frozenset[str]
    loop_devices: frozenset[str]
    binfmt: frozenset[str]
    processes: frozenset[str]

    def new_since(self, before: HostState) -> list[str]:
        """What is there now and was not; what others took away meanwhile is not our doing."""
        return sorted(
            thing
            for part in fields(self)
            for thing in getattr(self, part.name) - getattr(before, part.name)
        )

    @classmethod
    def now(cls, marker: str) -> HostState:
        """Look at the host; of the processes only those whose command line holds the marker."""
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        loops = Path("/sys/block").glob("loop*/loop/backing_file")
        binfmt = Path("/proc/sys/fs/binfmt_misc")
        return cls(
            frozenset(line.split(" ", 3)[3] for line in mounts),
            frozenset(path.read_text(encoding="utf-8") for path in loops),
            frozenset(path.name for path in binfmt.glob("*")) if binfmt.is_dir() else frozenset(),
            frozenset(processes_with(marker)),
        )


def processes_with(marker: str) -> list[str]:
    """Return the command lines of running programs that hold some words."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            state = (path / "stat").read_text(encoding="utf-8").rpartition(") ")[2][0]
        except OSError:  # it ended while we looked
            continue
        if marker in words and state != "Z" and path.name != str(os.getpid()):
            found.append(words)
    return found


def as_root(argv: Sequence[str]) -> None:
    """Run a program as root, through sudo if need be."""
    prefix = () if os.geteuid() == 0 else ("sudo", "-n")
    subprocess.run([*prefix, *argv], check=True, capture_output=True)


ORDINARY_USER = "imagefactory-test"


def ordinary_user() -> pwd.struct_passwd:
    """Return an ordinary user, made for the tests if there is none yet."""
    try:
        return pwd.getpwnam(ORDINARY_USER)
    except KeyError:
        useradd = shutil.which("useradd", path=f"{os.environ['PATH']}:/usr/sbin") or "useradd"
        as_root([useradd, "--system", "--create-home", "--shell", "/bin/sh", ORDINARY_USER])
        return pwd.getpwnam(ORDINARY_USER)
