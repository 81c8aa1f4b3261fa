"""Signatures of others, believed only by keys that were named."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from imagefactory.errors import CommandError
from imagefactory.run import need, run
from imagefactory.vendor.errors import VendorError

_CLEAR = b"-----BEGIN PGP SIGNED MESSAGE-----"


def is_clear_signed(content: bytes) -> bool:
    """Whether a text carries its own signature (RFC 9580, section 7)."""
    return content.lstrip().startswith(_CLEAR)


def signed_text(content: bytes, keys: Sequence[Path], where: str) -> tuple[bytes, str]:
    """Return what was signed of a clear-signed text, and by whom.

    What stands before and after the signed part is not in it.

    Raises:
        VendorError: No key that was named has signed it.
        HostError: There is no gpg.
    """
    with tempfile.TemporaryDirectory(prefix="gpg") as directory:
        home = Path(directory)
        (home / "signed").write_bytes(content)
        words: list[str | Path] = ["--output", home / "text", "--decrypt", home / "signed"]
        signer = _gpg(home, keys, words, where)
        return (home / "text").read_bytes(), signer


def signer_of(file: Path, signature: bytes, keys: Sequence[Path], where: str) -> str:
    """Return who has signed a file, as the fingerprint of the primary key.

    Raises:
        VendorError: No key that was named has signed it.
        HostError: There is no gpg.
    """
    with tempfile.TemporaryDirectory(prefix="gpg") as directory:
        home = Path(directory)
        (home / "signature").write_bytes(signature)
        return _gpg(home, keys, ["--verify", home / "signature", file], where)


def _gpg(home: Path, keys: Sequence[Path], words: Sequence[str | Path], where: str) -> str:
    gpg = need("gpg", "gpg")
    command: list[str | Path] = [gpg, "--homedir", home, "--batch", "--no-autostart", "--quiet"]
    for key in keys:
        try:
            run([*command, "--import", key])
        except CommandError:
            raise VendorError(
                f"{key} holds no key", hint="--key takes a file of OpenPGP keys"
            ) from None
    # Trust is not gpg's to decide: a key that was named is believed.
    said = run(
        [*command, "--trust-model", "always", "--status-fd", "1", *words], accept=range(256)
    ).stdout
    # gnupg, doc/DETAILS: GOODSIG is not said of expired or revoked keys; the last word of
    # VALIDSIG is the primary key's fingerprint.
    by = re.findall(r"^\[GNUPG:\] VALIDSIG .*\b([0-9A-F]{40,64})$", said, re.MULTILINE)
    good = re.search(r"^\[GNUPG:\] GOODSIG ", said, re.MULTILINE)
    bad = re.search(r"^\[GNUPG:\] (BADSIG|EXPSIG|EXPKEYSIG|REVKEYSIG) ", said, re.MULTILINE)
    if not by or not good or bad:
        told = {
            "BADSIG": "it is not of this content",
            "EXPSIG": "it has expired",
            "EXPKEYSIG": "its key has expired",
            "REVKEYSIG": "its key was revoked",
        }
        stranger = re.search(r"^\[GNUPG:\] NO_PUBKEY ([0-9A-F]+)", said, re.MULTILINE)
        why = told[bad[1]] if bad else "it is none"
        why = f"it was made by the key {stranger[1]}" if stranger and not bad else why
        raise VendorError(
            f"the signature of {where} is not to be believed: {why}",
            hint="--key names the file of the signer's public key",
        )
    return str(by[0])
