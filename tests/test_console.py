from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from imagefactory import console
from imagefactory.console import Board


def on(stream: io.StringIO, **options: object) -> Console:
    return Console(file=stream, highlight=False, **options)  # type: ignore[arg-type]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    stream = io.StringIO()
    monkeypatch.setattr(console, "err", on(stream))
    return lambda: stream.getvalue().splitlines()


def test_progress_is_lines_where_nobody_watches(lines: Callable[[], list[str]]) -> None:
    board = Board(["minimal [x]"])
    with board.running():
        board.announcer("minimal [x]")("disk", "writing [/y]")
        board.announcer("minimal [x]")("boot test: plain", "power on")
        board.end("minimal [x]", "13.1 MB", {"disk": 1.23, "boot test": 4}, well=True)
    told = [line.split(" s  ", 1) for line in lines()]
    assert all(before.startswith("minimal [x]:") for before, _ in told)
    assert [after for _, after in told] == [
        "disk: writing [/y]",
        "boot test: plain: power on",
        "13.1 MB (disk 1.2 s · boot test 4.0 s)",
    ]


def test_a_warning_is_told_once(lines: Callable[[], list[str]]) -> None:
    board = Board(["a", "b"])
    board.warn("it is [old]")
    board.warn("it is [old]")
    assert lines() == ["warning: it is [old]"]


def test_on_a_terminal_each_build_has_a_line_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    monkeypatch.setattr(
        console, "err", on(stream, force_terminal=True, width=72, color_system=None)
    )
    board = Board(["minimal aarch64", "minimal x86_64", "other x86_64"])

    def live() -> list[str]:
        picture = io.StringIO()
        on(picture, width=72).print(board._live())
        return [line.strip() for line in picture.getvalue().splitlines()]

    first, second = board.announcer("minimal aarch64"), board.announcer("minimal x86_64")
    first("tree", "bookworm, " + "files " * 30)
    second("boot test", "a, b")
    second("boot test: a", "kernel")
    second("boot test: b", "login [prompt]")
    one, two, rest = live()
    assert one[1:].startswith("  minimal aarch64  tree")
    assert one.endswith("…  0:00")
    assert "boot test  b: login [prompt]  a: kernel" in two
    assert rest == "waiting: other x86_64"
    second("upload", "50 %")
    assert "kernel" not in live()[1]
    with board.running():
        board.end("minimal x86_64", "14.7 MB", {"tree": 2.0}, well=True)
        board.end("other x86_64", "failed", {}, well=False)
    assert len(live()) == 1
    kept = stream.getvalue()
    assert "✓ minimal x86_64   14.7 MB  tree 2.0 s" in kept
    assert "✗ other x86_64     failed" in kept
