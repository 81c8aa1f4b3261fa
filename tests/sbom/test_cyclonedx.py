from __future__ import annotations

from imagefactory import __version__
from imagefactory.packages.installed import Installed
from imagefactory.packages.pool import Package
from imagefactory.sbom import cyclonedx
from tests.sbom.bills import check_cyclonedx, image

DEB = Installed(
    *("libc6", "1:2.36-9", "", "arm64", "deb", "glibc", "1:2.36-9"), supplier="Anna <a@b.org>"
)


def test_the_image_and_its_packages_are_told() -> None:
    known = Package("libc6", "1:2.36-9", "arm64", "1" * 64, 0)
    told = check_cyclonedx(cyclonedx.document(image(DEB, known=[known])))
    assert told["serialNumber"] == "urn:uuid:00000000-0000-0000-0000-000000000001"
    about = told["metadata"]
    assert about["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert about["component"]["name"] == "web"
    assert about["component"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    (tool,) = about["tools"]["components"]
    assert (tool["name"], tool["version"]) == ("imagefactory", __version__)
    package, system = sorted(told["components"], key=lambda one: str(one["type"]))
    assert (system["type"], system["name"], system["version"]) == (
        "operating-system",
        "debian",
        "12",
    )
    assert package["version"] == "1:2.36-9"
    assert package["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
    assert package["supplier"] == {"name": "Anna", "contact": [{"email": "a@b.org"}]}
    assert {one["name"].rpartition(":")[2]: one["value"] for one in package["properties"]} == {
        "SrcName": "glibc",
        "SrcVersion": "2.36",
        "SrcRelease": "9",
        "SrcEpoch": "1",
    }
    held = next(one for one in told["dependencies"] if one["ref"] == "image")
    assert sorted(held["dependsOn"]) == sorted(["operating-system", package["purl"]])


def test_a_license_is_an_expression_or_a_name() -> None:
    licenses = {"good": "MIT OR LicenseRef-x", "old": "GPLv2+ and BSD", "none": ""}
    packages = [
        Installed(name, "1-1", "", "noarch", "rpm", license=text) for name, text in licenses.items()
    ]
    told = check_cyclonedx(cyclonedx.document(image(*packages)))
    assert {one["name"]: one.get("licenses") for one in told["components"]} == {
        "good": [{"expression": "MIT OR LicenseRef-x"}],
        "old": [{"license": {"name": "GPLv2+ and BSD"}}],
        "none": None,
        "debian": None,
    }
