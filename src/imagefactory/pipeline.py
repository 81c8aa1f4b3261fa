"""The way through the house: plan -> packages -> tree -> disk -> boot test -> catalog."""

from __future__ import annotations

import contextlib
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from imagefactory import imagetest, record, run, sbom
from imagefactory.arch import ArchProfiles
from imagefactory.boot import BootReport
from imagefactory.cache import emptied, in_use
from imagefactory.catalog import Build, Catalog
from imagefactory.disk.image import Disk, make_disk
from imagefactory.errors import BootTestError, BuildError, ImageFactoryError
from imagefactory.imagetest import Subject
from imagefactory.manifest import manifest
from imagefactory.packages import tools
from imagefactory.plan import BuildPlan
from imagefactory.progress import Stages, silent
from imagefactory.rootfs import debian, minimal, rpm
from imagefactory.rootfs.workshop import Workshop
from imagefactory.sbom import Sbom
from imagefactory.schedule import Schedule
from imagefactory.sources import Sources
from imagefactory.tree import RootTree

BUILDERS: dict[str, Callable[[BuildPlan, Workshop], RootTree]] = {
    "minimal": minimal.build_tree,
    "debian": debian.build_tree,
    "rpm": rpm.build_tree,
}
"""A template's `builder:` -> what makes its tree."""

_FULL = 32 << 20
"""Free bytes of a disk that something has failed on because it is full."""


@dataclass(frozen=True)
class Factory:
    """Where builds go and how they are proven."""

    profiles: ArchProfiles
    catalog: Catalog
    cache: Path
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    skip_test: bool = False
    accelerate: bool = True
    schedule: Schedule = field(default_factory=Schedule.of_this_host)
    announce: Callable[[str, str], None] = silent


def build(
    plan: BuildPlan, sources: Sources, factory: Factory, stages: Stages | None = None
) -> Build:
    """Build one image for one architecture and prove that it boots.

    Args:
        plan: What to build.
        sources: Where its packages come from.
        factory: Where it goes and how it is proven.
        stages: The stages that went before, whose times enter the manifest too.

    Raises:
        ImageFactoryError: A stage failed; nothing enters the catalog then, but the log of the
            stage, or the evidence of the boot test, is kept beside the catalog's builds.
    """
    stages = stages or Stages(factory.announce)
    with (
        in_use(factory.cache),
        factory.catalog.workspace(plan.name) as work,
        log_kept(work, plan.name, factory.catalog),
    ):
        tree, disk, bill = _make(plan, sources, factory, stages, work)
        finished = disk.path.parent
        report = None
        if not factory.skip_test:
            with stages.stage("boot test", ", ".join(case.name for case in plan.cases)):
                subject = _subject(plan, disk)
                evidence = finished / "boot"
                patience = plan.template.patience
                report = prove(plan.name, subject, evidence, factory, patience=patience)
        told = manifest(
            plan.facts(),
            disk,
            report,
            stages.seconds,
            bill,
            record=record.of(plan),
            foreign_programs=tree.execution,
        )
        return factory.catalog.add(finished, told)


@contextlib.contextmanager
def remade(
    plan: BuildPlan, sources: Sources, factory: Factory, stages: Stages
) -> Iterator[tuple[Disk, Path]]:
    """Make an image once more, out of packages alone, in a workspace that vanishes in the end.

    Nothing that an earlier build left in the cache is taken, but packages, whose checksums are
    compared; nothing is booted, nothing enters the catalog or the cache.

    Args:
        plan: What to make; its packages are in the pool.
        sources: Where its packages come from.
        factory: Where the work goes on.
        stages: Announces and times what is done.

    Yields:
        The disk, beside which its SBOM is, and an empty directory that vanishes with it.

    Raises:
        ImageFactoryError: A stage failed.
    """
    with (
        in_use(factory.cache),
        factory.catalog.workspace(plan.name) as work,
        log_kept(work, plan.name, factory.catalog),
    ):
        with emptied(factory.cache, work / "cache") as cache:
            _, disk, _ = _make(plan, sources, replace(factory, cache=cache), stages, work)
        room = work / "room"
        room.mkdir()
        yield disk, room


