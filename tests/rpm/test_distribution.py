"""The distribution itself: packages that dnf installs for real, with a kernel and what boots it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from imagefactory.arch import ArchProfile, ArchProfiles
from imagefactory.data import SearchPath, cache_directory
from imagefactory.run import run
from imagefactory.sandbox import foreign, twin
from imagefactory.sandbox.execution import Execution
from tests.rpm.distribution import debian_twin, distribution
from tests.rpm.installing import install

PROFILES = ArchProfiles.load(SearchPath.default())

BOOT = {
    "aarch64": ("grub2-efi-aa64", "shim-aa64"),
    "ppc64le": ("grub2-ppc64le",),
    "x86_64": ("grub2-efi-x64", "shim-x64", "grub2-pc"),
}

FILES = {
    "aarch64": ("EFI/BOOT/BOOTAA64.EFI", "EFI/fedora/grubaa64.efi", "EFI/fedora/shimaa64.efi"),
    "ppc64le": (),
    "x86_64": ("EFI/BOOT/BOOTX64.EFI", "EFI/fedora/grubx64.efi", "EFI/fedora/shimx64.efi"),
}


def execution(profile: ArchProfile) -> Execution:
    """Choose how the tree's programs run; their native twin is of Debian, as they are."""
    cache = cache_directory()
    way = foreign.choose(profile, _host(), cache)
    made = None
    if way.mechanism == "accelerated":
        versions, repositories = debian_twin(profile, cache)
        made = twin.make(versions, repositories, _host(), profile, cache)
    return Execution.of(way, made)


def _host() -> ArchProfile:
    return PROFILES.get(run(["dpkg", "--print-architecture"]).stdout.strip())


@pytest.mark.system
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("architecture", sorted(BOOT))
def test_a_system_is_installed_whole(tmp_path: Path, architecture: str) -> None:
    profile = PROFILES.get(architecture)
    made = distribution(profile, cache_directory())
    wanted: Sequence[str] = ("@core", "@cloud-image", "kernel", "grub2-tools", *BOOT[architecture])
    tree = tmp_path / "tree"
    checks = ("rpm -Va >/changed || :", "rpm -q kernel-core >/kernel")
    said = install(
        tree, [made.repository], wanted, profile.names.rpm, execution(profile), checks, "root=here"
    )
    assert "Complete!" in said
    assert (tree / "changed").read_text() == "", "rpm finds files other than it installed them"
    assert (tree / "kernel").read_text().startswith("kernel-core-6.12.")
    (entry,) = (tree / "boot/loader/entries").glob("*.conf")
    fields = dict(line.split(maxsplit=1) for line in entry.read_text().splitlines())
    assert fields["options"] == "root=here"
    assert entry.stem == f"{(tree / 'etc/machine-id').read_text().strip()}-{fields['version']}"
    for name in ("linux", "initrd"):
        assert (tree / fields[name].removeprefix("/")).stat().st_size > 1 << 20
    for file in FILES[architecture]:
        assert (tree / "boot/efi" / file).stat().st_size > 1 << 16
