"""Images that are no whole disks, and images for hosts of another architecture: built, booted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagefactory.run import need, run
from tests.factory import MINUTES, BuiltImage, Factory
from tests.glance.cloud import GlanceCloud

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(20 * MINUTES),
    pytest.mark.filterwarnings("ignore:.*will be removed in a future release"),  # openstacksdk
]


@pytest.mark.parametrize("architecture", ["ppc64le", "x86_64"])
def test_a_partition_image_is_started_with_its_kernel(architecture: str, factory: Factory) -> None:
    done = factory.run("build", "minimal-partition", "--arch", architecture, "--json")
    (row,) = json.loads(done.stdout)
    assert row["verdict"] == "passed"
    build = BuiltImage.of(Path(row["disk"]))
    for boot in build.manifest["boot_test"]["cases"]:
        assert "bootloader" not in boot["milestones"]
    script = (build.disk.parent / "boot/metadata/qemu.sh").read_text()
    assert f"-kernel {build.disk.parent}/minimal-partition-{architecture}.kernel" in script
    assert f"-append '{build.properties['os_command_line']}'" in script


def test_a_partition_image_comes_back_from_the_cloud_and_boots(
    factory: Factory, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    """The way of an AMI: three images; what the cloud holds is what nova would start."""
    factory.run("build", "minimal-partition", "--arch", "aarch64")
    words = ("upload", "minimal-partition", "-a", "aarch64", "--cloud", "member")
    done = json.loads(factory.run(*words, "--format", "ami", "--json").stdout)
    root = glance_cloud.image(done[0]["id"])
    assert (root["img_type"], root["container_format"]) == ("partition", "ami")
    files = {}
    for name, image in (
        ("root.raw", root["id"]),
        ("kernel", root["kernel_id"]),
        ("ramdisk", root["ramdisk_id"]),
    ):
        files[name] = tmp_path / name
        files[name].write_bytes(glance_cloud.data(image))
    # A filesystem, and no partition table before it.
    assert 'TYPE="ext4"' in run([need("blkid", "util-linux"), "-p", files["root.raw"]]).stdout

    ours = {name: str(root[name]) for name in root if name.startswith(("hw_", "os_", "img_"))}
    known = {name: value for name, value in ours.items() if not name.startswith(("os_h", "os_g"))}
    properties = tmp_path / "properties.json"
    kept = ("architecture", "min_ram", "kernel_id", "ramdisk_id")
    properties.write_text(json.dumps({**known, **{name: root[name] for name in kept}}))
    test = ("test", files["root.raw"], "--properties", properties, "--datasource", "openstack")
    refused = factory.run(*test, status=3)
    assert "nova starts that kernel, and it is not here" in refused.stderr
    parts = ("--kernel", files["kernel"], "--ramdisk", files["ramdisk"])
    assert "passed" in factory.run(*test, *parts).stdout


@pytest.mark.parametrize(("architecture", "cpu"), [("ppc64le", "POWER8"), ("x86_64", None)])
def test_an_image_for_hosts_that_emulate_is_booted_as_nova_emulates(
    architecture: str, cpu: str | None, factory: Factory
) -> None:
    done = factory.run("build", "minimal-on-arm", "--arch", architecture, "--json")
    (row,) = json.loads(done.stdout)
    assert row["verdict"] == "passed"
    build = BuiltImage.of(Path(row["disk"]))
    assert build.properties["architecture"] == "aarch64"
    assert build.properties["hw_emulation_architecture"] == architecture
    assert build.manifest["boot_test"]["accelerator"] == "tcg"
    script = (build.disk.parent / "boot/metadata/qemu.sh").read_text().split()
    assert (script[script.index("-cpu") + 1] if "-cpu" in script else None) == cpu
