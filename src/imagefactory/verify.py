"""Proof that a build can be repeated: it is made again from its manifest, and compared.

What is repeated is the *manifest's* plan: the same packages, the same template and profile as
they were then, the same digest, from which the disk's identifiers are derived. What today's
template or mirrors have otherwise is told, and changes nothing; nor does imagefactory's own
code, the one thing that cannot be taken from the manifest.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from imagefactory import cache, record, run, template
from imagefactory.catalog import Build, read_build
from imagefactory.data import sha256_of
from imagefactory.disk import difference
from imagefactory.disk.image import Disk
from imagefactory.disk.layout import plan_layout
from imagefactory.errors import BuildError, ConfigError, ImageFactoryError, PackageError
from imagefactory.packages import tools
from imagefactory.packages.mirrors import Mirrors
from imagefactory.pipeline import Factory, remade
from imagefactory.plan import BuildPlan
from imagefactory.progress import Stages
from imagefactory.schedule import Schedule
from imagefactory.sources import Sources
from imagefactory.workbench import Workbench

_LINES = 200
"""Lines of diffoscope's report that are told; the whole of it is kept with ``--keep``."""

_MANY = 8
"""Packages that an error names one by one."""


@dataclass(frozen=True)
class Manner:
    """How a build is verified.

    Attributes:
        keep: A directory for the image that was made again, and what is known of differences.
    """

    mirrors: Mirrors
    offline: bool = False
    keep: Path | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of a build that was made again.

    Attributes:
        identical: The same bytes, and those that the manifest tells of.
        sha256: As the manifest has it.
        rebuilt_sha256: Of the image that was made again.
        seconds: What making it again took.
        differences: Where the two disks differ; empty if they do not.
        changed: What a build of today would have otherwise; told, not taken.
        kept: Where the image is that was made again.
    """

    build: Path
    image: str
    architecture: str
    identical: bool
    sha256: str
    rebuilt_sha256: str
    seconds: float
    differences: tuple[str, ...]
    changed: tuple[str, ...]
    kept: Path | None = None

    @property
    def in_words(self) -> str:
        """The verdict in one line."""
        if self.identical:
            return f"identical: sha256 {self.sha256}, rebuilt in {self.seconds:.1f} s"
        return f"differs: {self.differences[0]}"


def chosen(bench: Workbench, subject: str, architectures: tuple[str, ...]) -> tuple[Build, ...]:
    """Find what is to be verified: the newest builds of an image, or the one in a directory.

    Raises:
        ConfigError: There is no such build.
        UnknownNameError: It is neither the name of an image nor a directory.
    """
    directory = Path(subject)
    if "/" not in subject and not (directory / "manifest.json").is_file():
        return tuple(bench.builds(subject, architectures))
    build = read_build(directory.absolute())
    if build is None:
        raise ConfigError(
            f"{directory} is not the directory of a build",
            hint="it holds a manifest.json; `imagefactory show IMAGE` tells where builds are",
        )
    if architectures and build.architecture not in {
        profile.name for profile in bench.chosen(architectures)
    }:
        raise ConfigError(f"{directory} was built for {build.architecture}")
    return (build,)


def verify(
    bench: Workbench, build: Build, manner: Manner, schedule: Schedule, stages: Stages
) -> Verdict:
    """Make a build again and compare the two, bit for bit.

    Raises:
        ConfigError: The manifest does not tell enough, or files that the template takes from
            beside itself are not what they were.
        PackageError: A package can no longer be had.
        BuildError: It cannot be made again at all.
    """
    if adopted := build.manifest.get("adopted"):
        raise ConfigError(
            f"{build.image} was not built here but adopted from {adopted['source']}",
            hint="`imagefactory adopt` verifies it against what its makers publish",
        )
    with cache.in_use(bench.cache):
        file, today, unknown = _today(bench, build, manner, stages)
        plan = record.read(build, file)
        files = record.changed_files(build, plan)
        if files:
            raise ConfigError(
                f"files of the template have changed since {plan.name} was built: "
                f"{', '.join(files)}",
                hint=f"put them back beside {plan.template_file}, or build the image anew",
            )
        changed = (
            *record.changed_code(build, plan),
            *(record.changes(plan, today) if today else ()),
            *unknown,
        )
        with stages.stage("packages", "those of the manifest"):
            sources = _fetched(plan, build, bench.cache, manner)
        factory = Factory(
            profiles=bench.profiles,
            catalog=bench.catalog,
            cache=bench.cache,
            skip_test=True,
            schedule=schedule,
            announce=stages.announce,
        )
        with remade(plan, sources, factory, stages) as (disk, room):
            seconds = sum(stages.seconds.get(stage, 0.0) for stage in ("packages", "tree", "disk"))
            differences: tuple[str, ...] = ()
            sums = [_sum_of(build.disk), sha256_of(disk.path)]
            told = str(build.manifest["disk"].get("sha256"))
            if sums[0] != told:
                differences = (_damaged(build, sums[1] == told),)
            if sums[0] is not None and sums[0] != sums[1]:
                with stages.stage("compare", "partition by partition"):
                    found = _differences(plan, build.disk, disk.path, room, bench.cache, manner)
                    differences += found
            differences += tuple(_differing_parts(build, disk))
            changed += tuple(_other_sboms(build, disk))
            kept = _keep(disk.path, manner.keep)
    return Verdict(
        build.directory,
        build.image,
        build.architecture,
        not differences and sums[1] == told,
        told,
        str(sums[1]),
        round(seconds, 2),
        differences,
        changed,
        kept,
    )


def _today(
    bench: Workbench, build: Build, manner: Manner, stages: Stages
) -> tuple[Path | None, BuildPlan | None, tuple[str, ...]]:
    """Return today's template file, the plan that it gives, and what cannot be known of them."""
    try:
        _, file = template.load(bench.path, build.image)
    except ConfigError as error:
        return None, None, (f"today's template cannot be read: {error.message}",)
    try:
        with stages.stage("plan", "what a build of today would have otherwise"):
            profile = bench.profiles.get(build.architecture)
            plan, _ = bench.plan(build.image, profile, manner.mirrors, offline=manner.offline)
    except ImageFactoryError as error:
        return file, None, (f"today's plan cannot be made: {error.message.splitlines()[0]}",)
    return file, plan, ()


