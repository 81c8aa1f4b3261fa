"""The reboot: the guest ends itself to start anew, and must be the same guest again.

The guest is told to reboot as its owner would tell it. QEMU, started with ``-no-reboot``, ends
where the guest resets its machine; the session then powers the same disk and the same UEFI
variables on in a new QEMU, as nova does for a reboot (LibvirtDriver._soft_reboot). A reset
within one QEMU would prove no more of the image, but a lot of the emulator: SeaBIOS answers it
with a second reset, and timers under software emulation do not always survive it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import replace

import asyncssh

from imagefactory.boot import identity
from imagefactory.boot.guest import Guest
from imagefactory.boot.report import Check, Identity
from imagefactory.boot.running import Boot, BootFailedError, why_ended
from imagefactory.boot.spec import CAPTURE, emit

PREFIX = "reboot: "
"""Stands before the names of the checks of the second boot."""

COMMAND = '[ "$(id -u)" = 0 ] && exec reboot; exec sudo -n reboot'


async def reboot(boot: Boot, guest: Guest) -> Check:
    """Let the guest reboot, and wait until it has reset its machine.

    Raises:
        BootFailedError: It refuses, it runs on, or it switches itself off instead.
    """
    emit("progress", text="reboot")
    began, limit = boot.now, boot.spec.budgets.power_off
    tasks = [asyncio.ensure_future(work) for work in (_tell(guest, limit), boot.exited.wait())]
    try:
        done, _ = await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not boot.exited.is_set():
        for task in done:
            task.result()  # raises what the guest has against it
        message = f"the guest runs on {limit:.0f} s after it was told to reboot"
        raise BootFailedError("no reboot", message)
    reason = await why_ended(boot)
    if reason != "guest-reset":
        raise BootFailedError("no reboot", f"the guest did not reset its machine: {reason}")
    # The next QEMU begins a file of the same name.
    kept = boot.spec.evidence / f"before-reboot-{CAPTURE}"
    with contextlib.suppress(FileNotFoundError):
        (boot.spec.evidence / CAPTURE).rename(kept)
    return Check("reboot", "passed", reason, boot.now - began)


def compare(before: Identity, after: Identity, checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return the checks of the second boot under names of their own.

    Args:
        before: Who the guest was.
        after: Who it is now.
        checks: What was looked at now.
    """
    found = (*identity.kept(before, after), *checks)
    return tuple(replace(check, name=f"{PREFIX}{check.name}") for check in found)


async def _tell(guest: Guest, limit: float) -> None:
    """Give the command, and come back only if the guest refuses it."""
    # The connection may break before the command has answered: that is the reboot itself.
    with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
        output = await guest.command(COMMAND, limit)
        if output.status > 0:
            said = output.stderr.strip() or f"status {output.status}"
            raise BootFailedError("no reboot", f"the guest refuses to reboot: {said}")
    await asyncio.Event().wait()
