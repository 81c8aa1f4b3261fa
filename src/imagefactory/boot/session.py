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
import sys
from pathlib import Path
from typing import Literal

from imagefactory.boot import metadata
from imagefactory.boot.console import Console
from imagefactory.boot.inside import ask_agent, look_inside
from imagefactory.boot.instance import lookup
from imagefactory.boot.reboot import compare, reboot
from imagefactory.boot.report import CaseReport, Check, Diagnosis
from imagefactory.boot.running import (
    Boot,
    BootFailedError,
    Findings,
    Proof,
    power_off,
    powered_on,
    take_screenshot,
)
from imagefactory.boot.spec import CASE, SPEC, SessionSpec, emit
from imagefactory.boot.waiting import until_login, until_ssh
from imagefactory.run import run


async def main(
    spec: SessionSpec, proof: Proof | None = None, answer: metadata.Answer = lookup
) -> CaseReport:
    """Boot, look, power off; whatever happens ends in a report."""
    findings = Findings()
    console = Console(announce=lambda name, at: emit("progress", text=f"{name} {at:.1f} s"))
    diagnosis = None
    with contextlib.ExitStack() as stack:
        requests = None
        if spec.serve_metadata:
            log = spec.evidence / "metadata-requests.log"
            requests, _ = stack.enter_context(
                metadata.serve(spec.expected.instance, log, answer=answer)
            )
        try:
            await _carry_out(spec, console, findings, proof or _prove)
            if spec.reboot:
                console.start_over()
                await _carry_out(spec, console, findings, proof or _prove)
        except BootFailedError as failure:
            diagnosis = _diagnose(failure, console)
    checks = findings.checks
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
        milestones=console.all_milestones(),
        seconds=round(findings.seconds, 2),
        evidence=spec.evidence,
        diagnosis=diagnosis,
        identity=findings.identity,
    )


async def _carry_out(spec: SessionSpec, console: Console, findings: Findings, proof: Proof) -> None:
    async with powered_on(spec, console) as boot:
        try:
            await proof(boot, findings)
        except BootFailedError:
            await take_screenshot(boot)
            raise
        finally:
            findings.seconds += boot.now


def _diagnose(failure: BootFailedError, console: Console) -> Diagnosis:
    where = "second boot: " if console.starts > 1 else ""
    return Diagnosis(failure.failure, f"{where}{failure.message}", console.tail())


async def _prove(boot: Boot, findings: Findings) -> None:
    spec = boot.spec
    if spec.user is None:
        await until_login(boot)
        findings.checks.append(Check("login prompt", "passed", "on the serial console", boot.now))
    elif await _prove_over_ssh(boot, findings) == "rebooted":
        return
    if spec.guest_agent:
        findings.checks.append(await ask_agent(boot))
    await take_screenshot(boot)
    findings.checks.append(await power_off(boot))


async def _prove_over_ssh(boot: Boot, findings: Findings) -> Literal["running", "rebooted"]:
    before = findings.identity
    record = "facts.txt" if before is None else "facts-after-reboot.txt"
    guest = await until_ssh(boot)
    try:
        checks, seen = await look_inside(boot, guest, boot.spec.evidence / record)
        if before is not None:
            findings.checks += compare(before, seen, checks)
            return "running"
        findings.checks += checks
        findings.identity = seen
        if not boot.spec.reboot:
            return "running"
        findings.checks.append(await reboot(boot, guest))
        return "rebooted"
    finally:
        await guest.close()


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
