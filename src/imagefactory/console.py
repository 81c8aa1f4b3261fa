"""The terminal: progress on stderr, results on stdout; plain lines where nobody watches."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


class _Results(Console):
    """Standard output; that nobody reads it any more is for the command line to know."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _Messages(Console):
    """Standard error; that nobody reads it is no reason to stop a build."""

    def on_broken_pipe(self) -> None:
        discard(2)


def discard(descriptor: int) -> None:
    """Let what is written to a stream, from now on and until the very end, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


_UNWATCHED_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
"""Columns where nobody watches: a line of a table shall be one line for `grep`."""

out = _Results(highlight=False, width=_UNWATCHED_WIDTH)
err = _Messages(stderr=True, highlight=False)


def say(text: str) -> None:
    """Print one line of a result as it stands: not wrapped, brackets no markup."""
    out.print(text, soft_wrap=True, markup=False)


@dataclass
class _Row:
    """What one subject is doing; parts run side by side within a stage."""

    subject: str
    began: float | None = None
    ended: bool = False
    stage: str = ""
    message: str = ""
    parts: dict[str, str] = field(default_factory=dict)
    spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))

    @property
    def elapsed(self) -> float:
        return 0.0 if self.began is None else time.monotonic() - self.began

    def announce(self, stage: str, message: str) -> None:
        if self.began is None:
            self.began = time.monotonic()
        stage, _, part = stage.partition(": ")
        if stage != self.stage:
            self.parts.clear()
        self.stage = stage
        if part:  # the latest first: there may not be room for all
            self.parts.pop(part, None)
            self.parts = {part: message, **self.parts}
        else:
            self.message = message

    @property
    def doing(self) -> str:
        parts = [f"{part}: {message}" for part, message in self.parts.items()]
        return "  ".join(parts) or self.message


class Board:
    """Tells what builds are doing: a live line for each on a terminal, lines elsewhere.

    Args:
        subjects: What is to be done, each with a name of its own.
    """

    def __init__(self, subjects: Sequence[str]) -> None:
        self._rows = {subject: _Row(subject) for subject in subjects}
        self._width = max(map(len, subjects), default=0)
        self._lock = threading.Lock()
        self._warnings: set[str] = set()
        self._watched = err.is_terminal and not err.is_dumb_terminal

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Show the live lines while a block runs."""
        if not self._watched:
            yield
            return
        with Live(
            get_renderable=self._live,
            console=err,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            yield

    def announcer(self, subject: str) -> Callable[[str, str], None]:
        """Return what a subject announces its stages with, and what happens within them.

        A stage may be ``STAGE: PART``, for parts that run side by side.
        """
        row = self._rows[subject]

        def announce(stage: str, message: str) -> None:
            with self._lock:
                row.announce(stage, message)
            if not self._watched:
                self._line(row, f"{stage}: {message}")

        return announce

    def end(self, subject: str, result: str, seconds: Mapping[str, float], *, well: bool) -> None:
        """Let a subject's live line give way to one that stays: what came out, what took long."""
        row = self._rows[subject]
        with self._lock:
            row.ended = True
        times = " · ".join(f"{stage} {value:.1f} s" for stage, value in seconds.items())
        if not self._watched:
            self._line(row, f"{result} ({times})" if times else result)
            return
        mark = ("[green]✓[/]" if well else "[red]✗[/]") if not err.options.ascii_only else "-"
        name = escape(f"{subject:{self._width}}")
        err.print(f"{mark} [bold]{name}[/]  {escape(result)}  [dim]{times}[/]", soft_wrap=True)

    def warn(self, text: str) -> None:
        """Tell of what is not as it should be, once for all subjects."""
        with self._lock:
            known = text in self._warnings
            self._warnings.add(text)
        if not known:
            err.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)

    def _line(self, row: _Row, text: str) -> None:
        subject = f"[bold]{escape(row.subject)}[/]"
        err.print(f"{subject}: [dim]{row.elapsed:6.1f} s[/]  {escape(text)}", soft_wrap=True)

    def _live(self) -> RenderableType:
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(style="bold", no_wrap=True, min_width=self._width)
        table.add_column(style="cyan", no_wrap=True, min_width=9)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        table.add_column(style="dim", justify="right", no_wrap=True)
        with self._lock:
            rows = list(self._rows.values())
            for row in rows:
                if row.began is not None and not row.ended:
                    stage, doing = Text(row.stage), Text(row.doing)
                    clock = f"{int(row.elapsed) // 60}:{int(row.elapsed) % 60:02}"
                    table.add_row(row.spinner, Text(row.subject), stage, doing, clock)
            waiting = [row.subject for row in rows if row.began is None and not row.ended]
        if not waiting:
            return table
        text = Text(f"  waiting: {', '.join(waiting)}", style="dim", no_wrap=True)
        text.overflow = "ellipsis"
        return Group(table, text)


@contextlib.contextmanager
def transfers() -> Iterator[Callable[[str], AbstractContextManager[Callable[[int, int], None]]]]:
    """Show progress bars with rate and remaining time, one for each name that is asked for.

    Each is told bytes sent and in all.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:

        @contextlib.contextmanager
        def one(name: str) -> Iterator[Callable[[int, int], None]]:
            task = progress.add_task(escape(name), total=None)
            yield lambda sent, total: progress.update(task, completed=sent, total=total)

        yield one
