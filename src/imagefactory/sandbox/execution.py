"""How a tree's programs are run, in a form that can be told to the process inside."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagefactory.sandbox import attachment
from imagefactory.sandbox.foreign import Foreign, Mechanism
from imagefactory.sandbox.twin import Twin


@dataclass(frozen=True)
class Execution:
    """What the inside of a sandbox must do before it runs a tree's programs; paths are the host's.

    Attributes:
        mechanism: ``native``, ``accelerated`` or ``qemu-user``.
        reason: Why this one.
        registration: What the private binfmt_misc is told; empty: the host's own is used.
        interpreter: The emulator; empty: none is needed.
        twin: The directory of the native twin; empty: there is none.
        left_out: Packages whose programs are emulated although others are not.
    """

    mechanism: Mechanism
    reason: str
    registration: str = ""
    interpreter: str = ""
    twin: str = ""
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, way: Foreign, made: Twin | None) -> Execution:
        """Put together what was chosen and made."""
        return cls(
            way.mechanism,
            way.reason,
            (way.registration or b"").decode("ascii"),
            str(way.interpreter or ""),
            str(made.directory) if made else "",
            made.left_out if made else (),
        )

    def describe(self, architecture: str) -> str:
        """Return what the manifest says."""
        emulated = f"; emulated as well: {', '.join(self.left_out)}" if self.left_out else ""
        return f"{architecture}: {self.mechanism} ({self.reason}{emulated})"

    def begin(self) -> None:
        """Register the interpreter with the namespace's own binfmt_misc (called inside, once).

        Raises:
            BuildError: The kernel refuses.
        """
        if self.registration:
            attachment.register(self.registration.encode("ascii"))

    @contextlib.contextmanager
    def attached(self, tree: Path) -> Iterator[None]:
        """Let a tree's programs find the emulator and the twin for the time of a block.

        Raises:
            BuildError: A mount is refused.
        """
        if not self.interpreter:
            yield
            return
        twin = Path(self.twin) if self.twin else None
        attachment.attach(tree, Path(self.interpreter), twin)
        try:
            yield
        finally:
            attachment.detach(tree)
