"""The table of what is renamed and composed, distribution.yaml, as values."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from ruamel.yaml import YAML

from imagefactory.arch import ArchProfile

HERE = Path(__file__).resolve().parent
OVERLAY = HERE / "overlay"


class Recipe(BaseModel):
    """One package that is more than one of Debian's by another name; see distribution.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    debs: tuple[str, ...] = ()
    suite: Literal["trixie", "forky"] = "trixie"
    architectures: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    also: dict[str, tuple[str, ...]] = {}
    move: dict[str, str] = {}
    # `copy` is a method of all models.
    copies: dict[str, str] = Field(default={}, alias="copy")
    join: dict[str, str] = {}
    links: dict[str, str] = {}
    directories: dict[str, str] = {}
    modes: dict[str, str] = {}
    edit: dict[str, dict[str, str]] = {}
    ghosts: dict[str, str] = {}
    core: str = ""
    prefix: str = ""
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    scripts: dict[str, str] = {}
    conditions: dict[str, str] = {}


class Table(BaseModel):
    """The whole of distribution.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    excluded: tuple[str, ...]
    ignored: tuple[str, ...]
    from_forky: tuple[str, ...]
    packages: dict[str, Recipe]
    kernels: dict[str, str]
    kernel_core: Recipe = Field(alias="kernel-core")
    groups: dict[str, list[str]]


@cache
def _document() -> dict[str, Any]:
    text = (HERE / "distribution.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Any]).validate_python(YAML(typ="safe").load(text))


def table(profile: ArchProfile) -> Table:
    """Read the table for an architecture."""
    text = json.dumps(_document())
    names = {
        "{deb}": profile.names.deb,
        "{efi}": profile.names.efi or "",
        "{EFI}": (profile.names.efi or "").upper(),
        "{grub_efi}": profile.names.grub_efi or "",
    }
    for name, value in names.items():
        text = text.replace(name, value)
    whole = Table.model_validate_json(text)
    packages = {
        name: recipe
        for name, recipe in whole.packages.items()
        if not recipe.architectures or profile.name in recipe.architectures
    }
    return whole.model_copy(update={"packages": packages})


def of_kernel(recipe: Recipe, version: str) -> Recipe:
    """Fill in what `uname -r` says."""
    return Recipe.model_validate_json(
        recipe.model_dump_json(by_alias=True).replace("{version}", version)
    )
