"""Boots of real machines. Budgets are those of a busy host; a healthy boot takes a third."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from imagefactory.arch import ArchProfiles
from imagefactory.boot import BootReport, CaseReport, boot_test, proven_properties
from imagefactory.run import run
from imagefactory.template import BootCase

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

CONFIG_DRIVE = BootCase(name="config-drive", datasource="config-drive", network="static")
NOCLOUD = BootCase(name="nocloud", datasource="nocloud")
NOTHING = BootCase(name="none", datasource="none")


class Built(Protocol):
    disk: Path
    properties: Mapping[str, str]


@dataclass
class Bench:
    """Boots disks and shows all evidence where a test fails."""

    profiles: ArchProfiles
    evidence: Path

    def boot(
        self,
        disk: Path,
        properties: Mapping[str, str],
        *cases: BootCase,
        disk_format: str = "qcow2",
        budget: float | None = None,
    ) -> BootReport:
        return boot_test(
            disk,
            properties,
            cases,
            self.evidence,
            profiles=self.profiles,
            accelerator="tcg",
            disk_format=disk_format,
            budget=budget,
        )

    def fail(
        self, disk: Path, properties: Mapping[str, str], case: BootCase, budget: float
    ) -> CaseReport:
        report = self.boot(disk, properties, case, disk_format="raw", budget=budget)
        (failed,) = report.cases
        assert failed.verdict == "failed", report.to_json()
        assert failed.diagnosis is not None
        assert not report.passed
        return failed


@pytest.fixture
def bench(profiles: ArchProfiles, tmp_path: Path) -> Bench:
    return Bench(profiles, tmp_path / "evidence")


@dataclass
class Patient:
    """A raw copy of a built image, to be damaged."""

    disk: Path
    properties: Mapping[str, str]

    def remove(self, path: str) -> None:
        run(["debugfs", "-w", "-R", f"rm {path}", f"{self.disk}?offset={self._root()}"])

    def replace(self, old: bytes, new: bytes) -> None:
        assert len(old) == len(new)
        content = self.disk.read_bytes()
        assert old in content
        self.disk.write_bytes(content.replace(old, new))

    def read(self, path: str) -> str:
        return run(["debugfs", "-R", f"cat {path}", f"{self.disk}?offset={self._root()}"]).stdout

    def _root(self) -> int:
        table = json.loads(run(["sfdisk", "--json", self.disk]).stdout)["partitiontable"]
        return int(max(part["start"] for part in table["partitions"])) * 512


@pytest.fixture
def patient(built: Callable[[str], Built], tmp_path: Path) -> Patient:
    image = built("x86_64")
    disk = tmp_path / "patient.raw"
    run(["qemu-img", "convert", "-O", "raw", image.disk, disk])
    return Patient(disk, image.properties)


@pytest.mark.parametrize("arch", ["aarch64", "ppc64le", "x86_64"])
def test_a_guest_that_reboots_is_the_same_guest_again(
    bench: Bench, built: Callable[[str], Built], arch: str
) -> None:
    image = built(arch)
    report = bench.boot(
        image.disk, image.properties, CONFIG_DRIVE.model_copy(update={"reboot": True})
    )
    assert report.passed, report.to_json()
    (case,) = report.cases
    verdicts = {check.name: check.verdict for check in case.checks}
    assert verdicts["reboot: booted anew"] == "passed"
    assert verdicts["reboot: same ssh host keys"] == "passed"
    assert verdicts["reboot: user-data"] == "passed"
    assert verdicts["reboot: same machine-id"] == "skipped", "the minimal image has none"
    assert {"ssh", "second ssh", "second powered off"} <= case.milestones.keys()
    assert case.identity is not None
    assert case.identity.host_keys
    assert (case.evidence / "facts-after-reboot.txt").exists()
    assert {check.verdict for check in report.checks} == {"skipped"}, "one boot has no other"


@pytest.mark.parametrize(
    "properties",
    [
        # The signed GRUB cannot unpack kernel and initramfs in less.
        {"hw_firmware_type": "uefi", "hw_machine_type": "q35", "min_ram": "256"},
        {"hw_disk_bus": "scsi"},
    ],
    ids=["uefi on q35", "scsi disk"],
)
def test_one_x86_image_boots_on_several_machines(
    bench: Bench, built: Callable[[str], Built], properties: dict[str, str]
) -> None:
    image = built("x86_64")
    merged = {**image.properties, "hw_cdrom_bus": "scsi", **properties}
    report = bench.boot(image.disk, merged, CONFIG_DRIVE)
    assert report.passed, report.to_json()


def test_other_datasources_work_as_well(bench: Bench, built: Callable[[str], Built]) -> None:
    image = built("x86_64")
    report = bench.boot(image.disk, image.properties, NOCLOUD, NOTHING)
    assert report.passed, report.to_json()


@pytest.mark.parametrize("arch", ["aarch64", "ppc64le", "x86_64"])
def test_an_empty_disk_has_no_bootloader(bench: Bench, tmp_path: Path, arch: str) -> None:
    disk = tmp_path / "zeros.raw"
    with disk.open("wb") as stream:
        stream.truncate(64 << 20)
    properties = bench.profiles.get(arch).properties
    failed = bench.fail(disk, properties, CONFIG_DRIVE, budget=100)
    assert failed.diagnosis is not None
    assert failed.diagnosis.failure == "no bootloader", failed.diagnosis
    assert failed.seconds < 60


def test_a_wrong_root_is_told_as_such(bench: Bench, patient: Patient) -> None:
    config = patient.read("/boot/grub/grub.cfg")
    root = config.split("root=UUID=")[1].split()[0].encode()
    patient.replace(b"root=UUID=" + root, b"root=UUID=" + b"0" * 8 + root[8:])
    failed = bench.fail(patient.disk, patient.properties, CONFIG_DRIVE, budget=200)
    assert failed.diagnosis is not None
    assert failed.diagnosis.failure == "root not found", failed.diagnosis


def test_a_system_without_init_panics(bench: Bench, patient: Patient) -> None:
    patient.remove("/usr/sbin/init")
    failed = bench.fail(patient.disk, patient.properties, CONFIG_DRIVE, budget=200)
    assert failed.diagnosis is not None
    assert failed.diagnosis.failure == "kernel panic", failed.diagnosis


def test_a_missing_kernel_is_told_as_such(bench: Bench, patient: Patient) -> None:
    config = patient.read("/boot/grub/grub.cfg")
    kernel = config.split("\nlinux ")[1].split()[0]
    patient.remove(kernel)
    failed = bench.fail(patient.disk, patient.properties, CONFIG_DRIVE, budget=200)
    assert failed.diagnosis is not None
    assert failed.diagnosis.failure == "no kernel", failed.diagnosis


def test_a_guest_without_sshd_is_reached_by_nobody(bench: Bench, patient: Patient) -> None:
    patient.remove("/usr/sbin/dropbear")
    failed = bench.fail(patient.disk, patient.properties, CONFIG_DRIVE, budget=90)
    assert failed.diagnosis is not None
    assert failed.diagnosis.failure == "no ssh", failed.diagnosis


def test_a_user_that_the_image_lacks_is_refused(bench: Bench, patient: Patient) -> None:
    properties = {**patient.properties, "os_admin_user": "nobody-here"}
    failed = bench.fail(patient.disk, properties, CONFIG_DRIVE, budget=120)
    assert failed.diagnosis is not None
    assert failed.diagnosis.failure == "key refused", failed.diagnosis
    assert "nobody-here" in failed.diagnosis.message


def test_a_guest_that_will_not_reboot_is_told_as_such(bench: Bench, patient: Patient) -> None:
    patient.remove("/usr/sbin/reboot")
    patient.remove("/usr/bin/reboot")
    case = CONFIG_DRIVE.model_copy(update={"reboot": True})
    failed = bench.fail(patient.disk, patient.properties, case, budget=200)
    assert failed.diagnosis is not None
    assert failed.diagnosis.failure == "no reboot", failed.diagnosis


def test_secure_boot_is_enforced_and_not_only_offered(
    bench: Bench, built: Callable[[str], Built]
) -> None:
    """On x86_64 the minimal image's GRUB is linked by its release's tools: nobody signed it."""
    image = built("x86_64")
    secure = {"hw_firmware_type": "uefi", "hw_machine_type": "q35", "os_secure_boot": "required"}
    case = CONFIG_DRIVE.model_copy(update={"properties": secure, "memory": 256})
    report = bench.boot(image.disk, image.properties, case)
    (failed,) = report.cases
    assert failed.diagnosis is not None, report.to_json()
    assert failed.diagnosis.failure == "no bootloader", failed.diagnosis
    assert any("Access Denied" in line for line in failed.diagnosis.console)
    assert proven_properties(report) == {}
