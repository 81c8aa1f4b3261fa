"""What a boot test found: plain values that go to JSON, to JUnit and to people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    "no reboot",
]

SECOND = "second "
"""Stands before the milestones of the boot after a reboot; they count from its power-on."""

SECURE_BOOT = "secure boot"
"""The check that is passed only where the guest itself saw Secure Boot enforced."""


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
class Identity:
    """What makes a guest one of its kind."""

    machine_id: str
    """Empty where the guest has none."""
    boot_id: str
    """The kernel's own name for this start of it."""
    host_keys: Mapping[str, str]
    """File of the public key -> its fingerprint."""


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
    identity: Identity | None = None

    @property
    def proved_secure_boot(self) -> bool:
        """Whether the guest saw Secure Boot enforced, and nothing went wrong."""
        seen = any(check.name == SECURE_BOOT and check.verdict == "passed" for check in self.checks)
        return seen and self.verdict == "passed"


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
    checks: tuple[Check, ...] = ()
    """What only shows when the boots are compared with each other."""

    @property
    def verdict(self) -> Verdict:
        """Passed when every boot and every comparison passed, and there was a boot."""
        return "passed" if self.passed else "failed"

    @property
    def passed(self) -> bool:
        """Whether every boot and every comparison passed, and there was a boot."""
        good = bool(self.cases) and all(case.verdict == "passed" for case in self.cases)
        return good and not any(check.verdict == "failed" for check in self.checks)

    @property
    def summary(self) -> str:
        """One sentence for people: what passed, or the first thing that did not."""
        for case in self.cases:
            if case.diagnosis:
                return f"{case.name}: {case.diagnosis.failure}: {case.diagnosis.message}"
        for check in self.checks:
            if check.verdict == "failed":
                return f"{check.name}: {check.detail}"
        made = [*self.checks, *(check for case in self.cases for check in case.checks)]
        counted = sum(check.verdict == "passed" for check in made)
        boots = "one boot" if len(self.cases) == 1 else f"{len(self.cases)} boots"
        return f"{boots}, {counted} checks passed in {self.seconds:.0f} s ({self.accelerator})"

    def to_json(self) -> str:
        """Render as JSON; the verdict and what was proven stand first."""
        first = {"verdict": self.verdict, "proven": proven_properties(self)}
        return json.dumps(first | _REPORT.dump_python(self, mode="json"), indent=2)

    @classmethod
    def from_json(cls, text: str) -> BootReport:
        """Read what ``to_json`` wrote."""
        return _REPORT.validate_json(text)

    def write_junit(self, path: Path) -> None:
        """Write JUnit XML: a test suite per boot, a test case per check."""
        root = ET.Element("testsuites", name=f"boot test {self.architecture}")
        for case in self.cases:
            boot = Check("boot", "failed" if case.diagnosis else "passed", "", case.seconds)
            name = f"{self.architecture}.{case.name}"
            root.append(_suite(name, (boot, *case.checks), case.seconds, case.diagnosis))
        if self.checks:
            root.append(_suite(f"{self.architecture}.instances", self.checks, 0.0))
        ET.indent(root)
        ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


_REPORT = TypeAdapter(BootReport)


def proven_properties(report: BootReport) -> dict[str, str]:
    """Return the image properties that the boots have earned, to be set beside the others.

    ``os_secure_boot=optional``, when one boot proved Secure Boot from inside the guest and
    another passed without it. What nova makes of the values (nova.virt.hardware,
    get_secure_boot_constraint; LibvirtDriver._configure_guest_by_virt_type):

    * ``required``: only hosts with Secure Boot (the scheduler asks for their trait), and an
      error on all others. An image that boots either way would lose clouds by it.
    * ``optional``: enforced where the host and the machine can, left out elsewhere. It asks for
      both kinds of boots, so both must have been seen.
    * ``disabled``, or unset: never, although the image could.

    A report that did not pass has proven nothing.
    """
    if not report.passed:
        return {}
    kinds = {case.proved_secure_boot for case in report.cases}
    return {"os_secure_boot": "optional"} if kinds == {True, False} else {}


def _suite(
    name: str, checks: Sequence[Check], seconds: float, diagnosis: Diagnosis | None = None
) -> ET.Element:
    suite = ET.Element(
        "testsuite",
        name=name,
        tests=str(len(checks)),
        failures=str(sum(check.verdict == "failed" for check in checks)),
        skipped=str(sum(check.verdict == "skipped" for check in checks)),
        time=f"{seconds:.3f}",
    )
    for check in checks:
        element = ET.SubElement(
            suite, "testcase", classname=name, name=check.name, time=f"{check.seconds:.3f}"
        )
        if check.verdict == "skipped":
            ET.SubElement(element, "skipped", message=_xml(check.detail))
        elif check.verdict == "failed":
            _add_failure(element, check, diagnosis)
        elif check.detail:
            ET.SubElement(element, "system-out").text = _xml(check.detail)
    return suite


def _add_failure(element: ET.Element, check: Check, diagnosis: Diagnosis | None) -> None:
    message, text = check.detail, check.detail
    if check.name == "boot" and diagnosis:
        message = f"{diagnosis.failure}: {diagnosis.message}"
        text = "\n".join(diagnosis.console)
    ET.SubElement(element, "failure", message=_xml(message)).text = _xml(text)


def _xml(text: str) -> str:
    """Drop what XML 1.0 cannot hold: a guest may print anything."""
    return "".join(
        char
        for char in text
        if char in "\t\n\r" or 0x20 <= ord(char) <= 0xD7FF or 0xE000 <= ord(char) <= 0xFFFD
    )
