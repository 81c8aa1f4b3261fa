"""What a program says of itself in its ELF header: machine, loader, libraries."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from imagefactory.errors import BuildError

MAGIC = b"\x7fELF"

DAMAGE = (
    *(ELFError, ValueError, LookupError, TypeError),
    *(AttributeError, AssertionError, OverflowError, MemoryError),
)
"""What pyelftools raises on damaged files: its own error, and whatever it stumbles over."""


@dataclass(frozen=True)
class Program:
    """A program or library: what it runs on, the path of its loader, the names of its libraries."""

    machine: int
    bits: int
    endian: str
    loader: str | None
    needed: tuple[str, ...]


def inspect(content: bytes) -> Program:
    """Read the header of an ELF file.

    Raises:
        BuildError: It is none, or a damaged one.
    """
    try:
        elf: Any = ELFFile(io.BytesIO(content))
        loaders = [segment.get_interp_name() for segment in elf.iter_segments("PT_INTERP")]
        dynamic = next(elf.iter_segments("PT_DYNAMIC"), None)
        needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")] if dynamic else []
    except DAMAGE as error:
        raise BuildError(f"this is not a whole ELF file: {error}") from None
    # e_machine: two bytes at offset 18 of the header (System V ABI), in the file's own order.
    endian = "little" if elf.little_endian else "big"
    machine = int.from_bytes(content[18:20], "little" if elf.little_endian else "big")
    return Program(machine, elf.elfclass, endian, loaders[0] if loaders else None, tuple(needed))
