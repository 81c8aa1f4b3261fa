"""YAML files become frozen models; every mistake is told with its file, line, key and a hint."""

from __future__ import annotations

import difflib
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from imagefactory.errors import ConfigError

EXTENDS = "extends"
"""The key by which a file builds upon another one of its kind."""

MAX_BYTES = 1 << 20
MAX_NODES = 20_000
MAX_DEPTH = 64
"""Bounds on what a YAML file may hold as written, and again once its aliases are followed (a
"billion laughs" file). They are far above any real file and keep the slowest one near a second.
"""

MAX_MISTAKES = 100
"""Mistakes that are told one by one; a file with more is not a template gone wrong."""

M = TypeVar("M", bound=BaseModel)

Parent = Callable[[str, Path], Path]


class Model(BaseModel):
    """The base of everything read from YAML: unknown keys refused, values frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class YamlMistakesError(ConfigError):
    """A YAML file does not say what it should; the message lists all mistakes at once."""

    def __init__(self, path: Path, mistakes: list[str]) -> None:
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(
            f"{path}: {count}\n" + "\n".join(mistakes),
            hint="`imagefactory schema template` (or arch-profile, or factory) prints the JSON "
            "Schema that editors complete from",
        )
        self.mistakes = tuple(mistakes)


def load(path: Path, model: type[M], parent: Parent | None = None) -> M:
    """Read one YAML file into a model.

    Args:
        path: The file.
        model: What it should hold.
        parent: Finds the file that ``extends: NAME`` names, told the name and the file that
            says so. The extending file's mappings are merged into that one's, key by key;
            everything else replaces what was there.

    Raises:
        YamlMistakesError: The file is not YAML, or not what the model asks for.
        ConfigError: The file cannot be read.
    """
    raw = _read(path)
    try:
        # JSON mode lets strict models take lists for tuples.
        return model.model_validate_json(json.dumps(_with_parents(path, raw, parent)))
    except _TooMuchError as error:
        raise YamlMistakesError(path, [f"{path}:1: {error}"]) from None
    except ValidationError as error:
        raise YamlMistakesError(path, _mistakes(path, raw, model, error)) from None


def _with_parents(path: Path, raw: CommentedMap, parent: Parent | None) -> dict[str, Any]:
    content: dict[str, Any] = _plain(raw, iter(range(MAX_NODES)))
    seen = [path]
    while parent and isinstance(content.get(EXTENDS), str):
        file = parent(content.pop(EXTENDS), seen[-1])
        if file in seen:
            raise YamlMistakesError(path, [f"{path}:1: {EXTENDS}: {file} extends itself"])
        seen.append(file)
        content = _merged(_plain(_read(file), iter(range(MAX_NODES))), content)
    return content


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            both[key] = _merged(below[key], above[key])
    return both


class _TooMuchError(ValueError):
    """A file holds more than a person would write."""


class _BoundedComposer(Composer):
    """Stops reading at the first value too many, before memory and time are spent on it."""

    nodes = depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        self.depth += 1
        _check_bounds(self.nodes, self.depth)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _check_bounds(nodes: int, depth: int) -> None:
    if nodes > MAX_NODES:
        raise _TooMuchError(f"more than {MAX_NODES} values")
    if depth > MAX_DEPTH:
        raise _TooMuchError(f"nested more than {MAX_DEPTH} deep")


def _read(path: Path) -> CommentedMap:
    text = _text(path)
    yaml = YAML(typ="rt")
    yaml.Composer = _BoundedComposer
    try:
        raw = yaml.load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = _first_line(error.problem)
        raise YamlMistakesError(path, [f"{path}:{line}: {problem}"]) from None
    # Beside its own errors the parser lets slip what its constructors stumble over.
    except (YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = f"not readable as YAML: {_first_line(str(error))}"
        raise YamlMistakesError(path, [f"{path}:1: {problem}"]) from None
    if not isinstance(raw, CommentedMap):
        raise YamlMistakesError(path, [f"{path}:1: a mapping (key: value) is expected"])
    return raw


def _first_line(text: str | None) -> str:
    return next(iter((text or "").strip().splitlines()), "not YAML")


def _text(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a FIFO or a device would never end
            raise ConfigError(f"{path} is not a file")
        if status.st_size > MAX_BYTES:
            raise YamlMistakesError(path, [f"{path}:1: larger than {MAX_BYTES} bytes"])
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        problem = f"not text in UTF-8 (byte {error.start})"
        raise YamlMistakesError(path, [f"{path}:1: {problem}"]) from None


def _plain(value: Any, budget: Iterator[int], depth: int = 1) -> Any:
    _check_bounds(next(budget, MAX_NODES) + 1, depth)
    if isinstance(value, dict):
        return {_word(key): _plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, budget, depth + 1) for item in value]
    if isinstance(value, bool | None):
        return value
    for plain in (int, float):
        if isinstance(value, plain):
            return plain(value)
    return _word(value)


def _word(value: Any) -> str:
    """Half a surrogate pair (an escape can write one) fits no encoding: it becomes a mark."""
    return str(value).encode("utf-8", "replace").decode()


def _mistakes(
    path: Path, raw: CommentedMap, model: type[BaseModel], error: ValidationError
) -> list[str]:
    details = sorted(
        ((_line_of(raw, detail["loc"]), detail) for detail in error.errors(include_url=False)),
        key=lambda located: (located[0], [str(part) for part in located[1]["loc"]]),
    )[:MAX_MISTAKES]
    known = _all_keys(model)
    mistakes = [f"{path}:{line}: {_describe(known, detail)}" for line, detail in details]
    mistakes = list(dict.fromkeys(mistakes))
    if error.error_count() > MAX_MISTAKES:
        mistakes.append(f"... {error.error_count()} mistakes in all")
    return mistakes


def _describe(known: set[str], detail: ErrorDetails) -> str:
    location = _location(detail["loc"])
    unknown = detail["type"] == "extra_forbidden"
    if unknown:
        location[-1:] = detail["loc"][-1:]  # the user's own word, whatever it looks like
    key = ".".join(map(str, location)) or "(file)"
    message, hint = detail["msg"].removeprefix("Value error, "), ""
    given = detail.get("input")
    if unknown:
        message = "unknown key"
        close = _closest(str(location[-1]), known)
        hint = f"did you mean {close!r}?" if close else ""
    elif detail["type"] == "missing":
        message = "this key is missing"
    elif isinstance(given, str | int | float) and "password" not in key:
        message += f" (it is {_shortened(repr(given))})"
        if detail["type"] == "string_type":
            hint = "put it in quotes"
    return f"{key}: {message}" + (f" - {hint}" if hint else "")


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _location(parts: tuple[str | int, ...]) -> list[str | int]:
    return [part for part in parts if not _is_union_tag(part)]


def _is_union_tag(part: str | int) -> bool:
    return isinstance(part, str) and ("[" in part or part.startswith("function-"))


def _line_of(raw: Any, parts: tuple[str | int, ...]) -> int:
    """The line of the innermost key that is written down; merged keys have none of their own."""
    line, node = 1, raw
    for part in _location(parts):
        try:
            if isinstance(node, CommentedMap):
                key = part if part in node else next(k for k in node if _word(k) == part)
                line, node = node.lc.key(key)[0] + 1, node[key]
            elif isinstance(node, CommentedSeq) and isinstance(part, int):
                line, node = node.lc.item(part)[0] + 1, node[part]
            else:
                break
        except (LookupError, TypeError, StopIteration):
            break
    return line


def _closest(word: str, known: set[str]) -> str:
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1)), "")


def _all_keys(model: type[BaseModel]) -> set[str]:
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return {key for part in parts for key in part.get("properties", {})}
