"""The page that a run writes: the table, and what is needed to judge and to repeat it."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

from imagefactory import __version__, run
from imagefactory.errors import ImageFactoryError
from tools.bench.table import TIMES, Group, markdown

_PROBE_TIMEOUT = 30.0

_TOOLS = (
    ("mmdebstrap", "--version"),
    ("qemu-aarch64-static", "--version"),
    ("qemu-img", "--version"),
    ("debootstrap", "--version"),
)

_HEAD = (
    "# Benchmarks",
    "Written by `make bench` in one run. Seconds depend on the machine and its hour; the ratios",
    "are what counts. On a quiet machine, `make bench` does all of it again and writes this page",
    "anew; `.venv/bin/python -m tools.bench --help` has single groups and more rounds.",
    "",
    "Every row is for the packages of `templates/{image}.yaml`, resolved once and fetched",
    "before any clock starts; they are in the page cache and are read from a repository of local",
    "files (diskimage-builder alone asks a mirror). A figure is the median of its rounds;",
    "**clock** is how long one waits, **CPU** the time of all processors together. A ratio is of",
    f"clocks: **0.50{TIMES}** is half the time. Plain qemu-user is what every other image builder",
    "runs foreign maintainer scripts with.",
)


def page(image: str, groups: Sequence[Group], facts: Sequence[tuple[str, str]]) -> str:
    """Return the whole page."""
    lines = [line.format(image=image) for line in _HEAD]
    lines += ["", "| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]
    return "\n".join([*lines, "", markdown(groups)])


def load_average() -> str:
    """Return how many programs wanted a processor, over 1, 5 and 15 minutes."""
    return ", ".join(f"{load:.2f}" for load in os.getloadavg())


def machine(work: Path) -> Iterator[tuple[str, str]]:
    """Yield what the times depend on."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line for line in lines if line.lower().startswith(("model name", "cpu\t")))
        yield "processor", model.partition(":")[2].strip()
    yield "processors that may be used", str(len(os.sched_getaffinity(0)))
    yield "memory", f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    distribution = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    yield "system", f"{distribution}, Linux {platform.release()}, {platform.machine()}"
    yield "filesystem of the results", _said("stat", "--file-system", "--format=%T", str(work))


def versions() -> Iterator[tuple[str, str]]:
    """Yield what was compared."""
    commit = _said("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD")
    yield "imagefactory", f"{__version__}{f', commit {commit}' if commit else ''}"
    yield "Python", platform.python_version()
    for program, option in _TOOLS:
        said = _said(program, option)
        if said:
            yield program, said.removeprefix(f"{program} ")


def _said(*words: str) -> str:
    """Return a program's first line; empty when it has none to say."""
    try:
        said = run.run(words, timeout=_PROBE_TIMEOUT).stdout.splitlines()
    except ImageFactoryError:
        return ""
    return said[0].strip() if said else ""
