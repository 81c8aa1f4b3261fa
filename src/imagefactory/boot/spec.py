"""What the parent process tells a boot, and what it hears back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from imagefactory.boot.checks import Expected
from imagefactory.boot.report import CaseReport


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


SPEC = TypeAdapter(SessionSpec)
CASE = TypeAdapter(CaseReport)
