"""Looking at a guest: from inside, over SSH, and through the agent that it runs for its host."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from imagefactory.boot import identity
from imagefactory.boot.checks import run_checks
from imagefactory.boot.facts import facts_script, parse_facts
from imagefactory.boot.guest import Guest
from imagefactory.boot.report import Check, Identity
from imagefactory.boot.running import Boot, BootFailedError
from imagefactory.boot.spec import emit
from imagefactory.boot.waiting import while_running


async def look_inside(boot: Boot, guest: Guest, record: Path) -> tuple[tuple[Check, ...], Identity]:
    """Run every check in a guest.

    Args:
        boot: Its machine.
        guest: The way in.
        record: The file that will hold what the guest answered.

    Raises:
        BootFailedError: It gave no answer in time, or its machine ended.
    """
    emit("progress", text="looking inside")
    expected, limit = boot.spec.expected, boot.spec.budgets.checks
    began = boot.now
    try:
        output = await while_running(boot, guest.script(facts_script(expected.token), limit))
    except TimeoutError:
        raise BootFailedError(
            "check failed", f"the guest's answers did not come within {limit:.0f} s"
        ) from None
    record.write_text(output.stdout, encoding="utf-8")
    facts = parse_facts(output.stdout)
    ssh = Check("ssh", "passed", f"host key {guest.host_key}", boot.console.milestones["ssh"])
    took = Check("facts", "passed", "collected over SSH", boot.now - began)
    checks = (ssh, took, *run_checks(facts, expected), _login_check(boot))
    return checks, identity.read(facts)


def _login_check(boot: Boot) -> Check:
    at = boot.console.milestones.get("login")
    if at is None:
        return Check("console login", "failed", "no login prompt on the serial console")
    return Check("console login", "passed", "a login prompt on the serial console", at)


async def ask_agent(boot: Boot) -> Check:
    """Ask the guest agent that hw_qemu_guest_agent promises."""
    began = boot.now
    name = "guest agent"
    try:
        reader, writer = await asyncio.open_unix_connection("agent.sock")
        writer.write(json.dumps({"execute": "guest-ping"}).encode() + b"\n")
        line = await asyncio.wait_for(reader.readline(), boot.spec.budgets.checks / 4)
        writer.close()
    except (OSError, TimeoutError) as error:
        why = f"it does not answer ({type(error).__name__})"
        return Check(name, "failed", why, boot.now - began)
    good = b'"return"' in line
    return Check(name, "passed" if good else "failed", line.decode().strip(), boot.now - began)
