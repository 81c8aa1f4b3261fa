from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from imagefactory.vendor.checksums import Checksum, find
from imagefactory.vendor.errors import VendorError

SHA256 = hashlib.sha256(b"disk").hexdigest()
SHA512 = hashlib.sha512(b"disk").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        f"{SHA256}  disk.qcow2\n",
        f"{OTHER}  a-disk.qcow2\n{SHA256} *disk.qcow2\n{OTHER}  disk.qcow2.xz\n",
        f"{SHA256}  ./images/disk.qcow2\r\n",
        f"# disk.qcow2: 123 bytes\nSHA256 (disk.qcow2) = {SHA256}\nSHA256 (other) = {OTHER}\n",
        f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{SHA256}  disk.qcow2\n",
        f"{SHA256}\n",
        SHA256.upper(),
        f"{hashlib.md5(b'disk').hexdigest()}  disk.qcow2\n{SHA256}  disk.qcow2\n",
    ],
)
def test_lists_of_all_kinds_are_read(text: str) -> None:
    assert find(text, "disk.qcow2", "SUMS") == Checksum("sha256", SHA256)


def test_the_strongest_counts() -> None:
    text = f"SHA256 (disk) = {SHA256}\nSHA512 (disk) = {SHA512}\n"
    assert find(text, "disk", "SUMS") == Checksum("sha512", SHA512)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no checksum of disk"),
        (f"{SHA256}  other\n", "has no checksum of disk"),
        (f"{hashlib.md5(b'disk').hexdigest()}  disk\n", "has no checksum of disk"),
        (f"{SHA256}  disk\n{OTHER}  disk\n", "several checksums of disk"),
        (f"{SHA256}\n{OTHER}\n", "has no checksum of disk"),
        ("<html>404</html>", "has no checksum of disk"),
    ],
)
def test_what_says_nothing_is_refused(text: str, why: str) -> None:
    with pytest.raises(VendorError, match=why):
        find(text, "disk", "SUMS")


@pytest.mark.parametrize("text", [SHA256, f"sha256:{SHA256.upper()}", f" {SHA512}\n"])
def test_a_checksum_is_read_as_people_give_it(text: str, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"disk")
    Checksum.parse(text).compare(tmp_path / "disk", "disk")


@pytest.mark.parametrize(
    "text", ["", "abc", "z" * 64, f"md5:{SHA256}", "0" * 32, f"sha512:{SHA256}"]
)
def test_other_words_are_no_checksums(text: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal digits"):
        Checksum.parse(text)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"Disk")
    with pytest.raises(VendorError, match="has not the published checksum"):
        Checksum.parse(SHA256).compare(tmp_path / "disk", "disk")
