"""Images that were not built here: from a publisher's server to a cloud, and what is refused."""

from __future__ import annotations

import hashlib
import json
import lzma
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefactory.run import run
from tests.factory import MINUTES, BuiltImage, Factory, wait_for_line
from tests.glance.cloud import GlanceCloud
from tests.glance.images import qcow2
from tests.vendor.servers import Publisher, publisher

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(20 * MINUTES),
    pytest.mark.filterwarnings("ignore:.*will be removed in a future release"),  # openstacksdk
]

SAID = ("-p", "os_distro=debian", "-p", "os_version=12", "-p", "os_admin_user=cloud")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Publisher]:
    with publisher(tmp_path / "published") as served:
        yield served


@pytest.fixture
def factory(tmp_path: Path) -> Factory:
    """The command line with a catalog and a cache of its own."""
    return Factory(tmp_path / "catalog", {"XDG_CACHE_HOME": str(tmp_path / "cache")})


def publish(server: Publisher, file: Path, name: str) -> str:
    """Publish a disk compressed, as vendors do; return its address. CHECKSUM lists it."""
    content = lzma.compress(file.read_bytes(), preset=0)
    (server.directory.parent / "CHECKSUM").write_text(
        f"SHA256 ({name}) = {hashlib.sha256(content).hexdigest()}\n"
    )
    return server.add(name, content)


def test_an_image_of_others_takes_the_whole_road(
    built: Callable[[str], BuiltImage],
    server: Publisher,
    factory: Factory,
    glance_cloud: GlanceCloud,
) -> None:
    disk = built("x86_64").disk
    address = publish(server, disk, "vendor-x86_64.qcow2.xz")
    sums = ("--checksums", server.directory.parent / "CHECKSUM")
    words = ("adopt", f"{address}?signed=canary", "--name", "vendor", "-a", "amd64", *sums, *SAID)
    done = factory.run(*words, "--json")
    row = json.loads(done.stdout)
    assert row["verdict"] == "passed"
    assert "CHECKSUM" in row["verified"]
    adopted = BuiltImage.of(Path(row["disk"]))
    assert adopted.disk.read_bytes() == disk.read_bytes()
    assert adopted.manifest["adopted"]["source"] == address
    assert adopted.manifest["adopted"]["starts_by"] == ["bios", "uefi"]
    assert "canary" not in done.stderr + json.dumps(adopted.manifest)

    # It is there like a build of ours.
    assert "vendor" in factory.run("list").stdout
    assert "passed" in factory.run("show", "vendor").stdout
    assert "vendor x86_64" in factory.run("validate", "--built", "vendor").stdout
    uploaded = json.loads(factory.run("upload", "vendor", "--cloud", "member", "--json").stdout)
    image = glance_cloud.image(uploaded[0]["id"])
    assert (image["name"], image["os_distro"], image["architecture"]) == (
        *("vendor-x86_64", "debian"),
        "x86_64",
    )
    assert (image["imagefactory_tested"], image["visibility"]) == ("yes", "private")
    assert glance_cloud.data(image["id"]) == disk.read_bytes()

    # The second run finds it there; other properties are another matter.
    again = json.loads(factory.run(*words, "--json").stdout)
    assert (again["known"], again["disk"]) == (True, row["disk"])
    other = factory.run(*words, "-p", "hw_qemu_guest_agent=yes", "--dry-run", "--json")
    assert json.loads(other.stdout)["known"] is False
    assert len(factory.builds()) == 1
    assert factory.work() == []
    refused = factory.run("verify", "vendor", status=3)
    assert "was not built here but adopted" in refused.stderr


def test_firmware_follows_from_what_is_on_the_disk(
    built: Callable[[str], BuiltImage], factory: Factory, tmp_path: Path
) -> None:
    raw = tmp_path / "only-uefi.raw"
    run(["qemu-img", "convert", "-O", "raw", built("x86_64").disk, raw])
    with raw.open("r+b") as stream:
        stream.write(bytes(440))
    words = ("adopt", raw, "--name", "raw", "-a", "x86_64", "--unverified")
    looked = json.loads(factory.run(*words, "--dry-run", "--json").stdout)
    assert looked["properties"]["hw_firmware_type"] == "uefi"
    assert looked["properties"]["min_disk"] == "1"
    assert factory.builds() == []
    row = json.loads(factory.run(*words, "--skip-test", "--json").stdout)
    assert row["verdict"] == "untested"
    assert row["disk"].endswith("raw-x86_64.raw")


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        ("x86_64", "its EFI system partition has BOOTAA64.EFI"),
        ("ppc64le", "its firmware looks for prep, the disk has"),
    ],
)
def test_an_image_for_another_architecture_is_not_adopted(
    architecture: str, told: str, built: Callable[[str], BuiltImage], factory: Factory
) -> None:
    disk = built("aarch64").disk
    words = ("adopt", disk, "--name", "wrong", "-a", architecture, "--unverified")
    assert told in factory.run(*words, status=6).stderr
    assert factory.builds() == []


