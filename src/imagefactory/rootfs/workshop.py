"""What every builder of trees works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imagefactory.arch import ArchProfile
from imagefactory.packages.pool import Package
from imagefactory.packages.tools import Tools
from imagefactory.progress import silent
from imagefactory.sources import Sources


@dataclass(frozen=True)
class Workshop:
    """A place to build a tree in.

    Attributes:
        sources: Where packages come from; those of the plan have been fetched.
        tools: Host programs (depmod).
        host: This machine's architecture.
        work: A directory for the result.
        cache: The directory of all caches.
        accelerate: False: emulate every foreign program.
        announce: Told what is going on.
    """

    sources: Sources
    tools: Tools
    host: ArchProfile
    work: Path
    cache: Path
    accelerate: bool = True
    announce: Callable[[str, str], None] = silent

    def package_file(self, package: Package) -> Path:
        """Find a package's verified file.

        Raises:
            PackageError: It is gone, or damaged.
        """
        return self.sources.image.pool.take(package)
