"""Small systems of RPM packages, built for real: scriptlets, signatures, what lands on the disk."""

from __future__ import annotations

import base64
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath
from imagefactory.run import need, run
from tests.debian_trees import FinishedRoot
from tests.debs import Key
from tests.factory import MINUTES, BuiltImage, Factory
from tests.rpm.images import list_esp, write_template
from tests.rpm.rpms import RpmRepository, make_rpm

pytestmark = [pytest.mark.system, pytest.mark.timeout(10 * MINUTES)]

PROFILES = ArchProfiles.load(SearchPath.default())
HOST = os.uname().machine
ZONES = {"usr/share/zoneinfo/Etc/UTC": b"TZif"}
FOREIGN = next(name for name in ("aarch64", "x86_64") if name != HOST)

INSTALL_KERNEL = """\
posix.mkdir("/boot/loader") posix.mkdir("/boot/loader/entries")
local line = io.open("/etc/kernel/cmdline"):read("l")
local entry = "title small\\nlinux /boot/vmlinuz-1\\ninitrd /boot/initramfs-1.img\\noptions "
for name, text in pairs({["vmlinuz-1"] = "kernel", ["initramfs-1.img"] = "initramfs",
        ["loader/entries/small-1.conf"] = entry .. line}) do
    local file = io.open("/boot/" .. name, "w") file:write(text) file:close()
end
"""
"""What kernel-install and dracut do for a kernel, in rpm's own Lua."""


class Own:
    """A template of one's own, and the repository that it takes packages from."""

    def __init__(
        self, directory: Path, key: Key, factory: Factory, architecture: str = HOST
    ) -> None:
        self.architecture = PROFILES.get(architecture)
        self.directory = directory / "own"
        self.repository = RpmRepository(directory / "repository", key)
        command = (*factory.command, "--path", str(self.directory))
        self.factory = Factory(factory.catalog, factory.env, command)
        for name, files in {
            "setup": {"etc/passwd": b"root:x:0:0::/:/bin/sh\n", "etc/group": b"root:x:0:\n"},
            "tzdata": ZONES,
            f"shim-{self.efi}": {f"boot/efi/EFI/fedora/shim{self.efi}.efi": b"shim"},
            f"grub2-efi-{self.efi}": {f"boot/efi/EFI/fedora/grub{self.efi}.efi": b"grub"},
        }.items():
            self.repository.add(name, files)
        self.kernel(INSTALL_KERNEL)

    @property
    def efi(self) -> str:
        """UEFI's name of the architecture."""
        assert self.architecture.names.efi is not None
        return self.architecture.names.efi

    def kernel(self, posttrans: str) -> None:
        files = {"usr/lib/modules/1/vmlinuz": b"kernel"}
        architecture, scripts = self.architecture.names.rpm, {"posttrans": posttrans}
        self.repository.add("kernel-core", files, architecture=architecture, scripts=scripts)

    def build(self, status: int = 0, **rpm: Any) -> Any:
        self.write(**rpm)
        words = ("build", "small", "--arch", self.architecture.name, "--skip-test", "--json")
        return self.factory.run(*words, status=status)

    def digest(self, repository: RpmRepository) -> str:
        """Return the digest of what a build out of a mirror's packages would be."""
        repository.publish()
        somewhere = "https://packages.example.com/"
        self.write(baseurl=somewhere)
        mirror = ("--mirror", f"{somewhere}={repository.url}")
        words = ("plan", "small", "--arch", self.architecture.name, "--json")
        (told,) = json.loads(self.factory.run(*words, *mirror).stdout)
        return str(told["digest"])

    def write(self, *, baseurl: str = "", uefi: Any = None, menu: str = "bls", **rpm: Any) -> None:
        """Index the repository, and write the template."""
        self.repository.publish()
        write_template(
            self.directory,
            "small",
            self.repository,
            baseurl=baseurl,
            boot={self.architecture.name: ["uefi"]},
            bootloader={
                "directory": "boot/grub2",
                "menu": menu,
                "uefi": {
                    "packages": ["shim-{efi}", "grub2-efi-{efi}"],
                    "shim": "boot/efi/EFI/fedora/shim{efi}.efi",
                    "grub": "boot/efi/EFI/fedora/grub{efi}.efi",
                    "config_directory": "EFI/fedora",
                    **(uefi or {}),
                },
            },
            disk_size=128,
            tests=[{"name": "boot", "datasource": "config-drive"}],
            rpm={"packages": ["setup", "tzdata"], **rpm},
        )


