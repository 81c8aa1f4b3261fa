"""What the tests upload: a template to derive properties from, and disks made on the spot."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from imagefactory.run import run
from imagefactory.template import Distribution, ImageTemplate

# Only what properties are derived from; the rest of a template is other tests' matter.
_DERIVED_FROM: dict[str, Any] = {
    "name": "minimal",
    "distribution": Distribution(id="debian", version="12", release="bookworm"),
    "disk_size": 112,
    "default_user": "cloud",
    "properties": {},
}
MINIMAL = ImageTemplate.model_construct(**_DERIVED_FROM)


def qcow2(path: Path, *, mebibytes: int = 3, virtual: str = "112M", seed: int = 1) -> Path:
    """Make a real qcow2 that holds so much data; the same seed gives the same data."""
    raw = path.with_suffix(".raw")
    dice = random.Random(seed)
    with raw.open("wb") as stream:
        for _ in range(mebibytes):
            stream.write(dice.randbytes(1 << 20))
    run(["qemu-img", "resize", "-q", "-f", "raw", raw, virtual])
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path])
    raw.unlink()
    return path
