from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagefactory.sbom import licenses


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("MIT", "MIT"),
        ("mit and Zlib", "MIT AND Zlib"),
        ("GPL-2.0-only WITH Linux-syscall-note", "GPL-2.0-only WITH Linux-syscall-note"),
        ("(MIT OR Apache-2.0) AND LicenseRef-Fedora-Public-Domain",) * 2,
    ],
)
def test_an_expression_of_spdx_is_understood(text: str, expression: str) -> None:
    told = licenses.read(text)
    assert told
    assert str(told.expression) == expression


@pytest.mark.parametrize(
    "text",
    [
        *("GPLv2+ and BSD", "Public Domain", "MIT AND", ")(", "MIT WITH MIT", "none", "A:B"),
        *("LicenseRef-ä", "MIT AND DocumentRef-a:LicenseRef-b", "GPL-2.0-only Linux-syscall-note"),
    ],
)
def test_other_words_stay_words(text: str) -> None:
    told = licenses.read(text)
    assert told
    assert (told.text, told.expression, told.references) == (text, None, ())


def test_licenses_that_are_not_on_the_list_are_named() -> None:
    told = licenses.read("LicenseRef-b AND (MIT OR LicenseRef-a) AND LicenseRef-b")
    assert told
    assert told.references == ("LicenseRef-a", "LicenseRef-b")
    assert licenses.read("") is None


@given(st.text(min_size=1))
@example("(" * 10_000)
@example("MIT AND " * 2_000 + "MIT")
@example("x" * (1 << 20))
def test_whatever_it_says_there_is_a_name_for_it(text: str) -> None:
    told = licenses.read(text)
    assert told
    assert str(licenses.reference(told.own_reference)) == told.own_reference
