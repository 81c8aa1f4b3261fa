"""Checksums as people publish them beside images: SHA256SUMS, CHECKSUM, DIGEST.sha512."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path

from imagefactory.vendor.errors import VendorError

_ALGORITHMS = {64: "sha256", 96: "sha384", 128: "sha512"}
"""Hexadecimal digits -> the algorithm; shorter ones can be forged and count for nothing."""

_GNU = re.compile(r"^([0-9A-Fa-f]{32,128})(?:[ \t]+[ *]?(\S.*?))?[ \t\r]*$", re.MULTILINE)
"""coreutils: HEX, two blanks (or a blank and ``*``), the name; a lone HEX is of the one file."""

_BSD = re.compile(r"^(SHA\d+) \((.+)\) = ([0-9A-Fa-f]{64,128})[ \t\r]*$", re.MULTILINE)
"""``sha256sum --tag``, which Fedora and CentOS publish."""


@dataclass(frozen=True)
class Checksum:
    """A published checksum: hashlib's name of the algorithm, and hexadecimal digits."""

    algorithm: str
    digits: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.digits}"

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Read one as people give it: hexadecimal digits, maybe with ``sha256:`` before.

        Raises:
            ValueError: It is none, or one of an algorithm that can be forged.
        """
        kind, _, digits = text.strip().rpartition(":")
        algorithm = _ALGORITHMS.get(len(digits))
        wrong = not re.fullmatch("[0-9A-Fa-f]+", digits) or kind.lower() not in {"", algorithm}
        if wrong or algorithm is None:
            raise ValueError("a checksum is 64 (sha256), 96 or 128 (sha512) hexadecimal digits")
        return cls(algorithm, digits.lower())

    def compare(self, file: Path, name: str) -> None:
        """See that a file has it.

        Raises:
            VendorError: It has another.
        """
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, self.algorithm).hexdigest()
        if not hmac.compare_digest(found, self.digits):
            raise VendorError(
                f"{name} has not the published checksum: {self.algorithm} {found}, "
                f"not {self.digits}",
                hint="it was damaged on the way, is of another day than the checksums, or "
                "somebody has changed it",
            )


def find(text: str, name: str, where: str) -> Checksum:
    """Find the strongest checksum of a file in a list.

    Args:
        text: The list.
        name: The file's; the list may have a path before it.
        where: What the list is called, for errors.

    Raises:
        VendorError: It is not there, or two contradict each other.
    """
    pairs = [(given, digits) for digits, given in _GNU.findall(text)]
    pairs += [(given, digits) for _, given, digits in _BSD.findall(text)]
    alone = len(pairs) == 1 and not pairs[0][0]
    found = {
        Checksum(_ALGORITHMS[len(digits)], digits.lower())
        for given, digits in pairs
        if (alone or given.rpartition("/")[2] == name) and len(digits) in _ALGORITHMS
    }
    if not found:
        raise VendorError(
            f"{where} has no checksum of {name}",
            hint="sha256, sha384 and sha512 count; it may be of another day than the image",
        )
    strongest = max(found, key=lambda one: len(one.digits))
    if sum(one.algorithm == strongest.algorithm for one in found) > 1:
        raise VendorError(f"{where} has several checksums of {name}")
    return strongest
