"""One boot, from power-on to power-off, inside namespaces of its own.

Runs as a child process (``python -m imagefactory.boot.session spec.json``) that ``launch.py``
starts in private network, mount and process namespaces. It prints events as lines of JSON:
progress while it goes, the case's report at the end. Its working directory holds everything
that does not outlive the boot: sockets, the overlay, the variable store.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import QMPClient, QMPError

from imagefactory.boot import metadata, traffic
from imagefactory.boot.checks import facts_script, parse_facts, run_checks
from imagefactory.boot.console import Console
from imagefactory.boot.guest import Guest, UnreachableError, connect
from imagefactory.boot.instance import lookup
from imagefactory.boot.machine import SSH_PORT
from imagefactory.boot.report import CaseReport, Check, Diagnosis, Failure
from imagefactory.boot.screenshot import save as save_screenshot
from imagefactory.boot.spec import CASE, SPEC, SessionSpec
from imagefactory.run import run, started

T = TypeVar("T")

QEMU_START = 20.0
"""Seconds that QEMU may take to open its monitor."""

RETRY = 1.0
"""Seconds between two attempts to log in when the console is silent."""

LAST_EVENT = 1.0
"""Seconds to wait for the monitor's last event once the emulator has ended."""

LAST_WORDS = 2.0
"""Seconds to listen on after a fatal line: what follows it explains it."""


class BootFailedError(Exception):
    """The boot cannot succeed any more."""

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(message)
        self.failure: Failure = failure
        self.message = message


def emit(kind: str, **values: Any) -> None:
    """Tell the parent process something."""
    sys.stdout.write(json.dumps({"event": kind, **values}) + "\n")
    sys.stdout.flush()


@dataclass
class Boot:
    """The state of one running machine."""

    spec: SessionSpec
    console: Console
    process: subprocess.Popen[str]
    monitor: QMPClient
    began: float
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
        return time.monotonic() - self.began


Proof = Callable[[Boot, list[Check]], Awaitable[None]]
"""What is done with a machine that was just powered on; adds what it finds."""


async def main(
    spec: SessionSpec, proof: Proof | None = None, answer: metadata.Answer = lookup
) -> CaseReport:
    """Boot, look, power off; whatever happens ends in a report."""
    checks: list[Check] = []
    console = Console(announce=lambda name, at: emit("progress", text=f"{name} {at:.1f} s"))
    seconds = 0.0
    diagnosis = None
    with contextlib.ExitStack() as stack:
        requests = None
        if spec.serve_metadata:
            log = spec.evidence / "metadata-requests.log"
            requests, _ = stack.enter_context(
                metadata.serve(spec.expected.instance, log, answer=answer)
            )
        try:
            async with _powered_on(spec, console) as boot:
                try:
                    await (proof or _prove)(boot, checks)
                except BootFailedError as failure:
                    diagnosis = _diagnose(failure, console)
                    await _take_screenshot(boot)
                finally:
                    seconds = boot.now
        except BootFailedError as failure:
            diagnosis = _diagnose(failure, console)
    if diagnosis is None and any(check.verdict == "failed" for check in checks):
        wrong = "; ".join(f"{c.name}: {c.detail}" for c in checks if c.verdict == "failed")
        diagnosis = Diagnosis("check failed", wrong, console.tail())
    if requests is not None and not requests.paths and diagnosis is not None:
        text = f"{diagnosis.message} (the guest never asked the metadata service)"
        diagnosis = Diagnosis(diagnosis.failure, text, diagnosis.console)
    return CaseReport(
        name=spec.name,
        verdict="failed" if diagnosis else "passed",
        accelerator=spec.accelerator,
        checks=tuple(checks),
        milestones=dict(console.milestones),
        seconds=round(seconds, 2),
        evidence=spec.evidence,
        diagnosis=diagnosis,
    )


def _diagnose(failure: BootFailedError, console: Console) -> Diagnosis:
    return Diagnosis(failure.failure, failure.message, console.tail())


@contextlib.asynccontextmanager
async def _powered_on(spec: SessionSpec, console: Console) -> AsyncIterator[Boot]:
    """Start QEMU with its processors halted, connect to it, and let it go."""
    monitor = QMPClient("boot-test")
    clock = _Clock()
    keyboards: dict[str, asyncio.StreamWriter] = {}
    readers = await _listen(spec, console, clock, keyboards)
    await monitor.start_server("qmp.sock")
    log = spec.evidence / "qemu.log"
    with log.open("wb") as output, started(spec.command, stdout=output, stderr=output) as process:
        boot = Boot(spec, console, process, monitor, time.monotonic(), keyboards)
        with _watch_exit(boot):
            await _accept(boot, log)
            boot.began = clock.began = time.monotonic()
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


