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


@pytest.mark.parametrize(
    ("image", "architecture"),
    [
        ("debian-12", "aarch64"),
        ("debian-12", "ppc64le"),
        ("debian-12", "x86_64"),
        # Its cloud-init finds no metadata service off x86 unless it is told to look for one.
        ("debian-13", "aarch64"),
    ],
)
def test_a_debian_is_built_booted_and_stored(
    image: str, architecture: str, factory: Factory
) -> None:
    done = factory.run("build", image, "--arch", architecture, "--json", timeout=38 * MINUTES)

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
