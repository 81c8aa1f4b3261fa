from __future__ import annotations

import json
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath, cache_directory
from imagefactory.errors import ConfigError, PackageError
from imagefactory.packages.mirrors import Mirrors
from imagefactory.plan import BuildPlan, make_plan
from imagefactory.sources import Sources, _in_words
from imagefactory.template import Repository, load
from tests.debs import Archive, make_deb
from tests.samples import debian_template, small_template


@pytest.fixture
def file(archive: Archive, tmp_path: Path) -> Path:
    return small_template(tmp_path / "mine", archive)


def planned(file: Path, cache: Path, architecture: str = "x86_64", **access: Any) -> BuildPlan:
    path = SearchPath((file.parent.parent, *SearchPath.default().directories))
    template, found = load(path, file.stem)
    profile = ArchProfiles.load(path).get(architecture)
    return make_plan(
        template, found, profile, Sources.of(template, found, profile, cache, **access)
    )


def test_a_plan_names_every_package_and_tells_it_as_json(file: Path, tmp_path: Path) -> None:
    plan = planned(file, tmp_path / "cache")
    assert str(plan.kernel) == "linux-image-6.1.0-9-cloud=6.1-1"
    assert [package.name for package in plan.image_packages[1:]] == ["program", "grub-pc-bin"]
    assert [package.name for package in plan.disk_tools] == ["library", "program"]
    facts = json.loads(json.dumps(plan.facts()))
    assert facts["image"] == "small"
    assert facts["architecture"] == "x86_64"
    assert facts["boot"] == ["bios"]
    assert plan.name == "small-x86_64"


def test_the_same_inputs_give_the_same_digest_wherever_they_lie(file: Path, tmp_path: Path) -> None:
    first = planned(file, tmp_path / "cache")
    shutil.copytree(tmp_path / "mine", tmp_path / "elsewhere")
    second = planned(tmp_path / "elsewhere/templates/small.yaml", tmp_path / "other cache")
    assert first.digest == second.digest
    assert first.identifier("root") == second.identifier("root")
    assert first.identifier("root") != first.identifier("esp")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("description: small", "description: another"),
        ("datasource: config-drive", "datasource: none"),
        ("visibility: private", "visibility: public"),
    ],
)
def test_what_does_not_change_the_image_does_not_change_the_digest(
    file: Path, tmp_path: Path, old: str, new: str
) -> None:
    before = planned(file, tmp_path / "cache").digest
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert planned(file, tmp_path / "cache").digest == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("disk_size: 64", "disk_size: 65"),
        ("default_user: cloud", "default_user: other"),
        ("usr/share/program", "usr/share/pro*"),
        ("kernel_compression: none", "kernel_compression: xz"),
    ],
)
def test_a_change_of_the_template_changes_the_digest(
    file: Path, tmp_path: Path, old: str, new: str
) -> None:
    before = planned(file, tmp_path / "cache").digest
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert planned(file, tmp_path / "cache").digest != before


def test_another_mirror_is_the_same_image(file: Path, archive: Archive, tmp_path: Path) -> None:
    before = planned(file, tmp_path / "cache")
    other = archive.directory.with_name("other")
    archive.directory.rename(other)
    mirrors = Mirrors.parse([f"file://{archive.directory}=file://{other}"])
    after = planned(file, tmp_path / "other cache", mirrors=mirrors)
    assert after.digest == before.digest
    assert before.facts()["mirrors"] == [f"file://{archive.directory}"]
    assert after.facts()["mirrors"] == [f"file://{other}"]
    file.write_text(file.read_text().replace(str(archive.directory), str(other)))
    assert planned(file, tmp_path / "cache").digest == before.digest


