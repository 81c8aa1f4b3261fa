from __future__ import annotations

import pytest

from imagefactory.boot.console import Console


def heard(*lines: str) -> Console:
    console = Console()
    for second, line in enumerate(lines):
        console.feed(line.encode() + b"\r\n", float(second))
    return console


def test_an_x86_boot_passes_its_milestones_in_time() -> None:
    console = Console()
    console.feed(b"SeaBIOS (version 1.16.2)\nBooting from Hard Disk...\n", 0.1, "firmware")
    console.feed(b"GRUB loading..\r\nWelcome to GRUB!\r\n\r\n", 0.5)
    console.feed(b"[    0.000000] Linux version 6.1.0-56\r\n", 1.0)
    console.feed(b"[    1.2] Run /init as init process\r\n", 2.0)
    console.feed(b"\r\nboot-a1b2c3 login: ", 3.5)
    assert console.milestones == {
        "firmware": 0.1,
        "bootloader": 0.1,
        "kernel": 1.0,
        "userspace": 2.0,
        "login": 3.5,
    }
    assert console.fatal is None


@pytest.mark.parametrize(
    ("line", "milestone"),
    [
        ("UEFI firmware (version 2022.11 built at 11:33:01)", "firmware"),
        ('BdsDxe: loading Boot0001 "UEFI Misc Device"', "firmware"),
        ("\x1b[1mSLOF\x1b[0m QEMU Starting", "firmware"),
        ("OpenSBI v1.3", "firmware"),
        ("U-Boot 2023.07", "firmware"),
        ("Trying to load:  from: /pci@8/scsi@0 ...   Successfully loaded", "bootloader"),
        ("\x1b[0m\x1b[30m\x1b[47mGNU GRUB  version 2.06", "bootloader"),
        ("EFI stub: Booting Linux Kernel...", "kernel"),
        ("[    0.000000] Booting Linux on physical CPU 0x0000000000", "kernel"),
        ("OF stdout device is: /vdevice/vty@71000000", "kernel"),
        ("Welcome to \x1b[1mDebian GNU/Linux 12 (bookworm)\x1b[0m!", "userspace"),
        ("imagefactory-init: root found", "userspace"),
    ],
)  # fmt: skip
def test_each_systems_first_words_are_known(line: str, milestone: str) -> None:
    assert heard(line).milestones == {milestone: 0.0}


def test_grubs_welcome_is_no_userspace() -> None:
    assert heard("Welcome to GRUB!").milestones == {"bootloader": 0.0}


@pytest.mark.parametrize(
    ("lines", "failure"),
    [
        (["No bootable device."], "no bootloader"),
        (["BdsDxe: No bootable option or device was found."], "no bootloader"),
        (["UEFI Interactive Shell v2.2"], "no bootloader"),
        (["E3407: Load failed"], "no bootloader"),
        (["Welcome to GRUB!", "grub rescue> "], "no kernel"),
        (["Loading Linux", "error: you need to load the kernel first."], "no kernel"),
        (["Kernel panic - not syncing: Attempted to kill init!"], "kernel panic"),
        (["imagefactory-init: PANIC no /sbin/init on /dev/vda1"], "kernel panic"),
        (["imagefactory-init: PANIC no root: UUID=x did not appear"], "root not found"),
        (["Gave up waiting for root file system device."], "root not found"),
        (["ALERT!  UUID=x does not exist.  Dropping to a shell!"], "root not found"),
        (
            [
                'VFS: Cannot open root device "UUID=x" or unknown-block(0,0): error -6',
                "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
            ],
            "root not found",
        ),
    ],
)
def test_a_failure_that_cannot_heal_is_recognised(lines: list[str], failure: str) -> None:
    assert heard(*lines).fatal == failure


def test_the_cause_outranks_what_follows_from_it() -> None:
    console = heard("Kernel panic - not syncing: VFS: Unable to mount root fs")
    assert console.fatal == "root not found"


def test_firmware_that_tries_another_device_later_is_not_a_failure() -> None:
    console = heard("GRUB loading", "Linux version 6.1", "No bootable device.")
    assert console.fatal is None


def test_a_line_that_comes_in_two_parts_is_told_whole() -> None:
    console = Console()
    console.feed(b"[ 2.8] Kernel panic - not syncing: Att", 1.0)
    assert console.fatal == "kernel panic"
    console.feed(b"empted to kill init!\r\nmore\r\n", 1.1)
    assert console.fatal_line == "[ 2.8] Kernel panic - not syncing: Attempted to kill init!"


def test_a_milestone_keeps_its_first_time_and_is_announced_once() -> None:
    told: list[tuple[str, float]] = []
    console = Console(announce=lambda name, at: told.append((name, at)))
    console.feed(b"a login: ", 3.0)
    console.feed(b"\r\na login: ", 9.0)
    assert told == [("login", 3.0)]


def test_a_message_about_logins_is_no_prompt() -> None:
    assert "login" not in heard("Last login: Mon", "systemd-logind login: ready").milestones


def test_the_tail_is_readable_and_short() -> None:
    console = heard(*(f"line {number}" for number in range(500)))
    console.feed(b"\x1b[2Jhalf a line", 1.0)
    assert console.tail(2) == ("line 499", "half a line")


def test_an_endless_line_does_not_fill_the_memory() -> None:
    console = Console()
    for _ in range(100):
        console.feed(b"x" * 100_000, 1.0)
    assert len(console.tail(1)[0]) == 1024


def test_output_sets_the_event() -> None:
    console = Console()
    assert not console.changed.is_set()
    console.feed(b"x", 1.0)
    assert console.changed.is_set()


def test_a_character_that_comes_in_two_parts_is_one() -> None:
    console = Console()
    for byte in "binfmt…executable\n".encode():
        console.feed(bytes([byte]), 1.0)
    assert console.tail() == ("binfmt…executable",)


def test_at_a_second_start_everything_is_looked_for_anew() -> None:
    said: list[str] = []
    console = Console(announce=lambda name, at: said.append(name))
    console.feed(b"[    0.000000] Linux version 6.1\r\nKernel panic - not sync", 1.0)
    console.reached("ssh", 9.0)
    console.start_over()
    assert (console.milestones, console.fatal, console.tail()) == ({}, None, ())
    console.feed(b"[    0.000000] Linux version 6.1\r\n", 0.5)
    assert console.milestones == {"kernel": 0.5}
    assert console.all_milestones() == {"kernel": 1.0, "ssh": 9.0, "second kernel": 0.5}
    assert said == ["kernel", "ssh", "second kernel"]
