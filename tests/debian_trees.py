"""Images of whole Debians that tests build: one with everything, one as small as can be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagefactory.run import need, run
from tests.debs import make_deb
from tests.factory import BuiltImage, Factory

EPOCH = 1_700_000_000
"""SOURCE_DATE_EPOCH of the tests' builds: before any of the packages was made."""

TINY = """\
name: tiny
extends: debian-12
description: made for a test
disk_size: {size}
compression: fast
boot: {{x86_64: [bios]}}
kernel: linux-image-tiny
debian:
  packages: ["?essential", tzdata{more}]
  architecture_packages: {{x86_64: [], aarch64: [], ppc64le: []}}
  local_packages: debs
customize: {steps}
"""

_INITRAMFS = b"""\
#!/bin/sh -e
echo initramfs >/boot/initrd.img-tiny
"""


@dataclass(frozen=True)
class Own:
    """A directory of templates of one's own, and the command line that knows it."""

    directory: Path
    factory: Factory

    @classmethod
    def beside(cls, factory: Factory, directory: Path) -> Own:
        (directory / "templates/debs").mkdir(parents=True)
        command = (*factory.command, "--path", str(directory))
        env = {**factory.env, "SOURCE_DATE_EPOCH": str(EPOCH)}
        return cls(directory, Factory(factory.catalog, env, command))

    def put(self, path: str, content: str) -> Path:
        file = self.directory / "templates" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        return file

    def deb(self, name: str, files: Mapping[str, bytes], **more: object) -> Path:
        return make_deb(self.directory / "templates/debs", name, files, **more)  # type: ignore[arg-type]

    def tiny(self, steps: str = "[]", more: str = "", size: int = 768) -> Own:
        """The smallest tree that the builder takes: its kernel is a file that nobody boots."""
        self.put("tiny.yaml", TINY.format(steps=steps, size=size, more=more))
        kernel = {"boot/vmlinuz-tiny": b"kernel\n", "usr/sbin/update-initramfs": _INITRAMFS}
        self.deb("linux-image-tiny", kernel, architecture="all")
        return self


@dataclass(frozen=True)
class Entry:
    """What the finished filesystem says of one path."""

    mode: int
    user: int
    group: int

    @property
    def permissions(self) -> str:
        return f"{self.mode & 0o7777:04o}"

    @property
    def kind(self) -> int:
        return self.mode & 0o170000


@dataclass(frozen=True)
class FinishedRoot:
    """The root filesystem of a finished disk, read without mounting it."""

    directory: Path
    """Its files as they are, but for owners and for the modes that a copy cannot have."""
    entries: Mapping[str, Entry]

    def text(self, path: str) -> str:
        return (self.directory / path).read_text(encoding="utf-8")

    def owner(self, path: str) -> str:
        names = {
            kind: {
                int(line.split(":")[2]): line.split(":")[0]
                for line in self.text(f"etc/{kind}").splitlines()
            }
            for kind in ("passwd", "group")
        }
        entry = self.entries[path]
        return f"{names['passwd'][entry.user]}:{names['group'][entry.group]}"

    @classmethod
    def of(cls, build: BuiltImage, scratch: Path) -> FinishedRoot:
        raw = scratch / "disk.raw"
        run(["qemu-img", "convert", "-O", "raw", build.disk, raw])
        table = run([need("sfdisk", "fdisk"), "--dump", raw]).stdout
        start = next(
            int(found.group(1))
            for line in table.splitlines()
            if 'name="root"' in line and (found := re.search(r"start= *([0-9]+)", line))
        )
        disk = f"{raw}?offset={start * 512}"
        directory = scratch / "root"
        directory.mkdir()
        debugfs = need("debugfs", "e2fsprogs")
        run([debugfs, "-R", f'rdump / "{directory}"', disk])
        folders = [".", *(str(p.relative_to(directory)) for p in _folders(directory))]
        asked = scratch / "asked"
        asked.write_text("".join(f'ls -p "/{folder}"\n' for folder in folders))
        said = run([debugfs, "-f", asked, disk]).stdout
        raw.unlink()
        return cls(directory, dict(_entries(said)))


def _folders(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_dir() and not path.is_symlink())


def _entries(said: str) -> Iterator[tuple[str, Entry]]:
    """Read what `ls -p` says: /inode/mode/user/group/name/size/ after a line with the command."""
    folder = ""
    for line in said.splitlines():
        if line.startswith("debugfs: ls -p "):
            folder = line.split('"')[1].strip("/").removeprefix(".").lstrip("/")
        elif line.startswith("/"):
            _, _, mode, user, group, name, *_ = line.split("/")
            if name not in {"", ".", ".."}:  # a name that was removed is empty
                yield f"{folder}/{name}".lstrip("/"), Entry(int(mode, 8), int(user), int(group))
