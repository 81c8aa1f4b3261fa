"""Trees of RPM packages: native, emulated and accelerated.

No mirror of that family need be within reach: the packages are those of the tests' distribution,
Debian's programs under Fedora's names, with its scriptlets. dracut and rpm do the same work there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rpm.distribution import distribution
from tests.rpm.images import side_by_side, write_template
from tests.rpm.recipes import table

from imagefactory.arch import ArchProfile
from imagefactory.data import cache_directory
from imagefactory.packages.tools import unpack
from imagefactory.plan import BuildPlan, fill
from imagefactory.rootfs import rpm
from imagefactory.rootfs.workshop import Workshop
from imagefactory.sources import Sources
from tools.bench.measure import Figure, Stopwatch
from tools.bench.place import Place
from tools.bench.table import Row
from tools.bench.trees import CLOUD, GENERIC_KERNEL, equality

_IMAGE = "fedora-like"
_PACKAGES = ["@core", "@cloud-image", "kernel", "grub2-tools"]
_KEPT = ("pool", "apt", "dnf", "tools", "twins", "launchers")

_NOTE = (
    "A distribution of 240 packages that the tests make: Debian's programs under Fedora's names, "
    "installed by dnf with scriptlets, dracut, kernel-install. Packages are there, and the twin. "
    "Each is compared with the native tree that has the same kind of kernel: depmod and dracut "
    "take longer for the generic one, which has 2.5 times as many modules."
)


@dataclass(frozen=True)
class _Job:
    """One architecture, resolved and fetched."""

    place: Place
    plan: BuildPlan
    sources: Sources

    def workshop(self, scratch: Path, *, accelerate: bool) -> Workshop:
        cache, host = self.place.cache, self.place.host
        programs = unpack(self.plan.disk_tools, self.sources.disk_tools.pool, cache)
        return Workshop(self.sources, programs, host, scratch, cache, accelerate=accelerate)

    def build(self, *, accelerate: bool, keep: Path) -> tuple[Figure, int]:
        """Build a tree that no cache knows; its tools, and its twin, are there."""
        self.place.forget(keep=_KEPT)
        with self.place.scratch() as scratch:
            rpm.execution_of(self.plan, self.workshop(scratch, accelerate=accelerate))
            shop = self.workshop(scratch, accelerate=accelerate)
            watch = Stopwatch()
            tree = rpm.build_tree(self.plan, shop)
            figure = watch.read()
            size = tree.tar.stat().st_size
            tree.tar.rename(keep)
        return figure, size


def rows(place: Place, profiles: tuple[ArchProfile, ...]) -> Iterator[Row]:
    """Yield native trees, and each foreign one: emulated, accelerated, and both compared."""
    with place.scratch() as directory:
        jobs = [_job(place, profile, directory / profile.name) for profile in profiles]
        natives = {"cloud": _job(place, place.host, directory / "cloud")}
        if "generic" in {_kernel_kind(job.plan.profile) for job in jobs}:
            name = fill(GENERIC_KERNEL["debian"], place.host)
            natives["generic"] = _job(place, place.host, directory / "generic", name)
        for kind, job in natives.items():
            called = f"native, {kind} kernel"
            keep = directory / "native.tar"
            yield _row(job, f"rpm/native/{kind}", called, rounds=place.rounds, keep=keep)
        for job in jobs:
            yield from _foreign(job, f"rpm/native/{_kernel_kind(job.plan.profile)}", directory)


def _kernel_kind(profile: ArchProfile) -> str:
    return "cloud" if CLOUD in table(profile).kernels[profile.name] else "generic"


def _foreign(job: _Job, native: str, directory: Path) -> Iterator[Row]:
    name = job.plan.profile.name
    kept = {}
    for way, accelerate in (("emulated", False), ("accelerated", True)):
        kept[way] = directory / f"{way}-{name}.tar"
        against = [("native", native)]
        if accelerate:
            against.append(("plain qemu-user", f"rpm/emulated/{name}"))
        yield _row(
            job,
            f"rpm/{way}/{name}",
            "accelerated" if accelerate else "plain qemu-user",
            tuple(against),
            rounds=job.place.rounds if accelerate else 1,
            keep=kept[way],
            accelerate=accelerate,
        )
    yield equality(name, kept["emulated"], kept["accelerated"])
    for tar in kept.values():
        tar.unlink()


def _row(
    job: _Job,
    key: str,
    called: str,
    against: tuple[tuple[str, str], ...] = (),
    *,
    rounds: int,
    keep: Path,
    accelerate: bool = True,
) -> Row:
    made = [job.build(accelerate=accelerate, keep=keep) for _ in range(rounds)]
    figures = tuple(figure for figure, _ in made)
    what = f"{job.plan.profile.name}, RPM packages: ours, {called}, finished tree"
    return Row(key, what, figures, made[-1][1], against, note=_NOTE)


def _job(place: Place, profile: ArchProfile, directory: Path, kernel: str = "") -> _Job:
    made = {one.name: distribution(one, cache_directory()) for one in (place.host, profile)}
    if kernel:
        made[profile.name] = distribution(profile, cache_directory(), kernel=kernel)
    mirror = {one.names.rpm: made[one.name].repository for one in (place.host, profile)}
    write_template(
        directory / "own",
        _IMAGE,
        made[profile.name].repository,
        baseurl=side_by_side(directory / "mirror", mirror),
        disk_size=3072,
        tests=[{"name": "none", "datasource": "none"}],
        rpm={"packages": _PACKAGES},
    )
    inner = place.with_path(directory / "own")
    plan, sources = inner.workbench.plan(_IMAGE, profile, place.mirrors)
    sources.fetch(*plan.to_fetch)
    return _Job(inner, plan, sources)
