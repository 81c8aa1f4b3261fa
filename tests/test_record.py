from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagefactory import record
from imagefactory.arch import ArchProfile, ArchProfiles
from imagefactory.catalog import Build
from imagefactory.data import SearchPath
from imagefactory.errors import ConfigError
from imagefactory.plan import BuildPlan, make_plan
from imagefactory.sources import Sources
from imagefactory.template import ImageTemplate, load
from tests.debs import Archive
from tests.samples import small_template

SHIPPED = SearchPath.default()


@pytest.fixture
def plan(archive: Archive, tmp_path: Path) -> BuildPlan:
    file = small_template(tmp_path / "mine", archive)
    template, _ = load(SearchPath((file.parent.parent,)), "small")
    profile = ArchProfiles.load(SHIPPED).get("x86_64")
    return make_plan(
        template, file, profile, Sources.of(template, file, profile, tmp_path / "cache")
    )


def built(plan: BuildPlan) -> Build:
    """What a catalog's manifest has of it, once through JSON."""
    manifest = {"plan": plan.facts(), "record": record.of(plan)}
    return Build(Path("/a build"), json.loads(json.dumps(manifest)))


def test_a_plan_is_read_back_as_it_was(plan: BuildPlan) -> None:
    again = record.read(built(plan))
    assert again == replace(plan, warnings=())
    assert record.changes(plan, again) == ()
    assert record.changed_files(built(plan), again) == ()
    assert record.changed_code(built(plan), again) == ()


@pytest.mark.parametrize("name", sorted(SHIPPED.yaml_files("templates")))
def test_every_shipped_template_is_read_back_as_it_was(name: str) -> None:
    template, _ = load(SHIPPED, name)
    kept = json.loads(json.dumps(record._written(template)))
    assert record._model(ImageTemplate, kept) == template


@pytest.mark.parametrize("name", ArchProfiles.load(SHIPPED).names)
def test_every_shipped_profile_is_read_back_as_it_was(name: str) -> None:
    profile = ArchProfiles.load(SHIPPED).get(name)
    assert record._model(ArchProfile, json.loads(json.dumps(record._written(profile)))) == profile


def test_steps_of_a_customisation_are_read_back() -> None:
    template, _ = load(SHIPPED, "debian-12")
    content = record._written(template) | {
        "customize": [{"run": "true"}, {"copy": {"from": "a", "to": "b"}}, {"enable": ["ssh"]}]
    }
    template = record._model(ImageTemplate, content)
    assert record._model(ImageTemplate, record._written(template)) == template


def test_an_older_manifest_is_refused(plan: BuildPlan) -> None:
    build = built(plan)
    del build.manifest["record"]
    with pytest.raises(ConfigError, match="does not tell enough") as caught:
        record.read(build)
    assert "build it anew" in caught.value.hint


def first_package(field: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["plan"]["packages"][0].update({field: value})


@pytest.mark.parametrize(
    "damage",
    [
        first_package("name", "../../etc/passwd"),
        first_package("version", "1 --option"),
        first_package("sha256", "../x"),
        first_package("size", "1"),
        first_package("stranger", "1"),
        first_package("name", 1),
        lambda manifest: manifest["plan"].update(packages=[]),
        lambda manifest: manifest["plan"].update(source_date_epoch="1"),
        lambda manifest: manifest["plan"].update(image="other"),
        lambda manifest: manifest["record"].pop("boot_tools"),
        lambda manifest: manifest["record"].update(kernel="none"),
        lambda manifest: manifest["record"]["template"].update(stranger=1),
        lambda manifest: manifest["record"]["profile"].update(boot=[]),
        lambda manifest: manifest.update(record=[]),
    ],
)
def test_a_manifest_that_was_tampered_with_is_refused(
    plan: BuildPlan, damage: Callable[[dict[str, Any]], object]
) -> None:
    build = built(plan)
    damage(build.manifest)
    with pytest.raises(ConfigError, match="the manifest of /a build"):
        record.read(build)


def test_a_manifest_whose_digest_is_not_its_own_is_told(plan: BuildPlan) -> None:
    build = built(plan)
    build.manifest["record"]["template"]["disk_size"] = 65
    (told,) = record.changed_code(build, record.read(build))
    assert "it was edited" in told


def test_changed_code_is_named_and_nothing_else(plan: BuildPlan) -> None:
    build = built(plan)
    build.manifest["record"]["code"]["rootfs"]["minimal.py"] = "0" * 64 + " -"
    told = record.changed_code(build, record.read(build))
    assert "imagefactory's code: rootfs/minimal.py" in told
    # The digest was made of the other code: that it does not fit any more is told too.
    assert len(told) == 2


def test_changed_files_beside_the_template_are_named(plan: BuildPlan) -> None:
    build = built(plan)
    script = plan.beside("overlay") / "etc/script"
    script.write_text("#!/bin/sh\nexit 1\n")
    (script.parent / "new").touch()
    assert record.changed_files(build, plan) == ("overlay/etc/new", "overlay/etc/script")


def test_each_change_of_the_plan_is_told(plan: BuildPlan) -> None:
    kernel, program, *rest = plan.image_packages
    other = replace(rest[0], name="other")
    again = replace(program, sha256="0" * 64)
    today = replace(
        plan,
        template=plan.template.model_copy(update={"disk_size": 65, "description": "other"}),
        profile=plan.profile.model_copy(update={"console": "ttyS1"}),
        image_packages=(replace(kernel, version="6.2-1"), again, other),
        disk_tools=plan.disk_tools[:1],
        epoch=7,
    )
    assert record.changes(plan, today) == (
        "the template: disk_size 64 -> 65",
        f'the profile: console "{plan.profile.console}" -> "ttyS1"',
        f"package removed: {rest[0]}",
        f"package changed: {kernel} -> {kernel.name}=6.2-1",
        "package added: other=1.0",
        f"package changed: {program} -> {program} with another content",
        f"tool removed: {plan.disk_tools[1]}",
        "SOURCE_DATE_EPOCH null -> 7",
    )
