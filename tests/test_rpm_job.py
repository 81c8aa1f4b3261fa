"""A whole system of RPM packages, built by dnf out of a distribution that is made on the spot.

Its packages have Fedora's names, layout and scriptlets, and Debian's programs; what that cannot
show of the real distributions stands in the README.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.data import SearchPath, cache_directory
from imagefactory.run import need, run
from tests.debian_trees import FinishedRoot
from tests.factory import MINUTES, BuiltImage, Factory
from tests.rpm.distribution import distribution
from tests.rpm.images import write_template

pytestmark = [pytest.mark.system, pytest.mark.timeout(30 * MINUTES)]

PACKAGES = ["@core", "@cloud-image", "kernel", "grub2-tools"]


def test_a_system_is_installed_with_its_scriptlets_and_made_bootable(
    factory: Factory, tmp_path: Path
) -> None:
    profile = ArchProfiles.load(SearchPath.default()).get("x86_64")
    made = distribution(profile, cache_directory())
    write_template(
        tmp_path / "own",
        "fedora-like",
        made.repository,
        disk_size=3072,
        properties={"min_ram": "1024"},
        tests=[{"name": "boot", "datasource": "config-drive"}],
        rpm={"packages": PACKAGES},
    )
    own = Factory(factory.catalog, factory.env, (*factory.command, "--path", str(tmp_path / "own")))
    done = own.run("build", "fedora-like", "--arch", "x86_64", "--skip-test", "--json")
    build = BuiltImage.of(Path(json.loads(done.stdout)[0]["disk"]))
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
    leftovers = [*root.directory.glob("var/cache/dnf/*"), *root.directory.glob("var/log/*.log")]
    assert leftovers == []
    assert not (root.directory / str(tmp_path).lstrip("/")).exists()