def test_offline_the_plan_is_the_same_and_warns_of_the_age(
    file: Path, archive: Archive, tmp_path: Path
) -> None:
    before = planned(file, tmp_path / "cache")
    archive.directory.rename(archive.directory.with_name("gone"))
    for stamp in (tmp_path / "cache/apt").glob("*/refreshed"):
        old = time.time() - 3 * 86400 - 60
        os.utime(stamp, (old, old))
    after = planned(file, tmp_path / "cache", offline=True)
    assert after.digest == before.digest
    assert after.warnings == (*before.warnings, "offline: the package lists are 3 days old")
    with pytest.raises(PackageError, match=r"offline: the package lists of .* never fetched"):
        planned(file, tmp_path / "empty", offline=True)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (60, "1 minute"),
        (7200, "2 hours"),
        (86400, "1 day"),
        (9e6, "104 days"),
    ],
)
def test_ages_are_told_as_people_do(seconds: float, words: str) -> None:
    assert _in_words(seconds) == words


def test_a_change_of_the_overlay_changes_the_digest(file: Path, tmp_path: Path) -> None:
    cache, script = tmp_path / "cache", file.parent / "overlay/etc/script"
    digests = [planned(file, cache).digest]
    script.chmod(0o755)
    digests.append(planned(file, cache).digest)
    script.write_text("changed")
    digests.append(planned(file, cache).digest)
    script.rename(script.with_name("renamed"))
    digests.append(planned(file, cache).digest)
    script.symlink_to("renamed")
    digests.append(planned(file, cache).digest)
    (script.parent / os.fsdecode(b"\xff")).touch()  # a name that is not UTF-8
    digests.append(planned(file, cache).digest)
    assert len(set(digests)) == len(digests)


def test_the_umask_does_not_change_the_digest(file: Path, tmp_path: Path) -> None:
    script = file.parent / "overlay/etc/script"
    script.chmod(0o600)
    before = planned(file, tmp_path / "cache").digest
    script.chmod(0o666)
    assert planned(file, tmp_path / "cache").digest == before


def test_a_new_version_of_a_package_changes_the_digest(
    file: Path, archive: Archive, tmp_path: Path
) -> None:
    before = planned(file, tmp_path / "cache").digest
    archive.add("program", version="1.1", architecture="all")
    archive.publish()
    assert planned(file, tmp_path / "later").digest != before


