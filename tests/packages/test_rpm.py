from __future__ import annotations

import base64
from pathlib import Path

import pytest

from imagefactory.errors import PackageError
from imagefactory.packages import deb, rpm
from tests.debs import Key
from tests.rpm.rpms import RpmRepository

pytestmark = pytest.mark.system


def test_the_files_of_a_package_are_read(keys: tuple[Key, Key], tmp_path: Path) -> None:
    repository = RpmRepository(tmp_path / "repository", keys[0])
    made = repository.add("hello", {"usr/bin/hello": b"#!/bin/sh\n"})
    with rpm.opened(made) as archive:
        (member,) = (one for one in archive if one.name.endswith("usr/bin/hello"))
        assert deb.read(archive, member) == b"#!/bin/sh\n"
    assert [path for path in made.parent.iterdir() if path.suffix == ".tar"] == []


def test_what_is_no_package_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.rpm"
    file.write_bytes(b"none")
    with pytest.raises(PackageError, match=r"broken\.rpm cannot be unpacked"), rpm.opened(file):
        pass


def test_accounts_are_read_out_of_what_packages_provide(
    keys: tuple[Key, Key], tmp_path: Path
) -> None:
    repository = RpmRepository(tmp_path / "repository", keys[0])
    line = "u chrony - /var/lib/chrony"
    padded = base64.b64encode(line.encode() + bytes(-len(line) % 3)).decode()
    forged = base64.b64encode(b"u a\nu b").decode().rstrip("=")
    files = [
        repository.add("chrony", provides=[f"user(chrony) = {padded}", "group(chrony)"]),
        repository.add("other", provides=["user(other) = 1.0", f"group(x) = {forged}", "tool = 2"]),
        repository.add("setup", {"etc/passwd": b"root:x:0:0::/:/bin/sh\n"}),
    ]
    assert rpm.accounts(files) == (line,)
    assert rpm.bringing("/etc/passwd", files) == (files[2],)
    assert rpm.bringing("/etc/nothing", files) == ()
