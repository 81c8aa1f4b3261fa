from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from imagefactory.boot.report import BootReport, CaseReport, Check, Diagnosis


@pytest.fixture
def good() -> CaseReport:
    checks = (
        Check("hostname", "passed", "boot-1", 0.1),
        Check("services", "skipped", "no systemd"),
    )
    return CaseReport(
        "config-drive", "passed", "tcg", checks, {"ssh": 8.5}, 12.0, Path("/e/config-drive")
    )


@pytest.fixture
def bad(good: CaseReport) -> CaseReport:
    diagnosis = Diagnosis("root not found", "no UUID=x\x1b", ("Linux version", "panic \x00"))
    return replace(good, name="metadata", verdict="failed", diagnosis=diagnosis)


def report(*cases: CaseReport) -> BootReport:
    return BootReport("x86_64", "tcg", "7.2.22", cases, 12.3, Path("/e"), {"hw_disk_bus": "scsi"})


def test_a_report_survives_json(good: CaseReport, bad: CaseReport) -> None:
    whole = report(good, bad)
    assert BootReport.from_json(whole.to_json()) == whole


def test_json_tells_the_verdict_at_once(good: CaseReport, bad: CaseReport) -> None:
    assert json.loads(report(good).to_json())["verdict"] == "passed"
    assert json.loads(report(good, bad).to_json())["verdict"] == "failed"


def test_no_boot_is_no_pass() -> None:
    assert not report().passed


def test_the_summary_is_one_sentence(good: CaseReport, bad: CaseReport) -> None:
    assert report(good).summary == "one boot, 1 checks passed in 12 s (tcg)"
    assert report(good, bad).summary.startswith("metadata: root not found: no UUID=x")


def test_junit_has_a_suite_per_boot_and_a_case_per_check(
    good: CaseReport, bad: CaseReport, tmp_path: Path
) -> None:
    report(good, bad).write_junit(tmp_path / "junit.xml")
    first, second = ET.parse(tmp_path / "junit.xml").getroot()
    assert (first.get("name"), first.get("tests"), first.get("failures")) == (
        "x86_64.config-drive",
        "3",
        "0",
    )
    assert second.get("failures") == "1"
    failure = second.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "root not found: no UUID=x"
    assert "Linux version" in (failure.text or "")
