import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from imagefactory import yamlfile
from imagefactory.errors import ConfigError
from imagefactory.yamlfile import Model, YamlMistakesError


class Part(Model):
    name: str
    size: int = Field(gt=0)


class Whole(Model):
    title: str
    parts: tuple[Part, ...] = ()
    labels: dict[str, str] = Field(default={})
    on: bool = False


Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(content: str | bytes) -> Path:
        path = tmp_path / "file.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


def mistakes_of(path: Path) -> list[str]:
    """The mistakes without the file's name, which each of them must begin with."""
    with pytest.raises(YamlMistakesError) as caught:
        yamlfile.load(path, Whole)
    assert all(told.startswith((f"{path}:", "... ")) for told in caught.value.mistakes)
    assert all(mistake in caught.value.message for mistake in caught.value.mistakes)
    return [mistake.removeprefix(f"{path}:") for mistake in caught.value.mistakes]


def test_a_right_file_becomes_a_frozen_model(write: Write) -> None:
    whole = yamlfile.load(write("title: x\nparts: [{name: a, size: 1}]\non: true\n"), Whole)
    assert whole == Whole(title="x", parts=(Part(name="a", size=1),), on=True)
    with pytest.raises(ValueError, match="frozen"):
        setattr(whole, "title", "y")  # noqa: B010  (mypy knows that it is frozen)


def test_every_mistake_is_told_at_once_with_line_key_and_hint(write: Write) -> None:
    content = """\
titel: x
parts:
  - {name: a, size: 0}
  - name: b
    size: big
  - size: 3
labels:
  version: 12
"""
    assert mistakes_of(write(content)) == [
        "1: titel: unknown key - did you mean 'title'?",
        "1: title: this key is missing",
        "3: parts.0.size: Input should be greater than 0 (it is 0)",
        "5: parts.1.size: Input should be a valid integer (it is 'big')",
        "6: parts.2.name: this key is missing",
        "8: labels.version: Input should be a valid string (it is 12) - put it in quotes",
    ]


def test_a_key_that_is_a_number_has_its_line_too(write: Write) -> None:
    assert mistakes_of(write("title: x\n\n17: y\n")) == ["3: 17: unknown key"]


def test_a_key_that_is_no_word_is_refused_like_any_unknown_one(write: Write) -> None:
    assert mistakes_of(write("title: x\n? {a: b}\n: x\n"))[0].endswith(": unknown key")


def test_anchors_and_merge_keys_work(write: Write) -> None:
    content = """\
title: x
parts:
  - &first {name: a, size: 1}
  - {<<: *first, name: b}
  - *first
"""
    parts = yamlfile.load(write(content), Whole).parts
    assert [(part.name, part.size) for part in parts] == [("a", 1), ("b", 1), ("a", 1)]


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        ("title: x\ntitle: y\n", '2: found duplicate key "title"'),
        ("title: x\nparts: [{name: a, name: b, size: 1}]\n", "2: found duplicate key"),
        ("title: x\n\tparts: 1\n", "2: found character '\\t'"),
        ("title: *nobody\n", "1: found undefined alias"),
        ("title: x\n---\ntitle: y\n", "2: but found another document"),
        ("title: [x\n", "2: expected ',' or ']'"),
        ("", "1: a mapping"),
        ("# only a comment\n", "1: a mapping"),
        ("- a list\n", "1: a mapping"),
        ("<<: 5\n", "1: expected a mapping"),
        ("title: " + "9" * 5000, "1: not readable as YAML: Exceeds the limit"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe", "1: not text in UTF-8 (byte 8)"),
        (b"title: \0\n", "1: not readable as YAML: unacceptable character"),
        ("title: \u00e4\n".encode("latin-1"), "1: not text in UTF-8 (byte 7)"),
        ("title: x\n".encode("utf-16"), "1: not text in UTF-8 (byte 0)"),
    ],
)
def test_what_is_not_yaml_is_named_with_its_line(
    write: Write, content: str | bytes, mistake: str
) -> None:
    (told,) = mistakes_of(write(content))
    assert told.startswith(mistake)


