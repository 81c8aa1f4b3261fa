"""What makes a guest one of its kind: it must outlive a reboot, and no two guests may share it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import asyncssh

from imagefactory.boot.facts import Facts
from imagefactory.boot.report import CaseReport, Check, Identity


def read(facts: Facts) -> Identity:
    """Take the identity out of what a guest told of itself."""
    keys = {}
    for line in facts.get("host-keys", "").splitlines():
        file, _, public = line.strip().partition(" ")
        try:
            keys[file] = asyncssh.import_public_key(public).get_fingerprint()
        except asyncssh.KeyImportError:
            continue  # could not be read, or of a type that is out of use (DSA)
    return Identity(
        machine_id=facts.get("machine-id", ""),
        boot_id=facts.get("boot-id", ""),
        host_keys=keys,
    )


def kept(before: Identity, after: Identity) -> tuple[Check, ...]:
    """Check that a guest is after a reboot who it was before."""
    rebooted = before.boot_id != after.boot_id
    return (
        Check(
            "booted anew",
            "passed" if rebooted else "failed",
            "the kernel's boot_id changed" if rebooted else f"the boot_id is still {after.boot_id}",
        ),
        _same_machine_id(before, after),
        _same_host_keys(before, after),
    )


def _same_machine_id(before: Identity, after: Identity) -> Check:
    name = "same machine-id"
    if not before.machine_id and not after.machine_id:
        return Check(name, "skipped", NO_MACHINE_ID)
    if before.machine_id == after.machine_id:
        return Check(name, "passed", after.machine_id)
    told = f"it was {before.machine_id or 'not there'}, now it is {after.machine_id or 'gone'}"
    return Check(name, "failed", told)


def _same_host_keys(before: Identity, after: Identity) -> Check:
    name = "same ssh host keys"
    if not before.host_keys:
        return Check(name, "skipped", NO_HOST_KEYS)
    # A new one is no harm: dropbear makes a key when the first client asks for its type.
    lost = [file for file, key in before.host_keys.items() if after.host_keys.get(file) != key]
    if lost:
        return Check(name, "failed", f"changed or gone: {', '.join(sorted(lost))}")
    return Check(name, "passed", f"{len(before.host_keys)} keys, every one as before")


def apart(cases: Iterable[CaseReport]) -> tuple[Check, ...]:
    """Check that the boots of one image, each another instance, share nothing that is secret.

    A key or a machine-id that two of them have was in the image, where everybody can read it.
    """
    known = [(case.name, case.identity) for case in cases if case.identity is not None]
    return (
        _differ(
            "different machine-ids",
            NO_MACHINE_ID,
            [(name, {one.machine_id} - {""}) for name, one in known],
        ),
        _differ(
            "different ssh host keys",
            NO_HOST_KEYS,
            [(name, set(one.host_keys.values())) for name, one in known],
        ),
    )


def _differ(name: str, absent: str, owned: list[tuple[str, set[str]]]) -> Check:
    if len(owned) < 2:
        return Check(name, "skipped", "only one boot had a login: there is nothing to compare")
    if not any(things for _, things in owned):
        return Check(name, "skipped", absent)
    shared = [
        f"{first} and {second} share {', '.join(sorted(ours & theirs))}"
        for (first, ours), (second, theirs) in combinations(owned, 2)
        if ours & theirs
    ]
    if shared:
        return Check(name, "failed", "; ".join(shared))
    return Check(name, "passed", f"in {', '.join(name for name, _ in owned)}")


NO_MACHINE_ID = "the image has no /etc/machine-id"
NO_HOST_KEYS = "the guest's host keys could not be read"
