"""Trees: native ones beside mmdebstrap alone, foreign ones emulated and accelerated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imagefactory import run, treediff
from imagefactory.arch import ArchProfile
from imagefactory.packages.tools import unpack
from imagefactory.pipeline import BUILDERS
from imagefactory.plan import fill
from imagefactory.progress import silent
from imagefactory.rootfs.debian import execution_of
from imagefactory.rootfs.workshop import Workshop
from tools.bench.measure import Figure, Stopwatch
from tools.bench.place import PackageSet, Place, warm
from tools.bench.table import Row

_TIMEOUT = 7200.0

GENERIC_KERNEL = {"debian": "linux-image-{deb}"}
"""The kernel for all machines, by distribution; its initramfs holds several times the modules."""

CLOUD = "-cloud-"
"""In the name of a kernel that is for virtual machines alone."""

_BASE_IS_DONE = "customising"
"""What a builder announces when the tree before its customisation is finished and packed."""

_SHOWN = 20
"""Differences of two trees that are told one by one."""


@dataclass(frozen=True)
class Tree:
    """What our builder took: for the base alone, and until the finished tree."""

    base: Figure
    whole: Figure
    size: int


def kernel_kind(place: Place, profile: ArchProfile) -> str:
    """Return the kind of an architecture's kernel: ``cloud`` or ``generic``."""
    name = place.template.kernel or profile.kernel[place.template.distribution.id]
    return "cloud" if CLOUD in name else "generic"


def native_packages(place: Place, kind: str) -> PackageSet:
    """Return this machine's packages with a kernel of one kind."""
    if kernel_kind(place, place.host) == kind:
        return place.packages(place.host)
    name = GENERIC_KERNEL[place.template.distribution.id]
    return place.packages(place.host, fill(name, place.host))


def against(kind: str) -> tuple[tuple[str, str], ...]:
    """Return what a foreign tree is compared with: the native ones with the same kernel."""
    return (("ours, native", f"ours/{kind}"), ("mmdebstrap, native", f"mmdebstrap/{kind}"))


def native(place: Place, kinds: tuple[str, ...]) -> Iterator[Row]:
    """Yield the trees of this machine's architecture, for each kind of kernel."""
    for kind in kinds:
        packages = native_packages(place, kind)
        called = f"{place.host.name}, {kind} kernel"
        yield _mmdebstrap(place, packages, f"mmdebstrap/{kind}", called)
        base, whole = _rows(place, packages, accelerate=True, rounds=place.rounds)
        label = ("mmdebstrap", f"mmdebstrap/{kind}")
        yield Row(f"ours/{kind}", f"{called}: ours, base tree", *base, (label,))
        note = "Customisation, cleaning, and packing a second time included."
        yield Row(f"finished/{kind}", f"{called}: ours, finished tree", *whole, (label,), note=note)


def foreign(place: Place, profiles: tuple[ArchProfile, ...]) -> Iterator[Row]:
    """Yield each foreign tree: emulated, accelerated, and whether both are the same."""
    for profile in profiles:
        packages = place.packages(profile)
        kind = kernel_kind(place, profile)
        note = (
            "There is no smaller kernel for it, so the native trees that it is compared with "
            f"have {fill(GENERIC_KERNEL[place.template.distribution.id], place.host)} too."
            if kind != kernel_kind(place, place.host)
            else ""
        )
        yield _twin(place, packages)
        kept = {}
        for way, accelerate in (("emulated", False), ("accelerated", True)):
            kept[way] = place.work / f"{way}-{profile.name}.tar"
            rounds = place.rounds if accelerate else 1
            base, _ = _rows(place, packages, accelerate=accelerate, rounds=rounds, keep=kept[way])
            called = "plain qemu-user" if way == "emulated" else "accelerated"
            rows = against(kind)
            if accelerate:
                rows = (*rows, ("plain qemu-user", f"emulated/{profile.name}"))
            key, what = f"{way}/{profile.name}", f"{profile.name}: ours, {called}, base tree"
            yield Row(key, what, *base, rows, note=note)
        yield equality(profile.name, kept["emulated"], kept["accelerated"])
        for tar in kept.values():
            tar.unlink()


def equality(name: str, one: Path, other: Path) -> Row:
    """Compare two finished trees entry by entry; nothing in them may differ."""
    found = treediff.compare(one, other)
    counted = len(treediff.entries(one))
    said = f"{counted:,} entries compared, {len(found) or 'no'} differences"
    if found:
        shown = "; ".join(map(str, found[:_SHOWN]))
        said += f": {shown}{' ...' if len(found) > _SHOWN else ''}"
    what = f"{name}: the emulated and the accelerated tree, finished"
    return Row(f"equality/{name}", what, note=said, failed=bool(found))


