"""A stopwatch for the wall clock and for the processors."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, order=True)
class Figure:
    """What one run took, in seconds.

    Attributes:
        seconds: On the clock.
        processor: Of all processors together, in this process and what it started. Where it
            is nearly the same in each round and the clock is not, the machine had other work.
    """

    seconds: float
    processor: float


class Stopwatch:
    """Runs from its creation on, and can be read more than once.

    Dirty pages of what went before are written first: they would be paid for by this one.
    """

    def __init__(self) -> None:
        os.sync()
        self._used = processor_time()
        self._began = time.monotonic()

    def read(self) -> Figure:
        """Return what went by since the creation."""
        return Figure(time.monotonic() - self._began, processor_time() - self._used)


def timed(work: Callable[[], object]) -> Figure:
    """Do something once."""
    watch = Stopwatch()
    work()
    return watch.read()


def median(figures: Iterable[Figure]) -> Figure:
    """Return the figure in the middle by the clock; of an even number, the faster of the two.

    One figure as a whole, so that its two times belong together.
    """
    ordered = sorted(figures)
    return ordered[(len(ordered) - 1) // 2]


def processor_time() -> float:
    """Return the seconds of processors that this process and its descendants have used.

    Those that have ended and were waited for count through their parents, proc(5).
    """
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            pid, _, rest = stat.read_text(errors="replace").partition(" (")
            fields = rest.rpartition(") ")[2].split()
            parents[int(pid)] = int(fields[1])
            # utime, stime, and those of the children that were waited for.
            used[int(pid)] = sum(map(int, fields[11:15]))
    own = os.getpid()
    ticks = sum(time for pid, time in used.items() if _descends(pid, own, parents))
    return ticks / os.sysconf("SC_CLK_TCK")


def _descends(pid: int, ancestor: int, parents: dict[int, int]) -> bool:
    while pid != ancestor:
        if pid not in parents:
            return False
        pid = parents[pid]
    return True