def test_the_epoch_of_the_environment_counts(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(file, tmp_path / "cache")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    after = planned(file, tmp_path / "cache")
    assert (before.epoch, after.epoch) == (None, 0)
    assert before.digest != after.digest


@pytest.mark.parametrize("epoch", ["", "yesterday", "-1", "1.5", "²", "9999999999", "1" * 40])
def test_an_epoch_that_is_no_number_of_seconds_is_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(ConfigError, match="SOURCE_DATE_EPOCH is not a number"):
        planned(file, tmp_path / "cache")


def test_a_link_that_leads_out_of_the_templates_directory_is_refused(
    file: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    shutil.rmtree(file.parent / "overlay")
    (file.parent / "overlay").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError, match="leads out of its directory"):
        planned(file, tmp_path)


def test_an_overlay_that_does_not_exist_is_told(file: Path, tmp_path: Path) -> None:
    shutil.rmtree(file.parent / "overlay")
    with pytest.raises(ConfigError, match="overlay is not a directory"):
        planned(file, tmp_path / "cache")


@pytest.mark.parametrize("text", ["grub-{pc}-bin", "grub-{", "grub-{0}", "grub-{deb.nothing}"])
def test_a_placeholder_that_nothing_fills_is_told(file: Path, tmp_path: Path, text: str) -> None:
    file.write_text(file.read_text().replace("packages: [grub-pc-bin]", f"packages: ['{text}']"))
    with pytest.raises(ConfigError, match="cannot be filled in") as caught:
        planned(file, tmp_path / "cache")
    assert "{deb}" in caught.value.hint


def test_an_architecture_without_kernel_or_bootloader_is_told(file: Path, tmp_path: Path) -> None:
    text = file.read_text().replace("id: debian", "id: nowhere")
    file.write_text(text.replace("kernel: linux-image-cloud\n", ""))
    with pytest.raises(ConfigError, match="names no kernel for nowhere"):
        planned(file, tmp_path / "cache")
    file.write_text(text)
    with pytest.raises(ConfigError, match="no bootloader for the boot method 'uefi'"):
        planned(file, tmp_path / "cache", "aarch64")


def debian(file: Path, *more: str) -> None:
    """Make the small image one of the builder `debian`."""
    text = re.split("^(?:minimal|debian):$", file.read_text(), flags=re.MULTILINE)[0]
    text = text.replace("builder: minimal", "builder: debian").rstrip()
    file.write_text("\n".join([text, "debian:", "  packages: [program]", *more, ""]))


def test_the_guest_agents_property_follows_its_package(
    file: Path, archive: Archive, tmp_path: Path
) -> None:
    archive.add("qemu-guest-agent", architecture="all")
    archive.publish()
    debian(file)
    assert "hw_qemu_guest_agent" not in planned(file, tmp_path / "cache").properties
    debian(file, "  extra_packages: [qemu-guest-agent]")
    assert planned(file, tmp_path / "cache").properties["hw_qemu_guest_agent"] == "yes"
    debian(file, "  extra_packages: [qemu-guest-agent]", 'properties: {hw_qemu_guest_agent: "no"}')
    assert planned(file, tmp_path / "cache").properties["hw_qemu_guest_agent"] == "no"


def test_a_kernel_of_ones_own_is_a_package_beside_the_template(file: Path, tmp_path: Path) -> None:
    debian(file, "  local_packages: packages")
    own = make_deb(tmp_path, "linux-image-6.9.0-mine", version="1")
    (file.parent / "packages").mkdir()
    own.rename(file.parent / "packages" / own.name)
    text = file.read_text()
    file.write_text(text.replace("kernel: linux-image-cloud", "kernel: linux-image-6.9.0-mine"))
    plan = planned(file, tmp_path / "cache")
    assert str(plan.kernel) == "linux-image-6.9.0-mine=1"
    assert [str(item) for item in plan.image_packages if "linux" in item.name] == [str(plan.kernel)]
    assert not plan.warnings


def test_each_architecture_has_its_mirror_and_the_host_its_own(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = 'mirrors: {amd64: "http://main.example.org"}'
    debian(file)
    text = file.read_text().replace("{suite: stable, ", f"{{suite: stable, {ports}, ", 1)
    mirror = text.split('mirror: "')[1].split('"')[0]
    file.write_text(text.replace(f'mirror: "{mirror}"', 'mirror: "http://ports.example.org"'))
    monkeypatch.setattr("imagefactory.sources.host_deb_architecture", lambda: "amd64")
    path = SearchPath((file.parent.parent, *SearchPath.default().directories))
    template, found = load(path, "small")
    profile = ArchProfiles.load(path).get("aarch64")
    sources = Sources.of(template, found, profile, tmp_path / "cache")
    assert [apt.repositories[0].mirror for apt in (sources.debian, sources.boot_tools)] == [
        "http://ports.example.org",
        "http://main.example.org",
    ]
    assert sources.disk_tools.repositories == sources.boot_tools.repositories


def test_the_guest_is_told_the_repositories_of_its_architecture(
    file: Path, archive: Archive, tmp_path: Path
) -> None:
    debian(file)
    plan = planned(file, tmp_path / "cache")
    known = (
        Repository(suite="stable", mirror="http://m", keyring="/k", mirrors={"amd64": "http://a"}),
        Repository(suite="./", mirror="http://b", components=(), trusted=True),
    )
    told = replace(plan, template=plan.template.model_copy(update={"repositories": known}))
    assert told.sources_list == (
        "deb [signed-by=/etc/apt/keyrings/k] http://a stable main\ndeb [trusted=yes] http://b ./\n"
    )


@pytest.fixture
def whole(archive: Archive, tmp_path: Path) -> Path:
    return debian_template(tmp_path / "mine", archive)


def add_to_recipe(whole: Path, line: str) -> None:
    whole.write_text(whole.read_text().replace("debian:\n", f"debian:\n  {line}\n"))


def test_a_whole_debian_is_resolved_with_its_kernel(whole: Path, tmp_path: Path) -> None:
    plan = planned(whole, tmp_path / "cache")
    assert str(plan.kernel) == "linux-image-6.1.0-9-cloud=6.1-1"
    names = {package.name for package in plan.image_packages}
    assert names == {"program", "library", "grub-pc-bin", "linux-image-cloud", plan.kernel.name}


def test_the_guests_repositories_enter_the_digest(whole: Path, tmp_path: Path) -> None:
    before = planned(whole, tmp_path / "cache")
    components = "components: [main, main], keyring:"
    whole.write_text(whole.read_text().replace("keyring:", components, 1))
    assert planned(whole, tmp_path / "cache").digest != before.digest


def test_where_a_whole_debians_packages_are_fetched_does_not(
    whole: Path, archive: Archive, tmp_path: Path
) -> None:
    before = planned(whole, tmp_path / "cache")
    other = archive.directory.with_name("other")
    archive.directory.rename(other)
    mirrors = Mirrors.parse([f"file://{archive.directory}=file://{other}"])
    after = planned(whole, tmp_path / "other cache", mirrors=mirrors)
    assert after.digest == before.digest
    assert str(other) not in after.sources_list


def test_a_key_of_ones_own_goes_into_the_guest_and_into_the_digest(
    whole: Path, archive: Archive, tmp_path: Path
) -> None:
    plan = planned(whole, tmp_path / "cache")
    place = f"/etc/apt/keyrings/{archive.key.ring.name}"
    assert plan.sources_list == f"deb [signed-by={place}] file://{archive.directory} stable main\n"
    assert plan.guest_keyrings == {place: archive.key.ring}
    own = tmp_path / "elsewhere" / archive.key.ring.name
    own.parent.mkdir()
    shutil.copy(archive.key.ring, own)
    whole.write_text(whole.read_text().replace(str(archive.key.ring), str(own)))
    assert planned(whole, tmp_path / "cache").digest == plan.digest
    archive.key.gpg("--output", str(tmp_path / "armor"), "--armor", "--export")
    own.write_bytes((tmp_path / "armor").read_bytes())
    whole.write_text(whole.read_text().replace(own.name, own.with_suffix(".asc").name))
    own.rename(own.with_suffix(".asc"))
    assert planned(whole, tmp_path / "cache").digest != plan.digest


def test_a_repository_without_signature_is_told_to_the_guest_as_that(
    whole: Path, archive: Archive, tmp_path: Path
) -> None:
    whole.write_text(whole.read_text().replace(f"keyring: {archive.key.ring}", "trusted: true"))
    plan = planned(whole, tmp_path / "cache")
    assert plan.sources_list == f"deb [trusted=yes] file://{archive.directory} stable main\n"
    assert plan.guest_keyrings == {}


def test_a_guest_need_not_be_told_of_repositories(whole: Path, tmp_path: Path) -> None:
    add_to_recipe(whole, "guest_repositories: false")
    plan = planned(whole, tmp_path / "cache")
    assert (plan.sources_list, plan.guest_keyrings) == ("", {})


def test_files_beside_the_template_enter_the_digest(whole: Path, tmp_path: Path) -> None:
    cache, files = tmp_path / "cache", whole.parent / "files"
    digests = [planned(whole, cache).digest]
    (files / "script").chmod(0o755)
    digests.append(planned(whole, cache).digest)
    (files / "data").write_text("changed")
    digests.append(planned(whole, cache).digest)
    (files / "data").unlink()
    (files / "data").mkdir()
    (files / "data/one").touch()
    digests.append(planned(whole, cache).digest)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("name", ["script", "data"])
def test_what_a_step_names_must_be_there(whole: Path, tmp_path: Path, name: str) -> None:
    (whole.parent / "files" / name).unlink()
    with pytest.raises(ConfigError, match=f"files/{name} does not exist"):
        planned(whole, tmp_path / "cache")


def test_a_script_is_a_file(whole: Path, tmp_path: Path) -> None:
    whole.write_text(whole.read_text().replace("script: files/script", "script: files"))
    with pytest.raises(ConfigError, match="files is not a file"):
        planned(whole, tmp_path / "cache")


def test_a_kernel_that_does_not_come_with_its_package_is_told(
    whole: Path, archive: Archive, tmp_path: Path
) -> None:
    archive.add("linux-image-6.1.0-10-cloud", architecture="all")
    archive.add(
        "linux-image-two",
        architecture="all",
        depends="linux-image-cloud | linux-image-6.1.0-10-cloud, linux-image-cloud",
    )
    archive.publish()
    whole.write_text(whole.read_text().replace("linux-image-cloud", "linux-image-two"))
    with pytest.raises(ConfigError, match=r"does not bring the kernel linux-image-6\.1\.0-10"):
        planned(whole, tmp_path / "cache")


def test_packages_beside_the_template_win_and_their_content_counts(
    whole: Path, archive: Archive, tmp_path: Path
) -> None:
    archive.add("program", version="9.0", architecture="all")
    archive.publish()
    add_to_recipe(whole, "local_packages: debs")
    debs = whole.parent / "debs"
    debs.mkdir()
    make_deb(tmp_path, "program", version="0.1", architecture="all").rename(debs / "any.deb")
    plan = planned(whole, tmp_path / "cache")
    assert "program=0.1" in map(str, plan.image_packages)
    assert "local" not in plan.sources_list
    make_deb(tmp_path, "program", {"a": b"b"}, version="0.2", architecture="all").rename(
        debs / "any.deb"
    )
    after = planned(whole, tmp_path / "cache")
    assert "program=0.2" in map(str, after.image_packages)
    assert after.digest != plan.digest


def test_recommended_packages_come_where_they_are_asked_for(
    whole: Path, archive: Archive, tmp_path: Path
) -> None:
    archive.add("nice", architecture="all")
    archive.add("big", architecture="all", depends="library\nRecommends: nice")
    archive.publish()
    add_to_recipe(whole, "extra_packages: [big]")
    assert "nice" not in {p.name for p in planned(whole, tmp_path / "cache").image_packages}
    add_to_recipe(whole, "recommends: true")
    assert "nice" in {p.name for p in planned(whole, tmp_path / "cache").image_packages}


ARMV7L = """\
name: armv7l
description: 32-bit Arm, UEFI
aliases: [armhf]
names: {deb: armhf, rpm: armv7hl, efi: arm, grub_efi: arm-efi, grub_deb: arm}
elf: {machine: 40, bits: 32, endian: little}
kernel: {debian: linux-image-armmp}
console: ttyAMA0
boot: [uefi-unsigned]
min_ram: 256
properties:
  architecture: armv7l
  hw_firmware_type: uefi
  hw_machine_type: virt
hypervisor:
  qemu: qemu-system-arm
  qemu_package: qemu-system-arm
  machine: virt
  tcg_cpu: max
  cdrom_bus: scsi
  video: virtio
  firmware: uefi
  firmware_packages: {uefi: qemu-efi-arm}
  boot_budget: 240
"""


@pytest.mark.system
def test_one_yaml_file_is_a_new_architecture(tmp_path: Path) -> None:
    (tmp_path / "arch_profiles").mkdir()
    (tmp_path / "arch_profiles/armv7l.yaml").write_text(ARMV7L)
    path = SearchPath.default([tmp_path])
    template, file = load(path, "minimal")
    profile = ArchProfiles.load(path).get("armhf")
    sources = Sources.of(template, file, profile, cache_directory())
    plan = make_plan(template, file, profile, sources)
    assert plan.kernel.name.endswith("-armmp")
    assert plan.kernel.architecture == "armhf"
    assert "grub-efi-arm-bin" in [package.name for package in plan.image_packages]
    assert plan.properties["architecture"] == "armv7l"