def _mmdebstrap(place: Place, packages: PackageSet, key: str, called: str) -> Row:
    """Measure it as a person would call it."""
    mode = "root" if os.geteuid() == 0 else "unshare"
    figures = []
    size = 0
    for _ in range(place.rounds):
        with place.scratch() as scratch:
            tar = scratch / "tree.tar"
            command: list[str | Path] = [
                *("mmdebstrap", f"--mode={mode}", "--variant=essential"),
                f"--architectures={packages.plan.profile.names.deb}",
                f"--include={','.join(packages.names)}",
                # No suite: a repository without a Release file belongs to none.
                *("", tar),
                f"deb [trusted=yes] copy://{packages.view} ./",
            ]
            warm(packages)
            watch = Stopwatch()
            run.run(command, timeout=_TIMEOUT, env={"TMPDIR": str(scratch)})
            figures.append(watch.read())
            size = tar.stat().st_size
    note = (
        "As a person would call it: the template's `exclude:` (documentation, translations) is not "
        "passed on, and the packages' scripts make the initramfs as they do in any installation; "
        "our builder keeps them from it and makes it once at the end."
    )
    return Row(key, f"{called}: mmdebstrap --mode={mode}", tuple(figures), size, note=note)


def _rows(
    place: Place,
    packages: PackageSet,
    *,
    accelerate: bool,
    rounds: int,
    keep: Path | None = None,
) -> tuple[tuple[tuple[Figure, ...], int], tuple[tuple[Figure, ...], int]]:
    """Build a tree several times; return figures and size of the base, and of the whole."""
    trees = [_build(place, packages, accelerate=accelerate, keep=keep) for _ in range(rounds)]
    base = tuple(tree.base for tree in trees), _kept_base(place).stat().st_size
    return base, (tuple(tree.whole for tree in trees), trees[-1].size)


def _build(
    place: Place, packages: PackageSet, *, accelerate: bool, keep: Path | None = None
) -> Tree:
    """Build a tree that no cache knows; its tools, and its twin, are there."""
    place.forget(keep=("pool", "apt", "tools", "twins", "launchers"))
    base: list[Figure] = []
    with place.scratch() as scratch:
        shop = _workshop(place, packages, scratch, accelerate=accelerate)
        execution_of(packages.plan, shop)
        warm(packages)
        watch = Stopwatch()

        def announce(_stage: str, text: str) -> None:
            if text == _BASE_IS_DONE:
                base.append(watch.read())

        shop = _workshop(place, packages, scratch, accelerate=accelerate, announce=announce)
        tree = BUILDERS[packages.plan.template.builder](packages.plan, shop)
        whole = watch.read()
        size = tree.tar.stat().st_size
        if keep:
            tree.tar.rename(keep)
    return Tree(base[0], whole, size)


def _workshop(
    place: Place,
    packages: PackageSet,
    scratch: Path,
    *,
    accelerate: bool,
    announce: Callable[[str, str], None] = silent,
) -> Workshop:
    sources = packages.sources
    programs = unpack(packages.plan.disk_tools, sources.disk_tools.pool, place.cache)
    place_of_work = (sources, programs, place.host, scratch, place.cache)
    return Workshop(*place_of_work, accelerate=accelerate, announce=announce)


def _twin(place: Place, packages: PackageSet) -> Row:
    """Measure what the first build of a package set takes besides; its packages are there."""
    profile = packages.plan.profile
    with place.scratch() as scratch:
        shop = _workshop(place, packages, scratch, accelerate=True)
        way = execution_of(packages.plan, shop)
        if way.mechanism != "accelerated":
            return Row(f"twin/{profile.name}", f"{profile.name}: no twin", note=way.reason)
        place.forget(keep=("pool", "apt", "tools"))
        watch = Stopwatch()
        execution_of(packages.plan, shop)
        figure = watch.read()
    note = "Once for a package set, and in none of the tree rows; builds of whole images have it."
    what = f"{profile.name}: compiling the launcher, making the twin"
    return Row(f"twin/{profile.name}", what, (figure,), note=note)


def _kept_base(place: Place) -> Path:
    return max((place.cache / "trees").glob("*.tar"), key=lambda tar: tar.stat().st_mtime)
