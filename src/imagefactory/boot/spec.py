"""What the parent process tells a boot, and what it hears back."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from imagefactory.boot.facts import Expected
from imagefactory.boot.report import CaseReport

CAPTURE = "network.pcap"
"""File of the evidence: all that the guest sent and got, of the last start."""


@dataclass(frozen=True)
class Budgets:
    """Seconds that the parts of a boot may take."""

    boot: float
    """From power-on to SSH (to the login prompt without a datasource)."""
    stall: float
    """Without any sign of life on the console."""
    kernel: float
    """From power-on to the kernel's first line; short while the accelerator is on trial."""
    refusal: float
    """From the first refused key to giving up: a guest may listen before it has its keys."""
    checks: float
    power_off: float


@dataclass(frozen=True)
class SessionSpec:
    """Everything that a boot needs to know."""

    name: str
    accelerator: str
    command: tuple[str, ...]
    evidence: Path
    budgets: Budgets
    user: str | None
    """None: no datasource, so nobody can log in; the login prompt is the proof."""
    private_key: str
    expected: Expected
    display: bool
    serve_metadata: bool
    guest_agent: bool
    reboot: bool = False
    """Whether the guest is to reboot, and must prove itself a second time."""


SPEC = TypeAdapter(SessionSpec)
CASE = TypeAdapter(CaseReport)


def emit(kind: str, **values: Any) -> None:
    """Tell the parent process something."""
    sys.stdout.write(json.dumps({"event": kind, **values}) + "\n")
    sys.stdout.flush()
