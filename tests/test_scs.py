"""The SCS standard for image metadata, as its text has it."""

from __future__ import annotations

import pytest

from imagefactory import scs

GOOD = {
    "architecture": "aarch64",
    "os_distro": "debian",
    "os_version": "12",
    "hw_disk_bus": "virtio",
    "min_disk": "2",
    "min_ram": "512",
    "replace_frequency": "monthly",
    "provided_until": "2026-09-30",
    "uuid_validity": "last-3",
    "image_source": "https://images.example.com/debian-12.qcow2",
    "image_description": "Debian 12",
    "image_build_date": "2026-06-30 12:00",
    "image_original_user": "debian",
    "hypervisor_type": "qemu",
    "hw_rng_model": "virtio",
}


def test_the_standards_own_example_conforms() -> None:
    assert list(scs.check(GOOD)) == []


@pytest.mark.parametrize("name", [rule.name for rule in scs.RULES if rule.mandatory])
def test_what_is_mandatory_is_missed(name: str) -> None:
    (finding,) = scs.check({key: value for key, value in GOOD.items() if key != name})
    assert (finding.kind, finding.name, finding.breaks) == ("missing", name, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("replace_frequency", "hourly"),
        ("provided_until", "forever"),
        ("provided_until", "2026-13-01"),
        ("uuid_validity", "last-0"),
        ("uuid_validity", "30.9.2026"),
        ("image_build_date", "2026-06-30T12:00"),
        ("image_build_date", "2026-06-30 25:00"),
        ("image_source", "somewhere"),
        ("hotfix_hours", "soon"),
        ("min_ram", "0"),
        ("maintained_until", "2026"),
        ("license_included", "maybe"),
    ],
)
def test_what_is_wrong_is_told_with_what_is_expected(name: str, value: str) -> None:
    (finding,) = scs.check({**GOOD, name: value})
    assert (finding.kind, finding.name) == ("wrong", name)
    assert repr(value) in str(finding)


@pytest.mark.parametrize(
    "changes",
    [
        {"provided_until": "none", "uuid_validity": "forever", "image_source": "private"},
        {"provided_until": "notice", "uuid_validity": "notice", "hotfix_hours": "0"},
        {"uuid_validity": "2026-12-31", "image_build_date": "2026-06-30 12:00:59"},
        {"image_build_date": "2026-06-30", "replace_frequency": "critical_bug"},
        {"license_included": "true", "license_required": "false"},
    ],
)
def test_every_value_of_the_standard_is_taken(changes: dict[str, str]) -> None:
    assert list(scs.check({**GOOD, **changes})) == []


def test_a_license_cannot_be_both() -> None:
    (finding,) = scs.check({**GOOD, "license_included": "true", "license_required": "true"})
    assert finding.name == "license_required"


def test_what_is_only_recommended_does_not_break_the_standard() -> None:
    lacking = {**GOOD, "hw_disk_bus": "scsi"}
    del lacking["hw_rng_model"]
    found = list(scs.check(lacking))
    assert [one.name for one in found] == ["hw_rng_model", "hw_scsi_model"]
    assert not any(one.breaks for one in found)