def _fetched(plan: BuildPlan, build: Build, cache_directory: Path, manner: Manner) -> Sources:
    """See that every package of a plan is in the pool, from today's mirrors or from the past's.

    Raises:
        PackageError: One can no longer be had.
    """

    def sources_of(item: template.ImageTemplate, mirrors: Mirrors) -> Sources:
        return Sources.of(
            item,
            plan.template_file,
            plan.profile,
            cache_directory,
            mirrors,
            offline=manner.offline,
        )

    sources = sources_of(plan.template, manner.mirrors)
    missing = sources.missing(*plan.to_fetch)
    if not missing:
        return sources
    try:
        _fetch(sources, plan)
    except PackageError as error:
        if manner.offline:
            raise
        past = _of_the_past(plan.template, datetime.fromisoformat(build.manifest["built"]))
        if past != plan.template:
            # A rule for any mirror would send the archive of the past to today's, too.
            rules = tuple(rule for rule in manner.mirrors.rules if rule[0])
            try:
                _fetch(sources_of(past, Mirrors(rules)), plan)
            except PackageError:
                pass
            else:
                return sources
        missing = sources.missing(*plan.to_fetch)
        names = ", ".join(map(str, missing[:_MANY])) + (" ..." if len(missing) > _MANY else "")
        raise PackageError(
            f"{len(missing)} packages of the build can no longer be had: {names}",
            hint="a snapshot of the archive has them: --mirror "
            "http://deb.debian.org/debian=http://snapshot.debian.org/archive/debian/"
            f"{datetime.fromisoformat(build.manifest['built']):%Y%m%dT%H%M%SZ}",
            log=error.log,
        ) from None
    return sources


def _fetch(sources: Sources, plan: BuildPlan) -> None:
    sources.refresh()
    sources.fetch(*plan.to_fetch)


