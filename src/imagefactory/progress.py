"""Progress: stages announce themselves; whoever asked decides what a person sees."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


def silent(stage: str, message: str) -> None:
    """Tell nobody."""


@dataclass
class Stages:
    """Times each stage of a build and announces it; seconds by stage are in ``seconds``."""

    announce: Callable[[str, str], None] = silent
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str, message: str) -> Iterator[None]:
        """Run a block as a stage."""
        self.announce(name, message)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - began, 2)
