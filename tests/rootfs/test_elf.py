from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagefactory.errors import BuildError
from imagefactory.rootfs import elf
from imagefactory.run import run
from tests.rootfs.elves import header_only

SORT = Path("/usr/bin/sort").read_bytes()


def test_a_program_tells_its_loader_and_libraries() -> None:
    program = elf.inspect(SORT)
    needed = {Path(name).name for name in re.findall(r"^\s*(\S+) =>", ldd(), re.MULTILINE)}
    assert set(program.needed) <= needed
    assert program.loader
    assert Path(program.loader).exists()


def ldd() -> str:
    return run(["ldd", "/usr/bin/sort"]).stdout


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_word_size_and_byte_order_are_told(bits: int, endian: str) -> None:
    program = elf.inspect(header_only(21, bits=bits, endian=endian))
    assert (program.machine, program.bits, program.endian) == (21, bits, endian)
    assert (program.loader, program.needed) == (None, ())


@given(st.integers(0, 4000), st.binary(min_size=1, max_size=16))
def test_damage_is_a_named_error(at: int, rubbish: bytes) -> None:
    damaged = SORT[:at] + rubbish + SORT[at + len(rubbish) :]
    with contextlib.suppress(BuildError):
        elf.inspect(damaged)


@given(st.integers(4, len(SORT) - 1))
def test_a_cut_file_is_a_named_error_or_harmless(length: int) -> None:
    with contextlib.suppress(BuildError):
        elf.inspect(SORT[:length])


def test_what_is_no_elf_file_is_told() -> None:
    with pytest.raises(BuildError, match="not a whole ELF file"):
        elf.inspect(b"\x7fELF")
