"""Kinds of words in YAML files: what each may look like, and what to tell those that do not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class Shape:
    """What a word must look like.

    Attributes:
        pattern: A regular expression for the whole of it.
        wanted: The same for people, who are not shown the expression.
    """

    pattern: str
    wanted: str

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"{self.wanted} is expected")
        return text

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Let pydantic check a word."""
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Tell editors."""
        return {**handler(schema), "pattern": f"^({self.pattern})$", "description": self.wanted}


TreePath = Annotated[
    str, Shape(r"(?!/)(?!(.*/)?\.\.(/|$)).+", "a path inside the tree, without a slash first or ..")
]

Beside = Annotated[
    str,
    Shape(
        r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*)*",
        "a path beside the template, without a slash first, .., or blanks",
    ),
]

CpuLevelName = Annotated[
    str, Shape(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", "the name of a CPU level, like x86-64-v3,")
]

Unit = Annotated[str, Shape(r"-?[A-Za-z0-9:_.@][A-Za-z0-9:_.@-]*", "the name of a systemd unit")]
"""A unit (``-.mount`` is one), and no option of systemctl."""

PathGlob = Annotated[
    str, Shape(r"/[^\s,'\"]+", "a path from / on (* and ? are wildcards), without blanks or quotes")
]

PackageName = Annotated[
    str,
    Shape(
        r"[a-z0-9][a-z0-9+.-]+|\?[a-z]+(\([a-z]+\))?",
        "a package's name (no version or suite), or a pattern like ?essential,",
    ),
]
"""A package, or one of apt's patterns (apt-patterns(7)) such as ``?essential``."""

Word = Annotated[str, Shape(r"[A-Za-z0-9][A-Za-z0-9./_+~-]*", "one word of an apt sources list")]
"""Blanks, brackets and line ends would say something else there."""

Suite = Annotated[
    str,
    Shape(
        r"[A-Za-z0-9][A-Za-z0-9./_+~-]*|\./",
        "a suite's name, or ./ for a repository that is one directory,",
    ),
]

Address = Annotated[
    str,
    Shape(r"(https?|file|ftp)://[^\s\[\]]+", "an address (http://, https://, ftp:// or file://)"),
]

Mode = Annotated[str, Shape(r"[0-7]{3,4}", "an octal mode like 0755, in quotes,")]

Owner = Annotated[str, Shape(r"[a-z0-9_-]+:[a-z0-9_-]+", "USER:GROUP")]

Answer = Annotated[str, Shape(r"\S+[ \t]+\S+[ \t]+\S+([ \t].*)?", "PACKAGE QUESTION TYPE ANSWER")]
"""A line for debconf-set-selections(1)."""

Locale = Annotated[
    str, Shape(r"[A-Za-z_]+(\.[A-Za-z0-9-]+)?(@[a-z]+)?", "a locale like de_DE.UTF-8")
]

TimeZone = Annotated[str, Shape(r"[A-Za-z0-9_+/-]+", "a time zone like Europe/Berlin")]

PasswordHash = Annotated[
    str,
    Shape(
        r"\$[0-9a-z]+\$[^:\s]+",
        "a password's hash (crypt(5), as `openssl passwd -6` prints it) and not the password",
    ),
]