def test_what_does_not_boot_is_not_adopted(
    built: Callable[[str], BuiltImage], factory: Factory, tmp_path: Path
) -> None:
    raw = tmp_path / "burnt.raw"
    run(["qemu-img", "convert", "-O", "raw", built("x86_64").disk, raw])
    with raw.open("r+b") as stream:  # a boot sector that only halts
        stream.write(b"\xfa\xf4\xeb\xfd".ljust(440, b"\0"))
    words = ("adopt", raw, "--name", "burnt", "-a", "x86_64", "--unverified", "--budget", "20")
    refused = factory.run(*words, "-p", "hw_firmware_type=bios", status=7)
    assert "did not pass its boot test" in refused.stderr
    assert factory.builds() == []
    assert factory.work() == []


def test_what_was_not_published_is_refused(
    server: Publisher, factory: Factory, tmp_path: Path
) -> None:
    disk = qcow2(tmp_path / "disk.qcow2")
    address = publish(server, disk, "disk.qcow2.xz")
    sums = ("--checksums", server.directory.parent / "CHECKSUM")
    words = ("--name", "x", "-a", "arm64")
    assert "nothing says what" in factory.run("adopt", address, *words, status=3).stderr
    server.add("disk.qcow2.xz", b"something else")
    refused = factory.run("adopt", address, *words, *sums, status=5)
    assert "has not the published checksum" in refused.stderr
    # What was wrong is not taken again.
    publish(server, disk, "disk.qcow2.xz")
    refused = factory.run("adopt", address, *words, *sums, status=5)
    assert "no partition table" in refused.stderr
    taken = factory.run("adopt", address, "--name", "minimal", "-a", "arm64", *sums, status=3)
    assert "is an image of a template" in taken.stderr
    for name, status in (("No Name", 2), ("../x", 2)):
        factory.run("adopt", address, "--name", name, "-a", "arm64", *sums, status=status)
    factory.run("adopt", address, "--name", "x", *sums, status=2)
    assert factory.builds() == []


@pytest.mark.parametrize("kind", ["backing", "vmdk", "text"])
def test_disks_that_no_cloud_may_be_given_are_refused(
    kind: str, factory: Factory, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    if kind == "text":
        disk.write_text("<html>not found</html>")
    elif kind == "vmdk":
        run(["qemu-img", "create", "-q", "-f", "vmdk", disk, "64M"])
    else:
        backing = ("-F", "raw", "-b", "/etc/hostname")
        run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, disk, "64M"])
    words = ("adopt", disk, "--name", "x", "-a", "arm64", "--unverified")
    told = factory.run(*words, status=5).stderr
    why = {"backing": "safety checks", "vmdk": "of the format vmdk", "text": "no partition table"}
    assert why[kind] in told
    assert ".work" not in told


def test_mistakes_are_told_before_anything_is_fetched(server: Publisher, factory: Factory) -> None:
    address = server.add("disk.qcow2", b"")
    sums = server.add("SHA256SUMS", b"")
    words = ("adopt", address, "--name", "x", "-a", "arm64")
    more: tuple[str, ...]
    for more, status, told in (
        (("--unverified", "-p", "hw_disk_buss=scsi"), 3, "did you mean 'hw_disk_bus'"),
        (("--unverified", "-p", "hw_disk_bus"), 3, "takes KEY=VALUE"),
        (("--unverified", "-p", "imagefactory_tested=yes"), 3, "is a mark"),
        (("--checksums", sums), 5, "came by an open way"),
        (("--checksums", f"{sums}.nope"), 5, "404"),
    ):
        assert told in factory.run(*words, *more, status=status).stderr
    assert {path for path, _ in server.asked} <= {"/SHA256SUMS", "/SHA256SUMS.nope"}


def test_an_interrupted_download_goes_on(
    server: Publisher, factory: Factory, tmp_path: Path
) -> None:
    disk = qcow2(tmp_path / "disk.qcow2", mebibytes=8)
    address = server.add("disk.qcow2", disk.read_bytes())
    checksum = hashlib.sha256(disk.read_bytes()).hexdigest()
    words = ("adopt", address, "--name", "x", "-a", "arm64", "--checksum", checksum)
    server.cut_after += [3_000_000, *[0] * 50]
    process = factory.start(*words)
    wait_for_line(process, "fetch: ")
    assert server.resumed.wait(MINUTES)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    if process.stderr:
        process.stderr.close()
    assert factory.work() == []
    server.cut_after.clear()
    server.asked.clear()
    factory.run(*words, status=5)
    assert any(wanted.startswith("bytes=") for _, wanted in server.asked)
