"""Whole systems of RPM packages, built by dnf out of a distribution that is made on the spot.

Its packages have Fedora's names, layout and scriptlets, and Debian's programs; what that cannot
show of the real distributions stands in the README.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.boot import instance, seed
from imagefactory.data import SearchPath, cache_directory
from imagefactory.run import need, run
from tests.boot.guestlab import Lab, Server, Visitor
from tests.debian_trees import FinishedRoot
from tests.factory import MINUTES, BuiltImage, Factory
from tests.rpm.distribution import Distribution, distribution
from tests.rpm.images import side_by_side, write_template
from tests.sbom.bills import purls_of

pytestmark = [pytest.mark.system, pytest.mark.timeout(40 * MINUTES)]

PROFILES = ArchProfiles.load(SearchPath.default())

PACKAGES = ["@core", "@cloud-image", "kernel", "grub2-tools"]

GUARDED = "x86_64"
"""The architecture with SELinux: an emulated kernel takes long to load a policy."""

ARGUMENTS = {
    # QEMU before 8.0 leaves wrong flags behind a cmpxchg16b; this kernel does not survive it.
    # And Debian's kernels have another LSM by default.
    "x86_64": ["clearcpuid=cx16", "security=selinux"],
}
"""Of the kernel."""

PATIENCE = 2
"""A whole system takes longer to boot than the minimal image."""

_DRIVE = {"name": "config-drive", "datasource": "config-drive", "network": "static"}
_SERVICE = {"name": "metadata", "datasource": "openstack"}

CASES: dict[str, list[dict[str, Any]]] = {
    # The guests that install a kernel have a config drive, and boot twice.
    "aarch64": [_SERVICE],
    "ppc64le": [_DRIVE],
    "x86_64": [_DRIVE, _SERVICE],
}
"""The boots of each architecture: emulated, such a system takes three minutes for one."""

PROVEN = {"cloud-init": "passed", "services": "passed"}
"""Checks of each boot that say most of such a system."""


class System:
    """The template of one architecture, and where its packages are."""

    def __init__(
        self, architecture: str, factory: Factory, directory: Path, *, guarded: bool
    ) -> None:
        self.architecture = architecture
        made = {name: self._made(name) for name in {architecture, os.uname().machine}}
        self.distribution = made[architecture]
        self.template = directory / "own"
        mirror = {name: each.repository for name, each in made.items()}
        write_template(
            self.template,
            "fedora-like",
            self.distribution.repository,
            baseurl=side_by_side(directory / "mirror", mirror),
            disk_size=3072,
            properties={"os_type": "linux", "min_ram": "1024"},
            patience=PATIENCE,
            kernel_arguments=ARGUMENTS.get(architecture, []),
            tests=CASES[architecture],
            rpm={"packages": [*PACKAGES, *(["@selinux"] if guarded else [])]},
        )
        command = (*factory.command, "--path", str(self.template))
        self.factory = Factory(factory.catalog, factory.env, command)

    @staticmethod
    def _made(architecture: str) -> Distribution:
        return distribution(PROFILES.get(architecture), cache_directory())

    def build(self, *words: str) -> BuiltImage:
        """Build it; the tree of all tests is made once."""
        words = ("build", "fedora-like", "--arch", self.architecture, "--json", *words)
        done = self.factory.run(*words, timeout=38 * MINUTES)
        return BuiltImage.of(Path(json.loads(done.stdout)[0]["disk"]))


UPDATED = "aarch64"
"""The architecture whose guest installs a kernel in every run of the suite."""

FOR_VIRTUAL_MACHINES = """
dracutmodules="base fs-lib kernel-modules rootfs-block shutdown systemd-initrd udev-rules usrmount"
drivers="virtio_blk virtio_net virtio_pci virtio_scsi sd_mod sr_mod ext4"
compress="cat"
"""
"""For dracut in an emulated guest, which takes minutes for all there is."""


@pytest.mark.parametrize("architecture", PROFILES.names)
def test_a_system_is_built_booted_and_stored(
    architecture: str, factory: Factory, tmp_path: Path
) -> None:
    system = System(architecture, factory, tmp_path, guarded=architecture == GUARDED)
    build = system.build()

    native = architecture == os.uname().machine
    how = f"{architecture}: {'native' if native else 'accelerated'} "
    assert build.manifest["foreign_programs"].startswith(how)
    report = build.manifest["boot_test"]
    cases = {case["name"]: case for case in report["cases"]}
    for case in cases.values():
        verdicts = {check["name"]: check["verdict"] for check in case["checks"]}
        guarded = "passed" if architecture == GUARDED else "skipped"
        wanted = {**PROVEN, "selinux": guarded, "selinux labels": guarded}
        assert {name: verdicts[name] for name in wanted} == wanted
    if len(cases) > 1:
        compared = {check["name"]: check["verdict"] for check in report["checks"]}
        assert compared["different machine-ids"] == "passed"
        assert compared["different ssh host keys"] == "passed"


def test_a_system_is_installed_with_its_scriptlets_and_made_bootable(
    factory: Factory, tmp_path: Path
) -> None:
    system = System(GUARDED, factory, tmp_path, guarded=True)
    build = system.build("--skip-test")
    root = FinishedRoot.of(build, tmp_path)

    # kernel-install and dracut, both the tree's own, ran in the scriptlets of kernel-core.
    (entry,) = (root.directory / "boot/loader/entries").glob("*.conf")
    fields = dict(line.split(maxsplit=1) for line in entry.read_text().splitlines())
    assert fields["options"] == root.text("etc/kernel/cmdline").strip()
    assert entry.stem == f"{'f' * 32}-{fields['version']}"
    for name in ("linux", "initrd"):
        assert (root.directory / fields[name].removeprefix("/")).stat().st_size > 1 << 20
    assert root.text("etc/machine-id") == ""

    database = f"--dbpath={root.directory / 'usr/lib/sysimage/rpm'}"
    names = run([need("rpm", "rpm"), database, "-qa", "--queryformat", "%{NAME}\n"]).stdout.split()
    assert {"kernel-core", "systemd", "cloud-init", "dracut", "shim-x64"} <= {*names}
    told = {package["name"] for package in build.manifest["plan"]["packages"]}
    assert told == {*names} - {"gpg-pubkey"}
    form = "%{NAME} %{VERSION}-%{RELEASE} %{ARCH} %|EPOCH?{%{EPOCH}}:{}|\\n"
    said = run([need("rpm", "rpm"), database, "-qa", "--queryformat", form]).stdout
    installed = {line for line in said.splitlines() if not line.startswith("gpg-pubkey ")}
    keys = ("arch", "epoch")
    assert installed == {
        " ".join((one.name, str(one.version), *(one.qualifiers.get(key, "") for key in keys)))
        for one in purls_of(build)
    }
    leftovers = [*root.directory.glob("var/cache/dnf/*"), *root.directory.glob("var/log/*.log")]
    assert leftovers == []
    assert not (root.directory / str(tmp_path).lstrip("/")).exists()


async def install_kernel(visitor: Visitor) -> dict[str, Any]:
    before = await visitor.read("uname -r")
    # The new entry's name begins with it, and upstream's GRUB, which this distribution has, takes
    # a default entry that begins with a digit for a number.
    await visitor.read("sudo sed -i 's/^./a/' /etc/machine-id")
    quick = "sudo tee /etc/dracut.conf.d/quick.conf"
    await visitor.read(f"{quick} <<'END' >/dev/null{FOR_VIRTUAL_MACHINES}END")
    await visitor.read("sudo mount -r -L updates /mnt")
    words = "sudo dnf --disablerepo='*' install -y /mnt/kernel-core-*.rpm"
    done = await visitor.run(words, 15 * MINUTES)
    return {
        "kernel": before,
        "host key": visitor.host_key,
        "dnf": [done.status, done.stdout + done.stderr],
        "grubenv": await visitor.read("sudo grub2-editenv /boot/grub2/grubenv list"),
    }


async def look_at_the_new_kernel(visitor: Visitor) -> dict[str, Any]:
    status = await visitor.run("cloud-init status --wait", 5 * MINUTES)
    seen: dict[str, Any] = {
        "kernel": await visitor.read("uname -r"),
        "host key": visitor.host_key,
        "cloud-init": status.stdout.strip(),
        "failed": await visitor.read("systemctl --failed --no-legend --plain"),
    }
    words = "sudo dnf --disablerepo='*' remove -y kernel-core-6.12.*"
    done = await visitor.run(words, 5 * MINUTES)
    seen["removed"] = [done.status, done.stdout + done.stderr]
    seen["boot"] = await visitor.read(
        "sudo find /boot /usr/lib/modules -maxdepth 3 -path '*6.12.*'"
    )
    return seen


@pytest.mark.parametrize(
    "architecture",
    [
        name if name == UPDATED else pytest.param(name, marks=pytest.mark.long)
        for name in PROFILES.names
    ],
)
def test_a_kernel_that_the_guest_installs_is_the_next_to_boot(
    architecture: str, factory: Factory, tmp_path: Path
) -> None:
    system = System(architecture, factory, tmp_path, guarded=False)
    build = system.build("--skip-test")
    update = system.distribution.newer_kernel
    medium = tmp_path / "updates.iso"
    seed.write(medium, {update.name: update.read_bytes()}, "updates")
    lab = Lab(PROFILES, build.properties, tmp_path / "lab", patience=3 * PATIENCE)
    disk, server = lab.disk(build.disk, size="6G"), Server.new("updated")
    drive = instance.config_drive(server.data)

    drives = ("-drive", f"if=none,id=updates,format=raw,readonly=on,file={medium}")
    hardware = (*drives, "-device", "virtio-blk-pci,drive=updates")
    first = lab.visit(disk, server, install_kernel, drive=drive, hardware=hardware)
    assert first["dnf"][0] == 0, first
    second = lab.visit(disk, server, look_at_the_new_kernel, drive=drive)

    newer = run([need("rpm", "rpm"), "-qp", "--queryformat", "%{VERSION}", update]).stdout
    assert newer not in first["kernel"]
    assert second["kernel"].startswith(newer), (first, second)
    assert second["host key"] == first["host key"]
    assert (second["cloud-init"], second["failed"]) == ("status: done", "")
    assert second["removed"][0] == 0, second
    assert second["boot"] == ""
