"""Waiting for a guest, and finding out early and by name that waiting is in vain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, TypeVar

from imagefactory.boot import traffic
from imagefactory.boot.guest import Guest, UnreachableError, connect
from imagefactory.boot.machine import SSH_PORT
from imagefactory.boot.report import Failure
from imagefactory.boot.running import Boot, BootFailedError, why_ended
from imagefactory.boot.spec import CAPTURE

T = TypeVar("T")

RETRY = 1.0
"""Seconds between two attempts to log in when the console is silent."""

LAST_WORDS = 2.0
"""Seconds to listen on after a fatal line: what follows it explains it."""


async def until_login(boot: Boot) -> None:
    """Wait for the login prompt on the console.

    Raises:
        BootFailedError: It will not come any more.
    """
    while "login" not in boot.console.milestones:
        await _wait_for_sign(boot)


async def until_ssh(boot: Boot) -> Guest:
    """Try to log in until it works.

    Raises:
        BootFailedError: It will not work any more.
    """
    spec = boot.spec
    while True:
        attempt = asyncio.ensure_future(connect(SSH_PORT, spec.user or "", spec.private_key))
        try:
            while not attempt.done():
                await _wait_for_sign(boot, attempt)
            guest = attempt.result()
        except UnreachableError as error:
            boot.last_refusal = str(error)
            if error.kind != "key refused":
                boot.refused_since = None
            elif boot.refused_since is None:
                boot.refused_since = boot.now
        else:
            boot.console.reached("ssh", boot.now)
            return guest
        finally:
            attempt.cancel()
        await _wait_for_sign(boot, within=RETRY)


async def while_running(boot: Boot, work: Awaitable[T]) -> T:
    """Do something with the guest, but not longer than the guest lives."""
    task = asyncio.ensure_future(work)
    ended = asyncio.ensure_future(boot.exited.wait())
    await asyncio.wait({task, ended}, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise BootFailedError(*await _explain_exit(boot))
    return task.result()


async def _wait_for_sign(
    boot: Boot, attempt: asyncio.Future[Guest] | None = None, within: float | None = None
) -> None:
    """Wait until something happens, and find out whether the boot has failed."""
    await _raise_if_failed(boot)
    spare = min(deadline - boot.now for deadline in _deadlines(boot).values())
    boot.console.changed.clear()
    waiting: set[asyncio.Future[Any]] = {asyncio.ensure_future(boot.console.changed.wait())}
    sign = set(waiting)
    if attempt is not None:
        waiting.add(attempt)
    limit = max(0.01, spare if within is None else min(spare, within))
    try:
        await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in sign:
            future.cancel()
    await _raise_if_failed(boot)


def _deadlines(boot: Boot) -> dict[str, float]:
    budgets, seen = boot.spec.budgets, boot.console.milestones
    deadlines = {
        "boot": budgets.boot,
        "stall": max(boot.console.last_output, *seen.values(), 0.0, 0.0) + budgets.stall,
    }
    if not {"kernel", "userspace", "login", "ssh"} & seen.keys():
        deadlines["kernel"] = budgets.kernel
    if boot.refused_since is not None:
        deadlines["refusal"] = boot.refused_since + budgets.refusal
    return deadlines


async def _raise_if_failed(boot: Boot) -> None:
    console = boot.console
    if console.fatal is not None:
        await _let_it_finish(boot)
        raise BootFailedError(console.fatal, console.fatal_line)
    if boot.exited.is_set():
        raise BootFailedError(*await _explain_exit(boot))
    for name, deadline in _deadlines(boot).items():
        if boot.now >= deadline:
            raise BootFailedError(*_explain_silence(boot, name, deadline))


async def _let_it_finish(boot: Boot) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(boot.exited.wait(), LAST_WORDS)


async def _explain_exit(boot: Boot) -> tuple[Failure, str]:
    seen = boot.console.milestones
    reason = await why_ended(boot)
    if boot.process.returncode:
        log = boot.spec.evidence / "qemu.log"
        words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
        return "qemu failed", f"QEMU ended with {reason}: {' / '.join(words)}"
    if reason == "guest-reset":
        what = "the guest reset itself"
    elif reason == "guest-panic":
        return "kernel panic", "the guest told QEMU that its kernel panicked"
    else:
        what = f"the guest switched itself off ({reason})"
    return _missing(seen), f"{what} after {boot.now:.0f} s"


def _missing(seen: dict[str, float]) -> Failure:
    """Name the first stage that was not seen, counting from the last one that was."""
    stages: tuple[tuple[str, Failure], ...] = (
        ("ssh", "check failed"),
        ("login", "no network"),
        ("userspace", "no login"),
        ("kernel", "no login"),
        ("bootloader", "no kernel"),
        ("firmware", "no bootloader"),
    )
    for milestone, failure in stages:
        if milestone in seen:
            return failure
    return "no firmware output"


def _explain_silence(boot: Boot, name: str, deadline: float) -> tuple[Failure, str]:
    failure = _missing(boot.console.milestones)
    if boot.refused_since is not None:
        failure = "key refused"
    elif boot.spec.user is not None and failure in {"no network", "no login"}:
        heard = traffic.read(boot.spec.evidence / CAPTURE, boot.spec.expected.instance.mac)
        if boot.spec.expected.instance.address in heard.addresses:
            failure = "no ssh"
        elif failure == "no network":
            return failure, f"{heard.describe()}; {_spent(name, deadline)}"
    refusal = f"; SSH: {boot.last_refusal}" if failure in {"key refused", "no ssh"} else ""
    return failure, _spent(name, deadline) + refusal


def _spent(name: str, deadline: float) -> str:
    missing = {
        "boot": "SSH",
        "stall": "any further output",
        "kernel": "a kernel",
        "refusal": "a key that the guest takes",
    }
    return f"{deadline:.0f} s after power-on without {missing[name]}"
