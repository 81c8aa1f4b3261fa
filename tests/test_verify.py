from __future__ import annotations

import contextlib
import json
import mmap
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagefactory import record, verify
from imagefactory.catalog import MANIFEST, Build, Catalog, read_build
from imagefactory.data import SearchPath, sha256_of
from imagefactory.disk.image import Disk
from imagefactory.errors import ConfigError, PackageError
from imagefactory.packages.mirrors import NONE
from imagefactory.plan import BuildPlan
from imagefactory.progress import Stages
from imagefactory.run import run
from imagefactory.schedule import Schedule
from imagefactory.verify import Manner, Verdict
from imagefactory.workbench import Workbench
from tests.debian_trees import FinishedRoot
from tests.debs import Archive
from tests.factory import MINUTES, BuiltImage, Factory
from tests.samples import small_template
from tests.sbom.bills import purls_of

MOMENT = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def bench(archive: Archive, tmp_path: Path) -> Workbench:
    small_template(tmp_path / "mine", archive)
    path = SearchPath((tmp_path / "mine", *SearchPath.default().directories))
    return Workbench(path, Catalog(tmp_path / "catalog"), tmp_path / "cache")


@pytest.fixture
def template_file(bench: Workbench) -> Path:
    return bench.path.directories[0] / "templates/small.yaml"


def add_build(bench: Workbench, content: bytes = b"a disk", sbom: bytes = b"") -> Build:
    """A build whose disk is no disk; its packages are in the pool."""
    plan, sources = bench.plan("small", bench.profiles.get("x86_64"))
    sources.fetch(*plan.to_fetch)
    with bench.catalog.workspace("small") as work:
        result = work / "result"
        result.mkdir()
        disk = result / "small-x86_64.qcow2"
        disk.write_bytes(content)
        told = {"file": disk.name, "size": len(content), "sha256": sha256_of(disk)}
        manifest = {"plan": plan.facts(), "record": record.of(plan), "disk": told}
        more: dict[str, Any] = {"built": MOMENT, "seconds": {}, "boot_test": None}
        if sbom:
            document = result / "small-x86_64.spdx.json"
            document.write_bytes(sbom)
            more["sbom"] = {"spdx": {"file": document.name, "sha256": sha256_of(document)}}
        return bench.catalog.add(result, manifest | more)


