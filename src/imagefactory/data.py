"""Where profiles and templates are found: the user's own first, then the shipped ones."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagefactory.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def config_home() -> Path:
    """Return ``$XDG_CONFIG_HOME``, where users keep their settings."""
    return _base_directory("XDG_CONFIG_HOME", ".config")


def user_directory() -> Path:
    """Return the user's own directory, ``$XDG_CONFIG_HOME/imagefactory``."""
    return config_home() / "imagefactory"


def cache_directory() -> Path:
    """Return the directory of everything that can be fetched or made again."""
    return _base_directory("XDG_CACHE_HOME", ".cache") / "imagefactory"


def catalog_directory() -> Path:
    """Return the user's own catalog, ``$XDG_DATA_HOME/imagefactory``."""
    return _base_directory("XDG_DATA_HOME", ".local/share") / "imagefactory"


def state_directory() -> Path:
    """Return ``$XDG_STATE_HOME/imagefactory``, for what lasts and is no build."""
    return _base_directory("XDG_STATE_HOME", ".local/state") / "imagefactory"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_whole(file: Path, content: bytes, mode: int | None = None) -> None:
    """Write a file that others may be reading: they see the old content or the new one.

    Its mode is the usual one, or ``mode`` from the very beginning.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        new = Path(scratch) / file.name
        new.write_bytes(content)
        if mode is not None:  # nobody else could look into the directory until now
            new.chmod(mode)
        new.replace(file)


def _base_directory(variable: str, below_home: str) -> Path:
    named = Path(os.environ.get(variable, ""))
    if named.is_absolute():  # the specification: relative paths are to be ignored
        return named
    try:
        return Path.home() / below_home
    except RuntimeError:  # a container's user without HOME and without an entry in passwd
        return Path("/nonexistent")


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
        """Build the usual path: ``--path`` directories, the user's own, the shipped ones.

        Raises:
            ConfigError: A directory named by the user does not exist.
        """
        for directory in extra:
            if not directory.is_dir():
                raise ConfigError(
                    f"{directory} is not a directory",
                    hint="--path takes a directory that holds templates/ or arch_profiles/",
                )
        return cls((*extra, user_directory(), shipped_directory()))

    def yaml_files(self, kind: str) -> dict[str, Path]:
        """Map the names of all YAML files of one kind (``templates``, ...) to their paths.

        Hidden files are editors' locks and backups.
        """
        found: dict[str, Path] = {}
        for directory in self.directories:
            for path in sorted((directory / kind).glob("[!.]*")):
                if path.suffix in {".yaml", ".yml"}:
                    found.setdefault(path.stem, path)
        return found
