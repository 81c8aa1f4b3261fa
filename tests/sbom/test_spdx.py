from __future__ import annotations

from pathlib import Path

from imagefactory.packages.installed import Installed
from imagefactory.packages.pool import Package
from tests.sbom.bills import image, spdx_of

DEB = Installed(
    *("libc6", "1:2.36-9", "", "arm64", "deb", "glibc", "1:2.36-9"), supplier="Anna (x) <a@b.org>"
)


def test_the_image_and_its_packages_are_told(tmp_path: Path) -> None:
    known = Package("libc6", "1:2.36-9", "arm64", "1" * 64, 0)
    told = spdx_of(image(DEB, known=[known]), tmp_path)
    assert told["spdxVersion"] == "SPDX-2.3"
    assert told["creationInfo"]["created"] == "2023-11-14T22:13:20Z"
    assert told["documentNamespace"].endswith("/web-aarch64-00000000-0000-0000-0000-000000000001")
    packages = {one["name"]: one for one in told["packages"]}
    assert packages.keys() == {"web", "debian", "libc6"}
    assert packages["web"]["checksums"][0]["checksumValue"] == "a" * 64
    assert packages["web"]["supplier"] == "Organization: debian"
    assert packages["libc6"]["checksums"][0]["checksumValue"] == "1" * 64
    assert packages["libc6"]["supplier"] == "Organization: Anna [x] (a@b.org)"
    assert packages["libc6"]["licenseDeclared"] == "NOASSERTION"
    assert packages["libc6"]["sourceInfo"] == "built package from: glibc 1:2.36-9"
    related = {
        (one["spdxElementId"], one["relationshipType"], one["relatedSpdxElement"])
        for one in told["relationships"]
    }
    assert ("SPDXRef-Image", "CONTAINS", packages["libc6"]["SPDXID"]) in related
    assert ("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image") in related


def test_a_license_that_spdx_has_not_is_told_in_its_own_words(tmp_path: Path) -> None:
    licenses = {"good": "MIT OR LicenseRef-x", "old": "GPLv2+ and BSD", "older": "GPLv2+ and BSD"}
    packages = [
        Installed(name, "1-1", "", "noarch", "rpm", license=text) for name, text in licenses.items()
    ]
    told = spdx_of(image(*packages), tmp_path)
    declared = {one["name"]: one["licenseDeclared"] for one in told["packages"]}
    texts = {one["licenseId"]: one["extractedText"] for one in told["hasExtractedLicensingInfos"]}
    assert declared["good"] == "MIT OR LicenseRef-x"
    assert declared["old"] == declared["older"]
    assert texts[declared["old"]] == "GPLv2+ and BSD"
    assert "LicenseRef-x" in texts["LicenseRef-x"]
    assert len(texts) == 2
