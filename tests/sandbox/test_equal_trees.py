"""The proof that acceleration changes nothing: trees installed both ways, entry by entry."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagefactory import template
from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath, cache_directory, shipped_directory
from imagefactory.packages import tools
from imagefactory.pipeline import BUILDERS
from imagefactory.plan import make_plan
from imagefactory.rootfs.workshop import Workshop
from imagefactory.sources import Sources
from imagefactory.tree import RootTree, read_labels
from imagefactory.treediff import compare, entries
from tests.debian_trees import EPOCH, Own
from tests.factory import MINUTES, Factory
from tests.rpm.distribution import distribution
from tests.rpm.images import side_by_side, write_template

pytestmark = [pytest.mark.system, pytest.mark.timeout(30 * MINUTES)]

PROFILES = ArchProfiles.load(SearchPath((shipped_directory(),)))
HOST = PROFILES.get(os.uname().machine)
FOREIGN = next(name for name in ("ppc64le", "x86_64") if name != HOST.name)
SMALLER = next(name for name in ("aarch64", "x86_64") if name != HOST.name)
"""Foreign, too, and with a cloud's kernel: less for depmod and dracut, emulated."""

SYSTEM = ["kernel", "dracut-config-generic", "grub2-tools", "cloud-init", "@selinux", "tzdata"]
"""Scriptlets of the kernel make an initramfs, those of systemd set its units up."""

PACKAGES = ", adduser, python3-minimal, systemd-sysv, linux-base, kernel-links"
"""Scripts of all kinds: accounts, alternatives, byte-compiled modules, units, links to kernels."""

LINKS = "#!/bin/sh -e\nlinux-update-symlinks install tiny /boot/vmlinuz-tiny\n"
"""What a kernel's package calls; the links' names are the machine's."""


def test_a_foreign_tree_is_the_same_however_its_programs_are_run(
    factory: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    own = Own.beside(factory, tmp_path / "own").tiny(
        "[{run: 'id -u nobody >/opt/nobody'}]", more=PACKAGES
    )
    own.deb(
        "kernel-links",
        {"usr/share/kernel-links": b""},
        architecture="all",
        depends="linux-base, linux-image-tiny",
        scripts={"postinst": LINKS},
    )
    made = built_both_ways(own.directory, "tiny", FOREIGN, tmp_path)
    assert compare(made["accelerated"].tar, made["qemu-user"].tar) == ()
    found = entries(made["accelerated"].tar)
    assert found["opt/nobody"].size == len("65534\n")
    assert {"vmlinux", "vmlinuz"} & found.keys()


def test_a_foreign_tree_of_rpm_packages_is_the_same_however_its_programs_are_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    made = {
        profile.names.rpm: distribution(profile, cache_directory()).repository
        for profile in (HOST, PROFILES.get(SMALLER))
    }
    own = tmp_path / "own"
    write_template(
        own,
        "small",
        made[SMALLER],
        baseurl=side_by_side(tmp_path / "mirror", made),
        rpm={"packages": SYSTEM},
        disk_size=2048,
        tests=[{"name": "boot", "datasource": "config-drive"}],
    )
    trees = built_both_ways(own, "small", SMALLER, tmp_path)
    one, other = trees["accelerated"], trees["qemu-user"]
    assert compare(one.tar, other.tar) == ()
    assert one.labels is not None
    assert other.labels is not None
    assert read_labels(one.labels) == read_labels(other.labels)


def built_both_ways(own: Path, name: str, architecture: str, tmp_path: Path) -> dict[str, RootTree]:
    """Build an image's tree for a foreign architecture, accelerated and not."""
    path = SearchPath((own, shipped_directory()))
    image, file = template.load(path, name)
    profile = ArchProfiles.load(path).get(architecture)
    known = cache_directory()
    sources = Sources.of(image, file, profile, known)
    plan = make_plan(image, file, profile, sources)
    sources.fetch(*plan.to_fetch)
    disk_tools = tools.unpack(plan.disk_tools, sources.disk_tools.pool, known)
    made = {}
    for mechanism, accelerate in (("accelerated", True), ("qemu-user", False)):
        work, cache = tmp_path / mechanism, tmp_path / f"{mechanism}-cache"
        work.mkdir()
        cache.mkdir()
        for part in ("twins", "launchers", "apt", "pool"):  # but no trees
            (known / part).mkdir(exist_ok=True)
            (cache / part).symlink_to(known / part)
        shop = Workshop(sources, disk_tools, HOST, work, cache, accelerate=accelerate)
        tree = BUILDERS[image.builder](plan, shop)
        assert f": {mechanism} " in tree.execution
        made[mechanism] = tree
    return made