@pytest.fixture
def own(tmp_path: Path, keys: tuple[Key, Key], factory: Factory) -> Own:
    return Own(tmp_path, keys[0], factory)


def built(done: Any) -> BuiltImage:
    return BuiltImage.of(Path(json.loads(done.stdout)[0]["disk"]))


def test_what_packages_bring_lies_where_firmware_and_guest_look_for_it(
    own: Own, tmp_path: Path
) -> None:
    build = built(own.build())
    root = FinishedRoot.of(build, tmp_path)
    line = root.text("etc/kernel/cmdline").strip()
    assert line.startswith("root=UUID=")
    assert "00000000-0000" not in line
    assert f"options {line}" in root.text("boot/loader/entries/small-1.conf")
    assert "blscfg" in root.text("boot/grub2/grub.cfg")
    assert root.text("etc/machine-id") == ""
    assert list((root.directory / "boot/efi").iterdir()) == []
    assert root.entries["tmp"].permissions == "1777"
    database = root.directory / "usr/lib/sysimage/rpm"
    asked = ("-qa", "--queryformat", "%{NAME}\\n")
    names = set(run([need("rpm", "rpm"), f"--dbpath={database}", *asked]).stdout.split())
    assert {"setup", "tzdata", "shim-x64", "grub2-efi-x64", "kernel-core"} <= names
    esp = list_esp(build.disk, tmp_path)
    assert {"EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi"} <= esp
    assert {"EFI/fedora/grubx64.efi", "EFI/fedora/grub.cfg"} <= esp


def test_ones_own_packages_need_no_signature_beside_a_distribution_that_signs(
    own: Own, tmp_path: Path
) -> None:
    own.repository.add("agent", version="2.0")
    make_rpm(own.directory / "templates/rpms", "agent", version="1.0")
    extra = {"id": "extra", "baseurl": "https://packages.example.com/", "trusted": True}
    build = built(
        own.build(
            packages=["setup", "tzdata", "agent"],
            local_packages="rpms",
            extra_repositories=[{**extra, "required": False}],
        )
    )
    told = {one["name"]: one["version"] for one in build.manifest["plan"]["packages"]}
    assert told["agent"] == "1.0-1"
    root = FinishedRoot.of(build, tmp_path)
    assert "[extra]" in root.text("etc/yum.repos.d/imagefactory-extra.repo")


def test_a_scriptlet_that_fails_stops_the_build_though_dnf_goes_on(own: Own) -> None:
    own.repository.add("broken", scripts={"post": "error('no such thing')"})
    done = own.build(status=6, packages=["setup", "tzdata", "broken"])
    assert "scriptlets failed:" in done.stderr
    assert "broken" in done.stderr
    assert own.factory.builds() == []
    assert own.factory.work() == []


LINK_KERNEL = """\
local line = io.open("/etc/told"):read("l")
for name, text in pairs({["initrd-1"] = "initramfs", ["told-1"] = line}) do
    local file = io.open("/boot/" .. name, "w") file:write(text) file:close()
end
posix.symlink("../usr/lib/modules/1/vmlinuz", "/boot/Image-1")
"""
"""A kernel under another name, and no boot entry."""


