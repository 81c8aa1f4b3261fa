"""Where profiles and templates are found: the user's own first, then the shipped ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def user_directory() -> Path:
    """Return the user's own directory, ``$XDG_CONFIG_HOME/imagefactory``."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "imagefactory"


def shipped_directory() -> Path:
    """Return the directory of the shipped data: inside an installed package, or the checkout."""
    installed = _PACKAGE / "share"
    return installed if installed.is_dir() else _PACKAGE.parent.parent


@dataclass(frozen=True)
class SearchPath:
    """Directories that hold ``arch_profiles/`` and ``templates/``; the first hit wins."""

    directories: tuple[Path, ...]

    @classmethod
    def default(cls, extra: Sequence[Path] = ()) -> SearchPath:
        """Build the usual path: ``--path`` directories, the user's own, the shipped ones."""
        return cls((*extra, user_directory(), shipped_directory()))

    def yaml_files(self, kind: str) -> dict[str, Path]:
        """Map the names of all YAML files of one kind (``templates``, ...) to their paths."""
        found: dict[str, Path] = {}
        for directory in self.directories:
            for path in sorted((directory / kind).glob("*.yaml")):
                found.setdefault(path.stem, path)
        return found
