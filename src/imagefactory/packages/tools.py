"""Programs of a chosen release, unpacked beside the host's own and run by their own loader.

The bytes of an image must not depend on which mke2fs or grub-mkimage a host happens to have.
So those programs are packages like any other: resolved, verified, part of the plan's digest.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from imagefactory import run
from imagefactory.cache import Store
from imagefactory.errors import PackageError
from imagefactory.packages.pool import Package, Pool

_PROGRAM_DIRECTORIES = ("usr/sbin", "usr/bin", "sbin", "bin")


@dataclass(frozen=True)
class Tools:
    """An unpacked set of host programs."""

    directory: Path

    def command(self, program: str, name: str | None = None) -> tuple[str, ...]:
        """Return the words that start a program of the set.

        Args:
            program: The program's file.
            name: What it is called as, for a file that is many programs (kmod, mtools).

        Raises:
            PackageError: No package of the set brings it.
        """
        for folder in _PROGRAM_DIRECTORIES:
            path = self.directory / folder / program
            if path.is_file():
                return (*self._loader(path, name), str(path))
        raise PackageError(f"none of the tool packages brings the program {program!r}")

    @functools.cached_property
    def _libraries(self) -> str:
        return ":".join(sorted({str(path.parent) for path in self.directory.rglob("lib*.so.*")}))

    def _loader(self, program: Path, name: str | None) -> tuple[str, ...]:
        with program.open("rb") as stream:
            if stream.read(4) != b"\x7fELF":
                return ()  # a script
            elf: Any = ELFFile(stream)
            segments = elf.iter_segments("PT_INTERP")
            names = [Path(segment.get_interp_name()).name for segment in segments]
        if not names:
            return ()
        loader = next(self.directory.rglob(names[0]), None)
        if loader is None:
            raise PackageError(f"the tool packages lack {names[0]}, which {program.name} needs")
        called = ("--argv0", name) if name else ()
        return (str(loader.resolve()), "--library-path", self._libraries, *called)


def unpack(packages: Sequence[Package], pool: Pool, cache: Path) -> Tools:
    """Unpack a set of packages once; later calls find it there.

    Raises:
        PackageError: A package of the pool is damaged.
    """
    key = hashlib.sha256("".join(package.sha256 for package in packages).encode()).hexdigest()

    def extract(tree: Path) -> None:
        tree.mkdir()
        for package in packages:
            run.run(["dpkg-deb", "--extract", pool.take(package), tree])

    return Tools(Store(cache, "tools").obtain(key[:16], extract))
