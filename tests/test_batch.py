from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from imagefactory import batch, pipeline, run
from imagefactory.batch import Manner, Order, build_all, orders, plan_all
from imagefactory.catalog import Build, Catalog
from imagefactory.data import SearchPath
from imagefactory.errors import BuildError, ImageFactoryError, PackageError, UnknownNameError
from imagefactory.packages.mirrors import Mirrors
from imagefactory.schedule import Schedule
from imagefactory.workbench import Workbench
from tests.debs import Archive
from tests.samples import small_template


class Notes:
    """Takes note of what it is told."""

    def __init__(self) -> None:
        self.ended: dict[str, tuple[str, bool]] = {}
        self.warnings: list[str] = []

    def announcer(self, subject: str) -> Callable[[str, str], None]:
        return lambda stage, message: None

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def end(self, subject: str, result: str, seconds: Mapping[str, float], *, well: bool) -> None:
        self.ended[subject] = (result, well)


@pytest.fixture
def bench(archive: Archive, tmp_path: Path) -> Workbench:
    file = small_template(tmp_path / "mine", archive)
    text = file.read_text().replace("name: small\n", "name: other\n")
    file.with_name("other.yaml").write_text(text)
    path = SearchPath((file.parent.parent, *SearchPath.default().directories))
    return Workbench(path, Catalog(tmp_path / "catalog"), tmp_path / "cache")


def finished(tmp_path: Path) -> Build:
    plan = {"image": "i", "architecture": "a", "digest": "d", "properties": {}}
    return Build(tmp_path, {"plan": plan, "disk": {"file": "f", "size": 12_300_000}})


def test_orders_are_images_times_architectures_each_once(bench: Workbench) -> None:
    made = orders(bench, ["small", "other", "small"], ["amd64", "x86_64"])
    assert [order.subject for order in made] == ["small x86_64", "other x86_64"]
    with pytest.raises(UnknownNameError, match="'nothing'"):
        orders(bench, ["small", "nothing"], [])


def test_one_that_fails_does_not_stop_the_others(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(plan: Any, *_: object) -> Build:
        if plan.template.name == "small":
            raise BuildError("no kernel\nat all")
        return finished(tmp_path)

    monkeypatch.setattr(pipeline, "build", build)
    notes, complaints = Notes(), list[ImageFactoryError]()
    made = orders(bench, ["small", "other"], ["amd64"])
    manner = Manner(upload=lambda build, stages: build.size)
    outcomes = build_all(bench, made, manner, Schedule(2, 9999), notes, complaints.append)
    assert [outcome.order for outcome in outcomes] == made
    assert [str(error) for error in complaints] == ["no kernel\nat all"]
    assert outcomes[0].error is complaints[0]
    assert outcomes[1].uploaded == 12_300_000
    assert notes.ended == {
        "small x86_64": ("failed", False),
        "other x86_64": ("12.3 MB · untested", True),
    }


def test_a_build_stays_when_its_upload_fails(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upload(*_: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(pipeline, "build", lambda *_: finished(tmp_path))
    made = orders(bench, ["small"], ["amd64"])
    (outcome,) = build_all(bench, made, Manner(upload=upload), Schedule(1, 9999), Notes())
    assert outcome.build
    assert outcome.error
    assert outcome.error.message == "/somewhere: No space left on device"


def test_several_plans_share_what_was_fetched_and_work_offline_afterwards(
    bench: Workbench, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = orders(bench, ["small", "other"], ["amd64"])
    plans = plan_all(bench, made, Manner(), Schedule(2, 9999))
    assert [plan.template.name for plan in plans] == ["small", "other"]
    moved = archive.directory.rename(archive.directory.with_name("moved"))
    mirrors = Mirrors.parse([f"file://{archive.directory}=file://{moved}"])
    elsewhere = plan_all(bench, made, Manner(mirrors=mirrors), Schedule(2, 9999))
    assert [plan.digest for plan in elsewhere] == [plan.digest for plan in plans]
    notes = Notes()
    monkeypatch.setattr(pipeline, "build", lambda plan, sources, *_: sources.fetch(*plan.to_fetch))
    (outcome,) = build_all(bench, made[:1], Manner(offline=True), Schedule(1, 9999), notes)
    assert isinstance(outcome.error, PackageError)
    assert "offline: not in the cache: linux-image" in outcome.error.message
    assert notes.warnings == ["offline: the package lists are less than a minute old"]


def test_an_interruption_ends_programs_and_waiting(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    def interrupted(works: object, stop: Callable[[], None]) -> list[object]:
        stop()
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "side_by_side", interrupted)
    monkeypatch.setattr(run, "end_all", lambda: ended.append("programs"))
    schedule = Schedule(1, 9999)
    order = Order("small", bench.profiles.get("x86_64"))
    with pytest.raises(KeyboardInterrupt):
        build_all(bench, [order], Manner(), schedule, Notes())
    assert ended == ["programs"]
    with pytest.raises(KeyboardInterrupt), schedule.building():
        pass
