from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from imagefactory.errors import BuildError, ImageFactoryError
from imagefactory.schedule import (
    BUILD_MEMORY,
    GUEST_OVERHEAD,
    Schedule,
    side_by_side,
    usable_cpus,
    usable_memory,
)

WAIT = 20.0
PLENTY = 1 << 20


class Worker:
    """A thread that takes room, says so, and gives it back when told to."""

    def __init__(self, room: Callable[[], AbstractContextManager[None]]) -> None:
        self.inside = threading.Event()
        self.leave = threading.Event()
        self.error: BaseException | None = None
        self._room = room
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            with self._room():
                self.inside.set()
                assert self.leave.wait(WAIT)
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def end(self) -> None:
        self.leave.set()
        self._thread.join(WAIT)
        assert not self._thread.is_alive()


def queued(schedule: Schedule, room: Callable[[], AbstractContextManager[None]]) -> Worker:
    """Start a worker and return once it stands in the line, or is through it."""
    with schedule._changed:
        before = schedule._asked
        worker = Worker(room)
        assert schedule._changed.wait_for(lambda: schedule._asked > before, WAIT)
    return worker


def test_no_more_than_the_jobs_work_at_once() -> None:
    schedule = Schedule(2, PLENTY)
    workers = [queued(schedule, schedule.building) for _ in range(3)]
    assert workers[0].inside.wait(WAIT)
    assert workers[1].inside.wait(WAIT)
    assert not workers[2].inside.is_set()
    workers[0].end()
    assert workers[2].inside.wait(WAIT)
    for worker in workers[1:]:
        worker.end()


def test_memory_counts_and_all_of_it_comes_back() -> None:
    everything = BUILD_MEMORY + GUEST_OVERHEAD + 1
    schedule = Schedule(9, everything)
    workers = [queued(schedule, schedule.building) for _ in range(2)]
    guest = queued(schedule, lambda: schedule.guest(1))
    assert not guest.inside.is_set()
    workers[1].end()
    assert guest.inside.wait(WAIT)
    guest.end()
    workers[0].end()
    assert schedule._memory == everything
    assert schedule._free == 9


def test_what_is_larger_than_everything_runs_alone() -> None:
    schedule = Schedule(4, 100)
    first = queued(schedule, lambda: schedule.guest(9999))
    assert first.inside.wait(WAIT)
    second = queued(schedule, schedule.building)
    assert not second.inside.is_set()
    first.end()
    assert second.inside.wait(WAIT)
    second.end()


def test_nobody_overtakes_but_guests_stand_before_builds() -> None:
    schedule = Schedule(1, PLENTY)
    order: list[str] = []

    def called(name: str, room: AbstractContextManager[None]) -> AbstractContextManager[None]:
        @contextmanager
        def noting() -> Iterator[None]:
            with room:
                order.append(name)
                yield

        return noting()

    busy = queued(schedule, schedule.building)
    waiting = [
        queued(schedule, lambda: called("build 1", schedule.building())),
        queued(schedule, lambda: called("build 2", schedule.building())),
        queued(schedule, lambda: called("guest", schedule.guest(64))),
    ]
    for worker in waiting:
        worker.leave.set()
    busy.end()
    for worker in waiting:
        worker.end()
    assert order == ["guest", "build 1", "build 2"]


def test_something_small_does_not_overtake_something_large() -> None:
    schedule = Schedule(9, 1000)
    busy = queued(schedule, schedule.building)
    large = queued(schedule, lambda: schedule.guest(1000))
    small = queued(schedule, lambda: schedule.guest(1))
    assert not small.inside.is_set()
    busy.end()
    assert large.inside.wait(WAIT)
    large.end()
    small.end()


def test_whoever_waits_when_it_closes_is_sent_home() -> None:
    schedule = Schedule(1, PLENTY)
    busy = queued(schedule, schedule.building)
    waiting = queued(schedule, schedule.building)
    schedule.close()
    waiting.end()
    assert isinstance(waiting.error, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt), schedule.guest(1):
        pass
    busy.end()
    assert busy.error is None


def test_an_error_inside_gives_the_room_back() -> None:
    schedule = Schedule(1, 1000)
    for _ in range(2):
        with pytest.raises(BuildError), schedule.building():
            raise BuildError("no")
    assert (schedule._free, schedule._memory) == (1, 1000)


def test_works_go_on_when_one_fails() -> None:
    together = threading.Barrier(3)

    def work(number: int) -> int:
        together.wait(WAIT)
        if number == 1:
            raise BuildError("one")
        return number

    first, second, third = side_by_side(
        [lambda number=number: work(number) for number in range(3)],  # type: ignore[misc]
        stop=lambda: None,
    )
    assert (first, third) == (0, 2)
    assert isinstance(second, BuildError)


def test_what_nobody_expects_is_raised_after_the_others_ended() -> None:
    done: list[int] = []

    def crash() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        side_by_side([crash, lambda: done.append(1)], stop=lambda: None)
    assert done == [1]


def test_an_interruption_stops_all_and_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped, cleaned = threading.Event(), []

    def work() -> None:
        try:
            assert stopped.wait(WAIT)
            raise ImageFactoryError("its program was stopped")
        finally:
            cleaned.append(1)

    class Interrupted:
        def get(self) -> None:
            raise KeyboardInterrupt

        def put(self, _: object) -> None:
            pass

    monkeypatch.setattr("imagefactory.schedule.SimpleQueue", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        side_by_side([work, work], stop=stopped.set)
    assert cleaned == [1, 1]


def test_nothing_to_do() -> None:
    assert side_by_side([], stop=lambda: None) == []


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9999999 kB\nMemAvailable: 4096000 kB\n"}


def test_memory_is_what_is_available(tmp_path: Path) -> None:
    assert usable_memory(write(tmp_path, MEMINFO)) == 4000


def test_every_group_above_limits_the_memory(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/outer/inner\n",
        "sys/fs/cgroup/outer/inner/memory.max": "max\n",
        "sys/fs/cgroup/outer/inner/memory.current": "1\n",
        "sys/fs/cgroup/outer/memory.max": f"{1000 << 20}\n",
        "sys/fs/cgroup/outer/memory.current": f"{500 << 20}\n",
        "sys/fs/cgroup/outer/memory.stat": f"anon 7\ninactive_file {100 << 20}\n",
    }
    assert usable_memory(write(tmp_path, MEMINFO | files)) == 600


def test_groups_of_the_old_kind_count_too(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/box\n0::/\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": str(300 << 20),
        "sys/fs/cgroup/memory/box/memory.usage_in_bytes": str(100 << 20),
    }
    assert usable_memory(write(tmp_path, MEMINFO | files)) == 200


def test_a_host_that_says_nothing_has_a_gibibyte(tmp_path: Path) -> None:
    assert usable_memory(tmp_path) == 1024


@pytest.mark.parametrize(("quota", "most"), [("150000 100000", 2), ("1000 100000", 1), ("max", 99)])
def test_a_quota_limits_the_cpus(tmp_path: Path, quota: str, most: int) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": quota}
    assert usable_cpus(write(tmp_path, files)) == min(most, len(os.sched_getaffinity(0)))


def test_this_host_has_something_to_share() -> None:
    schedule = Schedule.of_this_host()
    assert schedule.jobs == usable_cpus() >= 1
    assert Schedule.of_this_host(7).jobs == 7
