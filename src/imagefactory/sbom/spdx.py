"""An image as SPDX 2.3, JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator

from license_expression import LicenseExpression
from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
from spdx_tools.spdx.model import (
    Actor,
    ActorType,
    Checksum,
    ChecksumAlgorithm,
    CreationInfo,
    Document,
    ExternalPackageRef,
    ExternalPackageRefCategory,
    ExtractedLicensingInfo,
    Package,
    PackagePurpose,
    Relationship,
    RelationshipType,
    SpdxNoAssertion,
)

from imagefactory import __version__
from imagefactory.sbom import licenses
from imagefactory.sbom.image import TOOL, Image, Item, Supplier

_DOCUMENT = "SPDXRef-DOCUMENT"
_IMAGE = "SPDXRef-Image"
_SYSTEM = "SPDXRef-OperatingSystem"

_CHECKSUMS = {"sha256": ChecksumAlgorithm.SHA256, "sha512": ChecksumAlgorithm.SHA512}


def document(image: Image) -> str:
    """Describe an image and what it holds."""
    packages = [_package(item) for item in image.items]
    name = f"{image.name}-{image.architecture}"
    made = Document(
        CreationInfo(
            spdx_version="SPDX-2.3",
            spdx_id=_DOCUMENT,
            name=name,
            # Annex C of older versions: where nobody serves the document, under spdx.org.
            document_namespace=f"https://spdx.org/spdxdocs/{name}-{image.identity}",
            creators=[Actor(ActorType.TOOL, f"{TOOL}-{__version__}")],
            created=image.moment.replace(tzinfo=None),
        ),
        packages=[_root(image), _system(image), *packages],
        relationships=[
            Relationship(_DOCUMENT, RelationshipType.DESCRIBES, _IMAGE),
            *(
                Relationship(_IMAGE, RelationshipType.CONTAINS, identifier)
                for identifier in (_SYSTEM, *(package.spdx_id for package in packages))
            ),
        ],
        extracted_licensing_info=list(_extracted(image)),
    )
    return json.dumps(DocumentConverter().convert(made), indent=1) + "\n"


def _root(image: Image) -> Package:
    return Package(
        _IMAGE,
        image.name,
        SpdxNoAssertion(),
        version=image.version,
        file_name=image.file,
        supplier=Actor(ActorType.ORGANIZATION, image.distribution),
        files_analyzed=False,
        checksums=[Checksum(ChecksumAlgorithm.SHA256, image.sha256)],
        license_concluded=SpdxNoAssertion(),
        license_declared=SpdxNoAssertion(),
        copyright_text=SpdxNoAssertion(),
        comment=f"architecture: {image.architecture}",
        primary_package_purpose=PackagePurpose.FILE,
    )


def _system(image: Image) -> Package:
    return Package(
        _SYSTEM,
        image.distribution,
        SpdxNoAssertion(),
        version=image.version,
        files_analyzed=False,
        license_concluded=SpdxNoAssertion(),
        license_declared=SpdxNoAssertion(),
        copyright_text=SpdxNoAssertion(),
        primary_package_purpose=PackagePurpose.OPERATING_SYSTEM,
    )


def _package(item: Item) -> Package:
    package, purl = item.package, item.purl.to_string()
    name = re.sub(r"[^A-Za-z0-9.-]", "-", package.name[:64])
    kinds = [] if item.checksum is None else [item.checksum]
    locator = ExternalPackageRef(ExternalPackageRefCategory.PACKAGE_MANAGER, "purl", purl)
    source = f"built package from: {package.source} {package.source_version}"
    return Package(
        f"SPDXRef-Package-{name}-{hashlib.sha256(purl.encode()).hexdigest()[:16]}",
        package.name,
        SpdxNoAssertion(),
        version=package.full_version or None,
        supplier=_actor(item.supplier),
        files_analyzed=False,
        checksums=[Checksum(_CHECKSUMS[kind], digits) for kind, digits in kinds],
        source_info=source if package.source and package.source_version else None,
        license_concluded=SpdxNoAssertion(),
        license_declared=_license(item),
        copyright_text=SpdxNoAssertion(),
        external_references=[locator],
    )


def _actor(supplier: Supplier | None) -> Actor | SpdxNoAssertion:
    if supplier is None:
        return SpdxNoAssertion()
    # Round brackets are for the address.
    name = supplier.name.translate(str.maketrans("()", "[]"))
    return Actor(ActorType.ORGANIZATION, name, supplier.email or None)


def _license(item: Item) -> LicenseExpression | SpdxNoAssertion:
    told = licenses.read(item.package.license)
    if told is None:
        return SpdxNoAssertion()
    if told.expression is None:
        return licenses.reference(told.own_reference)
    return told.expression


def _extracted(image: Image) -> Iterator[ExtractedLicensingInfo]:
    """Say what each license is that is not on the SPDX License List."""
    texts = {}
    for item in image.items:
        told = licenses.read(item.package.license)
        if told is None:
            continue
        if told.expression is None:
            texts[told.own_reference] = told.text
        for key in told.references:
            texts[key] = f"{key}, as the packages' own license tags call it"
    for key in sorted(texts):
        yield ExtractedLicensingInfo(license_id=key, extracted_text=texts[key])
