"""diskimage-builder, the tool that OpenStack's own images are made with, for the same packages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from imagefactory import run
from imagefactory.arch import ArchProfile
from imagefactory.errors import ImageFactoryError
from imagefactory.sources import Sources
from tools.bench.measure import timed
from tools.bench.place import PackageSet, Place
from tools.bench.table import Row
from tools.bench.trees import against, kernel_kind, native_packages

_ELEMENTS = ("debian-minimal", "cloud-init")

_TIMEOUT = 7200.0

_KIND = "generic"
"""The kernel that its element for Debian installs, whatever is asked for."""

_NOTE = (
    "`disk-image-create -t tar`, elements "
    f"{' and '.join(_ELEMENTS)}, without `vm`: no disk is made. It takes its packages from the "
    "mirror, so the network is in its time. It calls mmdebstrap, not debootstrap, for its first "
    "step where that is installed."
)


def rows(place: Place, profiles: tuple[ArchProfile, ...]) -> Iterator[Row]:
    """Yield one row for each architecture; a failure is a row that says why."""
    try:
        programs = _installed(place)
    except ImageFactoryError as error:
        yield Row("dib", "diskimage-builder", note=f"could not be installed: {_short(error)}")
        return
    for profile in profiles:
        key, what = f"dib/{profile.name}", f"{profile.name}: diskimage-builder"
        try:
            if profile == place.host:
                packages = native_packages(place, _KIND)
            else:
                packages = place.packages(profile)
            kind = _KIND if profile == place.host else kernel_kind(place, profile)
            with place.scratch() as scratch:
                figure = timed(partial(_build, packages, programs, scratch))
                size = (scratch / "image.tar").stat().st_size
            yield Row(key, what, (figure,), size, against(kind), note=_NOTE)
        except (ImageFactoryError, OSError) as error:
            yield Row(key, what, note=f"failed: {_short(error)}")


def version(place: Place) -> str:
    """Return which version was installed; empty: none."""
    python = _environment(place) / "bin/python"
    if not python.exists():
        return ""
    asked = "from importlib.metadata import version; print(version('diskimage-builder'))"
    try:
        return run.run([python, "-c", asked]).stdout.strip()
    except ImageFactoryError:
        return ""


def _installed(place: Place) -> Path:
    """Install it from PyPI, beside everything else."""
    environment = _environment(place)
    if not environment.exists():
        run.run([sys.executable, "-m", "venv", environment])
        run.run([environment / "bin/pip", "install", "--quiet", "diskimage-builder"])
    return environment / "bin"


def _environment(place: Place) -> Path:
    return place.work / "diskimage-builder"


def _build(packages: PackageSet, programs: Path, scratch: Path) -> None:
    plan = packages.plan
    command = ["disk-image-create", "-a", plan.profile.names.deb, "-t", "tar", "-o"]
    command += [str(scratch / "image"), "-p", ",".join(packages.names), *_ELEMENTS]
    run.run(
        [programs / command[0], *command[1:]],
        env=_settings(packages.sources, plan.template.distribution.release, programs, scratch),
        timeout=_TIMEOUT,
        log=scratch / "log",
    )


def _settings(sources: Sources, release: str, programs: Path, scratch: Path) -> dict[str, str]:
    """Let it take the same suites from the same mirrors, and keep to its directory."""
    repositories = sources.debian.repositories
    return {
        "PATH": f"{programs}:{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin",
        "DIB_RELEASE": release,
        "DIB_DISTRIBUTION_MIRROR": repositories[0].mirror,
        "DIB_APT_SOURCES_CONF": "\n".join(
            f"{item.suite}:deb {item.mirror} {item.suite} {' '.join(item.components)}"
            for item in repositories
        ),
        "DIB_IMAGE_CACHE": str(scratch / "cache"),
        "DIB_LOCKFILES": str(scratch / "locks"),
        "TMP_DIR": str(scratch),
        "TMPDIR": str(scratch),
        "DEBIAN_FRONTEND": "noninteractive",
    }


def _short(error: Exception) -> str:
    """Return the last words of a failure."""
    return " / ".join(line.strip() for line in str(error).splitlines()[-3:])