def test_a_byte_order_mark_is_no_mistake(write: Write) -> None:
    assert yamlfile.load(write("\ufefftitle: x\n"), Whole).title == "x"


def laughs(step: str) -> str:
    """A file whose aliases multiply by ten, twelve times over."""
    lines = (f"a{i}: &a{i} " + step.format(i - 1) for i in range(1, 13))
    return "a0: &a0 {x: y}\n" + "\n".join(lines)


TOO_MUCH = {
    "aliases that multiply": laughs("[" + ",".join(["*a{0}"] * 10) + "]"),
    "merges that multiply": laughs("{{<<: [*a{0}, *a{0}], l: [" + ",".join(["*a{0}"] * 10) + "]}}"),
    "aliases that nest": "a0: &a0 [x]\n"
    + "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 3000)),
    "brackets that nest": "title: " + "[" * 5000 + "]" * 5000,
    "lines that nest": "".join(" " * depth + "title:\n" for depth in range(900)),
    "a long list": "title: [" + "x," * 500_000 + "]",
    "many keys": "\n".join(f"key{number}: value" for number in range(80_000)),
    "many unknown keys": "\n".join(f"key{number}: value" for number in range(9_000)),
    "an endless string": 'title: "' + "x" * 1_000_000,
    "more than a mebibyte": "title: " + "x" * (1 << 20),
}


@pytest.mark.parametrize("content", TOO_MUCH.values(), ids=TOO_MUCH.keys())
def test_a_file_that_holds_too_much_is_refused_in_seconds(write: Write, content: str) -> None:
    path = write(content)
    began = time.process_time()
    assert len(mistakes_of(path)) <= yamlfile.MAX_MISTAKES + 1
    assert time.process_time() - began < 5


def test_only_the_first_hundred_mistakes_are_told_and_the_rest_counted(write: Write) -> None:
    with pytest.raises(YamlMistakesError) as caught:
        yamlfile.load(write("".join(f"key{number}: x\n" for number in range(500))), Whole)
    assert len(caught.value.mistakes) == yamlfile.MAX_MISTAKES + 1
    assert caught.value.mistakes[-1] == "... 501 mistakes in all"


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, loop, device])
def test_what_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "file.yaml"
    make(path)
    with pytest.raises(ConfigError, match=r"file\.yaml (is not a file|cannot be read)"):
        yamlfile.load(path, Whole)


def test_a_missing_file_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        yamlfile.load(tmp_path / "nothing.yaml", Whole)


def test_tags_never_run_code(write: Write, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = write(f"title: !!python/object/apply:os.mkdir [{trap}]\n")
    with pytest.raises(YamlMistakesError):
        yamlfile.load(path, Whole)
    assert not trap.exists()


# JSON and YAML differ on what U+0085, U+2028 and U+2029 are: line breaks or not.
PRINTABLE = st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])
YAML_LIKE = st.text(alphabet=" \n\t-:[]{}&*!|>'\"%@#?,<~a1.e\\", max_size=60)


@settings(deadline=None)  # the machine may be busy
@given(content=YAML_LIKE | st.text(max_size=60) | st.binary(max_size=60))
def test_no_content_at_all_brings_the_reader_down(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    path.write_bytes(raw)
    with contextlib.suppress(ConfigError):
        yamlfile.load(path, Whole)


@settings(deadline=None)  # the machine may be busy
@given(
    title=st.text(PRINTABLE, max_size=40),
    labels=st.dictionaries(st.text(PRINTABLE, max_size=10), st.text(PRINTABLE), max_size=5),
)
def test_json_is_read_as_the_yaml_that_it_is(
    tmp_path_factory: pytest.TempPathFactory, title: str, labels: dict[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "back.yaml"
    whole = Whole(title=title, labels=labels)
    path.write_text(json.dumps(whole.model_dump(), ensure_ascii=False), encoding="utf-8")
    assert yamlfile.load(path, Whole) == whole
