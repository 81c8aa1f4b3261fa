"""How the command line ends: every error a message and a documented exit status."""

from __future__ import annotations

import io
import signal
import sys
from typing import Any, NoReturn

import click

from imagefactory import render, run
from imagefactory.console import discard, err
from imagefactory.errors import INTERRUPTED, ImageFactoryError, of_system

NOBODY_READS = 128 + signal.SIGPIPE
"""Exit status when the reader of standard output went away, as a shell counts it."""


class Commands(click.Group):
    """A group that turns our errors into a message and a documented exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _NobodyReadsError from None

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run a command line to its end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a file's name need not be UTF-8
                stream.reconfigure(errors="surrogateescape")
        kwargs["standalone_mode"] = False
        try:
            status = super().main(*args, **kwargs)
            sys.exit(status if isinstance(status, int) else 0)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            err.print("[bold red]interrupted[/]: what was begun has been cleaned up")
            sys.exit(INTERRUPTED)
        except ImageFactoryError as error:
            complain(error)
            sys.exit(error.exit_code)
        except _NobodyReadsError:
            discard(1)  # or the interpreter would complain about what was not written
            sys.exit(NOBODY_READS)
        except OSError as error:
            complain(of_system(error))
            sys.exit(ImageFactoryError.exit_code)


class _NobodyReadsError(Exception):
    """The reader of standard output went away; click would make of it an error like any other."""


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    run.cancel()
    raise KeyboardInterrupt


def complain(error: ImageFactoryError, subject: str = "") -> None:
    """Tell what failed, of what if that is not plain, what to try and where the log is."""
    message = f"{subject}: {error.message}" if subject else error.message
    err.print(render.error_text(message, error.hint, error.log), soft_wrap=True)