class Maker:
    """In the place of `pipeline.remade`, which is tested with whole builds: takes any plan."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.sbom = b""
        self.plans: list[BuildPlan] = []

    @contextlib.contextmanager
    def __call__(self, plan: BuildPlan, *_: object) -> Iterator[tuple[Disk, Path]]:
        self.plans.append(plan)
        work = Path(plan.template_file).parent.parent / "work"
        (work / "room").mkdir(parents=True)
        disk = work / "small-x86_64.qcow2"
        disk.write_bytes(self.content)
        (work / "small-x86_64.spdx.json").write_bytes(self.sbom)
        yield Disk(disk, "qcow2", len(self.content), 64 << 20), work / "room"
        shutil.rmtree(work)


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Maker:
    made = Maker(b"a disk")
    monkeypatch.setattr(verify, "remade", made)
    return made


def verified(bench: Workbench, build: Build, **manner: Any) -> Verdict:
    return verify.verify(bench, build, Manner(NONE, **manner), Schedule.of_this_host(1), Stages())


def test_the_same_bytes_are_identical(bench: Workbench, maker: Maker) -> None:
    build = add_build(bench)
    verdict = verified(bench, build)
    assert verdict.identical
    assert verdict.differences == verdict.changed == ()
    assert verdict.in_words.startswith(f"identical: sha256 {verdict.sha256}, rebuilt in ")
    assert maker.plans[0].digest == build.digest
    assert verdict.kept is None


def test_other_bytes_differ_and_are_kept_where_one_says(
    bench: Workbench, maker: Maker, tmp_path: Path
) -> None:
    maker.content = b"another disk"
    verdict = verified(bench, add_build(bench), keep=tmp_path / "again")
    assert not verdict.identical
    assert verdict.in_words.startswith("differs: ")
    assert verdict.kept == tmp_path / "again/small-x86_64.qcow2"
    assert verdict.kept.read_bytes() == b"another disk"


def test_another_sbom_is_told_and_says_nothing_of_the_image(bench: Workbench, maker: Maker) -> None:
    build = add_build(bench, sbom=b"{}")
    maker.sbom = b"{}"
    assert verified(bench, build).changed == ()
    told = ("the SBOM (spdx) is not the same, or not what the manifest says",)
    maker.sbom = b"[]"
    verdict = verified(bench, build)
    assert (verdict.identical, verdict.changed) == (True, told)
    build.sbom["spdx"].unlink()
    maker.sbom = b"{}"
    assert verified(bench, build).changed == told


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_disk_that_is_not_what_its_manifest_says_is_told(
    bench: Workbench, maker: Maker, damage: str
) -> None:
    build = add_build(bench)
    build.disk.unlink()
    if damage == "changed":
        build.disk.write_bytes(b"a disc")
    verdict = verified(bench, build)
    assert not verdict.identical
    assert "what was made again is" in verdict.in_words
    assert verdict.rebuilt_sha256 == verdict.sha256
    assert len(maker.plans) == 1


def test_an_edited_template_is_told_and_the_recorded_one_is_taken(
    bench: Workbench, maker: Maker, template_file: Path
) -> None:
    build = add_build(bench)
    template_file.write_text(template_file.read_text().replace("size: 64", "size: 65"))
    verdict = verified(bench, build)
    assert verdict.identical
    assert verdict.changed == ("the template: disk_size 64 -> 65",)
    assert maker.plans[0].template.disk_size == 64


def test_a_newer_package_is_told_and_the_recorded_one_is_taken(
    bench: Workbench, maker: Maker, archive: Archive
) -> None:
    build = add_build(bench)
    archive.add("program", version="2.0", architecture="all", depends="library")
    archive.publish()
    shutil.rmtree(bench.cache / "apt")  # its lists are a few seconds old, and believed
    verdict = verified(bench, build)
    assert verdict.identical
    assert "package changed: program=1.0 -> program=2.0" in verdict.changed
    assert "program=1.0" in map(str, maker.plans[0].image_packages)


@pytest.mark.parametrize("template", ["gone", "broken"])
def test_a_build_outlives_its_template(
    bench: Workbench, maker: Maker, template_file: Path, template: str
) -> None:
    build = add_build(bench)
    template_file.unlink()
    if template == "broken":
        template_file.write_text("name: [")
    verdict = verified(bench, build)
    assert verdict.identical
    assert "today's template cannot be read" in verdict.changed[0]
    assert maker.plans[0].template_file == template_file


def test_changed_files_of_the_template_stop_it(
    bench: Workbench, maker: Maker, template_file: Path
) -> None:
    build = add_build(bench)
    (template_file.parent / "overlay/etc/script").write_text("other")
    with pytest.raises(ConfigError, match="overlay/etc/script") as caught:
        verified(bench, build)
    assert "put them back" in caught.value.hint
    assert maker.plans == []


def without_packages(bench: Workbench, archive: Archive) -> None:
    """Let mirror and cache have nothing any more."""
    shutil.rmtree(bench.cache)
    for deb in archive.debs:
        deb.unlink()
    archive.debs.clear()
    archive.publish()


def test_a_package_that_is_nowhere_is_named_with_a_way_out(
    bench: Workbench, maker: Maker, archive: Archive
) -> None:
    build = add_build(bench)
    without_packages(bench, archive)
    with pytest.raises(PackageError, match=r"can no longer be had: .*program=1.0") as caught:
        verified(bench, build)
    assert "/20260102T030405Z" in caught.value.hint
    assert maker.plans == []


def test_packages_come_from_the_archive_of_the_past(
    bench: Workbench, maker: Maker, archive: Archive, template_file: Path, tmp_path: Path
) -> None:
    past = tmp_path / "past"
    text = template_file.read_text()
    snapshots = f", snapshots: 'file://{past}/{{timestamp}}'}}"
    template_file.write_text(
        text.replace(f"{archive.key.ring}}}", f"{archive.key.ring}{snapshots}")
    )
    build = add_build(bench)
    shutil.copytree(archive.directory, past / "20260102T030405Z")
    without_packages(bench, archive)
    verdict = verified(bench, build)
    assert verdict.identical
    assert "today's plan cannot be made" in verdict.changed[0]
    assert len(maker.plans) == 1


def test_offline_nothing_is_fetched(bench: Workbench, archive: Archive, maker: Maker) -> None:
    build = add_build(bench)
    archive.directory.rename(archive.directory.with_name("gone"))
    assert verified(bench, build, offline=True).identical
    shutil.rmtree(bench.cache / "pool")
    with pytest.raises(PackageError, match="offline: not in the cache"):
        verified(bench, build, offline=True)
    assert len(maker.plans) == 1


def test_a_build_is_named_by_its_image_or_its_directory(bench: Workbench, tmp_path: Path) -> None:
    newest = add_build(bench).directory
    assert [b.directory for b in verify.chosen(bench, "small", ("amd64",))] == [newest]
    copy = tmp_path / "copy"
    shutil.copytree(newest, copy)
    assert [b.directory for b in verify.chosen(bench, str(copy), ())] == [copy]
    with pytest.raises(ConfigError, match="was built for x86_64"):
        verify.chosen(bench, str(copy), ("arm64",))
    (copy / MANIFEST).unlink()
    with pytest.raises(ConfigError, match="is not the directory of a build"):
        verify.chosen(bench, str(copy), ())
    with pytest.raises(ConfigError, match="no image is called 'other'"):
        verify.chosen(bench, "other", ())


DEBIAN = """\
name: tiny-debian
description: the smallest Debian whose disk boots
extends: debian-12
debian:
  packages: ["?essential", netbase, systemd-sysv, initramfs-tools, kmod, tzdata, udev, zstd]
  overlay: null
