"""`python -m imagefactory` is `imagefactory`."""

from __future__ import annotations

import os
import signal

from imagefactory.errors import INTERRUPTED


def main() -> None:
    """Run the command line; Ctrl-C ends it quietly even while it is still being loaded."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(INTERRUPTED))  # nothing was begun yet
    from imagefactory.cli import main as command_line  # noqa: PLC0415

    command_line(prog_name="imagefactory")


if __name__ == "__main__":
    main()
