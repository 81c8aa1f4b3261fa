"""The local store of builds: each appears by one atomic rename, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from imagefactory.data import catalog_directory, sha256_of
from imagefactory.errors import ConfigError

MANIFEST = "manifest.json"

VERDICTS = ("passed", "failed", "untested")
"""What a build's boot test can have come to."""

STANDARDS = ("cyclonedx", "spdx")
"""What an SBOM can be written in."""

_SWEEPING = "sweeping.lock"


@dataclass(frozen=True)
class Build:
    """One finished build: its directory and its manifest."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def image(self) -> str:
        """The image's name."""
        return str(self.manifest["plan"]["image"])

    @property
    def architecture(self) -> str:
        """Nova's name of the architecture."""
        return str(self.manifest["plan"]["architecture"])

    @property
    def disk(self) -> Path:
        """The disk image."""
        return self.directory / str(self.manifest["disk"]["file"])

    @property
    def kernel(self) -> Path | None:
        """The kernel that a partition image is started with; None: the disk has its own."""
        return self._beside("kernel")

    @property
    def ramdisk(self) -> Path | None:
        """The same of its ramdisk."""
        return self._beside("ramdisk")

    def _beside(self, part: str) -> Path | None:
        kept = self.manifest["disk"].get(part)
        return self.directory / str(kept["file"]) if kept else None

    @property
    def files(self) -> tuple[Path, ...]:
        """The disk image, and kernel and ramdisk where they are files of their own."""
        return tuple(file for file in (self.disk, self.kernel, self.ramdisk) if file)

    @property
    def sbom(self) -> dict[str, Path]:
        """Standard (cyclonedx, spdx) -> the document of what the image holds."""
        told = self.manifest.get("sbom") or {}
        known = {standard: told[standard] for standard in STANDARDS if standard in told}
        return {standard: self.directory / str(one["file"]) for standard, one in known.items()}

    def changed_files(self) -> tuple[str, ...]:
        """Name those files that are not what the manifest says: gone, or other bytes."""
        kept = self.manifest["disk"]
        told = (
            *(kept, *(kept[part] for part in ("kernel", "ramdisk") if kept.get(part))),
            *(self.manifest["sbom"][standard] for standard in self.sbom),
        )
        return tuple(
            file.name
            for file, one in zip((*self.files, *self.sbom.values()), told, strict=True)
            if not file.is_file() or sha256_of(file) != one.get("sha256")
        )

    @property
    def properties(self) -> dict[str, str]:
        """The Glance image properties."""
        return dict(self.manifest["plan"]["properties"])

    @property
    def digest(self) -> str:
        """The digest of the plan it was built from."""
        return str(self.manifest["plan"]["digest"])

    @property
    def size(self) -> int:
        """Bytes of the disk image's file."""
        return int(self.manifest["disk"]["size"])

    @property
    def boots(self) -> tuple[dict[str, Any], ...]:
        """What the boot test found, boot by boot."""
        return tuple((self.manifest.get("boot_test") or {}).get("cases", ()))

    @property
    def comparisons(self) -> tuple[dict[str, Any], ...]:
        """What the boot test found when it compared the boots with each other."""
        return tuple((self.manifest.get("boot_test") or {}).get("checks", ()))

    @property
    def boot_seconds(self) -> float | None:
        """Seconds from power-on to a shell over SSH, the slowest of the tested boots."""
        times = [boot["milestones"].get("ssh") for boot in self.boots]
        known = [float(time) for time in times if time is not None]
        return max(known) if known else None

    @property
    def checks(self) -> tuple[int, int]:
        """Checks passed, and checks made."""
        verdicts = [check["verdict"] for boot in self.boots for check in boot["checks"]]
        verdicts += [check["verdict"] for check in self.comparisons]
        return verdicts.count("passed"), len(verdicts) - verdicts.count("skipped")

    @property
    def verdict(self) -> str:
        """passed, failed or untested."""
        report = self.manifest.get("boot_test")
        return "untested" if report is None else str(report["verdict"])


