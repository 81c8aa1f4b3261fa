"""An image as CycloneDX 1.6, JSON."""

from __future__ import annotations

from collections.abc import Iterator

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalContact, OrganizationalEntity
from cyclonedx.model.dependency import Dependency
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6

from imagefactory import __version__
from imagefactory.sbom import licenses
from imagefactory.sbom.image import TOOL, Image, Item, Supplier

_HASHES = {"sha256": HashAlgorithm.SHA_256, "sha512": HashAlgorithm.SHA_512}

_TRIVY = "aquasecurity:trivy"
"""Trivy's part of the CycloneDX Property Taxonomy; it finds advisories by the source package."""


def document(image: Image) -> str:
    """Describe an image and what it holds."""
    system = Component(
        # By it scanners learn whose advisories count; there may be only one.
        name=image.distribution,
        version=image.version,
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref="operating-system",
    )
    root = Component(
        name=image.name,
        version=image.version,
        type=ComponentType.FILE,
        bom_ref="image",
        supplier=OrganizationalEntity(name=image.distribution),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=image.sha256)],
        properties=[
            Property(name=f"{TOOL}:architecture", value=image.architecture),
            Property(name=f"{TOOL}:file", value=image.file),
        ],
    )
    tool = Component(name=TOOL, version=__version__, type=ComponentType.APPLICATION)
    parts = [system, *map(_component, image.items)]
    held = [Dependency(part.bom_ref) for part in parts]
    bom = Bom(
        serial_number=image.identity,
        metadata=BomMetaData(
            component=root,
            timestamp=image.moment,
            tools=ToolRepository(components=[tool]),
            lifecycles=[PredefinedLifecycle(phase=LifecyclePhase.BUILD)],
        ),
        components=parts,
        # All at once: registered one by one, each would be looked for among all.
        dependencies=[Dependency(root.bom_ref, held), *held],
    )
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _component(item: Item) -> Component:
    kinds = [] if item.checksum is None else [item.checksum]
    return Component(
        name=item.package.name,
        version=item.package.full_version,
        type=ComponentType.LIBRARY,
        bom_ref=item.purl.to_string(),
        purl=item.purl,
        supplier=_entity(item.supplier),
        hashes=[HashType(alg=_HASHES[kind], content=digits) for kind, digits in kinds],
        licenses=_licenses(item),
        properties=[
            Property(name=f"{_TRIVY}:{name}", value=value) for name, value in _source(item)
        ],
    )


def _entity(supplier: Supplier | None) -> OrganizationalEntity | None:
    if supplier is None:
        return None
    contacts = [OrganizationalContact(email=supplier.email)] if supplier.email else []
    return OrganizationalEntity(name=supplier.name, contacts=contacts)


def _licenses(item: Item) -> list[DisjunctiveLicense | LicenseExpression]:
    told = licenses.read(item.package.license)
    if told is None:
        return []
    if told.expression is None:
        return [DisjunctiveLicense(name=told.text)]
    return [LicenseExpression(str(told.expression))]


def _source(item: Item) -> Iterator[tuple[str, str]]:
    package = item.package
    if not package.source or not package.source_version:
        return
    epoch, _, version = f"{package.epoch}:{package.source_version}".rpartition(":")
    upstream, _, release = version.rpartition("-")
    yield "SrcName", package.source
    yield "SrcVersion", upstream or release
    if upstream:
        yield "SrcRelease", release
    number = epoch.strip(":")
    if number.isascii() and number.isdigit() and int(number):
        yield "SrcEpoch", number
