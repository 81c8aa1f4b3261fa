"""The terminal: progress on stderr, results on stdout; plain lines where nobody watches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Announcer:
    """Tells what a build is doing: a moving line on a terminal, lines elsewhere."""

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._status = err.status(f"[bold]{escape(subject)}[/] ...")
        self._began = time.monotonic()

    def __call__(self, stage: str, message: str) -> None:
        """Announce a stage, or what happens within it."""
        elapsed = time.monotonic() - self._began
        line = f"[bold]{escape(self._subject)}[/]  {escape(stage)}: {escape(message)}"
        err.print(f"[dim]{elapsed:6.1f} s[/]  {line}")
        self._status.update(line)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Show the moving line while a block runs."""
        if not err.is_terminal:
            yield
            return
        with self._status:
            yield


@contextlib.contextmanager
def transfer(description: str) -> Iterator[Progress]:
    """Show a progress bar with rate and remaining time."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        progress.add_task(description)
        yield progress
