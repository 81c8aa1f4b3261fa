"""YAML files become frozen models; every mistake is told with its file, line, key and a hint."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from imagefactory.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_NODES = 50_000
"""Bounds on what a YAML file may hold once its aliases are followed (a "billion laughs" file)."""

M = TypeVar("M", bound=BaseModel)


class Model(BaseModel):
    """The base of everything read from YAML: unknown keys refused, values frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class YamlMistakesError(ConfigError):
    """A YAML file does not say what it should; the message lists all mistakes at once."""

    def __init__(self, path: Path, mistakes: list[str]) -> None:
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(
            f"{path}: {count}\n" + "\n".join(mistakes),
            hint="`imagefactory schema` prints the JSON Schema that editors complete from",
        )
        self.mistakes = tuple(mistakes)


def load(path: Path, model: type[M]) -> M:
    """Read one YAML file into a model.

    Raises:
        YamlMistakesError: The file is not YAML, or not what the model asks for.
    """
    raw = _read(path)
    try:
        plain = _plain(raw, iter(range(MAX_NODES)))
    except StopIteration:
        raise YamlMistakesError(path, [f"{path}:1: more than {MAX_NODES} values"]) from None
    try:
        return model.model_validate_json(_to_json(plain))
    except ValidationError as error:
        mistakes = [_describe(path, raw, model, detail) for detail in error.errors()]
        raise YamlMistakesError(path, sorted(set(mistakes), key=_line_number)) from None


def _read(path: Path) -> CommentedMap:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise YamlMistakesError(path, [f"{path}:1: larger than {MAX_BYTES} bytes"])
        text = path.read_text(encoding="utf-8")
        raw = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = (error.problem or "not YAML").strip().splitlines()[0]
        raise YamlMistakesError(path, [f"{path}:{line}: {problem}"]) from None
    except (YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise YamlMistakesError(path, [f"{path}:1: not readable as YAML: {error}"]) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(raw, CommentedMap):
        raise YamlMistakesError(path, [f"{path}:1: a mapping (key: value) is expected"])
    return raw


def _plain(value: Any, budget: Iterator[int]) -> Any:
    next(budget)
    if isinstance(value, dict):
        return {str(key): _plain(item, budget) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, budget) for item in value]
    if isinstance(value, bool | None):
        return value
    for plain in (int, float):
        if isinstance(value, plain):
            return plain(value)
    return str(value)


def _to_json(plain: Any) -> str:
    import json  # noqa: PLC0415  (JSON mode lets strict models take lists for tuples)

    return json.dumps(plain)


def _describe(path: Path, raw: CommentedMap, model: type[BaseModel], detail: ErrorDetails) -> str:
    location = [part for part in detail["loc"] if not _is_union_tag(part)]
    line = _line_of(raw, location)
    key = ".".join(str(part) for part in location) or "(file)"
    message, hint = detail["msg"].removeprefix("Value error, "), ""
    if detail["type"] == "extra_forbidden":
        message = "unknown key"
        hint = _closest(str(location[-1]), _all_keys(model))
    elif detail["type"] == "missing":
        message = "this key is missing"
    elif isinstance(detail.get("input"), str | int | float):
        message += f" (it is {detail['input']!r})"
    return f"{path}:{line}: {key}: {message}" + (f" - did you mean {hint!r}?" if hint else "")


def _is_union_tag(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part.startswith("function-"))


def _line_of(raw: Any, location: list[str | int]) -> int:
    line, node = 1, raw
    for part in location:
        try:
            if isinstance(node, CommentedMap) and part in node:
                line = node.lc.key(part)[0] + 1
            elif isinstance(node, CommentedSeq) and isinstance(part, int):
                line = node.lc.item(part)[0] + 1
            else:
                break
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
    return line


def _line_number(mistake: str) -> int:
    return int(mistake.split(":", 2)[1]) if mistake.split(":", 2)[1].isdigit() else 0


def _closest(word: str, known: set[str]) -> str:
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1)), "")


def _all_keys(model: type[BaseModel]) -> set[str]:
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return {key for part in parts for key in part.get("properties", {})}