def _of_the_past(item: template.ImageTemplate, moment: datetime) -> template.ImageTemplate:
    """Return a template whose repositories are those of a moment, where their past is kept."""

    def at(repositories: tuple[template.Repository, ...]) -> tuple[template.Repository, ...]:
        return tuple(
            repository.at(moment if repository.snapshots else None) for repository in repositories
        )

    return item.model_copy(
        update={
            "repositories": at(item.repositories),
            "extra_repositories": at(item.extra_repositories),
            "tool_repositories": at(item.tool_repositories),
            "snapshot": None,
        }
    )


def _sum_of(disk: Path) -> str | None:
    return sha256_of(disk) if disk.is_file() else None


def _differing_parts(build: Build, disk: Disk) -> Iterator[str]:
    """Compare the kernel and the ramdisk of a partition image."""
    rebuilt = (disk.apart.kernel, disk.apart.ramdisk) if disk.apart else (None, None)
    for part, kept, file in zip(
        ("kernel", "ramdisk"), (build.kernel, build.ramdisk), rebuilt, strict=True
    ):
        told = (build.manifest["disk"].get(part) or {}).get("sha256")
        if {_sum_of(one) if one else None for one in (kept, file)} != {told}:
            yield f"the {part} is not the same, or not what the manifest says"


def _other_sboms(build: Build, disk: Disk) -> Iterator[str]:
    """Compare the SBOMs; what writes them is code of today, so it says nothing of the image."""
    for standard, kept in build.sbom.items():
        told = build.manifest["sbom"][standard].get("sha256")
        if {_sum_of(file) for file in (kept, disk.path.with_name(kept.name))} != {told}:
            yield f"the SBOM ({standard}) is not the same, or not what the manifest says"


def _damaged(build: Build, rebuilt_is_right: bool) -> str:
    what = "is gone" if not build.disk.is_file() else "is not what its manifest says"
    then = "; what was made again is" if rebuilt_is_right else ""
    return f"{build.disk} {what}{then}"


def _differences(
    plan: BuildPlan,
    disk: Path,
    rebuilt: Path,
    room: Path,
    cache_directory: Path,
    manner: Manner,
) -> tuple[str, ...]:
    layout = plan_layout(
        plan.boot, plan.template.disk_size, plan.identifier, plan.template.esp_size
    )
    pool = Sources.of(
        plan.template, plan.template_file, plan.profile, cache_directory, manner.mirrors
    ).disk_tools.pool
    programs = tools.unpack(plan.disk_tools, pool, cache_directory)
    try:
        found = difference.compare(disk, rebuilt, layout, programs, room, room / "compare.log")
    except BuildError as error:
        return (f"the two files; they cannot be compared further: {error.message}",)
    return (*found.words, *_looked_into(found, room, manner.keep))


def _looked_into(found: difference.Report, room: Path, keep: Path | None) -> tuple[str, ...]:
    """Let diffoscope say what differs within the files, where it is installed."""
    program = run.which("diffoscope")
    if program is None or not found.files:
        return ()
    pair = [room / "differing/kept", room / "differing/rebuilt"]
    for files in found.files:
        for path in {d.path for d in files.differences if d.what in {"content", "missing"}}:
            for source, target in zip((files.first, files.second), pair, strict=True):
                origin = source / path
                if origin.is_file() and not origin.is_symlink():
                    copy = target / path
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(origin, copy)
    if not all(directory.is_dir() for directory in pair):
        return ()
    report = room / "diffoscope.txt"
    words: list[str | Path] = [program, "--exclude-directory-metadata=yes", "--text", report, *pair]
    try:
        run.run(words, accept=(0, 1), log=room / "compare.log")
    except BuildError as error:
        return (f"diffoscope: {error.message}",)
    if not report.exists():
        return ()
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(report, keep / report.name)
    lines = report.read_text(encoding="utf-8", errors="replace").splitlines()
    more = ["..."] if len(lines) > _LINES else []
    return (*lines[:_LINES], *more)


def _keep(disk: Path, directory: Path | None) -> Path | None:
    if directory is None:
        return None
    directory.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(disk, directory / disk.name)).absolute()
