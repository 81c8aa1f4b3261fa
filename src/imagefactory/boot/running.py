"""One running machine: its process, its monitor, its console, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from qemu.qmp import QMPClient, QMPError

from imagefactory.boot.console import Console
from imagefactory.boot.report import Check, Failure, Identity
from imagefactory.boot.screenshot import save as save_screenshot
from imagefactory.boot.spec import SessionSpec, emit
from imagefactory.run import started

QEMU_START = 20.0
"""Seconds that QEMU may take to open its monitor."""

LAST_EVENT = 1.0
"""Seconds to wait for the monitor's last event once the emulator has ended."""


class BootFailedError(Exception):
    """The boot cannot succeed any more."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure: Failure = failure
        self.message = message


@dataclass
class Clock:
    """The time since power-on in seconds; it stands still until then."""

    began: float = 0.0

    def start(self) -> None:
        """Count from now on."""
        self.began = time.monotonic()

    def now(self) -> float:
        """Seconds since power-on."""
        return time.monotonic() - self.began if self.began else 0.0


@dataclass
class Boot:
    """The state of one running machine."""

    spec: SessionSpec
    console: Console
    process: subprocess.Popen[str]
    monitor: QMPClient
    clock: Clock
    keyboards: dict[str, asyncio.StreamWriter] = field(default_factory=dict)
    """What can be typed at, by the name of the line (``console``)."""
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    shut_down: asyncio.Event = field(default_factory=asyncio.Event)
    shutdown_reason: str = ""
    last_refusal: str = ""
    refused_since: float | None = None

    @property
    def now(self) -> float:
        """Seconds since power-on."""
        return self.clock.now()


@dataclass
class Findings:
    """What was seen of a guest so far, over all starts of its machine."""

    checks: list[Check] = field(default_factory=list)
    identity: Identity | None = None
    """Who it was when it was looked at for the first time."""
    seconds: float = 0.0


Proof = Callable[[Boot, Findings], Awaitable[None]]
"""What is done with a machine that was just powered on; adds what it finds."""


@contextlib.asynccontextmanager
async def powered_on(spec: SessionSpec, console: Console) -> AsyncIterator[Boot]:
    """Start QEMU with its processors halted, connect to it, and let it go."""
    monitor = QMPClient("boot-test")
    clock = Clock()
    keyboards: dict[str, asyncio.StreamWriter] = {}
    readers = await _listen(spec, console, clock, keyboards)
    await monitor.start_server("qmp.sock")
    log = spec.evidence / "qemu.log"
    with log.open("ab") as output, started(spec.command, stdout=output, stderr=output) as process:
        boot = Boot(spec, console, process, monitor, clock, keyboards)
        with _watch_exit(boot):
            await _accept(boot, log)
            clock.start()
            emit("progress", text="power on")
            events = asyncio.ensure_future(_follow_events(boot))
            try:
                await monitor.execute("cont")
                yield boot
            finally:
                events.cancel()
                await asyncio.gather(events, return_exceptions=True)
                with contextlib.suppress(QMPError, EOFError, OSError):
                    await monitor.disconnect()
    for reader in readers:
        reader.close()


async def _listen(
    spec: SessionSpec,
    console: Console,
    clock: Clock,
    keyboards: dict[str, asyncio.StreamWriter],
) -> list[asyncio.AbstractServer]:
    start = console.starts

    async def read(source: str, reader: asyncio.StreamReader) -> None:
        with (spec.evidence / f"{source}.log").open("ab", buffering=0) as log:
            while data := await reader.read(65536):
                log.write(data)
                if console.starts == start:  # last words may come after the next power-on
                    console.feed(data, clock.now(), source)

    servers: list[asyncio.AbstractServer] = []
    for source in ("console", "firmware"):

        async def connected(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str = source
        ) -> None:
            # Cancelled when the boot is over: what is read by then is all there is to know.
            keyboards[source] = writer
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await read(source, reader)
            writer.close()

        servers.append(await asyncio.start_unix_server(connected, f"{source}.sock"))
    return servers


@contextlib.contextmanager
def _watch_exit(boot: Boot) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    handle = os.pidfd_open(boot.process.pid)

    def ended() -> None:
        loop.remove_reader(handle)
        boot.process.poll()
        boot.exited.set()
        boot.console.changed.set()

    loop.add_reader(handle, ended)
    try:
        yield
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def _accept(boot: Boot, log: Path) -> None:
    accepted = asyncio.ensure_future(boot.monitor.accept())
    ended = asyncio.ensure_future(boot.exited.wait())
    await asyncio.wait({accepted, ended}, timeout=QEMU_START, return_when=asyncio.FIRST_COMPLETED)
    ended.cancel()
    if accepted.done() and accepted.exception() is None:
        return
    accepted.cancel()
    await asyncio.gather(accepted, return_exceptions=True)
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    raise BootFailedError("qemu failed", " / ".join(words) or "QEMU did not open its monitor")


async def _follow_events(boot: Boot) -> None:
    with boot.monitor.listener(("SHUTDOWN",)) as listener:
        async for event in listener:
            data = event.get("data")
            if isinstance(data, dict) and "reason" in data:
                boot.shutdown_reason = str(data["reason"])
                boot.shut_down.set()


async def why_ended(boot: Boot) -> str:
    """Return QEMU's reason for its end, or its exit status."""
    # The emulator's last event may still be on its way when its end is noticed.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(boot.shut_down.wait(), LAST_EVENT)
    return boot.shutdown_reason or f"status {boot.process.returncode}"


async def take_screenshot(boot: Boot) -> None:
    """Keep a picture of the guest's display, where it has one."""
    if boot.spec.display and not boot.exited.is_set():
        await save_screenshot(boot.monitor, boot.spec.evidence / "screenshot.png")


async def power_off(boot: Boot) -> Check:
    """Press the power button and wait for the guest's end."""
    emit("progress", text="power off")
    began, limit = boot.now, boot.spec.budgets.power_off
    with contextlib.suppress(QMPError):
        await boot.monitor.execute("system_powerdown")
    try:
        await asyncio.wait_for(boot.exited.wait(), limit)
    except TimeoutError:
        raise BootFailedError(
            "no power-off", f"the guest runs on {limit:.0f} s after the power button was pressed"
        ) from None
    boot.console.reached("powered off", boot.now)
    took, reason = boot.now - began, await why_ended(boot)
    clean = boot.process.returncode == 0 and reason == "guest-shutdown"
    return Check("power off", "passed" if clean else "failed", reason, took)
