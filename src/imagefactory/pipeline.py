"""The way through the house: plan -> packages -> tree -> disk -> boot test -> catalog."""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from imagefactory import __version__, record, run
from imagefactory.arch import ArchProfiles
from imagefactory.boot import BootReport, boot_test, proven_properties
from imagefactory.cache import emptied, in_use
from imagefactory.catalog import Build, Catalog, now
from imagefactory.data import sha256_of
from imagefactory.disk.image import Disk, make_disk
from imagefactory.errors import BootTestError, BuildError, ImageFactoryError
from imagefactory.packages import tools
from imagefactory.plan import BuildPlan
from imagefactory.progress import Stages, silent
from imagefactory.rootfs import debian, minimal, rpm
from imagefactory.rootfs.workshop import Workshop
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
        _log_kept(work, plan, factory.catalog),
    ):
        tree, disk = _make(plan, sources, factory, stages, work)
        finished = disk.path.parent
        report = None
        if not factory.skip_test:
            with stages.stage("boot test", ", ".join(case.name for case in plan.cases)):
                report = _prove(plan, disk, finished / "boot", factory)
        return factory.catalog.add(finished, _manifest(plan, tree, disk, report, stages.seconds))


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
        The disk, and an empty directory that vanishes with it.

    Raises:
        ImageFactoryError: A stage failed.
    """
    with (
        in_use(factory.cache),
        factory.catalog.workspace(plan.name) as work,
        _log_kept(work, plan, factory.catalog),
    ):
        with emptied(factory.cache, work / "cache") as cache:
            _, disk = _make(plan, sources, replace(factory, cache=cache), stages, work)
        room = work / "room"
        room.mkdir()
        yield disk, room


def _make(
    plan: BuildPlan, sources: Sources, factory: Factory, stages: Stages, work: Path
) -> tuple[RootTree, Disk]:
    """Make tree and disk; the disk is left alone in a directory of its own."""
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
        return tree, disk.moved_to(finished)


def _prove(plan: BuildPlan, disk: Disk, evidence: Path, factory: Factory) -> BootReport:
    report = boot_test(
        disk.path,
        plan.properties,
        plan.cases,
        evidence,
        profiles=factory.profiles,
        accelerator=factory.accelerator,
        kernel=disk.apart.kernel if disk.apart else None,
        ramdisk=disk.apart.ramdisk if disk.apart else None,
        patience=plan.template.patience,
        progress=lambda case, text: factory.announce(f"boot test: {case}", text),
        room=factory.schedule.guest,
        jobs=factory.schedule.jobs,
    )
    if not report.passed:
        raise BootTestError(
            f"{plan.name} did not pass its boot test: {report.summary}",
            hint="the evidence (console, screenshot, QEMU command line) was kept",
            log=evidence,
        )
    return report


@contextlib.contextmanager
def _log_kept(work: Path, plan: BuildPlan, catalog: Catalog) -> Iterator[None]:
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
            kept = catalog.keep_evidence(within, plan.name)
            error.log = kept / error.log.relative_to(within)
        raise
    except OSError as error:
        raise BuildError(
            f"{plan.name}: {error.strerror or error} while writing to {catalog.directory}",
            hint="is there room on its disk, and on that of the cache?",
        ) from error


def _manifest(
    plan: BuildPlan,
    tree: RootTree,
    disk: Disk,
    report: BootReport | None,
    seconds: dict[str, float],
) -> dict[str, Any]:
    proven = proven_properties(report) if report else {}
    return {
        "schema": 1,
        "built": now(),
        "host": {"kernel": platform.release(), "machine": platform.machine()},
        "imagefactory": __version__,
        "plan": {**plan.facts(), "properties": {**plan.properties, **proven}},
        "record": record.of(plan),
        "foreign_programs": tree.execution,
        "disk": {
            **_file(disk.path),
            "format": disk.format,
            "virtual_size": disk.virtual_size,
            **(
                {"kernel": _file(disk.apart.kernel), "ramdisk": _file(disk.apart.ramdisk)}
                if disk.apart
                else {}
            ),
        },
        "seconds": seconds,
        "boot_test": None if report is None else json.loads(report.to_json()),
    }


def _file(path: Path) -> dict[str, Any]:
    return {"file": path.name, "size": path.stat().st_size, "sha256": sha256_of(path)}
