from __future__ import annotations

import json
from dataclasses import replace

import pytest

from imagefactory.boot.checks import run_checks
from imagefactory.boot.facts import Expected
from imagefactory.boot.instance import InstanceData
from imagefactory.boot.report import Check

TOKEN = "feedc0de"
GIB = 1 << 30

GOOD = {
    "cloud-init": "",
    "cloud-init-status": "",
    "cloud-init-result": "",
    "systemd": "",
    "user-data": TOKEN,
    "vendor-data": TOKEN,
    "uname": "x86_64",
    "kernel": "6.1.0-56-cloud-amd64",
    "hostname": "boot-a1b2c3",
    "memory": "93532 kB",
    "root": "/dev/vda3 2049352 20092 2026404 1% /",
    "addresses": "inet 10.0.2.15/24 brd 10.0.2.255 scope global eth0",
    "links": "00:00:00:00:00:00 65536 lo\nfa:16:3e:01:02:03 1500 eth0",
    "routes": "default via 10.0.2.2 dev eth0",
    "dns": "nameserver 10.0.2.3",
    "metadata": "",
    "host-keys": "/etc/ssh/ssh_host_ed25519_key.pub ssh-ed25519 AAAA",
    "machine-id": "",
    "boot-id": "7d1f1a4e-8d6f-4d51-9a3c-000000000001",
    "secure-boot": "",
    "selinux": "enforcing\nEnforcing",
    "selinux-labels": "",
    "status": '{"ok": 9, "warn": 0, "failed": 0}',
    "end": TOKEN,
}


def expected(instance: InstanceData, *, metadata_service: bool = False) -> Expected:
    return Expected(
        uname="x86_64",
        instance=instance,
        token=TOKEN,
        metadata_service=metadata_service,
        memory=128,
        image_bytes=112 << 20,
        overlay_bytes=2 * GIB,
    )


def verdicts(checks: tuple[Check, ...]) -> dict[str, str]:
    return {check.name: check.verdict for check in checks}


def test_a_good_guest_passes(instance: InstanceData) -> None:
    checks = run_checks(GOOD, expected(instance))
    assert [check for check in checks if check.verdict == "failed"] == []
    assert verdicts(checks)["user-data"] == "passed"


@pytest.mark.parametrize(
    ("check", "fact", "value"),
    [
        ("answers", "end", ""),
        ("architecture", "uname", "i686"),
        ("hostname", "hostname", "localhost"),
        ("user-data", "user-data", ""),
        ("user-data", "user-data", "other"),
        ("user-data", "user-data", f"{TOKEN}\n{TOKEN}"),
        ("vendor-data", "vendor-data", f"{TOKEN}\n{TOKEN}"),
        ("root filesystem grew", "root", "/dev/vda3 90000 20092 60000 1% /"),
        ("root filesystem grew", "root", "df: no such file"),
        ("address", "addresses", "inet 10.0.2.150/24"),
        ("default route", "routes", "10.0.2.0/24 dev eth0"),
        ("dns", "dns", "nameserver 8.8.8.8"),
        ("ssh host keys", "host-keys", ""),
        ("memory", "memory", "30000 kB"),
        ("memory", "memory", "200000 kB"),
        ("memory", "memory", ""),
        ("machine-id", "machine-id", "uninitialized"),
        ("selinux", "selinux", "enforcing\nPermissive"),
        ("selinux", "selinux", "enforcing\nDisabled"),
        ("selinux labels", "selinux-labels", "Would relabel /etc/motd from a:b:c:s0 to a:b:d:s0"),
        ("imagefactory-status", "status", '{"ok": 8, "failed": 1}'),
        ("imagefactory-status", "status", "[]"),
        ("imagefactory-status", "status", "{"),
    ],
)
def test_what_is_wrong_fails_its_check_and_no_other(
    instance: InstanceData, check: str, fact: str, value: str
) -> None:
    seen = verdicts(run_checks({**GOOD, fact: value}, expected(instance)))
    assert [name for name, verdict in seen.items() if verdict == "failed"] == [check]


def test_an_answer_that_broke_off_fails(instance: InstanceData) -> None:
    checks = run_checks({}, expected(instance))
    assert checks[0].verdict == "failed"


@pytest.mark.parametrize(
    ("fact", "value", "check"),
    [
        ("machine-id", "0" * 32, "machine-id"),
        ("routes", "0.0.0.0         10.0.2.2        0.0.0.0         UG", "default route"),
        ("hostname", "boot-a1b2c3.novalocal", "hostname"),
        ("vendor-data", TOKEN, "vendor-data"),
    ],
)
def test_other_kinds_of_good_guests_pass(
    instance: InstanceData, fact: str, value: str, check: str
) -> None:
    assert verdicts(run_checks({**GOOD, fact: value}, expected(instance)))[check] == "passed"