customize:
  - run: dpkg --purge netbase
"""


@pytest.mark.system
@pytest.mark.timeout(30 * MINUTES)
@pytest.mark.parametrize("image", ["minimal", "tiny-debian"])
def test_a_build_is_made_again_bit_for_bit(image: str, factory: Factory, tmp_path: Path) -> None:
    templates = tmp_path / "mine/templates"
    templates.mkdir(parents=True)
    (templates / "tiny-debian.yaml").write_text(DEBIAN)
    mine = ("--path", tmp_path / "mine")
    factory.run(*mine, "build", image, "-a", "x86_64", "--skip-test")
    words = ("verify", image, "-a", "x86_64", "--json", "--keep", tmp_path / "again")
    (verdict,) = json.loads(factory.run(*mine, *words).stdout)
    assert verdict["identical"]
    assert verdict["changed"] == []
    assert sha256_of(Path(verdict["kept"])) == verdict["sha256"]
    assert len(factory.builds()) == 1
    assert factory.work() == []

    build = read_build(factory.builds()[0].parent)
    assert build
    purls = purls_of(BuiltImage.of(build.disk))
    told = {(one.name, one.version, one.qualifiers["arch"]) for one in purls}
    if image == "minimal":
        planned = build.manifest["plan"]["packages"]
        assert told == {(one["name"], one["version"], one["architecture"]) for one in planned}
    else:
        assert told == packages_of(FinishedRoot.of(BuiltImage.of(build.disk), tmp_path))
        assert "netbase" not in {name for name, _, _ in told}
    edit_release(build.disk, tmp_path)
    said = factory.run(*mine, "verify", build.directory, status=6).stdout
    assert "is not what its manifest says; what was made again is" in said
    assert re.search(r"root: (usr/lib|etc)/os-release: content", said)


def packages_of(root: FinishedRoot) -> set[tuple[str, ...]]:
    """What dpkg itself says of a tree: name, version, architecture."""
    form = "${db:Status-Status} ${Package} ${Version} ${Architecture}\\n"
    words = ["dpkg-query", f"--admindir={root.directory}/var/lib/dpkg", "--show", "-f", form]
    lines = [line.split() for line in run(words).stdout.splitlines()]
    assert {line[0] for line in lines} == {"installed"}
    return {tuple(line[1:]) for line in lines}


def edit_release(disk: Path, work: Path) -> None:
    """Change a letter of a file inside a disk, whose root filesystem has no checksums of data."""
    raw = work / "edited.raw"
    run(["qemu-img", "convert", "-O", "raw", disk, raw])
    with raw.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as content:
        # With the value: scripts that read the file hold the name alone.
        found = re.search(rb'PRETTY_NAME="(Debian GNU|imagefactory)', content)
        assert found
        content[found.start() : found.start() + 1] = b"p"
    run(["qemu-img", "convert", "-c", "-O", "qcow2", raw, disk])
    raw.unlink()
