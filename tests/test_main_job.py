"""The main job, for real: built, booted under real firmware, whole or not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from oslo_utils.imageutils import format_inspector

from imagefactory.boot import BootReport
from tests.factory import (
    MINUTES,
    BuiltImage,
    Factory,
    HostState,
    as_root,
    ordinary_user,
    processes_with,
    wait_for_line,
)

pytestmark = [pytest.mark.system, pytest.mark.timeout(20 * MINUTES)]

ARCHITECTURES = ["aarch64", "ppc64le", "x86_64"]
LARGEST = {"aarch64": 14_000_000, "ppc64le": 14_000_000, "x86_64": 16_000_000}
"""Bytes that a minimal image may have."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_image_is_built_booted_and_stored(architecture: str, factory: Factory) -> None:
    done = factory.run("build", "minimal", "--arch", architecture, "--json")

    (row,) = json.loads(done.stdout)
    assert row["verdict"] == "passed"
    assert row["checks_passed"] == row["checks"] > 20
    assert row["size"] <= LARGEST[architecture]
    build = BuiltImage.of(Path(row["disk"]))
    assert build.manifest["plan"]["properties"]["architecture"] == architecture
    assert {"packages", "tree", "disk", "boot test"} <= set(build.manifest["seconds"])
    assert factory.work() == []

    evidence = build.disk.parent / "boot"
    assert hashlib.sha256(build.disk.read_bytes()).hexdigest() == build.manifest["disk"]["sha256"]
    assert (evidence / "junit.xml").exists()
    report = BootReport.from_json((evidence / "report.json").read_text())
    assert {"config-drive", "metadata"} <= {case.name for case in report.cases}
    for case in report.cases:
        assert {"login", "ssh", "powered off"} <= case.milestones.keys()
        left = {path.name for path in (evidence / case.name).iterdir()}
        assert {"console.log", "qemu.log", "qemu.sh", "network.pcap", "report.json"} <= left
        assert (evidence / case.name / "screenshot.png").read_bytes().startswith(b"\x89PNG")
        assert not [name for name in left if name.startswith("work-")]
    compared = {check.name: check.verdict for check in report.checks}
    assert compared == {"different machine-ids": "skipped", "different ssh host keys": "passed"}
    requests = (evidence / "metadata/metadata-requests.log").read_text()
    assert "/openstack/latest/meta_data.json 200" in requests


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_builds_of_one_plan_are_the_same_bytes(
    architecture: str, built: Callable[[str], BuiltImage], factory: Factory
) -> None:
    first = built(architecture)
    done = factory.run("build", "minimal", "--arch", architecture, "--skip-test", "--json")

    second = BuiltImage.of(Path(json.loads(done.stdout)[0]["disk"]))
    assert second.manifest["plan"]["digest"] == first.manifest["plan"]["digest"]
    assert second.manifest["disk"]["sha256"] == first.manifest["disk"]["sha256"]
    assert second.manifest["sbom"] == first.manifest["sbom"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_glance_will_find_the_disk_safe(
    architecture: str, built: Callable[[str], BuiltImage]
) -> None:
    inspector = format_inspector.detect_file_format(str(built(architecture).disk))

    assert inspector is not None
    assert inspector.NAME == "qcow2"
    inspector.safety_check()


def test_an_untested_build_says_so(built: Callable[[str], BuiltImage]) -> None:
    assert built("x86_64").manifest["boot_test"] is None


def test_root_and_an_ordinary_user_build_the_same_and_leave_nothing_behind(
    installed_for_all: Path, built: Callable[[str], BuiltImage]
) -> None:
    reference = built("x86_64").manifest["disk"]["sha256"]
    user = ordinary_user()
    marker = f"home-of-{os.getpid()}"
    for name in (user.pw_name, "root"):
        home = Path("/var/tmp") / f"{marker}-{name}"
        as_root(["install", "-d", "-o", name, "-m", "0700", str(home)])
        before = HostState.now(marker)
        try:
            words = [f"HOME={home}", str(installed_for_all), "build", "-a", "x86_64", "--json"]
            switch = ["runuser", "-u", name, "--", "env", "-C", "/", *words]
            sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
            clean = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
            done = subprocess.run(
                [*sudo, *switch], capture_output=True, text=True, check=False, env=clean
            )
            assert done.returncode == 0, done.stderr
            (row,) = json.loads(done.stdout)
            assert row["verdict"] == "passed"
            copy = subprocess.run(
                [*sudo, "sha256sum", row["disk"]], capture_output=True, text=True, check=True
            )
            assert copy.stdout.split()[0] == reference
            assert HostState.now(marker).new_since(before) == []
        finally:
            as_root(["rm", "-rf", str(home)])


@pytest.mark.parametrize("stage", ["tree:", "disk:", "power on"])
def test_kill_9_leaves_nothing_but_a_work_directory_that_the_next_start_removes(
    stage: str, factory: Factory
) -> None:
    before = HostState.now(str(factory.catalog))
    process = factory.start("build", "minimal", "--arch", "x86_64")
    wait_for_line(process, stage)
    process.kill()
    process.communicate()

    wait_until_gone(str(factory.catalog))
    assert HostState.now(str(factory.catalog)).new_since(before) == []
    assert factory.builds() == []
    assert factory.work() != []
    factory.run("build", "minimal", "--arch", "x86_64", "--skip-test")
    assert factory.work() == []
    assert len(factory.builds()) == 1


def wait_until_gone(marker: str) -> None:
    """Wait for programs to end; the kernel ends them at once, but not before we can look."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if marker.encode() in (path / "cmdline").read_bytes():
                descriptor = os.pidfd_open(int(path.name))
                try:
                    wait_readable(descriptor)
                finally:
                    os.close(descriptor)
    assert processes_with(marker) == []


def wait_readable(descriptor: int) -> None:
    import select

    readable, _, _ = select.select([descriptor], [], [], 20)
    assert readable, "a program outlived its parent by 20 s"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_cleans_up_and_exits_with_130(
    number: signal.Signals, factory: Factory
) -> None:
    process = factory.start("build", "minimal", "--arch", "x86_64")
    wait_for_line(process, "power on")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in err
    assert factory.builds() == []
    assert factory.work() == []
    assert processes_with(str(factory.catalog)) == []


def test_a_failed_boot_keeps_its_evidence_and_no_build(factory: Factory, tmp_path: Path) -> None:
    """A kernel that is told a wrong root never gets to a login."""
    shipped = Path(__file__).resolve().parent.parent / "templates"
    templates = tmp_path / "own" / "templates"
    templates.mkdir(parents=True)
    text = (shipped / "minimal.yaml").read_text(encoding="utf-8")
    text = text.replace("kernel_arguments: [quiet]", "kernel_arguments: ['root=LABEL=nowhere']")
    (templates / "minimal.yaml").write_text(text, encoding="utf-8")
    (templates / "minimal").symlink_to(shipped / "minimal")
    mine = Factory(factory.catalog, command=(*factory.command, "--path", str(tmp_path / "own")))

    done = mine.run("build", "minimal", "--arch", "x86_64", status=7)

    assert "root not found" in done.stderr
    assert mine.builds() == []
    assert mine.work() == []
    (kept,) = (factory.catalog / ".failed").glob("*")
    assert "imagefactory-init: PANIC" in next(kept.rglob("console.log")).read_text(errors="replace")


def test_an_upload_stands_in_the_cloud_byte_for_byte(
    factory: Factory, glance_cloud: object, tmp_path: Path
) -> None:
    import openstack

    factory.run("build", "minimal", "--arch", "amd64", "--skip-test", "--upload", "member")

    (manifest,) = factory.builds()
    build = BuiltImage.of(next(manifest.parent.glob("*.qcow2")))
    with openstack.connect(cloud="member") as cloud:
        (image,) = [
            i for i in cloud.image.images() if i.properties.get("imagefactory_arch") == "x86_64"
        ]
        target = tmp_path / "read-back.qcow2"
        cloud.image.download_image(image.id, output=str(target))
    assert target.read_bytes() == build.disk.read_bytes()
    assert image.properties["imagefactory_tested"] == "no"
    words = ("upload", "minimal", "--arch", "amd64", "--cloud", "member", "--allow-untested")
    again = factory.run(*words)
    assert "nothing was sent" in again.stdout


def test_an_untested_build_is_not_uploaded(factory: Factory, glance_cloud: object) -> None:
    factory.run("build", "minimal", "--arch", "amd64", "--skip-test")

    done = factory.run("upload", "minimal", "--cloud", "member", status=8)

    assert "boot test" in done.stderr


def test_all_architectures_at_once_and_then_again_without_any_network(
    factory: Factory, built: Callable[[str], BuiltImage]
) -> None:
    """The second time in a network namespace of its own, where not even a loopback is up."""
    words = ("build", "minimal", "--arch", "all", "--skip-test", "--json")
    first = json.loads(factory.run(*words, "--jobs", "2").stdout)
    assert [row["architecture"] for row in first] == ARCHITECTURES

    alone = Factory(
        factory.catalog, command=("unshare", "--net", "--map-root-user", *factory.command)
    )
    done = alone.run(*words, "--jobs", "2", "--offline")
    second = json.loads(done.stdout)
    assert [row["digest"] for row in second] == [row["digest"] for row in first]
    assert all(
        Path(one["disk"]).read_bytes() == Path(other["disk"]).read_bytes()
        for one, other in zip(first, second, strict=True)
    )
    assert done.stderr.count("offline: the package lists are") >= 1

    lost = alone.run("plan", "minimal", "--offline", "--mirror", "http://192.0.2.1", status=5)
    assert "once without --offline" in lost.stderr


def test_one_build_that_fails_stops_no_other(factory: Factory, tmp_path: Path) -> None:
    shipped = Path(__file__).resolve().parent.parent / "templates"
    templates = tmp_path / "own" / "templates"
    templates.mkdir(parents=True)
    text = (shipped / "minimal.yaml").read_text(encoding="utf-8")
    text = text.replace("name: minimal\n", "name: broken\n").replace("busybox: [", "no-box: [")
    (templates / "broken.yaml").write_text(text, encoding="utf-8")
    (templates / "minimal").symlink_to(shipped / "minimal")
    mine = Factory(factory.catalog, command=(*factory.command, "--path", str(tmp_path / "own")))

    words = ("build", "broken", "minimal", "--arch", "x86_64", "--skip-test", "--json")
    done = mine.run(*words, status=5)

    broken, minimal = json.loads(done.stdout)
    assert (broken["image"], broken["verdict"]) == ("broken", "failed")
    assert "no package no-box" in broken["error"]
    assert minimal["verdict"] == "untested"
    assert len(factory.builds()) == 1
    assert factory.work() == []


def test_an_interruption_ends_all_builds_and_their_guests(factory: Factory) -> None:
    process = factory.start("build", "minimal", "--arch", "x86_64", "--arch", "aarch64")
    wait_for_line(process, "power on")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert factory.builds() == []
    assert factory.work() == []
    assert processes_with(str(factory.catalog)) == []


def test_the_command_is_also_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imagefactory", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "imagefactory" in done.stdout
