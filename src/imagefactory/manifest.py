"""What is kept of a build beside its files."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagefactory import __version__
from imagefactory.boot import BootReport, proven_properties
from imagefactory.catalog import now
from imagefactory.data import sha256_of
from imagefactory.disk.image import Disk
from imagefactory.sbom import Sbom


def manifest(
    facts: Mapping[str, Any],
    disk: Disk,
    report: BootReport | None,
    seconds: Mapping[str, float],
    sbom: Sbom | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Describe a build.

    Args:
        facts: image, architecture, digest, properties, and what else was decided before.
        disk: What came out.
        report: The boot test's; None if there was none. What it proved becomes properties.
        seconds: Stage -> what it took.
        sbom: What it holds; None if nobody knows.
        more: What only builds of one kind have.
    """
    proven = proven_properties(report) if report else {}
    parts = {"kernel": disk.apart.kernel, "ramdisk": disk.apart.ramdisk} if disk.apart else {}
    return {
        "schema": 1,
        "built": now(),
        "host": {"kernel": platform.release(), "machine": platform.machine()},
        "imagefactory": __version__,
        "plan": {**facts, "properties": {**facts["properties"], **proven}},
        "disk": {
            **_file(disk.path, disk.sha256),
            "format": disk.format,
            "virtual_size": disk.virtual_size,
            **{part: _file(path) for part, path in parts.items()},
        },
        "seconds": dict(seconds),
        "boot_test": None if report is None else json.loads(report.to_json()),
        **({"sbom": _sbom(sbom)} if sbom else {}),
        **more,
    }


def _sbom(sbom: Sbom) -> dict[str, Any]:
    documents = {standard: _file(path) for standard, path in sbom.files.items()}
    return {**documents, "packages": sbom.packages}


def _file(path: Path, sha256: str = "") -> dict[str, Any]:
    told = sha256 or sha256_of(path)
    return {"file": path.name, "size": path.stat().st_size, "sha256": told}
