"""What every builder of trees works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagefactory.arch import ArchProfile
from imagefactory.packages.pool import Package
from imagefactory.packages.tools import Tools
from imagefactory.progress import silent
from imagefactory.sandbox.namespace import run_inside
from imagefactory.sources import Sources
from imagefactory.tree import RootTree


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

    def build_inside(self, module: str, spec: bytes, timeout: float) -> dict[str, str]:
        """Run the part of a builder that works as root of namespaces of its own.

        Args:
            module: Its full name.
            spec: What it is told.
            timeout: Seconds.

        Returns:
            What it said last of each kind.

        Raises:
            HostError: This host gives no namespaces.
            BuildError: It failed; the log is beside the result.
        """
        told = self.work / "tree.json"
        told.write_bytes(spec)
        said: dict[str, str] = {}

        def listen(event: str, text: str) -> None:
            said[event] = text
            if event == "progress":
                self.announce("tree", text)

        run_inside(module, told, log=self.work / "tree.log", timeout=timeout, listen=listen)
        return said


def finished(
    said: Mapping[str, str], result: str, epoch: int, how: str, boot_files: Path | None = None
) -> RootTree:
    """Put together what a tree has become.

    Args:
        said: What the inside of the builder said, see `customising.make`.
        result: The tree's tar.
        epoch: The time of every file, seconds since 1970.
        how: How its programs were run.
        boot_files: See `RootTree`.
    """
    known = {part: Path(said[part]) for part in ("labels", "packages") if part in said}
    return RootTree(
        Path(result),
        said["kernel"],
        (said["initramfs"],),
        epoch,
        how,
        boot_files,
        known.get("labels"),
        known.get("packages"),
    )