def test_kernels_loaders_and_menus_are_where_the_template_says(own: Own, tmp_path: Path) -> None:
    own.kernel(LINK_KERNEL)
    machine = own.architecture.names.rpm
    own.repository.add("loaders", {f"usr/share/efi/{machine}/shim-1.efi": b"signed"})
    own.repository.add(
        "links",
        requires=["loaders"],
        scripts={"post": f'posix.symlink("shim-1.efi", "/usr/share/efi/{machine}/shim.efi")'},
    )
    shim = "usr/share/efi/{rpm}/shim.efi"
    done = own.build(
        menu="entries",
        uefi={
            "shim": shim,
            "grub_name": "grub.efi",
            "config_directory": "EFI/BOOT",
            "more_config_directories": ["EFI/own"],
            "esp": {"EFI/own/shim.efi": shim},
        },
        packages=["setup", "tzdata", "links"],
        kernel_files={own.architecture.name: "Image-*"},
        initramfs_file="initrd-*",
        early_files={"etc/told": "early\n", "etc/default/grub": "early\n"},
        files={"etc/default/grub": 'LINE="{kernel_arguments}"; a=${{b}}\n'},
        architecture_files={own.architecture.name: {"etc/own": "own\n"}, "vax": {"etc/other": ""}},
    )
    build = built(done)
    root = FinishedRoot.of(build, tmp_path)
    menu = root.text("boot/grub2/grub.cfg")
    assert "linux /usr/lib/modules/1/vmlinuz root=UUID=" in menu
    assert "initrd /boot/initrd-1\n" in menu
    assert root.text("boot/told-1") == "early"
    assert root.text("etc/default/grub") == (
        f'LINE="console=tty0 console={own.architecture.console}"; a=${{b}}\n'
    )
    assert root.text("etc/own") == "own\n"
    assert not (root.directory / "etc/other").exists()
    assert {
        *(f"EFI/BOOT/BOOT{own.efi.upper()}.EFI", "EFI/BOOT/grub.efi", "EFI/BOOT/grub.cfg"),
        *("EFI/own/shim.efi", "EFI/own/grub.cfg"),
        *(f"EFI/fedora/{name}{own.efi}.efi" for name in ("shim", "grub")),
    } == list_esp(build.disk, tmp_path)


def test_a_link_to_no_kernel_is_told(own: Own) -> None:
    own.kernel(LINK_KERNEL.replace("modules/1/vmlinuz", "modules/2/vmlinuz"))
    wrong = {"kernel_file": "Image-*", "initramfs_file": "initrd-*"}
    said = own.build(status=6, early_files={"etc/told": "x"}, **wrong).stderr
    assert "/boot/Image-1 leads to /usr/lib/modules/2/vmlinuz, which is no file" in said


@pytest.mark.parametrize(
    ("wrong", "told", "status"),
    [
        ({"uefi": {"shim": "usr/share/shim.efi"}}, "the tree has no usr/share/shim.efi", 6),
        ({"files": {"etc/x": "${HOME}"}}, "files: 'HOME' cannot be filled in", 3),
        ({"initramfs_file": "initrd-*"}, "should have one initramfs in /boot", 6),
        ({"rewrite_database": True}, "rpmdb failed with status", 6),
    ],
)
def test_what_a_template_says_wrongly_of_its_system_is_told(
    own: Own, wrong: dict[str, Any], told: str, status: int
) -> None:
    assert told in own.build(status=status, **wrong).stderr


def provides_user(line: str) -> str:
    """What rpm 4.20's macro %add_sysuser makes of a line of sysusers.d(5)."""
    padded = line.encode() + bytes(-len(line) % 3)
    return f"user({line.split()[1]}) = {base64.b64encode(padded).decode()}"


