"""Who may work when: the CPUs and the memory that all builds and guests of a run share.

A build holds room while it builds and gives it back before its guests ask for theirs, so nobody
ever waits for more while holding some, and nothing can deadlock. The line is strict: nobody
overtakes, so that something large is not kept waiting for ever by what is small; but guests
stand before builds, because what was begun is to be finished first.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from imagefactory.errors import ImageFactoryError

MIB = 1 << 20

BUILD_MEMORY = 512
"""MiB that building a tree and its disk takes, its programs included; 220 were seen (minimal)."""

GUEST_OVERHEAD = 1024
"""MiB that an emulator takes beside its guest's memory: translated code above all, for which
QEMU takes up to 1 GiB; 750 were seen with a minimal aarch64 guest under UEFI."""

JOIN_SECONDS = 30.0
"""How long an interrupted run waits for its threads to clean up behind themselves."""

T = TypeVar("T")


class Schedule:
    """A budget that is handed out in the order of asking.

    Args:
        jobs: How many builds and guests may work at once.
        memory: MiB that they may take together. What needs more than all of it runs alone.
    """

    def __init__(self, jobs: int, memory: int) -> None:
        self.jobs = jobs
        self._memory = self._all_memory = memory
        self._free = jobs
        self._line: list[tuple[int, int]] = []
        self._asked = 0
        self._changed = threading.Condition()
        self._closed = False

    @classmethod
    def of_this_host(cls, jobs: int | None = None) -> Schedule:
        """Share what this host has to give now: its CPUs, unless told how many, and memory."""
        return cls(jobs or usable_cpus(), usable_memory())

    @contextlib.contextmanager
    def building(self, memory: int = BUILD_MEMORY) -> Iterator[None]:
        """Hold room for building a tree and a disk; memory in MiB."""
        with self._room(memory, rank=1):
            yield

    @contextlib.contextmanager
    def guest(self, memory: int) -> Iterator[None]:
        """Hold room for a guest with so many MiB."""
        with self._room(memory + GUEST_OVERHEAD, rank=0):
            yield

    def close(self) -> None:
        """Send everybody home: whoever waits, or asks from now on, gets a KeyboardInterrupt."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @contextlib.contextmanager
    def _room(self, memory: int, rank: int) -> Iterator[None]:
        memory = min(memory, self._all_memory)
        self._wait(memory, rank)
        try:
            yield
        finally:
            self._give_back(memory)

    def _wait(self, memory: int, rank: int) -> None:
        with self._changed:
            self._asked += 1
            place = (rank, self._asked)
            bisect.insort(self._line, place)
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._closed or self._is_next(place, memory))
                if self._closed:
                    raise KeyboardInterrupt
                self._free -= 1
                self._memory -= memory
            finally:
                self._line.remove(place)
                self._changed.notify_all()  # the next in the line may fit beside this one

    def _is_next(self, place: tuple[int, int], memory: int) -> bool:
        return self._line[0] == place and self._free > 0 and memory <= self._memory

    def _give_back(self, memory: int) -> None:
        with self._changed:
            self._free += 1
            self._memory += memory
            self._changed.notify_all()


def side_by_side(
    works: Sequence[Callable[[], T]], stop: Callable[[], None]
) -> list[T | ImageFactoryError]:
    """Do all works, each in one thread from its beginning to its end.

    (The programs that a thread starts die with it; see `imagefactory.run`.)

    Args:
        works: What to do. One that fails does not stop the others.
        stop: Makes the works that run end soon; called when this thread is interrupted.

    Returns:
        What each returned, or the error that it ended with.
    """
    outcomes: dict[int, T | BaseException] = {}
    ended: SimpleQueue[int] = SimpleQueue()

    def carry_out(number: int, work: Callable[[], T]) -> None:
        try:
            outcomes[number] = work()
        except BaseException as error:  # noqa: BLE001 - it is raised again in the other thread
            outcomes[number] = error
        ended.put(number)

    threads = [
        threading.Thread(target=carry_out, args=(number, work), daemon=True)
        for number, work in enumerate(works)
    ]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            ended.get()
    except BaseException:
        stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join(JOIN_SECONDS)
        raise
    return [_expected(outcomes[number]) for number in range(len(works))]


def _expected(outcome: T | BaseException) -> T | ImageFactoryError:
    if isinstance(outcome, BaseException) and not isinstance(outcome, ImageFactoryError):
        raise outcome
    return outcome


def usable_cpus(root: Path = Path("/")) -> int:
    """Return how many CPUs this process may keep busy: its affinity, its control groups' quota."""
    cpus = len(os.sched_getaffinity(0))
    for group in _groups(root, ""):
        quota, _, period = _text(group / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            cpus = min(cpus, math.ceil(int(quota) / int(period)))
    return max(1, cpus)


def usable_memory(root: Path = Path("/")) -> int:
    """Return how many MiB can be had without swapping, and within the limits of control groups."""
    available = _field(root / "proc/meminfo", "MemAvailable:") * 1024
    rooms = [available] if available else []
    for group in _groups(root, ""):
        rooms += _room_of(group, "memory.max", "memory.current", "inactive_file")
    for group in _groups(root, "memory"):
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        rooms += _room_of(group, *names)
    return max(1, min(rooms, default=1 << 30) // MIB)


def _groups(root: Path, controller: str) -> list[Path]:
    """The control groups of this process, its own and those above; "" is the unified tree."""
    base = root / "sys/fs/cgroup" / controller
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            own = base / path.lstrip("/")
            return [own, *(above for above in own.parents if above.is_relative_to(base))]
    return []


def _room_of(group: Path, limit: str, usage: str, cached: str) -> list[int]:
    """Bytes that a group may still take; what caches files can be taken back."""
    most, used = _text(group / limit), _text(group / usage)
    if not (most.isdigit() and used.isdigit()):
        return []
    return [max(0, int(most) - int(used) + _field(group / "memory.stat", cached))]


def _field(file: Path, name: str) -> int:
    for line in _text(file).splitlines():
        words = line.split()
        if words[0] == name:
            return int(words[1])
    return 0


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
