"""What a boot test found: plain values that go to JSON, to JUnit and to people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

from pydantic import TypeAdapter

Verdict = Literal["passed", "failed", "skipped"]

Failure = Literal[
    "qemu failed",
    "no firmware output",
    "no bootloader",
    "no kernel",
    "kernel panic",
    "root not found",
    "no login",
    "no network",
    "no ssh",
    "key refused",
    "check failed",
    "no power-off",
]

MILESTONES = ("firmware", "bootloader", "kernel", "userspace", "login", "ssh", "powered off")
"""In the order in which a guest reaches them."""


@dataclass(frozen=True)
class Check:
    """One thing looked at in a running guest."""

    name: str
    verdict: Verdict
    detail: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Diagnosis:
    """Why a boot failed, for a person: the kind, one sentence, the console's last lines."""

    failure: Failure
    message: str
    console: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseReport:
    """One boot: what was seen and when, in seconds from power-on."""

    name: str
    verdict: Verdict
    accelerator: str
    checks: tuple[Check, ...]
    milestones: Mapping[str, float]
    seconds: float
    evidence: Path
    diagnosis: Diagnosis | None = None


@dataclass(frozen=True)
class BootReport:
    """The boots of one image."""

    architecture: str
    accelerator: str
    qemu_version: str
    cases: tuple[CaseReport, ...]
    seconds: float
    evidence: Path
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """Passed when every boot passed, and there was one."""
        return "passed" if self.passed else "failed"

    @property
    def passed(self) -> bool:
        """Whether every boot passed, and there was one."""
        return bool(self.cases) and all(case.verdict == "passed" for case in self.cases)

    @property
    def summary(self) -> str:
        """One sentence for people: what passed, or the first thing that did not."""
        for case in self.cases:
            if case.diagnosis:
                return f"{case.name}: {case.diagnosis.failure}: {case.diagnosis.message}"
        counted = sum(check.verdict == "passed" for case in self.cases for check in case.checks)
        boots = "one boot" if len(self.cases) == 1 else f"{len(self.cases)} boots"
        return f"{boots}, {counted} checks passed in {self.seconds:.0f} s ({self.accelerator})"

    def to_json(self) -> str:
        """Render as JSON; the verdict stands first for those who read only that."""
        body = _REPORT.dump_json(self, indent=2).decode()
        return body.replace("{", f'{{\n  "verdict": "{self.verdict}",', 1)

    @classmethod
    def from_json(cls, text: str) -> BootReport:
        """Read what ``to_json`` wrote."""
        return _REPORT.validate_json(text)

    def write_junit(self, path: Path) -> None:
        """Write JUnit XML: a test suite per boot, a test case per check."""
        root = ET.Element("testsuites", name=f"boot test {self.architecture}")
        for case in self.cases:
            root.append(_suite(case, self.architecture))
        ET.indent(root)
        ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


_REPORT = TypeAdapter(BootReport)


def _suite(case: CaseReport, architecture: str) -> ET.Element:
    boot = Check("boot", "failed" if case.diagnosis else "passed", "", case.seconds)
    checks = (boot, *case.checks)
    suite = ET.Element(
        "testsuite",
        name=f"{architecture}.{case.name}",
        tests=str(len(checks)),
        failures=str(sum(check.verdict == "failed" for check in checks)),
        skipped=str(sum(check.verdict == "skipped" for check in checks)),
        time=f"{case.seconds:.3f}",
    )
    for check in checks:
        element = ET.SubElement(
            suite,
            "testcase",
            classname=f"{architecture}.{case.name}",
            name=check.name,
            time=f"{check.seconds:.3f}",
        )
        if check.verdict == "skipped":
            ET.SubElement(element, "skipped", message=_xml(check.detail))
        elif check.verdict == "failed":
            _add_failure(element, check, case)
        elif check.detail:
            ET.SubElement(element, "system-out").text = _xml(check.detail)
    return suite


def _add_failure(element: ET.Element, check: Check, case: CaseReport) -> None:
    message, text = check.detail, check.detail
    if check.name == "boot" and case.diagnosis:
        message = f"{case.diagnosis.failure}: {case.diagnosis.message}"
        text = "\n".join(case.diagnosis.console)
    ET.SubElement(element, "failure", message=_xml(message)).text = _xml(text)


def _xml(text: str) -> str:
    """Drop what XML 1.0 cannot hold: a guest may print anything."""
    return "".join(
        char
        for char in text
        if char in "\t\n\r" or 0x20 <= ord(char) <= 0xD7FF or 0xE000 <= ord(char) <= 0xFFFD
    )
