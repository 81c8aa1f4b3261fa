"""Images that were not built here take the same road: verified, looked into, booted, kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from imagefactory import imagetest
from imagefactory.arch import ArchProfile
from imagefactory.cache import in_use
from imagefactory.catalog import Build, Catalog
from imagefactory.data import sha256_of
from imagefactory.digest import digest_of
from imagefactory.disk.found import FoundDisk, look
from imagefactory.disk.image import Disk
from imagefactory.errors import BuildError
from imagefactory.glance.inspect import UnsafeDiskError, format_of, inspect
from imagefactory.manifest import manifest
from imagefactory.pipeline import Factory, log_kept, prove
from imagefactory.progress import Stages
from imagefactory.vendor.claims import Claims, Proof
from imagefactory.vendor.download import Fetched, Progress, fetch, forget, name_of, public
from imagefactory.vendor.errors import VendorError
from imagefactory.vendor.unpack import unpack, unpacked_name

_GIB = 1 << 30

_PAUSE = 2.0
"""Seconds between two words of how far a download is."""

_WHOLE = "is it whole, and an image? Its makers publish a checksum that --checksum compares"


@dataclass(frozen=True)
class Order:
    """An image of others that is to be adopted.

    Attributes:
        source: A path or an address.
        name: What it is called here.
        profile: The architecture that it is for.
        claims: By what it is verified.
        changes: Image properties, ``KEY=VALUE``, over those of the profile.
        datasources: Boot once with each; empty: as `imagetest.describe` has it.
        reboot: Let each guest reboot.
        memory: MiB that it needs.
        budget: Seconds from power-on to SSH.
    """

    source: str
    name: str
    profile: ArchProfile
    claims: Claims
    changes: tuple[str, ...] = ()
    datasources: tuple[str, ...] = ()
    reboot: bool = False
    memory: int | None = None
    budget: float | None = None


@dataclass(frozen=True)
class Adopted:
    """What became of it.

    Attributes:
        verified: By what, in words.
        properties: The image properties, before a boot proved more.
        build: In the catalog; None if it was only looked at.
        known: The same image with the same properties was there, and proven.
    """

    verified: str
    properties: dict[str, str]
    build: Build | None = None
    known: bool = False


def adopt(
    order: Order,
    factory: Factory,
    stages: Stages,
    *,
    dry_run: bool = False,
) -> Adopted:
    """Bring an image of others into the catalog, unless the same is there already.

    Args:
        order: Which, and how.
        factory: Where it goes and how it is proven.
        stages: Announces and times what is done.
        dry_run: Fetch, verify and look; boot nothing and keep nothing but the download.

    Raises:
        VendorError: It could not be fetched, or is not what was published.
        BuildError: The architecture's firmware finds nothing on it to start.
        PropertyError: nova would refuse its properties.
        BootTestError: It did not prove itself; the evidence is kept.
    """
    label = f"{order.name}-{order.profile.name}"
    with (
        in_use(factory.cache),
        factory.catalog.workspace(label) as work,
        log_kept(work, label, factory.catalog),
    ):
        # What is wrong in what was said shows before gigabytes have come.
        imagetest.with_changes(order.profile.properties, order.changes)
        with stages.stage("fetch", public(order.source)):
            proof = order.claims.proof_of(name_of(order.source))
            fetched = fetch(order.source, factory.cache, _telling(stages))
        with stages.stage("verify", fetched.name):
            verified = _verify(fetched, proof, order.claims, factory.cache)
        with stages.stage("inspect", "format, partitions, firmware"):
            disk, found = _look(fetched, order, factory, work)
        subject = _describe(order, disk, found, factory)
        digest = digest_of({"adopted": sha256_of(disk.path)})
        known = _known(factory.catalog, digest, order, subject.properties)
        if known and (known.verdict == "passed" or factory.skip_test):
            return Adopted(verified, subject.properties, known, known=True)
        if dry_run:
            return Adopted(verified, subject.properties)
        report = None
        if not factory.skip_test:
            with stages.stage("boot test", ", ".join(case.name for case in subject.cases)):
                report = prove(
                    label, subject, disk.path.parent / "boot", factory, budget=order.budget
                )
        told = manifest(
            {
                "image": order.name,
                "architecture": order.profile.name,
                "digest": digest,
                "properties": subject.properties,
            },
            disk,
            report,
            stages.seconds,
            adopted={
                "source": public(order.source),
                "verified": verified,
                "partition_table": found.table,
                "partitions": found.partitions,
                "starts_by": sorted(found.methods),
            },
        )
        build = factory.catalog.add(disk.path.parent, told)
        return Adopted(verified, build.properties, build)


def _telling(stages: Stages) -> Progress:
    """Return what tells now and then how far a download is."""
    told = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > _PAUSE:
            told = time.monotonic()
            whole = f" of {total / 1e6:.0f}" if total else ""
            stages.announce("fetch", f"{done / 1e6:.0f}{whole} MB")

    return progress


def _verify(fetched: Fetched, proof: Proof, claims: Claims, cache: Path) -> str:
    try:
        return proof(fetched)
    except VendorError as error:
        if not claims.checksum:  # or the next run would take the same bytes again
            forget(fetched, cache)
        elif fetched.file.is_relative_to(cache):  # it may be the checksum that has a mistake
            error.hint += f"; remove {fetched.file} to fetch it anew"
        raise


def _look(fetched: Fetched, order: Order, factory: Factory, work: Path) -> tuple[Disk, FoundDisk]:
    result = work / "result"
    result.mkdir()
    unpacked = work / unpacked_name(fetched.name)
    unpack(fetched.file, unpacked, fetched.name)
    try:
        disk_format = format_of(unpacked)
        if disk_format not in {"qcow2", "raw"}:
            raise VendorError(
                f"{fetched.name} is a disk of the format {disk_format}",
                hint="make it one of qcow2 or raw: qemu-img convert -O qcow2",
            )
        size = inspect(unpacked, disk_format)
    except UnsafeDiskError as error:
        told = error.message.replace(str(unpacked), fetched.name)
        raise VendorError(told, hint=_WHOLE) from None
    room = work / "room"
    room.mkdir()
    try:
        loaders = {one.names.efi for one in factory.profiles.profiles if one.names.efi}
        found = look(unpacked, disk_format, size, room, loaders)
    except BuildError as error:
        raise VendorError(f"{fetched.name}: {error.message}", hint=_WHOLE) from None
    path = unpacked.rename(result / f"{order.name}-{order.profile.name}.{disk_format}")
    return Disk(path, disk_format, path.stat().st_size, size), found


def _describe(order: Order, disk: Disk, found: FoundDisk, factory: Factory) -> imagetest.Subject:
    """Derive the properties: the profile's, the disk's own, and over them what was said."""
    derived = {
        "os_type": "linux",
        "min_disk": str(-(-disk.virtual_size // _GIB)),
        **_firmware(order, found),
    }
    return imagetest.describe(
        disk.path,
        [order.profile.name],
        factory.profiles,
        disk_format=disk.format,
        changes=[*(f"{key}={value}" for key, value in derived.items()), *order.changes],
        datasources=order.datasources,
        reboot=order.reboot,
        memory=order.memory,
    )


def _firmware(order: Order, found: FoundDisk) -> dict[str, str]:
    """Find the firmware that starts the disk; nothing is said where the cloud's default does."""
    hypervisor = order.profile.hypervisor
    ours = order.profile.names.efi
    if ours and found.loaders and ours not in found.loaders:
        others = ", ".join(f"BOOT{name.upper()}.EFI" for name in sorted(found.loaders))
        raise BuildError(
            f"{order.name} would not start on {order.profile.name}: its EFI system partition has "
            f"{others}",
            hint="it is an image for another architecture: --arch names the one it is for",
        )
    possible = [method for method in order.profile.boot if method.split("-")[0] in found.methods]
    if not possible:
        has = ", ".join(sorted(found.methods)) or "nothing that any firmware starts"
        raise BuildError(
            f"{order.name} would not start on {order.profile.name}: its firmware looks for "
            f"{' or '.join(order.profile.boot)}, the disk has {has}",
            hint="is it an image for another architecture? --arch names the one it is for",
        )
    firmware = possible[0].split("-")[0]
    known = firmware in hypervisor.firmware_packages
    if not known or hypervisor.firmware in possible:
        return {}
    return {"hw_firmware_type": firmware}


def _known(catalog: Catalog, digest: str, order: Order, properties: dict[str, str]) -> Build | None:
    newest = catalog.latest(order.name, order.profile.name)
    same = newest and newest.digest == digest and not newest.changed_files()
    return newest if newest and same and properties.items() <= newest.properties.items() else None
