"""What a program says of itself in its ELF header: machine, loader, libraries."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"


@dataclass(frozen=True)
class Program:
    """A program or library: e_machine, the path of its loader, the names of its libraries."""

    machine: int
    loader: str | None
    needed: tuple[str, ...]


def inspect(content: bytes) -> Program:
    """Read the header of an ELF file."""
    elf: Any = ELFFile(io.BytesIO(content))
    loaders = [segment.get_interp_name() for segment in elf.iter_segments("PT_INTERP")]
    dynamic = next(elf.iter_segments("PT_DYNAMIC"), None)
    needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")] if dynamic else []
    # e_machine: two bytes at offset 18 of the header (System V ABI), in the file's own order.
    machine = int.from_bytes(content[18:20], "little" if elf.little_endian else "big")
    return Program(machine, loaders[0] if loaders else None, tuple(needed))
