"""What a License tag of RPM says: an expression of SPDX, or words that only people understand."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache

from license_expression import (
    ExpressionError,
    LicenseExpression,
    Licensing,
    build_spdx_licensing,
    get_license_index,
)

_LONGEST = 1 << 14
"""Characters that an expression may have; a kernel's has 4,000."""

_FOREIGN = "LicenseRef-"

_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
"""SPDX 2.3, annex D: a license that is not on the SPDX License List."""


@dataclass(frozen=True)
class License:
    """One license tag.

    Attributes:
        text: As the package has it.
        expression: Of SPDX, parsed; None: the text is none.
    """

    text: str
    expression: LicenseExpression | None = None

    @property
    def references(self) -> tuple[str, ...]:
        """Those licenses of the expression that the SPDX License List has not."""
        if self.expression is None:
            return ()
        keys = _licensing().license_keys(self.expression)
        return tuple(sorted({key for key in keys if _REFERENCE.fullmatch(key)}))

    @property
    def own_reference(self) -> str:
        """What a document calls a license that is no expression."""
        return f"LicenseRef-{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"


@cache
def read(text: str) -> License | None:
    """Understand a tag; None if it is empty."""
    if not text:
        return None
    return License(text, _parsed(text) if len(text) <= _LONGEST else None)


def reference(key: str) -> LicenseExpression:
    """Return the expression that is nothing but a reference."""
    return _licensing().parse(key)


def _parsed(text: str) -> LicenseExpression | None:
    try:
        expression = _licensing().parse(text, strict=True)
        unknown = _licensing().unknown_license_keys(expression)
    except (ExpressionError, ValueError, RecursionError):
        return None
    return None if any(not _REFERENCE.fullmatch(key) for key in unknown) else expression


@cache
def _licensing() -> Licensing:
    """Know the SPDX License List, and nothing that others call a license by a reference."""
    keys = ("spdx_license_key", "other_spdx_license_keys")
    index = [
        {**one, keys[1]: [key for key in one.get(keys[1]) or () if not key.startswith(_FOREIGN)]}
        for one in get_license_index()
        if not (one.get(keys[0]) or _FOREIGN).startswith(_FOREIGN)
    ]
    return build_spdx_licensing(index)
