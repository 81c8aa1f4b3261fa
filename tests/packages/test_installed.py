from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagefactory.errors import CommandError
from imagefactory.packages import installed
from imagefactory.packages.installed import Installed, of_dpkg, of_rpm
from imagefactory.run import need, run

STATUS = """\
Package: libc6
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Multi-Arch: same
Source: glibc
Version: 2.36-9+deb12u10
Conffiles:
 /etc/ld.so.conf.d/x86_64-linux-gnu.conf d4e7a7b88a71b5ffd9e2644e71a0cfab
Description: GNU C Library: Shared libraries
 Contains the standard libraries
 .
 Package: of a description

Package: bash
Status: hold ok unpacked
Architecture: amd64
Source: bash (5.2-2)
Version: 1:5.2-2+b1

Package: nano
Status: deinstall ok config-files
Architecture: amd64
Version: 7.2-1

Package: gone
Status: purge ok not-installed
"""


def test_what_dpkg_has_unpacked_is_told_and_what_it_removed_is_not() -> None:
    assert of_dpkg(STATUS) == (
        Installed("bash", "1:5.2-2+b1", "", "amd64", "deb", "bash", "5.2-2"),
        Installed(
            *("libc6", "2.36-9+deb12u10", "", "amd64", "deb", "glibc", "2.36-9+deb12u10"),
            supplier="GNU Libc Maintainers <debian-glibc@lists.debian.org>",
        ),
    )


def test_a_control_file_is_an_installed_package() -> None:
    (package,) = of_dpkg("Package: busybox\nVersion: 1\nArchitecture: all\n")
    assert (package.source, package.source_version) == ("busybox", "1")


@given(st.text(), st.sampled_from(["Package", "Version", "Source", "Status", "Maintainer"]))
def test_whatever_a_field_holds_one_line_comes_out(text: str, field: str) -> None:
    values = {"Package": "a", "Version": "1", "Status": "install ok installed", field: text}
    lines = "".join(f"{name}: {value}\n" for name, value in values.items())
    for package in of_dpkg(f"{lines}\nPackage: last\nVersion: 1\n"):
        assert package.name
        for value in (package.name, package.version, package.source, package.supplier):
            assert value.encode().decode() == value
            assert value.splitlines() in ([], [value])
            assert not any(unicodedata.category(letter) in {"Cc", "Cs"} for letter in value)


@given(st.text(alphabet=st.sampled_from("aP:= \n\t.-#\r\x00\x1c\x1f\x85\u2028")))
@example("=:\n\x85=")
def test_a_damaged_database_is_read_as_far_as_it_goes(text: str) -> None:
    assert len(of_dpkg(f"{text}\n\nPackage: last\nVersion: 1\n")) >= 1


def test_a_list_is_read_as_it_was_written(tmp_path: Path) -> None:
    packages = of_dpkg(STATUS)
    installed.write(packages, tmp_path / "list")
    assert installed.read(tmp_path / "list") == packages


SPEC = """\
Name: {name}
Version: 1.0
Release: 2.fc43
Epoch: 3
Summary: made for a test
License: {license}
Vendor: {vendor}
BuildArch: noarch
%description
made for a test
%files
"""


def database(directory: Path, *specs: bytes) -> Path:
    """A database of packages as rpmbuild makes them of specs."""
    made = directory / "rpmdb"
    macros = {
        "_topdir": str(directory),
        "_rpmdir": str(directory),
        "_tmppath": str(directory),
        "_invalid_encoding_terminates_build": "0",
    }
    defines = [word for name, value in macros.items() for word in ("--define", f"{name} {value}")]
    for number, spec in enumerate(specs):
        file = directory / f"{number}.spec"
        file.write_bytes(spec)
        run([need("rpmbuild", "rpm"), "-bb", "--quiet", *defines, file])
    words: list[str | Path] = [
        need("rpm", "rpm"),
        f"--dbpath={made}",
        "--install",
        "--justdb",
        "--nodeps",
    ]
    run([*words, "--nosignature", *directory.glob("*/*.rpm")])
    return made


@pytest.mark.system
def test_rpm_tells_what_it_has_installed(tmp_path: Path) -> None:
    strange = "it's %% \"so\" $(x) \\ \x01 \u2028 ''"
    specs = [
        SPEC.format(name="plain", license="MIT AND GPL-2.0-or-later", vendor="Fedora Project"),
        SPEC.format(name="strange", license=strange, vendor="'"),
        SPEC.format(name="long", license="x" * (1 << 20), vendor="Long"),
    ]
    latin = SPEC.format(name="latin", license="MIT", vendor="Müller").encode("latin-1")
    found = {one.name: one for one in of_rpm(database(tmp_path, *map(str.encode, specs), latin))}
    assert found["plain"] == Installed(
        *("plain", "1.0-2.fc43", "3", "noarch", "rpm", "plain", "1.0-2.fc43"),
        license="MIT AND GPL-2.0-or-later",
        supplier="Fedora Project",
    )
    assert found["strange"].license == "it's % \"so\" $(x) \\ ''"
    assert found["strange"].supplier == "'"
    assert len(found["long"].license) == 1 << 20
    assert found["latin"].supplier == "M\ufffdller"
    assert found.keys() == {"plain", "strange", "long", "latin"}


@pytest.mark.system
def test_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "rpmdb.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(CommandError, match="rpm failed"):
        of_rpm(tmp_path)
