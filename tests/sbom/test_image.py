from __future__ import annotations

import pytest

from imagefactory.packages.installed import Installed
from imagefactory.packages.pool import Package
from imagefactory.sbom.image import Item, Supplier, items

DEB = Installed("libc6", "2.36-9", "", "amd64", "deb", "glibc", "2.36-9")
RPM = Installed("curl", "7.50.3-1.fc25", "1", "i386", "rpm", "curl", "7.50.3-1.fc25")


def only(package: Installed, distribution: str, version: str, *known: Package) -> Item:
    (item,) = items([package, package], known, distribution, version)
    return item


@pytest.mark.parametrize(
    ("package", "distribution", "version", "purl"),
    [
        (
            DEB,
            "debian",
            "12",
            "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12&upstream=glibc",
        ),
        (
            Installed("attr", "1:2.4.47-2+b1", "", "amd64", "deb", "attr", "1:2.4.47-2"),
            *("ubuntu", "24.04"),
            (
                "pkg:deb/ubuntu/attr@1:2.4.47-2%2Bb1?arch=amd64&distro=ubuntu-24.04"
                "&upstream=attr%401:2.4.47-2"
            ),
        ),
        (
            RPM,
            *("fedora", "25"),
            (
                "pkg:rpm/fedora/curl@7.50.3-1.fc25?arch=i386&distro=fedora-25&epoch=1"
                "&upstream=curl-7.50.3-1.fc25.src.rpm"
            ),
        ),
        (
            Installed("a/b c", "1-1", "", "noarch", "rpm"),
            *("centos", "10"),
            "pkg:rpm/centos/a_b%20c@1-1?arch=noarch&distro=centos-10",
        ),
        (
            Installed("a", "", "", "", "deb", "a"),
            "debian",
            "12",
            "pkg:deb/debian/a?distro=debian-12",
        ),
    ],
)
def test_a_package_is_called_as_the_specification_says(
    package: Installed, distribution: str, version: str, purl: str
) -> None:
    assert only(package, distribution, version).purl.to_string() == purl


def test_the_checksum_is_that_of_the_very_package() -> None:
    file = Package("libc6", "2.36-9", "amd64", "1" * 64, 0)
    assert only(DEB, "debian", "12", file).checksum == ("sha256", "1" * 64)
    other = Package("libc6", "2.36-8", "amd64", "1" * 64, 0)
    assert only(DEB, "debian", "12", other).checksum is None
    strong = Package("curl", "1:7.50.3-1.fc25", "i386", "", 0, sha512="2" * 128)
    assert only(RPM, "fedora", "25", strong).checksum == ("sha512", "2" * 128)


@pytest.mark.parametrize(
    ("told", "supplier"),
    [
        ("Fedora Project", Supplier("Fedora Project")),
        ("Anna <anna@example.org>", Supplier("Anna", "anna@example.org")),
        ("Anna <not an address>", Supplier("Anna <not an address>")),
        ("<anna@example.org>", Supplier("<anna@example.org>")),
        ("", None),
    ],
)
def test_a_supplier_has_a_name_and_perhaps_an_address(told: str, supplier: Supplier | None) -> None:
    package = Installed("a", "1", "", "all", "deb", supplier=told)
    assert only(package, "debian", "12").supplier == supplier
