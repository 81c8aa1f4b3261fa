"""Both documents, whatever a database holds, and what it costs to have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagefactory.disk.image import Disk
from imagefactory.packages import installed
from imagefactory.packages.installed import Installed, of_dpkg
from imagefactory.plan import BuildPlan
from imagefactory.sbom import Sbom, cyclonedx, write
from imagefactory.tree import RootTree
from tests.rootfs.test_minimal import plan
from tests.sbom.bills import check_cyclonedx, check_spdx, image, spdx_of

__all__ = ["plan"]

PLAIN = st.text().map(installed._plain)
RPMS = st.builds(
    Installed,
    name=PLAIN.filter(bool),
    version=PLAIN,
    epoch=PLAIN,
    architecture=PLAIN,
    kind=st.sampled_from(["deb", "rpm"]),
    source=PLAIN,
    source_version=PLAIN,
    license=st.one_of(PLAIN, st.sampled_from(["MIT", "MIT AND LicenseRef-a", "GPLv2", "x" * 9999])),
    supplier=st.one_of(PLAIN, st.sampled_from(["()", "(a)", "a (b) c", "Tool: a", "<a@b>", "a\\"])),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packages=st.lists(RPMS, max_size=4))
def test_whatever_a_database_holds_the_documents_are_valid(
    packages: list[Installed], tmp_path: Path
) -> None:
    made = image(*packages)
    check_cyclonedx(cyclonedx.document(made))
    spdx_of(made, tmp_path)


def test_a_license_of_a_megabyte_is_valid(tmp_path: Path) -> None:
    packages = [
        Installed(f"p{n}", "1-1", "", "noarch", "rpm", license=text)
        for n, text in enumerate(["x" * (1 << 20), "MIT AND " * (1 << 17) + "MIT", "(" * 9999])
    ]
    check_cyclonedx(cyclonedx.document(image(*packages)))
    assert len(spdx_of(image(*packages), tmp_path)["hasExtractedLicensingInfos"]) == 3


def of_a_tree(plan: BuildPlan, directory: Path, status: str | None) -> Sbom | None:
    directory.mkdir()
    disk = directory / f"{plan.name}.qcow2"
    disk.write_bytes(b"a disk")
    packages = None
    if status is not None:
        packages = directory / "list"
        installed.write(of_dpkg(status), packages)
    tree = RootTree(directory / "tar", "boot/vmlinuz", (), 1_700_000_000, packages=packages)
    return write(plan, tree, Disk(disk, "qcow2", 6, 6))


def test_the_same_build_gets_the_same_bytes_and_another_one_another_name(
    plan: BuildPlan, tmp_path: Path
) -> None:
    status = "Package: a\nVersion: 1\n\nPackage: b\nVersion: 1\n"
    made = [
        of_a_tree(plan, tmp_path / str(number), text)
        for number, text in enumerate((status, status, status.replace("b", "c")))
    ]
    first, again, other = (
        {standard: file.read_text() for standard, file in one.files.items()} for one in made if one
    )
    assert first == again
    assert check_cyclonedx(first["cyclonedx"])["components"]
    ours = check_cyclonedx(first["cyclonedx"])["serialNumber"]
    assert ours != check_cyclonedx(other["cyclonedx"])["serialNumber"]
    assert made[0]
    names = {standard: file.name for standard, file in made[0].files.items()}
    assert names == {
        "cyclonedx": "minimal-ppc64le.cdx.json",
        "spdx": "minimal-ppc64le.spdx.json",
    }
    assert len(check_spdx(made[0].files["spdx"])["packages"]) == 2 + made[0].packages == 4


def test_a_tree_without_a_database_has_none(plan: BuildPlan, tmp_path: Path) -> None:
    assert of_a_tree(plan, tmp_path / "none", None) is None
    made = of_a_tree(plan, tmp_path / "empty", "")
    assert made
    assert made.packages == 0
    check_spdx(made.files["spdx"])


def test_whoever_writes_none_does_not_wait_for_the_libraries() -> None:
    code = "import sys, imagefactory.cli; print(*sys.modules)"
    words = [sys.executable, "-c", code]
    loaded = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert "imagefactory.sbom" in loaded
    assert {"cyclonedx", "spdx_tools", "license_expression", "packageurl"} & {*loaded} == set()
