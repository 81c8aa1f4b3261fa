"""Run the benchmark: ``.venv/bin/python -m tools.bench``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from imagefactory import run
from imagefactory.arch import ArchProfile
from imagefactory.data import cache_directory, write_whole
from imagefactory.errors import ImageFactoryError
from imagefactory.packages.mirrors import Mirrors
from imagefactory.packages.tools import unpack
from tools.bench import dib, disk, images, page, rpms, trees, uploads
from tools.bench.place import Place, opened
from tools.bench.table import Group, Row, facts, plain

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/benchmarks.md"

_MIRROR = "IMAGEFACTORY_MIRROR"
"""As for `imagefactory build`: rules, apart by blanks."""


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Attributes:
        profiles: The foreign architectures; whole images are made for the first.
        every: The rows that take twenty minutes each, too.
    """

    profiles: tuple[ArchProfile, ...]
    every: bool


def native(place: Place, wish: Wish) -> Iterator[Row]:
    """Yield native trees with every kind of kernel that something is compared with."""
    kinds = {trees.kernel_kind(place, profile) for profile in (place.host, *wish.profiles)}
    return trees.native(place, tuple(sorted({*kinds, "generic"})))


def foreign(place: Place, wish: Wish) -> Iterator[Row]:
    """Yield foreign trees."""
    return trees.foreign(place, wish.profiles)


def builder(place: Place, wish: Wish) -> Iterator[Row]:
    """Yield diskimage-builder's trees."""
    return dib.rows(place, (place.host, *(wish.profiles if wish.every else ())))


def whole(place: Place, wish: Wish) -> Iterator[Row]:
    """Yield whole images."""
    return images.rows(place, wish.profiles[0])


def disks(place: Place, wish: Wish) -> Iterator[Row]:
    """Yield the disk stage."""
    packages = place.packages(wish.profiles[0])
    tar = images.tree(place, wish.profiles[0])
    plan = packages.plan
    programs = unpack(plan.disk_tools, packages.sources.disk_tools.pool, place.cache)
    with place.scratch() as scratch:
        yield from disk.rows(tar, programs, scratch, plan.template.disk_size, place.rounds)


def rpm_trees(place: Place, wish: Wish) -> Iterator[Row]:
    """Yield trees of RPM packages."""
    return rpms.rows(place, wish.profiles)


def sending(place: Place, _wish: Wish) -> Iterator[Row]:
    """Yield uploads."""
    with place.scratch() as scratch:
        yield from uploads.rows(scratch, cache_directory(), place.rounds)


Measure = Callable[[Place, Wish], Iterator[Row]]

GROUPS: dict[str, tuple[str, Measure]] = {
    "native": ("Trees of this machine's architecture", native),
    "foreign": ("Foreign trees", foreign),
    "rpm": ("Trees of RPM packages", rpm_trees),
    "dib": ("diskimage-builder", builder),
    "image": ("Whole images", whole),
    "disk": ("Disk stage", disks),
    "upload": ("Uploads", sending),
}

_NEEDS = {"foreign": "native", "dib": "native", "image": "native"}
"""Groups whose ratios are to rows of another group."""


def wanted(only: Sequence[str]) -> tuple[str, ...]:
    """Return the groups to measure, in their order: those asked for, and what they need."""
    asked = {*(only or GROUPS)}
    return tuple(name for name in GROUPS if name in asked | {_NEEDS.get(one) for one in asked})


def measure(place: Place, wish: Wish, names: Sequence[str]) -> list[Group]:
    """Measure groups, and tell each row when it is done."""
    groups: list[Group] = []
    for name in names:
        title, rows = GROUPS[name]
        groups.append(Group(name, title))
        _say(f"{title}:")
        for row in _surviving(rows(place, wish), name):
            groups[-1].rows.append(row)
            _say(f"  {plain(row, [one for group in groups for one in group.rows])}")
    return groups


def _surviving(rows: Iterator[Row], name: str) -> Iterator[Row]:
    """Yield rows; what ends them is one more, for the other groups have taken their time."""
    try:
        yield from rows
    except (ImageFactoryError, OSError) as error:
        yield Row(f"{name}/failed", "the rest of this group", note=f"failed: {error}", failed=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write the page if all was measured; 1: a group failed, or trees differ."""
    asked = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    begun, load = datetime.now(UTC), page.load_average()
    mirrors = Mirrors.chosen(os.environ.get(_MIRROR, "").split())
    paths = [path.resolve() for path in asked.path]
    with opened(asked.image, paths, asked.rounds, mirrors, offline=asked.offline) as place:
        chosen = place.workbench.profiles.select(tuple(asked.arch or ("aarch64", "ppc64le")))
        wish = Wish(tuple(one for one in chosen if one != place.host), asked.all)
        if not wish.profiles:
            raise SystemExit("--arch: name an architecture that is not this machine's")
        groups = measure(place, wish, wanted(asked.only))
        known = [
            ("measured", f"{begun:%Y-%m-%d %H:%M} to {datetime.now(UTC):%H:%M} UTC"),
            ("load before and after (1, 5, 15 minutes)", f"{load}; {page.load_average()}"),
            *page.machine(place.work),
            *page.versions(),
            ("diskimage-builder", dib.version(place) or "not installed"),
        ]
    text = page.page(asked.image, groups, known)
    target = asked.output or (None if asked.only else PAGE)
    if target:
        write_whole(target, text.encode())
        _say(f"written: {target}")
    if asked.json:
        sys.stdout.write(json.dumps({"facts": dict(known), "rows": facts(groups)}, indent=2) + "\n")
    elif not target:
        sys.stdout.write(text)
    return int(any(row.failed for group in groups for row in group.rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.bench",
        description="Measure trees, disks and images against what others take for the same. "
        "The whole of it takes an hour, 10 GB below $TMPDIR (else /var/tmp), and a quiet machine.",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=GROUPS,
        default=[],
        help="one group, and what it is compared with; repeatable. docs/benchmarks.md is not "
        "written then",
    )
    parser.add_argument(
        "--rounds", type=_count, default=3, help="repeat what is fast so often (default: 3)"
    )
    parser.add_argument(
        "--all", action="store_true", help="the slowest too: diskimage-builder's foreign trees"
    )
    parser.add_argument("--json", action="store_true", help="print JSON; progress is on stderr")
    parser.add_argument("--image", default="debian-12", help="the template (default: debian-12)")
    parser.add_argument(
        "--arch",
        action="append",
        help="foreign architectures (default: aarch64 and ppc64le); repeatable",
    )
    parser.add_argument("--path", action="append", type=Path, default=[], help="as of imagefactory")
    parser.add_argument("--offline", action="store_true", help="as of imagefactory build")
    parser.add_argument("--output", type=Path, help="write the page there")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least one round")
    return count


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        run.cancel()
        _say("interrupted")
        sys.exit(130)
    except ImageFactoryError as error:
        _say(f"{error.message}\n{error.hint}" + (f"\nlog: {error.log}" if error.log else ""))
        sys.exit(error.exit_code)
