"""What the standards' own validators say of documents, and what documents say."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from imagefactory.packages.installed import Installed
from imagefactory.sbom import spdx
from imagefactory.sbom.image import Image, items
from tests.factory import BuiltImage

_VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


def check_cyclonedx(text: str) -> dict[str, Any]:
    """Refuse a document that is none of CycloneDX's; return what it says."""
    assert _VALIDATOR.validate_str(text) is None
    content: dict[str, Any] = json.loads(text)
    return content


def check_spdx(file: Path) -> dict[str, Any]:
    """Refuse a document that is none of SPDX's, as pyspdxtools does; return what it says."""
    assert validate_full_spdx_document(parse_file(str(file))) == []
    content: dict[str, Any] = json.loads(file.read_bytes())
    return content


def purls_of(build: BuiltImage) -> list[PackageURL]:
    """Refuse a build whose documents are not valid, or not of the same packages; return those."""
    told = build.manifest["sbom"]
    files = {
        standard: build.disk.parent / told[standard]["file"]
        for standard in told.keys() - {"packages"}
    }
    bom = check_cyclonedx(files["cyclonedx"].read_text(encoding="utf-8"))
    document = check_spdx(files["spdx"])
    purls = sorted(part["purl"] for part in bom["components"] if "purl" in part)
    references = [
        one for package in document["packages"] for one in package.get("externalRefs", ())
    ]
    assert sorted(one["referenceLocator"] for one in references) == purls
    assert len(purls) == told["packages"]
    (digest,) = bom["metadata"]["component"]["hashes"]
    assert digest == {"alg": "SHA-256", "content": build.manifest["disk"]["sha256"]}
    return [PackageURL.from_string(purl) for purl in purls]


def image(*packages: Installed, **known: Any) -> Image:
    """An image that holds some packages."""
    held = items(packages, known.get("known", ()), "debian", "12")
    identity = uuid.UUID(int=1)
    return Image(
        "web",
        "debian",
        "12",
        "aarch64",
        "web-aarch64.qcow2",
        "a" * 64,
        1_700_000_000,
        identity,
        held,
    )


def spdx_of(made: Image, directory: Path) -> dict[str, Any]:
    """Write an image's SPDX document, and check it."""
    file = directory / "image.spdx.json"
    file.write_text(spdx.document(made), encoding="utf-8")
    return check_spdx(file)
