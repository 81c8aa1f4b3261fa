"""Whole images, as `imagefactory build` makes them, without their boot test."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from imagefactory import run
from imagefactory.arch import ArchProfile
from tools.bench.measure import Figure, Stopwatch
from tools.bench.place import Place, warm
from tools.bench.table import Row
from tools.bench.trees import against, kernel_kind

_TIMEOUT = 7200.0

_DERIVED = """\
name: {name}
extends: {image}
description: One more step than {image}
customize: [{{run: "echo {number} >/etc/benchmark"}}]
"""


def rows(place: Place, profile: ArchProfile) -> Iterator[Row]:
    """Yield a whole build with cold caches, and one in which only a step has changed."""
    packages = place.packages(profile)
    kind = kernel_kind(place, profile)
    figures = []
    size = 0
    for _ in range(place.rounds):
        place.forget()
        warm(packages)
        figure, size = build(place, place.image, profile)
        figures.append(figure)
    key = f"image/{profile.name}"
    note = (
        "`imagefactory build --skip-test --offline`: packages and their lists are there, nothing "
        "else; plan, tools, twin, tree, bootloader and qcow2 are in the time."
    )
    yield Row(
        key, f"{profile.name}: whole image, cold", tuple(figures), size, against(kind), note=note
    )
    yield _customised(place, profile, key)


def tree(place: Place, profile: ArchProfile) -> Path:
    """Return a real tree: that of the last build, which is made first if there was none."""
    found = sorted((place.cache / "trees").glob("*.tar"))
    if not found:
        place.packages(profile)
        build(place, place.image, profile)
        found = sorted((place.cache / "trees").glob("*.tar"))
    return found[0]


def build(place: Place, image: str, profile: ArchProfile) -> tuple[Figure, int]:
    """Build an image once, and return what it took and its bytes."""
    paths = [f"--path={path}" for path in place.workbench.path.directories if path.is_dir()]
    command = [sys.executable, "-m", "imagefactory", *paths]
    command += [f"--catalog={place.work / 'catalog'}", "build", image, "--arch", profile.name]
    command += ["--skip-test", "--offline", "--jobs", "1"]
    watch = Stopwatch()
    run.run(command, env={"XDG_CACHE_HOME": str(place.cache.parent)}, timeout=_TIMEOUT)
    figure = watch.read()
    (disk,) = (place.work / "catalog").glob("**/*.qcow2")
    size = disk.stat().st_size
    shutil.rmtree(place.work / "catalog")
    return figure, size


def _customised(place: Place, profile: ArchProfile, cold: str) -> Row:
    """Change one step of the customisation, again and again."""
    name = f"{place.image}-changed"
    templates = place.work / "derived/templates"
    templates.mkdir(parents=True)
    figures = []
    size = 0
    own = place.with_path(templates.parent)
    for number in range(place.rounds + 1):
        text = _DERIVED.format(name=name, image=place.image, number=number)
        (templates / f"{name}.yaml").write_text(text, encoding="utf-8")
        figure, size = build(own, name, profile)
        if number:  # the first one fills the cache of compressed clusters
            figures.append(figure)
    what = f"{profile.name}: whole image, one step of the customisation changed"
    return Row(f"changed/{profile.name}", what, tuple(figures), size, (("cold", cold),))
