from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagefactory.errors import ConfigError
from imagefactory.run import run
from imagefactory.vendor.checksums import Checksum
from imagefactory.vendor.claims import Claims
from imagefactory.vendor.download import Fetched
from imagefactory.vendor.errors import VendorError
from tests.vendor.servers import Publisher

SHA256 = hashlib.sha256(b"disk").hexdigest()
SUMS = f"{SHA256}  disk.qcow2\n".encode()


@dataclass(frozen=True)
class Signer:
    """Somebody with a key of their own."""

    home: Path
    name: str

    def gpg(self, *words: str | Path) -> str:
        return run(["gpg", "--homedir", self.home, "--batch", "--yes", *words]).stdout

    @property
    def key(self) -> Path:
        """The public key, armoured as websites have it."""
        file = self.home / f"{self.name}.asc"
        self.gpg("--output", file, "--armor", "--export", self.name)
        return file

    @property
    def fingerprint(self) -> str:
        listed = self.gpg("--with-colons", "--list-keys", self.name)
        return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))

    def sign(self, how: str, content: bytes) -> bytes:
        (self.home / "content").write_bytes(content)
        self.gpg(
            "--local-user", self.name, "--output", self.home / "out", how, self.home / "content"
        )
        return (self.home / "out").read_bytes()


@pytest.fixture(scope="module")
def signers() -> Iterator[tuple[Signer, Signer, Signer]]:
    """The vendor, a stranger, and one whose key has expired."""
    with tempfile.TemporaryDirectory(prefix="sign") as directory:  # short, for gpg-agent's socket
        home = Path(directory)
        made = tuple(Signer(home, name) for name in ("vendor", "stranger", "late"))
        for one in made[:2]:
            one.gpg(
                "--passphrase", "", "--quick-generate-key", one.name, "ed25519", "sign", "never"
            )
        past = ("--faked-system-time", "20200101T000000")
        made[2].gpg(
            *past, "--passphrase", "", "--quick-generate-key", "late", "ed25519", "sign", "1d"
        )
        yield made[0], made[1], made[2]
        run(["gpgconf", "--homedir", home, "--kill", "all"])


@pytest.fixture
def image(tmp_path: Path) -> Fetched:
    (tmp_path / "disk.qcow2").write_bytes(b"disk")
    return Fetched(tmp_path / "disk.qcow2", "disk.qcow2", private=False)


def test_a_checksum_that_was_given_is_enough(image: Fetched) -> None:
    assert (
        Claims(checksum=Checksum("sha256", SHA256)).proof_of(image.name)(image)
        == f"sha256:{SHA256} as given"
    )
    with pytest.raises(VendorError, match="has not the published checksum"):
        Claims(checksum=Checksum("sha256", "0" * 64)).proof_of(image.name)(image)


def test_a_list_beside_the_image_is_believed(image: Fetched) -> None:
    (image.file.parent / "SUMS").write_bytes(SUMS)
    told = Claims(checksums=str(image.file.parent / "SUMS")).proof_of(image.name)(image)
    assert "not signed, but by a safe way" in told


def test_a_list_that_anybody_could_have_changed_is_not(image: Fetched, server: Publisher) -> None:
    with pytest.raises(VendorError, match="came by an open way and is not signed"):
        Claims(checksums=server.add("SUMS", SUMS)).proof_of(image.name)(image)


def test_a_detached_signature_of_the_list(
    image: Fetched, server: Publisher, signers: tuple[Signer, ...]
) -> None:
    vendor, stranger, _ = signers
    sums = server.add("SUMS", SUMS)
    made = server.add("SUMS.gpg", vendor.sign("--detach-sign", SUMS))
    told = Claims(checksums=sums, signature=made, keys=(vendor.key,)).proof_of(image.name)(image)
    assert told.endswith(f"signed by {vendor.fingerprint}")
    Claims(checksums=sums, signature=made, keys=(stranger.key, vendor.key)).proof_of(image.name)(
        image
    )
    with pytest.raises(VendorError, match="made by the key"):
        Claims(checksums=sums, signature=made, keys=(stranger.key,)).proof_of(image.name)(image)
    changed = server.add("SUMS", SUMS + b"\n")
    with pytest.raises(VendorError, match="not of this content"):
        Claims(checksums=changed, signature=made, keys=(vendor.key,)).proof_of(image.name)(image)


def test_a_list_that_signs_itself(
    image: Fetched, server: Publisher, signers: tuple[Signer, ...]
) -> None:
    vendor, stranger, _ = signers
    forged = f"{hashlib.sha256(b'forged').hexdigest()}  disk.qcow2\n".encode()
    text = vendor.sign("--clear-sign", SUMS)
    claims = Claims(checksums=server.add("CHECKSUM", text), keys=(vendor.key,))
    assert claims.proof_of(image.name)(image).endswith(f"signed by {vendor.fingerprint}")
    # What stands around the signed part counts for nothing, be it before or after.
    for content in (forged + text, text + forged):
        server.add("CHECKSUM", content)
        image.file.write_bytes(b"forged")
        with pytest.raises(VendorError):
            claims.proof_of(image.name)(image)
    server.add("CHECKSUM", stranger.sign("--clear-sign", SUMS))
    with pytest.raises(VendorError, match="made by the key"):
        claims.proof_of(image.name)(image)
    server.add("CHECKSUM", SUMS)
    with pytest.raises(VendorError, match="carries no signature"):
        claims.proof_of(image.name)(image)


def test_a_signature_of_the_image_itself(
    image: Fetched, server: Publisher, signers: tuple[Signer, ...]
) -> None:
    vendor, _, _ = signers
    made = server.add("disk.qcow2.sig", vendor.sign("--detach-sign", b"disk"))
    claims = Claims(signature=made, keys=(vendor.key,))
    assert claims.proof_of(image.name)(image) == f"signed by {vendor.fingerprint}"
    image.file.write_bytes(b"other")
    with pytest.raises(VendorError, match="not of this content"):
        claims.proof_of(image.name)(image)


def test_an_expired_key_is_not_believed(image: Fetched, signers: tuple[Signer, ...]) -> None:
    _, _, late = signers
    (late.home / "content").write_bytes(b"disk")
    made = image.file.parent / "sig"
    late.gpg(
        *("--faked-system-time", "20200101T120000", "--local-user", "late"),
        *("--output", made, "--detach-sign", late.home / "content"),
    )
    with pytest.raises(VendorError, match="key has expired"):
        Claims(signature=str(made), keys=(late.key,)).proof_of(image.name)(image)


def test_a_key_that_is_none_and_a_signature_that_is_none(
    image: Fetched, signers: tuple[Signer, ...]
) -> None:
    image.file.with_name("sig").write_bytes(b"nonsense")
    sig = str(image.file.with_name("sig"))
    with pytest.raises(VendorError, match="holds no key"):
        Claims(signature=sig, keys=(image.file,)).proof_of(image.name)(image)
    with pytest.raises(VendorError, match="it is none"):
        Claims(signature=sig, keys=(signers[0].key,)).proof_of(image.name)(image)


KEY = (Path("key"),)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"keys": KEY},
        {"signature": "s"},
        {"checksums": "s", "signature": "s"},
        {"unverified": True, "checksums": "s"},
        {"checksum": Checksum("sha256", SHA256), "checksums": "s"},
        {"checksum": Checksum("sha256", SHA256), "keys": KEY},
    ],
)
def test_contradictions_are_refused(claims: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Claims(**claims)  # type: ignore[arg-type]
