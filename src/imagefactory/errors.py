"""Named errors: what failed, what to try, where the log is, and the exit code of each.

The exit codes are a documented interface (README, "Exit codes"): scripts rely on them.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Sequence
from pathlib import Path

INTERRUPTED = 130
"""Exit status after Ctrl-C or SIGTERM, as a shell counts it."""


class ImageFactoryError(Exception):
    """Something went wrong that a person can act upon.

    Args:
        message: What failed, in one sentence.
        hint: What to try next.
        log: The file that holds the whole story.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", log: Path | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log


class ConfigError(ImageFactoryError):
    """A YAML file, an option or a name given by the user is wrong."""

    exit_code = 3


class UnknownNameError(ConfigError):
    """An image, architecture or build was named that does not exist."""

    def __init__(self, kind: str, name: str, known: Sequence[str], *, where: str = "") -> None:
        close = difflib.get_close_matches(name, known, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        super().__init__(
            f"{where}{': ' if where else ''}no {kind} is called {name!r}",
            hint=f"{guess}known: {', '.join(known) or 'none'}",
        )


class HostError(ImageFactoryError):
    """This host lacks a tool, a firmware or a kernel feature that the work needs."""

    exit_code = 4


class PackageError(ImageFactoryError):
    """A package, or an image of others, could not be found, fetched or verified."""

    exit_code = 5


class BuildError(ImageFactoryError):
    """An image could not be put together."""

    exit_code = 6


class CommandError(BuildError):
    """An external program failed, or took longer than its time budget."""


class BootTestError(ImageFactoryError):
    """An image did not prove itself in its boot test."""

    exit_code = 7


class CloudError(ImageFactoryError):
    """Glance or Keystone refused, or the cloud's answer was not what was sent."""

    exit_code = 8
    transient = False
    """Whether the same may succeed in a moment: the wire, or the cloud's own trouble."""


class PropertyError(ConfigError):
    """An image property is unknown to nova or has a value that nova rejects."""


def of_system(error: OSError) -> ImageFactoryError:
    """Make an error that people can act upon of one of the operating system's."""
    where = f"{error.filename}: " if error.filename else ""
    hint = "make room on the disk" if error.errno == errno.ENOSPC else ""
    return ImageFactoryError(f"{where}{error.strerror or error}", hint=hint)
