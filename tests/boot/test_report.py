from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from imagefactory.boot.report import (
    SECURE_BOOT,
    BootReport,
    CaseReport,
    Check,
    Diagnosis,
    Identity,
    proven_properties,
)


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


@pytest.fixture
def secure(good: CaseReport) -> CaseReport:
    checks = (*good.checks, Check(SECURE_BOOT, "passed", "SecureBoot=1"))
    return replace(good, name="secure-boot", checks=checks)


def test_an_identity_survives_json(good: CaseReport) -> None:
    one = replace(good, identity=Identity("a" * 32, "b", {"/etc/ssh/x.pub": "SHA256:1"}))
    whole = report(one)
    assert BootReport.from_json(whole.to_json()) == whole


def test_both_kinds_of_boots_prove_that_secure_boot_is_optional(
    good: CaseReport, secure: CaseReport
) -> None:
    whole = report(good, secure)
    assert proven_properties(whole) == {"os_secure_boot": "optional"}
    assert json.loads(whole.to_json())["proven"] == {"os_secure_boot": "optional"}


def test_nothing_else_proves_it(good: CaseReport, secure: CaseReport, bad: CaseReport) -> None:
    told_only = (*good.checks, Check(SECURE_BOOT, "skipped", "not asked for"))
    refused = (*good.checks, Check(SECURE_BOOT, "failed", "SecureBoot is 0"))
    wrong = (Check("different machine-ids", "failed", "one and other share x"),)
    for whole in (
        report(),
        report(good),
        report(secure),
        report(good, secure, bad),
        report(good, replace(good, checks=told_only)),
        report(good, replace(secure, checks=refused, verdict="failed")),
        replace(report(good, secure), checks=wrong),
    ):
        assert proven_properties(whole) == {}


def test_what_the_boots_share_fails_the_whole(good: CaseReport, tmp_path: Path) -> None:
    wrong = Check("different machine-ids", "failed", "one and other share x")
    whole = replace(report(good), checks=(wrong,))
    assert not whole.passed
    assert whole.summary == "different machine-ids: one and other share x"
    assert json.loads(whole.to_json())["verdict"] == "failed"
    whole.write_junit(tmp_path / "junit.xml")
    _, last = ET.parse(tmp_path / "junit.xml").getroot()
    assert (last.get("name"), last.get("failures")) == ("x86_64.instances", "1")
