"""Builds that go to several clouds at once: real Glances, and one that is out of order."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from imagefactory.arch import ArchProfiles
from imagefactory.catalog import Catalog
from imagefactory.cli import main
from imagefactory.data import SearchPath, cache_directory, sha256_of, shipped_directory
from imagefactory.glance import upload as uploads
from imagefactory.properties import derive
from tests.glance.cloud import GlanceCloud
from tests.glance.images import MINIMAL, qcow2
from tests.glance.proxy import bad_wire

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore:.*will be removed in a future release"),  # openstacksdk
]

AARCH64 = ArchProfiles.load(SearchPath((shipped_directory(),))).get("aarch64")
Call = Callable[..., Result]


def add_build(directory: Path, number: int = 1, parts: Mapping[str, bytes] | None = None) -> Path:
    """Put a build into a catalog as if it had been built and tested.

    Args:
        directory: The catalog.
        number: A later one has other bytes and another digest, and was built a day later.
        parts: The kernel and the ramdisk of a partition image.
    """
    catalog = Catalog(directory)
    with catalog.workspace("minimal") as work:
        result = work / "result"
        result.mkdir()
        disk = qcow2(result / "minimal-aarch64.qcow2", seed=number)
        facts = {
            "image": "minimal",
            "architecture": "aarch64",
            "digest": f"{number:064x}",
            "properties": derive(AARCH64, MINIMAL),
        }
        kept: dict[str, Any] = {**described(disk), "format": "qcow2"}
        for part, content in (parts or {}).items():
            (result / f"minimal-aarch64.{part}").write_bytes(content)
            kept[part] = described(result / f"minimal-aarch64.{part}")
        report = {"verdict": "passed", "cases": [], "checks": []}
        build = catalog.add(
            result,
            {
                "built": f"2026-01-{number:02}T00:00:00+00:00",
                "plan": facts,
                "disk": kept,
                "seconds": {},
                "boot_test": report,
            },
        )
    return build.disk


def described(file: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"file": file.name, "size": file.stat().st_size, "sha256": sha256_of(file)}


@pytest.fixture
def call(glance_cloud: GlanceCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    # As for a program of its own, which some tests start.
    monkeypatch.setattr(uploads, "cache_directory", cache_directory)

    def invoke(*words: str | Path) -> Result:
        given = ["--catalog", str(tmp_path / "catalog"), *map(str, words)]
        return CliRunner().invoke(main, given)

    return invoke


def factory_yaml(tmp_path: Path, clouds: dict[str, Any]) -> Path:
    file = tmp_path / "config/imagefactory/factory.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"clouds": clouds}))  # JSON is YAML
    return file


def test_each_cloud_gets_the_image_as_it_wants_it(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    disk = add_build(tmp_path / "catalog")
    factory_yaml(
        tmp_path,
        {
            "ceph": {
                "cloud": "member",
                "format": "raw",
                "name": "{distro}-{version}-{arch}",
                "visibility": "shared",
                "members": ["a-project"],
                "min_ram": 300,
                "properties": {"hw_rng_model": "virtio"},
            },
            "public": {
                "cloud": "admin",  # of the same project
                "line": "second",
                "visibility": "public",
                "protected": True,
            },
        },
    )
    done = call("upload", "minimal", "--cloud", "all", "--json")
    assert done.exit_code == 0, done.output
    rows = {row["cloud"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == {"ceph", "public"}

    raw = glance_cloud.image(rows["ceph"]["id"])
    assert (raw["name"], raw["disk_format"], raw["visibility"]) == (
        "debian-12-aarch64",
        "raw",
        "shared",
    )
    assert (raw["min_ram"], raw["hw_rng_model"]) == (300, "virtio")
    assert glance_cloud.members(raw["id"]) == ["a-project"]
    back = tmp_path / "back.raw"
    back.write_bytes(glance_cloud.data(raw["id"]))
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", back, disk], check=True)

    public = glance_cloud.image(rows["public"]["id"], "admin")
    assert (public["name"], public["disk_format"], public["visibility"], public["protected"]) == (
        "minimal-aarch64",
        "qcow2",
        "public",
        True,
    )
    assert glance_cloud.data(public["id"], "admin") == disk.read_bytes()

    again = json.loads(call("upload", "minimal", "--cloud", "all", "--json").stdout)
    assert [(row["sent"], row["steps"]) for row in again] == [(False, []), (False, [])]


def test_one_cloud_that_fails_does_not_stop_the_others(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog")
    glance_cloud.add("refusing", password="wrong")
    done = call("upload", "minimal", "--cloud", "refusing", "--cloud", "member")
    assert done.exit_code == 8
    assert "'refusing' refused the credentials" in done.stderr
    assert "minimal-aarch64 in member: " in done.stdout
    (record,) = glance_cloud.images()
    assert record["status"] == "active"


def test_a_cloud_that_nobody_knows_stops_all_before_anything_is_sent(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog")
    done = call("upload", "minimal", "--cloud", "member", "--cloud", "membre")
    assert done.exit_code == 3
    assert "did you mean 'member'?" in done.output
    assert glance_cloud.images() == []


def test_a_command_that_does_not_approve_removes_the_image(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog")
    script = tmp_path / "approve"
    script.write_text(
        '#!/bin/sh\necho "$1 $IMAGEFACTORY_NAME $IMAGEFACTORY_CLOUD" >>"$0.log"\n'
        'exec test -e "$0.yes"\n'
    )
    script.chmod(0o755)
    factory_yaml(tmp_path, {"mine": {"cloud": "member", "after_upload": [[str(script), "{id}"]]}})
    done = call("upload", "minimal", "--cloud", "mine")
    assert done.exit_code == 8
    assert "after_upload: approve failed with status 1" in done.stderr
    assert glance_cloud.images() == []

    (tmp_path / "approve.yes").touch()
    assert call("upload", "minimal", "--cloud", "mine").exit_code == 0
    (record,) = glance_cloud.images()
    log = (tmp_path / "approve.log").read_text().splitlines()
    assert len(log) == 2
    assert log[1] == f"{record['id']} minimal-aarch64 member"


def test_a_cloud_that_is_gone_is_tried_again_and_then_told(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        glance_cloud.add("gone", endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        factory_yaml(tmp_path, {"gone": {"budget": 1}})
        done = call("upload", "minimal", "--cloud", "gone")
    assert done.exit_code == 8
    assert "again: minimal aarch64 to gone: " in done.stderr
    assert "no image service that can be reached" in done.stderr


@pytest.mark.parametrize("method", ["direct", "glance-direct"])
def test_every_store_has_the_image_whatever_way_it_takes(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path, method: str
) -> None:
    disk = add_build(tmp_path / "catalog")
    factory_yaml(tmp_path, {"admin": {"method": method, "stores": "all"}})
    done = call("upload", "minimal", "--cloud", "admin")
    assert done.exit_code == 0, done.output
    (record,) = glance_cloud.images("admin")
    assert {*record["stores"].split(",")} == {"file", "second"}
    assert glance_cloud.data(record["id"], "admin") == disk.read_bytes()
    assert "as it should be" in call("upload", "minimal", "--cloud", "admin").stdout


def test_a_store_that_lacks_the_image_gets_a_copy(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog")
    assert call("upload", "minimal", "--cloud", "admin").exit_code == 0
    (before,) = glance_cloud.images("admin")
    assert before["stores"] == "file"
    factory_yaml(tmp_path, {"admin": {"stores": ["file", "second"]}})
    done = call("upload", "minimal", "--cloud", "admin")
    assert f"copy {before['id']} to second" in done.stdout
    (after,) = glance_cloud.images("admin")
    assert {*after["stores"].split(",")} == {"file", "second"}


def test_a_cloud_fetches_the_image_itself(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    disk = add_build(tmp_path / "catalog")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(disk.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        cloud = {"cloud": "admin", "method": "web-download", "budget": 60}
        factory_yaml(tmp_path, {"web": {**cloud, "url": url + "/{image}-{arch}.qcow2"}})
        done = call("upload", "minimal", "--cloud", "web")
        assert done.exit_code == 0, done.output
        (record,) = glance_cloud.images("admin")
        assert glance_cloud.data(record["id"], "admin") == disk.read_bytes()
        glance_cloud.delete(record["id"])

        other = qcow2(disk.parent / "other.qcow2", seed=7)
        file = tmp_path / "wrong.yaml"
        wrong = {**cloud, "budget": 3, "url": f"{url}/{other.name}"}
        file.write_text(json.dumps({"clouds": {"web": wrong}}))
        done = call("upload", "minimal", "--cloud", "web", "--config", file)
        assert done.exit_code == 8
        assert "the cloud holds other bytes" in done.stderr
        assert glance_cloud.images("admin") == []
        server.shutdown()


def test_a_partition_image_stands_in_the_cloud_with_what_it_is_started_with(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    # An x86 kernel ends its first sector as a boot sector does.
    kernel = bytes(510) + b"\x55\xaa" + b"kernel" * 10_000
    add_build(tmp_path / "catalog", 1, {"kernel": kernel, "ramdisk": b"070701" * 5_000})
    factory_yaml(
        tmp_path,
        {"mine": {"cloud": "member", "format": "ami", "rotation": {"keep": 0, "old": "rename"}}},
    )
    planned = call("upload", "minimal", "--cloud", "mine", "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert glance_cloud.images() == []

    done = json.loads(call("upload", "minimal", "--cloud", "mine", "--json").stdout)
    images = {image["name"]: image for image in glance_cloud.images()}
    assert images.keys() == {
        "minimal-aarch64",
        "minimal-aarch64-kernel",
        "minimal-aarch64-ramdisk",
    }
    root, *parts = (images[f"minimal-aarch64{part}"] for part in ("", "-kernel", "-ramdisk"))
    assert [one["id"] for one in parts] == [root["kernel_id"], root["ramdisk_id"]]
    assert root["id"] == done[0]["id"]
    formats = [(one["disk_format"], one["container_format"]) for one in (root, *parts)]
    assert formats == [("ami", "ami"), ("aki", "aki"), ("ari", "ari")]
    assert glance_cloud.data(root["kernel_id"]) == kernel
    again = json.loads(call("upload", "minimal", "--cloud", "mine", "--json").stdout)
    assert [(row["sent"], row["steps"]) for row in again] == [(False, [])]

    # The next build has the same kernel and another ramdisk; somebody's own image keeps the old.
    theirs = glance_cloud.create(name="theirs", ramdisk_id=root["ramdisk_id"])
    add_build(tmp_path / "catalog", 2, {"kernel": kernel, "ramdisk": b"another"})
    done = json.loads(call("upload", "minimal", "--cloud", "mine", "--json").stdout)
    assert "images are started with it" in " ".join(done[0]["left"])
    newer = glance_cloud.image(done[0]["id"])
    assert newer["kernel_id"] == root["kernel_id"]
    assert newer["ramdisk_id"] != root["ramdisk_id"]
    assert {image["id"] for image in glance_cloud.images()} == {
        *(newer["id"], newer["kernel_id"], newer["ramdisk_id"]),
        *(theirs, root["ramdisk_id"]),
    }
    glance_cloud.delete(theirs)
    done = json.loads(call("upload", "minimal", "--cloud", "mine", "--json").stdout)
    assert any(f"delete {root['ramdisk_id']}" in step for step in done[0]["steps"])
    assert len(glance_cloud.images()) == 3


def test_keeping_none_deletes_all_older_builds(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    for number in (1, 2):
        add_build(tmp_path / "catalog", number)
        assert call("upload", "minimal", "--cloud", "member").exit_code == 0
    add_build(tmp_path / "catalog", 3)
    done = call("upload", "minimal", "--cloud", "member", "--keep", "0")
    assert done.stdout.count("its time is over") == 2
    (left,) = [*glance_cloud.images(), *glance_cloud.images(os_hidden="true")]
    assert left["imagefactory_digest"] == f"{3:064x}"


@pytest.mark.parametrize("part", ["qcow2", "ramdisk"])
def test_what_is_not_what_was_built_is_not_sent(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path, part: str
) -> None:
    parts = {"kernel": b"kernel", "ramdisk": b"ramdisk"}
    disk = add_build(tmp_path / "catalog", 1, parts)
    with disk.with_suffix(f".{part}").open("r+b") as stream:
        stream.seek(3)
        stream.write(b"changed")
    done = call("upload", "minimal", "--cloud", "member")
    assert done.exit_code == 8
    assert f"minimal aarch64 to member: minimal-aarch64.{part} in " in done.stderr
    assert "is not what was built" in done.stderr
    assert glance_cloud.images() == []


def test_a_newer_build_gives_way_only_when_that_is_asked_for(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog", 1)
    newest = add_build(tmp_path / "catalog", 2)
    assert call("upload", "minimal", "--cloud", "member").exit_code == 0
    (newest.parent / "manifest.json").write_text("{")
    for more in ((), ("--dry-run",)):
        done = call("upload", "minimal", "--cloud", "member", *more)
        assert done.exit_code == 8
        assert f"passed over, unreadable: {newest.parent}/manifest.json" in unwrapped(done.stderr)
        assert "the cloud has a newer build of minimal-aarch64" in done.stderr
    (shown,) = glance_cloud.images()
    assert shown["imagefactory_digest"] == f"{2:064x}"
    assert call("upload", "minimal", "--cloud", "member", "--allow-older").exit_code == 0
    (shown,) = glance_cloud.images()
    assert shown["imagefactory_digest"] == f"{1:064x}"


def unwrapped(text: str) -> str:
    return text.replace("\n", "")


def test_what_a_killed_run_has_sent_is_approved_before_it_is_seen(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog", 1)
    assert call("upload", "minimal", "--cloud", "member").exit_code == 0
    (record,) = glance_cloud.images()
    # As it stands when a run is killed while the commands look at it.
    lease = {"op": "add", "path": "/imagefactory_lease", "value": "somebody 20200101T000000Z"}
    name = {"op": "replace", "path": "/name", "value": "minimal-aarch64-dated"}
    glance_cloud.patch(record["id"], [lease, name])
    factory_yaml(tmp_path, {"mine": {"cloud": "member", "after_upload": [["false"]]}})
    done = call("upload", "minimal", "--cloud", "mine")
    assert done.exit_code == 8
    assert "after_upload: false failed" in done.stderr
    assert glance_cloud.images() == []


def test_an_image_of_somebody_elses_with_the_same_name_is_told_of(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog", 1)
    theirs = glance_cloud.create(name="minimal-aarch64")
    for more in (("--dry-run",), ()):
        done = call("upload", "minimal", "--cloud", "member", *more)
        assert done.exit_code == 0
        assert f"left: image {theirs} is not ours and has the name" in done.stdout


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_store_that_the_cloud_has_not_is_told_with_those_it_has(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path, more: tuple[str, ...]
) -> None:
    add_build(tmp_path / "catalog", 1)
    factory_yaml(tmp_path, {"admin": {"stores": ["ceph"]}})
    done = call("upload", "minimal", "--cloud", "admin", *more)
    assert done.exit_code == 8
    assert "the cloud has no store ceph" in done.stderr
    assert "it has: file, second" in done.stderr
    assert glance_cloud.images("admin") == []


def test_a_table_says_what_became_of_each_cloud(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog")
    assert call("upload", "minimal", "--cloud", "other").exit_code == 0
    glance_cloud.add("refusing", password="wrong")
    clouds = ("--cloud", "member", "--cloud", "other", "--cloud", "refusing")
    done = call("upload", "minimal", *clouds)
    assert done.exit_code == 8
    rows = [line.split() for line in done.stdout.splitlines() if "aarch64 " in line]
    table = {row[2]: " ".join(row[3:]) for row in rows if row[0] == "minimal"}
    assert table == {"member": "sent", "other": "as it should be", "refusing": "failed"}
    assert "error: minimal aarch64 to refusing: " in done.stderr


def test_only_a_partition_image_can_be_an_ami(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog")
    done = call("upload", "minimal", "--cloud", "member", "--format", "ami")
    assert done.exit_code == 3
    assert "build it with `shape: partition`" in done.stderr
    assert glance_cloud.images() == []


@pytest.mark.parametrize(
    ("clouds", "mistake"),
    [
        ({"a": {"dated_name": "{image}-{arch}"}}, "dated_name: it must tell builds apart"),
        ({"a": {"name": "{imgae}"}}, "{imgae} stands for nothing; known: {image}"),
        ({"a": {"members": ["x"]}}, "members: only an image of `visibility: shared`"),
        ({"a": {"cloud": "x"}, "b": {"cloud": "x"}}, "a and b are the same cloud"),
        ({"a": {"formt": "raw"}}, "did you mean 'format'?"),
        ({"a": {"method": "web-download", "url": "http://x/{fiel}"}}, "{fiel} stands for nothing"),
        ({"a": {"after_upload": [["check", "{id"]]}}, "its braces are wrong"),
        ({"a": {"name": "{arch!r:>300}"}}, "{arch!r:>300} stands for nothing"),
        ({"a": {"properties": {"hw_disk_buss": "scsi"}}}, "did you mean 'hw_disk_bus'?"),
        ({"a": {"properties": {"imagefactory_arch": "x"}}}, "is a mark of our own"),
        ({"a": {"min_disk": 0}}, "greater than or equal to 1"),
        ({"all": {}}, "`all` stands for all of them"),
        ({"a": {"after_upload": [["check", "{image}"]]}}, "{image} stands for nothing"),
    ],
)
def test_a_mistake_in_factory_yaml_is_told_with_its_place(
    call: Call, tmp_path: Path, clouds: dict[str, Any], mistake: str
) -> None:
    file = factory_yaml(tmp_path, clouds)
    done = call("upload", "minimal", "--cloud", "all")
    assert done.exit_code == 3
    assert f"{file}:1" in done.output
    assert mistake in done.output


def test_all_needs_clouds_in_factory_yaml(call: Call, tmp_path: Path) -> None:
    add_build(tmp_path / "catalog")
    done = call("upload", "minimal", "--cloud", "all")
    assert done.exit_code == 3
    assert "`all` means the clouds of factory.yaml" in done.output
    empty = tmp_path / "empty.yaml"
    empty.write_text("clouds: {}\n")
    done = call("upload", "minimal", "--cloud", "all", "--config", empty)
    assert f"write them into {empty}" in unwrapped(done.output)


@contextlib.contextmanager
def held_upload(
    cloud: GlanceCloud, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[str], threading.Event]]:
    """An upload by a program of its own, held in the middle of the data until it is released."""
    reached, released = threading.Event(), threading.Event()

    def hold(piece: bytes) -> bytes:
        reached.set()
        released.wait(60)
        return piece

    words = ["--catalog", str(tmp_path / "catalog"), "upload", "minimal", "--cloud", "slow"]
    command = [sys.executable, "-m", "imagefactory", *words]
    with bad_wire(cloud.endpoint, hold, after=1_000_000) as endpoint:
        cloud.add("slow", endpoint=endpoint)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert reached.wait(60)
            yield process, released


def test_what_a_run_that_was_killed_has_left_is_gone_after_the_next(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog", 1)
    assert call("upload", "minimal", "--cloud", "member").exit_code == 0
    (older,) = glance_cloud.images()
    add_build(tmp_path / "catalog", 2)
    with held_upload(glance_cloud, tmp_path) as (process, released):
        process.kill()
        process.communicate(timeout=60)
        released.set()
        found = {one["id"]: one["status"] for one in glance_cloud.images()}
    assert len(found) == 2, "it had begun"
    assert found.pop(older["id"]) == "active", "readers still find the older one"

    done = call("upload", "minimal", "--cloud", "member")

    assert done.exit_code == 0, done.output
    assert f"delete {next(iter(found))}" in done.stdout
    (newest,) = glance_cloud.images()
    assert newest["id"] not in found
    assert [one["id"] for one in glance_cloud.images(os_hidden="true")] == [older["id"]]


def test_ctrl_c_takes_back_what_was_begun(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog")
    assert call("list").exit_code == 0
    with held_upload(glance_cloud, tmp_path) as (process, released):
        process.send_signal(signal.SIGINT)
        released.set()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert glance_cloud.images() == []


def test_images_in_a_cloud_are_compared_with_nova_and_the_standard(
    call: Call, glance_cloud: GlanceCloud, tmp_path: Path
) -> None:
    add_build(tmp_path / "catalog")
    promises = {
        "replace_frequency": "monthly",
        "provided_until": "none",
        "uuid_validity": "last-3",
    }
    factory_yaml(tmp_path, {"member": {"properties": promises}})
    assert call("upload", "minimal", "--cloud", "member").exit_code == 0
    stranger = glance_cloud.create(name="stranger", hw_disk_buss="virtio")

    ours = call("validate", "--cloud", "member", "--scs", "--json")
    assert ours.exit_code == 0, ours.output
    (row,) = json.loads(ours.stdout)
    assert (row["well"], row["mistakes"], row["conforms"]) == (True, [], True)
    assert row["subject"].startswith("minimal-aarch64 (")

    theirs = call("validate", "--cloud", "member", "--scs", "stranger")
    assert theirs.exit_code == 3
    assert f"stranger ({stranger}): to be corrected" in theirs.stdout
    assert "nova: hw_disk_buss=virtio" in theirs.stdout
    assert "scs-0102: os_distro: missing" in theirs.stdout

    nobody = call("validate", "--cloud", "member", "nobody")
    assert nobody.exit_code == 3
    assert "no image in the cloud is called 'nobody'" in nobody.output


def test_templates_and_builds_are_compared_with_the_standard(call: Call, tmp_path: Path) -> None:
    add_build(tmp_path / "catalog")
    templates = call("validate")
    assert templates.exit_code == 0, templates.output
    assert "debian-13 ppc64le: right" in templates.stdout
    built = call("validate", "minimal", "--built", "--scs")
    assert built.exit_code == 3
    assert "replace_frequency: missing" in built.stdout
    assert "image_build_date" not in built.stdout
