from __future__ import annotations

from pathlib import Path

import pytest

from imagefactory import pipeline
from imagefactory.arch import ArchProfiles
from imagefactory.catalog import Catalog
from imagefactory.data import SearchPath
from imagefactory.errors import BootTestError, CommandError, ImageFactoryError, PackageError
from imagefactory.pipeline import Factory, build
from imagefactory.plan import BuildPlan, make_plan
from imagefactory.progress import Stages
from imagefactory.rootfs.workshop import Workshop
from imagefactory.run import run
from imagefactory.sources import Sources
from imagefactory.template import load
from imagefactory.tree import RootTree
from tests.debs import Archive
from tests.samples import small_template


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    profiles = ArchProfiles.load(SearchPath.default())
    return Factory(profiles, Catalog(tmp_path / "catalog"), tmp_path / "cache")


@pytest.fixture
def planned(archive: Archive, factory: Factory, tmp_path: Path) -> tuple[BuildPlan, Sources]:
    file = small_template(tmp_path / "mine", archive)
    template, _ = load(SearchPath((file.parent.parent,)), "small")
    profile = factory.profiles.get("x86_64")
    sources = Sources.of(template, file, profile, factory.cache)
    return make_plan(template, file, profile, sources), sources


def nothing_is_left(catalog: Catalog) -> bool:
    work = [path for path in (catalog.directory / ".work").iterdir() if path.is_dir()]
    return work == [] and catalog.builds("small", "x86_64") == ()


def test_a_stage_that_fails_leaves_nothing_in_the_catalog(
    planned: tuple[BuildPlan, Sources], factory: Factory
) -> None:
    with pytest.raises(ImageFactoryError, match="holds no /boot/vmlinu"):
        build(*planned, factory)
    assert nothing_is_left(factory.catalog)


def test_a_package_that_vanished_from_the_mirror_is_named(
    planned: tuple[BuildPlan, Sources], factory: Factory, archive: Archive
) -> None:
    for deb in archive.debs:
        deb.unlink()
    with pytest.raises(PackageError, match="linux-image"):
        build(*planned, factory)
    assert nothing_is_left(factory.catalog)


def test_the_log_that_an_error_names_outlives_the_workspace(
    planned: tuple[BuildPlan, Sources], factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_plan: object, shop: Workshop) -> RootTree:
        run(["sh", "-c", "echo why >&2; exit 1"], log=shop.work / "disk.log")
        raise AssertionError("unreachable")

    monkeypatch.setitem(pipeline.BUILDERS, "minimal", failing)
    with pytest.raises(CommandError) as caught:
        build(*planned, factory)
    assert caught.value.log
    assert "why" in caught.value.log.read_text()
    assert caught.value.log.is_relative_to(factory.catalog.directory / ".failed")
    assert nothing_is_left(factory.catalog)


@pytest.mark.parametrize("named", ["boot", "boot/plain/qemu.log"])
def test_the_whole_evidence_of_a_boot_outlives_the_workspace(
    planned: tuple[BuildPlan, Sources], factory: Factory, named: str
) -> None:
    plan, _ = planned

    def fail() -> None:
        with (
            factory.catalog.workspace(plan.name) as work,
            pipeline.log_kept(work, plan.name, factory.catalog),
        ):
            case = work / "result/boot/plain"
            case.mkdir(parents=True)
            (case / "qemu.log").write_text("burnt")
            (case / "console.log").write_text("smoke")
            raise BootTestError("it did not boot", log=work / "result" / named)

    with pytest.raises(BootTestError) as caught:
        fail()
    kept = factory.catalog.directory / ".failed" / plan.name
    assert caught.value.log == kept / Path(named).relative_to("boot")
    assert (kept / "plain/console.log").read_text() == "smoke"


def test_stages_are_announced_and_timed_even_when_they_fail() -> None:
    said: list[tuple[str, str]] = []
    stages = Stages(lambda stage, message: said.append((stage, message)))

    def fail() -> None:
        with stages.stage("disk", "qcow2"):
            raise CommandError("no")

    with pytest.raises(CommandError):
        fail()
    assert said == [("disk", "qcow2")]
    assert stages.seconds["disk"] >= 0