def test_files_belong_to_users_whom_only_newer_rpms_make(own: Own, tmp_path: Path) -> None:
    own.repository.add(
        "service",
        {"var/lib/service/state": b"state"},
        owners={"var/lib/service/state": "service:service"},
        provides=[provides_user("u service 321 - /var/lib/service"), "group(service)"],
    )
    root = FinishedRoot.of(built(own.build(packages=["setup", "tzdata", "service"])), tmp_path)
    assert root.text("etc/passwd").startswith("root:x:0:0:")
    assert "service:x:321:321::/var/lib/service:/usr/sbin/nologin\n" in root.text("etc/passwd")
    assert "service:x:321:\n" in root.text("etc/group")
    assert root.owner("var/lib/service/state") == "service:service"
    assert list((root.directory / "etc").glob("*.rpm*")) == []


def test_a_file_of_a_user_whom_nobody_makes_stops_the_build(own: Own) -> None:
    owners = {"usr/share/stray": "nobody-made-me:root"}
    own.repository.add("stray", owners=owners)
    done = own.build(status=6, packages=["setup", "tzdata", "stray"])
    assert "accounts that no package has made: user nobody-made-me" in done.stderr


def test_a_package_without_a_signature_stops_the_build(own: Own) -> None:
    own.repository.add("forged", sign=False)
    done = own.build(status=5, packages=["setup", "tzdata", "forged"])
    assert "SIGNATURES NOT OK" in done.stderr
    assert own.factory.builds() == []


def test_what_an_unsigned_build_has_left_is_not_taken_for_one_that_wants_signatures(
    own: Own, tmp_path: Path
) -> None:
    own.repository.add("forged", sign=False)
    packages = ["setup", "tzdata", "forged"]
    trusting = {"id": "fedora", "baseurl": own.repository.url, "trusted": True}
    own.build(packages=packages, repositories=[trusting])
    done = own.build(status=5, packages=packages)
    assert "SIGNATURES NOT OK" in done.stderr
    make_rpm(own.directory / "templates/rpms", "agent")
    done = own.build(status=5, packages=packages, local_packages="rpms")
    assert "SIGNATURES NOT OK" in done.stderr
    assert len(own.factory.builds()) == 1


def test_blanks_and_relative_paths_are_no_matter(own: Own, tmp_path: Path) -> None:
    make_rpm(own.directory / "templates/rpms", "agent")
    own.write(packages=["setup", "tzdata", "agent"], local_packages="rpms")
    words = ("build", "small", "--arch", own.architecture.name, "--skip-test", "--json")
    beside = own.directory.parent
    command = ("env", "-C", str(beside), *own.factory.command[:-2], "--path", own.directory.name)
    cache = {"XDG_CACHE_HOME": str(tmp_path / "a cache")}
    done = Factory(own.factory.catalog, cache, command).run(*words)
    assert "agent" in {one["name"] for one in built(done).manifest["plan"]["packages"]}


def test_a_build_is_made_again_offline_with_the_same_bytes(own: Own) -> None:
    (row,) = json.loads(own.build().stdout)
    again = own.factory.run("verify", Path(row["disk"]).parent, "--offline")
    assert again.stdout.startswith("identical: ")


def test_a_distribution_that_this_machine_is_not_of_is_emulated_as_a_whole(
    keys: tuple[Key, Key], factory: Factory, tmp_path: Path
) -> None:
    own = Own(tmp_path, keys[0], factory, FOREIGN)
    how = str(built(own.build()).manifest["foreign_programs"])
    assert how.startswith(f"{FOREIGN}: qemu-user ")
    assert f"the packages of {HOST} cannot be had: " in how


def test_the_digest_is_that_of_the_packages_wherever_they_are_and_whatever_lies_beside_them(
    own: Own, tmp_path: Path
) -> None:
    def digest(mirror: str, name: str = "", **more: Any) -> str:
        copy = replace(own.repository, directory=tmp_path / mirror)
        shutil.copytree(own.repository.directory, copy.directory)
        if name:
            copy.add(name, ZONES, **more)
        return own.digest(copy)

    first = digest("one")
    assert digest("another") == first
    assert digest("bystander", "bystander") == first
    newer = {digest("release", "tzdata", release="2"), digest("epoch", "tzdata", epoch="1")}
    assert len({first, *newer}) == 3
