"""GRUB as one EFI program, as distributions sign it: what a boot needs is inside."""

from __future__ import annotations

from pathlib import Path

from imagefactory.packages import tools
from imagefactory.packages.apt import Apt
from imagefactory.run import run

_MODULES = (
    # Where files are.
    *("part_gpt", "part_msdos", "fat", "ext2", "xfs", "btrfs", "iso9660", "gzio", "lvm"),
    *("search", "search_fs_uuid", "search_fs_file", "search_label", "loadenv"),
    # What is done with them; blsuki has blscfg.
    *("normal", "configfile", "linux", "chain", "boot", "blsuki", "echo", "test", "true", "cat"),
    *("ls", "sleep", "regexp", "reboot", "halt", "minicmd", "terminal", "all_video", "gfxterm"),
    *("font", "gfxmenu", "efifwsetup", "help"),
)


def make_core(apt: Apt, cache: Path, modules: Path, target: Path, prefix: str) -> None:
    """Make an EFI program of GRUB.

    Args:
        apt: Has the package grub2-common for this machine.
        cache: The directory of all caches.
        modules: The directory of its modules, named after the platform.
        target: Where it is written.
        prefix: Where it looks for grub.cfg, on the filesystem that it was started from.
    """
    packages = apt.resolve(["grub2-common"])
    apt.fetch(packages)
    command = tools.unpack(packages, apt.pool, cache).command("grub-mkimage")
    target.parent.mkdir(parents=True, exist_ok=True)
    there = [name for name in _MODULES if (modules / f"{name}.mod").exists()]
    words: list[str | Path] = [*command, "-O", modules.name, "-d", modules, "-p", prefix]
    run([*words, "-o", target, *there])
