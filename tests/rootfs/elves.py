"""Small ELF files made by hand: kernel modules with a .modinfo section, programs."""

from __future__ import annotations

import struct


def module(**modinfo: str) -> bytes:
    """A relocatable x86_64 file that holds nothing but .modinfo."""
    info = b"".join(f"{key}={value}".encode() + b"\0" for key, value in modinfo.items())
    names = b"\0.modinfo\0.shstrtab\0"
    at_info, at_names = 64, 64 + len(info)
    at_table = at_names + len(names)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, at_table, 0, 64, 0, 0, 64, 3, 2)
    table = bytes(64)
    table += struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, at_info, len(info), 0, 0, 1, 0)
    table += struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, at_names, len(names), 0, 0, 1, 0)
    return header + info + names + table


def header_only(machine: int, *, bits: int = 64, endian: str = "little") -> bytes:
    """A program without segments."""
    order = "<" if endian == "little" else ">"
    word = "Q" if bits == 64 else "I"
    size = 64 if bits == 64 else 52
    start = bytes([0x7F, *b"ELF", 2 if bits == 64 else 1, 1 if endian == "little" else 2, 1])
    fields = struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH", 2, machine, 1, 0, 0, 0, 0, size, 0, 0, 0, 0, 0
    )
    return start + bytes(9) + fields