def test_what_a_guest_does_not_have_is_skipped(instance: InstanceData) -> None:
    without = {"status": "", "vendor-data": "", "selinux": ""}
    seen = verdicts(run_checks({**GOOD, **without}, expected(instance)))
    skipped = {name for name, verdict in seen.items() if verdict == "skipped"}
    assert skipped == {
        "vendor-data",
        "mtu",
        "metadata service",
        "services",
        "cloud-init",
        "datasource",
        "machine-id",
        "secure boot",
        "selinux",
        "selinux labels",
        "imagefactory-status",
    }


def test_a_static_network_must_be_taken_whole(static_instance: InstanceData) -> None:
    wanted = expected(static_instance)
    seen = verdicts(run_checks(GOOD, wanted))
    assert (seen["address"], seen["mtu"]) == ("failed", "failed")
    facts = {
        **GOOD,
        "addresses": "inet 10.0.2.50/24\ninet6 fd00:6966::50/64",
        "links": "fa:16:3e:01:02:03 1400 eth0",
    }
    seen = verdicts(run_checks(facts, wanted))
    assert (seen["address"], seen["mtu"]) == ("passed", "passed")


def test_the_metadata_service_must_answer_with_this_instance(instance: InstanceData) -> None:
    wanted = expected(instance, metadata_service=True)
    assert verdicts(run_checks(GOOD, wanted))["metadata service"] == "failed"
    facts = {**GOOD, "metadata": json.dumps({"uuid": instance.uuid})}
    assert verdicts(run_checks(facts, wanted))["metadata service"] == "passed"
    facts = {**GOOD, "metadata": json.dumps({"uuid": "another"})}
    assert verdicts(run_checks(facts, wanted))["metadata service"] == "failed"


def test_a_large_image_need_not_grow_beyond_the_filesystems_own_share(
    instance: InstanceData,
) -> None:
    wanted = Expected("x86_64", instance, TOKEN, False, 128, 30 * GIB, 31 * GIB)
    kib = 30 * GIB * 98 // 100 // 1024
    facts = {**GOOD, "root": f"/dev/vda3 {kib} 1 1 1% /"}
    assert verdicts(run_checks(facts, wanted))["root filesystem grew"] == "passed"


def systemd_says(lines: str) -> dict[str, str]:
    return {**GOOD, "systemd": lines, "machine-id": "0" * 32}


def test_systemd_must_run_and_nothing_less(instance: InstanceData) -> None:
    seen = run_checks(systemd_says("running"), expected(instance))
    assert verdicts(seen)["services"] == "passed"
    assert "failed" not in verdicts(seen).values()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("degraded\ncron.service loaded failed failed Cron", "failed units: cron.service"),
        ("running\ncron.service loaded failed failed Cron", "failed units: cron.service"),
        ("degraded", "systemd is 'degraded'"),
        ("starting", "systemd is 'starting'"),
        ("maintenance", "systemd is 'maintenance'"),
    ],
)
def test_a_degraded_system_fails_and_names_its_units(
    instance: InstanceData, lines: str, told: str
) -> None:
    checks = run_checks(systemd_says(lines), expected(instance))
    (failed,) = [check for check in checks if check.verdict == "failed"]
    assert failed.name == "services"
    assert told in failed.detail


def test_a_guest_with_systemd_must_have_a_machine_id(instance: InstanceData) -> None:
    facts = {**GOOD, "systemd": "running"}
    assert verdicts(run_checks(facts, expected(instance)))["machine-id"] == "failed"


LOCKED = "lockdown none [integrity] confidentiality"
TOLD = "kernel [    0.000000] secureboot: Secure boot enabled"


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (f"SecureBoot    1\nSetupMode    0\n{LOCKED}\n{TOLD}", "passed"),
        (f"SecureBoot 1\nSetupMode 0\n{LOCKED}", "passed"),
        (f"SecureBoot 1\nSetupMode 0\nlockdown [none] integrity\n{TOLD}", "passed"),
        (f"SecureBoot 1\nSetupMode 0\nlockdown \n{TOLD}", "passed"),
        ("SecureBoot 1\nSetupMode 0\nlockdown [none] integrity confidentiality", "failed"),
        ("SecureBoot 1\nSetupMode 0\nkernel [0.0] secureboot: Secure boot disabled", "failed"),
        (f"SecureBoot 0\nSetupMode 0\n{LOCKED}\n{TOLD}", "failed"),
        (f"SecureBoot 1\nSetupMode 1\n{LOCKED}\n{TOLD}", "failed"),
        (f"SecureBoot \nSetupMode \n{LOCKED}\n{TOLD}", "failed"),
        ("", "failed"),
    ],
)
def test_secure_boot_is_what_firmware_and_kernel_say_alike(
    instance: InstanceData, seen: str, verdict: str
) -> None:
    wanted = replace(expected(instance), secure_boot=True)
    facts = {**GOOD, "secure-boot": seen}
    assert verdicts(run_checks(facts, wanted))["secure boot"] == verdict
    assert verdicts(run_checks(facts, expected(instance)))["secure boot"] == "skipped"
