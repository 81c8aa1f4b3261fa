"""Changes of finished ELF programs, byte for byte, none of which moves anything."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any, Literal

from elftools.elf.elffile import ELFFile

from imagefactory.errors import PackageError


def with_loader(program: bytes, loader: str) -> tuple[bytes, str] | None:
    """Name another loader in an ELF program; return it and the loader that it named before.

    None for what is no dynamic ELF program.

    Raises:
        PackageError: There is no room for the name.
    """
    if program[:4] != b"\x7fELF":
        return None
    elf: Any = ELFFile(io.BytesIO(program))
    for segment in elf.iter_segments("PT_INTERP"):
        start, size = segment["p_offset"], segment["p_filesz"]
        name = loader.encode().ljust(size, b"\0")
        if len(name) != size or name[-1:] != b"\0":
            raise PackageError(f"no room for the loader {loader} in {size} bytes")
        return program[:start] + name + program[start + size :], segment.get_interp_name()
    return None


def retargeted(program: bytes, old: str, new: str) -> bytes | None:
    """Give a program of dpkg another native architecture; None where it is not as expected.

    Expected (dpkg, lib/dpkg/arch.c): the name is one string, and one relative relocation makes
    the one pointer to it (a relocation without a symbol, whose addend is the string's address).
    """
    place = program.find(b"\0" + old.encode() + b"\0") + 1
    if not place or program.find(b"\0" + old.encode() + b"\0", place) >= 0:
        return None
    elf: Any = ELFFile(io.BytesIO(program))
    segments = list(elf.iter_segments("PT_LOAD"))
    home = next((part for part in segments if _holds(part, place)), None)
    table = elf.get_section_by_name(".rela.dyn")
    if home is None or table is None:
        return None
    address = place - home["p_offset"] + home["p_vaddr"]
    hits = [
        number
        for number, entry in enumerate(table.iter_relocations())
        if entry["r_addend"] == address and entry["r_info_sym"] == 0
    ]
    end = home["p_offset"] + home["p_filesz"]
    after = min(
        (part["p_offset"] for part in segments if part["p_offset"] >= end), default=len(program)
    )
    # The rest of the segment's last page is mapped with it; 4096: the smallest page there is.
    room = min(after, -(-end // 4096) * 4096) - end
    name = new.encode() + b"\0"
    if len(hits) != 1 or room < len(name) + 1 or any(program[end : end + len(name) + 1]):
        return None
    # Elf64_Rela: r_offset, r_info, r_addend, eight bytes each; Elf32_Rela: four each.
    width = elf.elfclass // 8
    addend = table["sh_offset"] + hits[0] * table["sh_entsize"] + 2 * width
    changed = bytearray(program)
    changed[end + 1 : end + 1 + len(name)] = name
    new_address = end + 1 - home["p_offset"] + home["p_vaddr"]
    order: Literal["little", "big"] = "little" if elf.little_endian else "big"
    changed[addend : addend + width] = new_address.to_bytes(width, order)
    return bytes(changed)


def searching(program: bytes, directories: Iterable[str], instead: str) -> bytes:
    """Let a program or a loader search one directory in the place of others.

    The directories are strings of its own, each with its end; where they are compiled into the
    loader their lengths stand elsewhere (glibc, elf/dl-load.c: system_dirs, system_dirs_len), so
    what takes their place is as long: slashes fill it up. One that is too short stays.
    """
    for directory in directories:
        old, new = directory.encode(), instead.encode()
        if len(new) <= len(old):
            filled = new.ljust(len(old), b"/")
            program = program.replace(b"\0" + old + b"\0", b"\0" + filled + b"\0")
    return program


def search_paths(program: bytes) -> tuple[str, ...]:
    """Return where an ELF program wants its libraries searched for (DT_RPATH, DT_RUNPATH)."""
    elf: Any = ELFFile(io.BytesIO(program))
    return tuple(
        tag.rpath if tag.entry.d_tag == "DT_RPATH" else tag.runpath
        for segment in elf.iter_segments("PT_DYNAMIC")
        for tag in segment.iter_tags()
        if tag.entry.d_tag in {"DT_RPATH", "DT_RUNPATH"}
    )


def _holds(segment: Any, offset: int) -> bool:
    start: int = segment["p_offset"]
    size: int = segment["p_filesz"]
    return start <= offset < start + size
