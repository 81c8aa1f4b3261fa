from __future__ import annotations

import pytest

from imagefactory.sandbox.attachment import LIBRARIES
from imagefactory.sandbox.elfedit import searching


@pytest.mark.parametrize(
    ("directory", "instead"),
    [
        ("/usr/lib64/", "/.twin/lib/"),
        ("/usr/lib64/systemd", "/.twin/lib////////"),
        ("/usr/lib/x86_64-linux-gnu/", "/.twin/lib////////////////"),
    ],
)
def test_what_is_searched_keeps_its_length(directory: str, instead: str) -> None:
    program = f"\x7fELF\0{directory}\0rest {directory}\0".encode()
    changed = searching(program, [directory], LIBRARIES)
    assert changed == f"\x7fELF\0{instead}\0rest {directory}\0".encode()


def test_a_directory_with_a_short_name_stays() -> None:
    program = b"\0/lib/\0/lib64/\0"
    assert searching(program, ["/lib/", "/lib64/"], LIBRARIES) == program
