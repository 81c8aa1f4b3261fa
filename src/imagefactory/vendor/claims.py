"""What is said of an image of others, and whether its bytes keep it."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagefactory.errors import ConfigError
from imagefactory.vendor import checksums, signature
from imagefactory.vendor.checksums import Checksum
from imagefactory.vendor.download import Fetched, public, read
from imagefactory.vendor.errors import VendorError


class Proof(Protocol):
    """What can tell a published image from any other file."""

    def __call__(self, image: Fetched) -> str:
        """See that an image is what was published, and say by what.

        Raises:
            VendorError: It is not.
            HostError: There is no gpg.
        """


@dataclass(frozen=True)
class Claims:
    """By what an image is to be verified.

    Args:
        checksum: Its own checksum, as people know it.
        checksums: Path or address of a list that has its checksum.
        signature: Path or address of a detached signature: of that list, else of the image.
        keys: Files of the keys that are believed; without a detached signature the list is
            clear-signed.
        unverified: Take it as it is.

    Raises:
        ConfigError: They contradict each other, or there are none.
    """

    checksum: Checksum | None = None
    checksums: str | None = None
    signature: str | None = None
    keys: tuple[Path, ...] = ()
    unverified: bool = False

    def __post_init__(self) -> None:
        proof = self.checksum or self.checksums or self.signature
        if self.unverified:
            if proof:
                raise ConfigError("--unverified contradicts a checksum or a signature")
        elif not proof:
            raise ConfigError(
                "nothing says what the image's bytes should be",
                hint="say --checksum, --checksums or --signature with --key; or --unverified",
            )
        if self.checksum and (self.checksums or self.signature):
            raise ConfigError("--checksum is enough by itself; the others need not be said")
        if self.signature and not self.keys:
            raise ConfigError("a signature is verified with --key, the file of the signer's key")
        if self.keys and not (self.signature or self.checksums):
            raise ConfigError("--key is for a signature: say --signature, or signed --checksums")

    def proof_of(self, name: str) -> Proof:
        """Fetch what is published of an image, before the image itself.

        Args:
            name: Of its file.

        Raises:
            VendorError: It is not there, or not to be believed.
            HostError: There is no gpg.
        """
        if self.checksum:
            return _by_checksum(self.checksum, "as given")
        if self.checksums:
            text, by = self._believed(self.checksums)
            where = public(self.checksums)
            return _by_checksum(checksums.find(text, name, where), f"of {where}, {by}")
        if self.signature:
            return self._by_signature(self.signature)
        return lambda _image: "not verified"

    def _by_signature(self, source: str) -> Proof:
        made, _ = read(source)

        def signed(image: Fetched) -> str:
            return f"signed by {signature.signer_of(image.file, made, self.keys, image.name)}"

        return signed

    def _believed(self, source: str) -> tuple[str, str]:
        """Return the text of a list that nobody can have forged, and why."""
        content, private = read(source)
        where = public(source)
        if self.signature:
            made, _ = read(self.signature)
            with tempfile.NamedTemporaryFile() as file:
                file.write(content)
                file.flush()
                by = signature.signer_of(Path(file.name), made, self.keys, where)
            return content.decode(errors="replace"), f"signed by {by}"
        if self.keys:
            if not signature.is_clear_signed(content):
                raise VendorError(
                    f"{where} carries no signature",
                    hint="--signature names the file of a detached one; without --key, a list "
                    "that came by https is believed as it is",
                )
            content, by = signature.signed_text(content, self.keys, where)
            return content.decode(errors="replace"), f"signed by {by}"
        if not private:
            raise VendorError(
                f"{where} came by an open way and is not signed: anybody could have changed it",
                hint="take it by https://, or verify its signature with --key",
            )
        return content.decode(errors="replace"), "not signed, but by a safe way"


def _by_checksum(expected: Checksum, by: str) -> Proof:
    def same(image: Fetched) -> str:
        expected.compare(image.file, image.name)
        return f"{expected} {by}"

    return same