class _Clock:
    began = 0.0

    def now(self) -> float:
        return time.monotonic() - self.began if self.began else 0.0


async def _listen(
    spec: SessionSpec,
    console: Console,
    clock: _Clock,
    keyboards: dict[str, asyncio.StreamWriter],
) -> list[asyncio.AbstractServer]:
    async def read(source: str, reader: asyncio.StreamReader) -> None:
        with (spec.evidence / f"{source}.log").open("ab", buffering=0) as log:
            while data := await reader.read(65536):
                log.write(data)
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


async def _prove(boot: Boot, checks: list[Check]) -> None:
    spec = boot.spec
    if spec.user is None:
        await _until_login(boot)
        checks.append(Check("login prompt", "passed", "on the serial console", boot.now))
    else:
        guest = await until_ssh(boot)
        checks += await _look_inside(boot, guest)
        checks.append(_login_check(boot))
    if spec.guest_agent:
        checks.append(await _ask_agent(boot))
    await _take_screenshot(boot)
    checks.append(await power_off(boot))


async def _until_login(boot: Boot) -> None:
    while "login" not in boot.console.milestones:
        await _wait_for_sign(boot)


async def until_ssh(boot: Boot) -> Guest:
    """Try to log in until it works or the boot has failed, whichever is first."""
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


async def _why_ended(boot: Boot) -> str:
    # The emulator's last event may still be on its way when its end is noticed.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(boot.shut_down.wait(), LAST_EVENT)
    return boot.shutdown_reason or f"status {boot.process.returncode}"


async def _explain_exit(boot: Boot) -> tuple[Failure, str]:
    seen = boot.console.milestones
    reason = await _why_ended(boot)
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
        heard = traffic.read(boot.spec.evidence / "network.pcap", boot.spec.expected.instance.mac)
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


async def _look_inside(boot: Boot, guest: Guest) -> tuple[Check, ...]:
    emit("progress", text="looking inside")
    expected = boot.spec.expected
    began = boot.now
    try:
        output = await _while_running(
            boot, guest.script(facts_script(expected.token), boot.spec.budgets.checks)
        )
    except TimeoutError:
        limit = boot.spec.budgets.checks
        raise BootFailedError(
            "check failed", f"the guest's answers did not come within {limit:.0f} s"
        ) from None
    finally:
        host_key = guest.host_key
        await guest.close()
    (boot.spec.evidence / "facts.txt").write_text(output.stdout, encoding="utf-8")
    facts = parse_facts(output.stdout)
    detail = f"host key {host_key}"
    ssh = Check("ssh", "passed", detail, boot.console.milestones["ssh"])
    took = Check("facts", "passed", "collected over SSH", boot.now - began)
    return (ssh, took, *run_checks(facts, expected))


async def _while_running(boot: Boot, work: Awaitable[T]) -> T:
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


def _login_check(boot: Boot) -> Check:
    at = boot.console.milestones.get("login")
    if at is None:
        return Check("console login", "failed", "no login prompt on the serial console")
    return Check("console login", "passed", "a login prompt on the serial console", at)


async def _ask_agent(boot: Boot) -> Check:
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


async def _take_screenshot(boot: Boot) -> None:
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
    took, reason = boot.now - began, await _why_ended(boot)
    clean = boot.process.returncode == 0 and reason == "guest-shutdown"
    return Check("power off", "passed" if clean else "failed", reason, took)


def _prepare_network(*, serve_metadata: bool) -> None:
    run(["ip", "link", "set", "lo", "up"])
    if serve_metadata:
        run(["ip", "address", "add", f"{metadata.ADDRESS[0]}/32", "dev", "lo"])


def run_session(path: Path, proof: Proof | None = None, answer: metadata.Answer = lookup) -> None:
    """Carry out the boot that a spec file describes.

    Args:
        path: The spec; its directory becomes the working directory.
        proof: What to do with the machine instead of the checks of the boot test.
        answer: How the metadata service answers, instead of as nova does.
    """
    spec = SPEC.validate_json(path.read_bytes())
    os.chdir(path.parent)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _prepare_network(serve_metadata=spec.serve_metadata)
    report = asyncio.run(main(spec, proof, answer))
    emit("report", report=json.loads(CASE.dump_json(report)))


if __name__ == "__main__":
    run_session(Path(sys.argv[1]))
