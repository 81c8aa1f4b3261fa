"""Rows, the ratios between them, and the table that shows both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.bench.measure import Figure, median

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Row:
    """One thing that was measured, or that could not be.

    Attributes:
        key: What other rows call it by.
        what: What a reader calls it.
        figures: One of each round; none: it was not measured, and the note says why.
        size: Bytes of what was made.
        against: Labels and keys of the rows that it is compared with.
        sizes: Compare the sizes too.
        note: What must be known to read the row.
        failed: It should have come out otherwise.
    """

    key: str
    what: str
    figures: tuple[Figure, ...] = ()
    size: int | None = None
    against: tuple[tuple[str, str], ...] = ()
    sizes: bool = False
    note: str = ""
    failed: bool = False

    @property
    def figure(self) -> Figure | None:
        """The median of the rounds."""
        return median(self.figures) if self.figures else None


@dataclass(frozen=True)
class Ratio:
    """How a row compares with another: times as long, and times as large."""

    label: str
    seconds: float
    size: float | None = None

    def __str__(self) -> str:
        size = "" if self.size is None else f" ({self.size:.2f}{TIMES} the size)"
        return f"**{self.seconds:.2f}{TIMES}** {self.label}{size}"


@dataclass(frozen=True)
class Group:
    """Rows under one heading."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)


def ratios(row: Row, rows: Iterable[Row]) -> Iterator[Ratio]:
    """Yield the ratios of a row to those it names, as far as both were measured."""
    known = {other.key: other for other in rows}
    for label, key in row.against:
        other = known.get(key)
        if row.figure is None or other is None or other.figure is None:
            continue
        size = row.size / other.size if row.sizes and row.size and other.size else None
        yield Ratio(label, row.figure.seconds / other.figure.seconds, size)


def markdown(groups: Sequence[Group]) -> str:
    """Return one table of all groups, and the notes below it."""
    every = [row for group in groups for row in group.rows]
    notes: list[str] = []
    lines = ["| | clock | CPU | MB | rounds | ratio |", "|---|--:|--:|--:|--:|---|"]
    for group in groups:
        lines.append(f"| **{group.title}** | | | | | |")
        lines += [_line(row, every, notes) for row in group.rows]
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    return "\n".join(lines).rstrip() + "\n"


def plain(row: Row, rows: Iterable[Row]) -> str:
    """Return a row as a person who waits for it reads it."""
    figure = row.figure
    if figure is None:
        return f"{row.what}: {row.note}"
    shown = ", ".join(str(ratio).replace("**", "") for ratio in ratios(row, rows))
    size = "" if row.size is None else f"{row.size / 1e6:9.1f} MB"
    times = f"{figure.seconds:8.2f} s {figure.processor:8.2f} s CPU"
    return f"{row.what:58} {times}{size}  {shown}".rstrip()


def facts(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return everything for programs to read."""
    every = [row for group in groups for row in group.rows]
    return [
        {
            "group": group.name,
            "key": row.key,
            "what": row.what,
            "seconds": row.figure.seconds if row.figure else None,
            "processor_seconds": row.figure.processor if row.figure else None,
            "rounds": [[figure.seconds, figure.processor] for figure in row.figures],
            "size": row.size,
            "ratios": {
                ratio.label: {"seconds": ratio.seconds, "size": ratio.size}
                for ratio in ratios(row, every)
            },
            "note": row.note,
            "failed": row.failed,
        }
        for group in groups
        for row in group.rows
    ]


def _line(row: Row, rows: Sequence[Row], notes: list[str]) -> str:
    mark = ""
    if row.note and row.figures:
        if row.note not in notes:
            notes.append(row.note)
        mark = f" [{notes.index(row.note) + 1}]"
    figure = row.figure
    if figure is None:
        return f"| {row.what} | | | | | {_cell(row.note)} |"
    size = "" if row.size is None else f"{row.size / 1e6:.1f}"
    shown = "; ".join(map(str, ratios(row, rows)))
    times = f"{figure.seconds:.2f} s | {figure.processor:.2f} s"
    return f"| {row.what}{mark} | {times} | {size} | {len(row.figures)} | {shown} |"


def _cell(text: str) -> str:
    """Keep a message within its cell."""
    return " ".join(text.replace("|", "\\|").split())
