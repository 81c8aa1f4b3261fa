"""Whole Debian images, for real: every architecture built here, booted, rebooted, compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.factory import MINUTES, BuiltImage, Factory

pytestmark = [pytest.mark.system, pytest.mark.timeout(40 * MINUTES)]

LARGEST = {"aarch64": 180_000_000, "ppc64le": 215_000_000, "x86_64": 180_000_000}
"""Bytes that an image may have; ppc64le has no cloud kernel, and the generic one is larger."""

SECURE_BOOT = {"aarch64", "x86_64"}
"""Where the distribution's bootloader is signed."""


METADATA = """
name: debian-13
extends: debian-13
tests: [{name: metadata, datasource: openstack}]
"""


@pytest.mark.parametrize("architecture", ["aarch64", "ppc64le", "x86_64"])
def test_a_debian_is_built_booted_and_stored(architecture: str, factory: Factory) -> None:
    words = ("build", "debian-12", "--arch", architecture, "--json")
    done = factory.run(*words, timeout=38 * MINUTES)

    (row,) = json.loads(done.stdout)
    assert row["verdict"] == "passed"
    assert row["size"] <= LARGEST[architecture]
    build = BuiltImage.of(Path(row["disk"]))
    report = build.manifest["boot_test"]
    cases = {case["name"]: case for case in report["cases"]}
    first = {check["name"]: check["verdict"] for check in cases["config-drive"]["checks"]}
    for name in ("cloud-init", "services", "guest agent", "reboot: same ssh host keys"):
        assert first[name] == "passed", first
    assert cases["metadata"]["verdict"] == "passed"
    compared = {check["name"]: check["verdict"] for check in report["checks"]}
    assert compared["different machine-ids"] == "passed"
    assert compared["different ssh host keys"] == "passed"
    proven = "optional" if architecture in SECURE_BOOT else None
    assert build.properties.get("os_secure_boot") == proven
    assert build.manifest["foreign_programs"].startswith(f"{architecture}: ")
    assert factory.work() == []


def test_a_debian_13_finds_the_metadata_service(factory: Factory, tmp_path: Path) -> None:
    # Its cloud-init looks for none off x86 unless it is told to.
    templates = tmp_path / "own/templates"
    templates.mkdir(parents=True)
    (templates / "debian-13.yaml").write_text(METADATA)
    words = ("--path", tmp_path / "own", "build", "debian-13", "--arch", "aarch64", "--json")
    (row,) = json.loads(factory.run(*words, timeout=38 * MINUTES).stdout)
    build = BuiltImage.of(Path(row["disk"]))
    (case,) = build.manifest["boot_test"]["cases"]
    verdicts = {check["name"]: check["verdict"] for check in case["checks"]}
    assert {verdicts[name] for name in ("cloud-init", "services", "guest agent")} == {"passed"}
    assert build.properties["os_version"] == "13"
