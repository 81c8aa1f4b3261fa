"""Which programs of a foreign tree may run natively: accelerated.yaml, as values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from imagefactory import yamlfile
from imagefactory.arch import ArchProfile
from imagefactory.yamlfile import Model

LIST = Path(__file__).with_name("accelerated.yaml")

Call = Annotated[tuple[str, ...], Field(min_length=2)]
"""A program's path (in `Group.calls`: a glob) and the arguments that a call begins with."""


class Group(Model):
    """Programs that are safe for the same reason."""

    name: str
    reason: str
    programs: dict[str, tuple[str, ...]] = Field(
        default={}, description="package -> globs of paths in a merged-/usr tree"
    )
    calls: dict[str, tuple[Call, ...]] = Field(
        default={}, description="package -> calls of which only these may run natively"
    )
    rpm: dict[str, tuple[str, ...]] = Field(
        default={}, description="the same as `programs`, of RPM packages"
    )
    exceptions: tuple[str, ...] = Field(default=(), alias="except")
    emulated_calls: tuple[Call, ...] = Field(
        default=(), description="calls of the programs that tell the machine"
    )
    retarget: bool = False
    same: tuple[Literal["endian", "bits"], ...] = Field(
        default=(), description="traits of the machine that must agree"
    )

    def packages(self) -> set[str]:
        """Return the packages that it takes programs from."""
        return {*self.programs, *self.calls}

    def suits(self, host: ArchProfile, target: ArchProfile) -> bool:
        """Whether the two machines agree in what the group asks for."""
        return all(getattr(host.elf, trait) == getattr(target.elf, trait) for trait in self.same)


class SafePrograms(Model):
    """What accelerated.yaml holds."""

    groups: tuple[Group, ...]
    perl_modules: str = Field(description="packages that bring modules for the twin's perl")


def safe_programs() -> SafePrograms:
    """Read accelerated.yaml."""
    return yamlfile.load(LIST, SafePrograms)
