"""A whole system that boots by a menu: openSUSE's ways, with the test distribution's packages."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.boot import instance
from imagefactory.data import SearchPath, cache_directory
from imagefactory.run import need, run
from tests.boot.guestlab import Lab, Server, Visitor
from tests.debian_trees import FinishedRoot
from tests.factory import MINUTES, BuiltImage, Factory
from tests.rpm import menu
from tests.rpm.distribution import Distribution, distribution
from tests.rpm.images import list_esp, write_template
from tests.sbom.bills import purls_of

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(40 * MINUTES),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the packages are x86_64's"),
]

PROFILES = ArchProfiles.load(SearchPath.default())

BOOTLOADER = {
    "directory": "boot/grub2",
    "menu": "entries",
    "uefi": {
        "packages": [menu.LAYOUT],
        "shim": "usr/share/efi/{rpm}/shim.efi",
        "grub": "usr/share/efi/{rpm}/grub.efi",
        "modules": "usr/share/grub2/{grub_efi}",
        "config_directory": "EFI/fedora",  # this GRUB's prefix
        "more_config_directories": ["EFI/BOOT"],
        "esp": {"EFI/fedora/shim.efi": "usr/share/efi/{rpm}/shim.efi"},
    },
    "bios": {"packages": [menu.LAYOUT], "modules": "usr/share/grub2/i386-pc"},
}

# In the place of those of the same name in /usr/lib/kernel: a file that is no program is none.
NO_ENTRIES = {
    f"etc/kernel/install.d/{name}": "" for name in ("20-grub.install", "50-dracut.install")
}

EARLY = {
    **NO_ENTRIES,
    "etc/fstab": "",
    "etc/dracut.conf.d/50-generic.conf": 'hostonly="no"\n',
    "etc/sysconfig/bootloader": "LOADER_TYPE=none\n",
}

DEFAULTS = """\
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX_DEFAULT="{kernel_arguments}"
GRUB_TERMINAL="console serial"
GRUB_SERIAL_COMMAND="serial --unit=0 --speed=115200"
GRUB_DISABLE_OS_PROBER=true
"""


def build(made: Distribution, directory: Path, factory: Factory) -> BuiltImage:
    own = directory / "own"
    write_template(
        own,
        "menu",
        made.repository,
        kernel=menu.KERNEL,
        bootloader=BOOTLOADER,
        # What this is for is told in test_rpm_job.py.
        kernel_arguments=["clearcpuid=cx16"],
        disk_size=3072,
        properties={"os_type": "linux", "min_ram": "1024"},
        tests=[{"name": "config-drive", "datasource": "config-drive"}],
        rpm={
            "packages": ["@core", "@cloud-image", "kernel-core", "grub2-tools", menu.LAYOUT],
            "exclude": ["dracut-config-generic"],
            "local_packages": "rpms",
            "rewrite_database": True,
            "initramfs_file": "initrd-*",
            "early_files": EARLY,
            "files": {"etc/default/grub": DEFAULTS},
            "architecture_files": {
                "x86_64": {"etc/sysconfig/bootloader": "LOADER_TYPE=grub2-efi\n"}
            },
        },
    )
    menu.make_packages(own / "templates/rpms")
    factory = Factory(factory.catalog, factory.env, (*factory.command, "--path", str(own)))
    words = ("build", "menu", "--arch", "x86_64", "--skip-test", "--json")
    return BuiltImage.of(Path(json.loads(factory.run(*words).stdout)[0]["disk"]))


ENDING = "systemd.unit=poweroff.target"
"""An argument of the guest's own: what boots by its menu needs nobody to switch it off."""


async def write_the_menu(visitor: Visitor) -> dict[str, str]:
    defaults = "/etc/default/grub"
    await visitor.read(f"sudo sed -i 's/clearcpuid=cx16/& {ENDING}/' {defaults}")
    return {
        "command line": await visitor.read("cat /proc/cmdline"),
        "packages": await visitor.read("rpm --query --all --queryformat '%{NAME}\\n'"),
        "said": await visitor.read("sudo update-bootloader 2>&1"),
        "menu": await visitor.read("sudo cat /boot/grub2/grub.cfg"),
    }


async def look_at_the_command_line(visitor: Visitor) -> list[str]:
    # The kernel says it twice: when it prints much at once, the serial port may lose a character.
    found = await visitor.sees(r"Kernel command line: .*\n")
    return re.findall(r"ommand line: (BOOT_IMAGE=\S+ .*)", visitor.printed()[:found])


def test_a_system_boots_by_our_menu_and_then_by_its_own(factory: Factory, tmp_path: Path) -> None:
    made = distribution(PROFILES.get("x86_64"), cache_directory())
    image = build(made, tmp_path, factory)
    root = FinishedRoot.of(image, tmp_path)

    # Scriptlets found the early files, and what comes later says something else.
    (link,) = (root.directory / "boot").glob("vmlinuz-*")
    kernel = f"/usr/lib/modules/{link.name.removeprefix('vmlinuz-')}/vmlinuz"
    assert (link.is_symlink(), root.directory.joinpath(kernel[1:]).is_file()) == (True, True)
    first = root.text("boot/grub2/grub.cfg")
    assert f"linux {kernel} root=UUID=" in first
    assert f"initrd /boot/initrd-{kernel.split('/')[4]}\n" in first
    assert root.text("etc/sysconfig/bootloader") == "LOADER_TYPE=grub2-efi\n"
    assert "clearcpuid=cx16" in root.text("etc/default/grub")
    assert list((root.directory / "boot").glob("loader/entries/*")) == []
    for platform in ("i386-pc", "x86_64-efi"):
        assert (root.directory / "boot/grub2" / platform / "gzio.mod").is_file()
    assert {
        *("EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi", "EFI/BOOT/grub.cfg"),
        *("EFI/fedora/shim.efi", "EFI/fedora/grub.cfg"),
    } == list_esp(image.disk, tmp_path)

    # The tree's own rpm knows what this machine's rpm has installed.
    database = f"--dbpath={root.directory / 'usr/lib/sysimage/rpm'}"
    asked = ("--query", "--all", "--queryformat", "%{NAME}\n")
    names = run([need("rpm", "rpm"), database, *asked]).stdout.split()
    assert {*names} - {"gpg-pubkey"} == {p["name"] for p in image.manifest["plan"]["packages"]}

    assert {purl.name for purl in purls_of(image)} == {*names} - {"gpg-pubkey"}

    lab = Lab(PROFILES, image.properties, tmp_path / "lab", patience=6)
    disk, server = lab.disk(image.disk, size="6G"), Server.new("menu")
    drive: dict[str, Any] = dict(instance.config_drive(server.data))
    seen = lab.visit(disk, server, write_the_menu, drive=drive)
    assert f"BOOT_IMAGE={kernel} " in seen["command line"]
    assert sorted(seen["packages"].split()) == sorted(names)
    assert f"linux /boot/{link.name} root=UUID=" in seen["menu"], seen["said"]
    # The other firmware's GRUB reads the same menu.
    lab = replace(lab, properties={**image.properties, "hw_firmware_type": "uefi"})
    again = lab.visit(disk, server, look_at_the_command_line, drive=drive, login=False)
    wanted = {f"BOOT_IMAGE=/boot/{link.name}", *seen["command line"].split()[1:], ENDING}
    assert wanted in [{*line.split()} for line in again], again
