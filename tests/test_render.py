from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from imagefactory import render
from imagefactory.data import shipped_directory


def shown(value: object, width: int = 200) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(value)
    return stream.getvalue()


@pytest.mark.parametrize("text", ["[/foo]", "[bold]x[/bold]", "[IP: 192.0.2.1 80]", "a\\"])
def test_what_looks_like_markup_is_printed_as_it_stands(text: str) -> None:
    assert text in shown(render.error_text(text, "", None))
    assert text in shown(render.error_text("m", "h", Path("/tmp") / text))
    checks = [{"name": text, "verdict": "failed", "detail": text}]
    assert (
        shown(render.report_table([{"name": "x", "checks": checks, "milestones": {}}])).count(text)
        == 2
    )


def test_a_second_boot_stands_behind_the_first_and_comparisons_at_the_end() -> None:
    case = {"name": "x", "checks": [], "milestones": {"second ssh": 5.0, "ssh": 9.0, "login": 8.0}}
    shared = {"name": "different machine-ids", "verdict": "failed", "detail": "one and other"}
    text = shown(render.report_table([case], [shared]))
    assert "login 8.0 s, ssh 9.0 s, second ssh 5.0 s" in text
    assert "all boots" in text.splitlines()[-2]


def test_an_error_tells_what_to_do_and_where_to_look() -> None:
    assert shown(render.error_text("what", "how", Path("/var/where"))) == (
        "error: what\nhint:  how\nlog:   /var/where\n"
    )


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.0 MB"), (1_234_567, "1.2 MB"), (5 * 10**9, "5000.0 MB")]
)
def test_sizes_are_megabytes(value: int, text: str) -> None:
    assert render.megabytes(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0, "0.0 s"), (12.34, "12.3 s")])
def test_durations(value: float | None, text: str) -> None:
    assert render.seconds(value) == text


def test_a_build_that_failed_stands_in_the_table_with_its_reason() -> None:
    table = shown(render.builds_table([("small", "x86_64", "no [kernel]\nat all")]))
    assert "small x86_64 - - failed: no [kernel]" in " ".join(table.split())
    assert "at all" not in table


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (25_000_000, "25 MB"), (2 * 10**10, "20.0 GB")]
)
def test_sizes_have_the_unit_that_suits_them(size: int, text: str) -> None:
    assert render.gigabytes(size) == text


def test_json_takes_paths() -> None:
    assert json.loads(render.to_json({"b": Path("/x"), "a": 1})) == {"a": 1, "b": "/x"}


@pytest.mark.parametrize("width", [80, 60])
def test_names_of_images_are_whole_on_narrow_terminals(width: int) -> None:
    names = {file.stem for file in (shipped_directory() / "templates").glob("*.yaml")}
    table = render.list_table([(name, "aarch64", None) for name in names])
    assert names <= {line.split()[0] for line in shown(table, width).splitlines() if line.strip()}
