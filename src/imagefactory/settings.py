"""factory.yaml: what this factory is for. Every key of it can be left out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, PrivateAttr, model_validator

from imagefactory import yamlfile
from imagefactory.arch import Name
from imagefactory.data import user_directory
from imagefactory.errors import ConfigError
from imagefactory.glance.target import CloudTarget

FILE = "factory.yaml"
"""Looked for in ``$XDG_CONFIG_HOME/imagefactory`` unless a command names another."""

ALL = "all"
"""In the place of a cloud's name: every cloud of factory.yaml."""


class Settings(yamlfile.Model):
    """What factory.yaml says."""

    clouds: dict[Name, CloudTarget] = Field(
        default={}, description="a name of one's own -> a cloud and how it wants its images"
    )
    _file: Path = PrivateAttr(default_factory=lambda: user_directory() / FILE)

    @model_validator(mode="after")
    def _none_is_called_all(self) -> Settings:
        if ALL in self.clouds:
            raise ValueError(f"clouds: `{ALL}` stands for all of them; give this one another name")
        return self

    @model_validator(mode="after")
    def _lines_differ(self) -> Settings:
        seen: dict[tuple[object, ...], str] = {}
        for name, target in self.clouds.items():
            place = (target.cloud or name, target.region, target.line)
            if place in seen:
                raise ValueError(
                    f"clouds: {seen[place]} and {name} are the same cloud; give one of them a "
                    "`line:`, or each takes the other's images for older builds of its own"
                )
            seen[place] = name
        return self

    @classmethod
    def read(cls, file: Path | None = None) -> Settings:
        """Read a file, or the user's own if there is one.

        Raises:
            ConfigError: It was named and is not there, or cannot be read.
            YamlMistakesError: It has mistakes.
        """
        chosen = file or user_directory() / FILE
        if file is None and not chosen.exists():
            return cls()
        settings = yamlfile.load(chosen, cls)
        settings._file = chosen
        return settings

    def targets(self, names: Sequence[str]) -> dict[str, CloudTarget]:
        """Return the clouds that are named: of this file, else of clouds.yaml as they are.

        Raises:
            ConfigError: All are asked for, and there is none.
        """
        if ALL in names and not self.clouds:
            raise ConfigError(
                "`all` means the clouds of factory.yaml, and it has none",
                hint=f"write them into {self._file}, see docs/glance.md, or name a cloud of "
                "clouds.yaml",
            )
        chosen = [*self.clouds] if ALL in names else list(dict.fromkeys(names))
        return {name: self._target(name) for name in chosen}

    def _target(self, name: str) -> CloudTarget:
        target = self.clouds.get(name, CloudTarget())
        return target if target.cloud else target.model_copy(update={"cloud": name})