def _make(
    plan: BuildPlan, sources: Sources, factory: Factory, stages: Stages, work: Path
) -> tuple[RootTree, Disk, Sbom | None]:
    """Make tree and disk; the disk and what tells of it are left in a directory of their own."""
    with factory.schedule.building(plan.build_memory):
        with stages.stage("packages", f"{len(plan.image_packages)} packages"):
            sources.fetch(*plan.to_fetch)
            disk_tools = tools.unpack(plan.disk_tools, sources.disk_tools.pool, factory.cache)
            boot_tools = tools.unpack(plan.boot_tools, sources.boot_tools.pool, factory.cache)
        scratch = work / "scratch"
        scratch.mkdir()
        with stages.stage("tree", f"{plan.template.distribution.release}, kernel and files"):
            shop = Workshop(
                sources,
                disk_tools,
                factory.profiles.get(platform.machine()),
                scratch,
                factory.cache,
                accelerate=factory.accelerate,
                announce=factory.announce,
            )
            tree = BUILDERS[plan.template.builder](plan, shop)
        with stages.stage("disk", f"{', '.join(plan.boot) or 'no bootloader'}; qcow2"):
            disk = make_disk(
                plan, tree, shop.package_file, disk_tools, boot_tools, scratch, factory.cache
            )
        finished = work / "result"
        finished.mkdir()
        disk = disk.moved_to(finished)
        with stages.stage("sbom", "CycloneDX, SPDX"):
            return tree, disk, sbom.write(plan, tree, disk)


def prove(
    name: str,
    subject: Subject,
    evidence: Path,
    factory: Factory,
    *,
    budget: float | None = None,
    patience: float = 1.0,
) -> BootReport:
    """Boot a disk, and go no further unless all is as it should be.

    Args:
        name: What the image is called.
        subject: What to boot, and how.
        evidence: A directory for logs and pictures.
        factory: Where and with what.
        budget: Seconds from power-on to SSH; None: the profile's.
        patience: Times that budget.

    Raises:
        BootTestError: It is not.
    """
    report = imagetest.run(
        subject,
        evidence,
        factory.profiles,
        accelerator=factory.accelerator,
        schedule=factory.schedule,
        budget=budget,
        patience=patience,
        announce=factory.announce,
    )
    if not report.passed:
        raise BootTestError(
            f"{name} did not pass its boot test: {report.summary}",
            hint="the evidence (console, screenshot, QEMU command line) was kept",
            log=evidence,
        )
    return report


def _subject(plan: BuildPlan, disk: Disk) -> Subject:
    kernel, ramdisk = (disk.apart.kernel, disk.apart.ramdisk) if disk.apart else (None, None)
    return Subject(disk.path, disk.format, plan.properties, plan.cases, kernel, ramdisk)


@contextlib.contextmanager
def log_kept(work: Path, name: str, catalog: Catalog) -> Iterator[None]:
    """Move the log that an error names out of the workspace, which vanishes with the error."""
    try:
        yield
    except ImageFactoryError as error:
        if not error.hint and shutil.disk_usage(work).free < _FULL:
            error.hint = f"the disk of {work} is full: make room, or choose another --catalog"
        kept = error.log and error.log.exists() and error.log.is_relative_to(work)
        if error.log and kept and not run.interrupted():
            evidence = work / "result/boot"
            within = evidence if error.log.is_relative_to(evidence) else error.log
            kept = catalog.keep_evidence(within, name)
            error.log = kept / error.log.relative_to(within)
        raise
    except OSError as error:
        raise BuildError(
            f"{name}: {error.strerror or error} while writing to {catalog.directory}",
            hint="is there room on its disk, and on that of the cache?",
        ) from error
