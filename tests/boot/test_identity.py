from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import asyncssh
import pytest

from imagefactory.boot.identity import apart, kept, read
from imagefactory.boot.report import CaseReport, Check, Identity

KEYS = {
    kind: asyncssh.generate_private_key(kind) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256")
}
PUBLIC = {
    kind: " ".join(key.export_public_key().decode().split()[:2]) for kind, key in KEYS.items()
}

ME = Identity("a" * 32, "boot-1", {"rsa": "SHA256:1", "ed25519": "SHA256:2"})


def verdicts(checks: tuple[Check, ...]) -> list[str]:
    return [check.verdict for check in checks]


def case(name: str, identity: Identity | None) -> CaseReport:
    return CaseReport(name, "passed", "tcg", (), {}, 1.0, Path("/e"), identity=identity)


def test_an_identity_is_read_from_facts() -> None:
    lines = [f"/etc/ssh/{kind}.pub {public}" for kind, public in PUBLIC.items()]
    lines += ["/etc/dropbear/unreadable ", "/etc/ssh/odd.pub ssh-ed25519 AAAA"]
    facts = {"host-keys": "\n".join(lines), "machine-id": "b" * 32, "boot-id": "x"}
    seen = read(facts)
    assert (seen.machine_id, seen.boot_id) == ("b" * 32, "x")
    assert seen.host_keys == {
        f"/etc/ssh/{kind}.pub": key.get_fingerprint() for kind, key in KEYS.items()
    }
    assert read({}) == Identity("", "", {})


def test_who_comes_up_again_the_same_passes() -> None:
    assert verdicts(kept(ME, replace(ME, boot_id="boot-2"))) == ["passed"] * 3


def test_a_key_that_is_added_is_no_harm() -> None:
    more = replace(ME, boot_id="boot-2", host_keys={**ME.host_keys, "ecdsa": "SHA256:3"})
    assert verdicts(kept(ME, more)) == ["passed"] * 3


@pytest.mark.parametrize(
    ("after", "wrong"),
    [
        (replace(ME), "booted anew"),
        (replace(ME, boot_id="2", machine_id="c" * 32), "same machine-id"),
        (replace(ME, boot_id="2", machine_id=""), "same machine-id"),
        (replace(ME, boot_id="2", host_keys={"rsa": "SHA256:1"}), "same ssh host keys"),
        (
            replace(ME, boot_id="2", host_keys={"rsa": "SHA256:1", "ed25519": "SHA256:9"}),
            "same ssh host keys",
        ),
    ],
)
def test_who_is_another_after_the_reboot_fails(after: Identity, wrong: str) -> None:
    assert [check.name for check in kept(ME, after) if check.verdict == "failed"] == [wrong]


def test_what_a_guest_never_had_is_skipped() -> None:
    nobody = Identity("", "1", {})
    assert verdicts(kept(nobody, replace(nobody, boot_id="2"))) == ["passed", "skipped", "skipped"]


def test_two_instances_are_two() -> None:
    other = Identity("d" * 32, "boot-9", {"rsa": "SHA256:7", "ed25519": "SHA256:8"})
    checks = apart([case("one", ME), case("other", other), case("none", None)])
    assert verdicts(checks) == ["passed", "passed"]
    assert checks[0].detail == "in one, other"


def test_what_two_instances_share_was_in_the_image() -> None:
    twin = Identity(ME.machine_id, "boot-9", {"rsa": "SHA256:7", "ed25519": "SHA256:2"})
    checks = apart([case("one", ME), case("other", twin)])
    assert [(check.verdict, check.detail) for check in checks] == [
        ("failed", f"one and other share {ME.machine_id}"),
        ("failed", "one and other share SHA256:2"),
    ]


def test_one_instance_cannot_be_compared() -> None:
    for checks in (apart([case("one", ME), case("none", None)]), apart([])):
        assert verdicts(checks) == ["skipped", "skipped"]
        assert "only one boot had a login" in checks[0].detail


def test_images_without_a_machine_id_are_told_apart_by_their_keys() -> None:
    one = replace(ME, machine_id="")
    other = Identity("", "2", {"ed25519": "SHA256:5"})
    assert verdicts(apart([case("one", one), case("other", other)])) == ["skipped", "passed"]
