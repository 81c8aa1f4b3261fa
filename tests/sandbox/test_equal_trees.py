"""The proof that acceleration changes nothing: one tree installed both ways, entry by entry."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagefactory import template
from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath, cache_directory, shipped_directory
from imagefactory.packages import tools
from imagefactory.plan import make_plan
from imagefactory.rootfs.debian import build_tree
from imagefactory.rootfs.workshop import Workshop
from imagefactory.sources import Sources
from imagefactory.treediff import compare, entries
from tests.debian_trees import EPOCH, Own
from tests.factory import MINUTES, Factory

pytestmark = [pytest.mark.system, pytest.mark.timeout(30 * MINUTES)]

PROFILES = ArchProfiles.load(SearchPath((shipped_directory(),)))
HOST = PROFILES.get(os.uname().machine)
FOREIGN = next(name for name in ("ppc64le", "x86_64") if name != HOST.name)

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
    path = SearchPath((own.directory, shipped_directory()))
    image, file = template.load(path, "tiny")
    profile = ArchProfiles.load(path).get(FOREIGN)
    known = cache_directory()
    sources = Sources.of(image, file, profile, known)
    plan = make_plan(image, file, profile, sources)
    sources.fetch(*plan.to_fetch)
    disk_tools = tools.unpack(plan.disk_tools, sources.image.pool, known)
    made = {}
    for mechanism, accelerate in (("accelerated", True), ("qemu-user", False)):
        work, cache = tmp_path / mechanism, tmp_path / f"{mechanism}-cache"
        work.mkdir()
        cache.mkdir()
        for part in ("twins", "launchers", "apt", "pool"):  # but no trees
            (known / part).mkdir(exist_ok=True)
            (cache / part).symlink_to(known / part)
        shop = Workshop(sources, disk_tools, HOST, work, cache, accelerate=accelerate)
        tree = build_tree(plan, shop)
        assert f": {mechanism} " in tree.execution
        made[mechanism] = tree.tar
    assert compare(made["accelerated"], made["qemu-user"]) == ()
    found = entries(made["accelerated"])
    assert found["opt/nobody"].size == len("65534\n")
    assert {"vmlinux", "vmlinuz"} & found.keys()
