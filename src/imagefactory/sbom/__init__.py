"""Software bills of materials: what an image holds, as documents that others' tools read.

They are made of the package database of the finished tree, not of the plan: what a step of the
customisation installed or removed shows. The same build gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagefactory import __version__
from imagefactory.data import sha256_of
from imagefactory.digest import digest_of
from imagefactory.disk.image import Disk
from imagefactory.packages import installed
from imagefactory.plan import BuildPlan
from imagefactory.tree import RootTree


@dataclass(frozen=True)
class Sbom:
    """The documents of one image.

    Attributes:
        files: Standard -> the document, beside the disk.
        packages: How many the image has.
    """

    files: Mapping[str, Path]
    packages: int


def write(plan: BuildPlan, tree: RootTree, disk: Disk) -> Sbom | None:
    """Write the documents of an image beside its disk; None if it has no package database.

    Args:
        plan: What the image was made from; it has the checksums of packages' files.
        tree: The finished tree.
        disk: What became of it.
    """
    # Standards' own libraries take half a second to import.
    from imagefactory.sbom import cyclonedx, spdx  # noqa: PLC0415
    from imagefactory.sbom.image import Image, items  # noqa: PLC0415

    if tree.packages is None:
        return None
    distribution = plan.template.distribution
    packages = installed.read(tree.packages)
    made_of = {"disk": disk.sha256, "list": sha256_of(tree.packages), "tool": __version__}
    image = Image(
        plan.template.name,
        distribution.id,
        distribution.version,
        plan.profile.name,
        disk.path.name,
        disk.sha256,
        tree.epoch,
        plan.identifier(f"software bill of materials {digest_of(made_of)}"),
        items(packages, plan.image_packages, distribution.id, distribution.version),
    )
    files = {}
    for standard, suffix, document in (
        ("cyclonedx", "cdx", cyclonedx.document),
        ("spdx", "spdx", spdx.document),
    ):
        files[standard] = disk.path.with_name(f"{plan.name}.{suffix}.json")
        files[standard].write_text(document(image), encoding="utf-8")
    return Sbom(files, len(image.items))