class Catalog:
    """Builds under one directory: IMAGE/ARCHITECTURE/BUILD/.

    Args:
        directory: Where the builds lie; work in progress is in ``.work`` below it, so that
            finishing a build is a rename within one filesystem.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._work = directory / ".work"

    @classmethod
    def default(cls) -> Catalog:
        """The user's own catalog, ``$XDG_DATA_HOME/imagefactory``."""
        return cls(catalog_directory())

    @property
    def nearest_directory(self) -> Path:
        """The catalog's directory, or the parent of it that exists already."""
        places = (self.directory, *self.directory.parents)
        return next(place for place in places if place.is_dir())

    @contextlib.contextmanager
    def workspace(self, name: str) -> Iterator[Path]:
        """Hand out an empty directory that is removed in the end, whatever happens.

        Directories that a killed process left behind are removed first: the kernel drops a
        process's lock with the process, so a free lock means that nobody works there.

        Raises:
            ConfigError: The catalog cannot be written to.
        """
        try:
            self._work.mkdir(parents=True, exist_ok=True)
            # One at a time: nobody may sweep a directory between its birth and its lock.
            with FileLock(self._work / _SWEEPING):
                self._sweep()
                work = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._work))
                lock = FileLock(f"{work}.lock")
                lock.acquire()
        except OSError as error:
            raise ConfigError(
                f"the catalog {self.directory} cannot be written to: {error.strerror}",
                hint="choose another with --catalog DIR",
            ) from None
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
            lock.release()
            Path(f"{work}.lock").unlink(missing_ok=True)

    def add(self, work: Path, manifest: dict[str, Any]) -> Build:
        """Make a finished workspace a build: manifest, flush, one rename."""
        plan = manifest["plan"]
        moment = datetime.fromisoformat(manifest["built"]).strftime("%Y%m%dT%H%M%S%fZ")
        parent = self.directory / plan["image"] / plan["architecture"]
        parent.mkdir(parents=True, exist_ok=True)
        path = work / MANIFEST
        target = parent / f"{moment}-{plan['digest'][:12]}"
        path.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        _rewrite_paths(work, target)
        build = Build(work, manifest)
        for file in (path, *build.files, *build.sbom.values()):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        work.rename(target)
        return Build(target, json.loads((target / MANIFEST).read_text(encoding="utf-8")))

    def keep_evidence(self, evidence: Path, name: str) -> Path:
        """Keep the evidence of a failed build, the last one of each image."""
        kept = self.directory / ".failed" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        while True:
            if kept.is_dir():
                shutil.rmtree(kept, ignore_errors=True)
            else:  # a single log, of a failure before the boot test
                kept.unlink(missing_ok=True)
            try:
                return evidence.rename(kept)
            except OSError as error:  # another process kept its own in this moment
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}:
                    raise

    def images(self) -> tuple[str, ...]:
        """Name the images that have builds."""
        manifests = self.directory.glob(f"[!.]*/*/*/{MANIFEST}")
        return tuple(sorted({path.parents[2].name for path in manifests}))

    def builds(self, image: str, architecture: str) -> tuple[Build, ...]:
        """Return the builds of an image, the oldest first; what cannot be read is left out."""
        found = []
        for path in sorted((self.directory / image / architecture).glob(f"*/{MANIFEST}")):
            build = read_build(path.parent)
            if build:
                found.append(build)
        return tuple(found)

    def broken_since(self, build: Build) -> tuple[Path, ...]:
        """Name the manifests of later builds of the same image that cannot be read."""
        return tuple(
            manifest
            for manifest in sorted(build.directory.parent.glob(f"*/{MANIFEST}"))
            if manifest.parent.name > build.directory.name and not read_build(manifest.parent)
        )

    def latest(self, image: str, architecture: str) -> Build | None:
        """Return the newest build of an image."""
        builds = self.builds(image, architecture)
        return builds[-1] if builds else None

    def latest_good(self, image: str, architecture: str) -> Build | None:
        """Return the newest build that passed its boot test."""
        good = [build for build in self.builds(image, architecture) if build.verdict == "passed"]
        return good[-1] if good else None

    def _sweep(self) -> None:
        for work in self._work.iterdir():
            if work.suffix == ".lock":
                if work.name != _SWEEPING and not work.with_suffix("").exists():
                    work.unlink(missing_ok=True)
                continue
            lock = FileLock(f"{work}.lock", timeout=0)
            with contextlib.suppress(Timeout), lock:
                shutil.rmtree(work, ignore_errors=True)


def read_build(directory: Path) -> Build | None:
    """Read the build that lies in a directory; None if there is none, or none of ours."""
    try:
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        build = Build(directory, manifest)
        whole = (
            *(build.image, build.architecture, build.files, build.properties, build.digest),
            *(build.size, build.boot_seconds, build.checks, manifest["built"], manifest["seconds"]),
            build.sbom,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return build if whole and build.verdict in VERDICTS else None


def now() -> str:
    """Return the time as manifests keep it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat()


def _rewrite_paths(work: Path, target: Path) -> None:
    """Let the reports and scripts of a workspace name the place where it is about to be."""
    for file in sorted(work.rglob("*")):
        if file.suffix in {".json", ".sh"} and not file.is_symlink():
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace(str(work), str(target)), encoding="utf-8")
