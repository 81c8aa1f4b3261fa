"""A guest held open: booted as the boot test does it, and then a test works inside.

What the test does there is a *visit*: an async function of the test's module. It runs in the
boot's own process, which alone has the guest's network, and returns what it saw (anything that
JSON can hold). Asserting is left to the test.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import secrets
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagefactory.arch import ArchProfiles
from imagefactory.boot import emulator, firmware, instance, machine, metadata, seed
from imagefactory.boot.facts import Expected
from imagefactory.boot.guest import Guest, Output, new_key
from imagefactory.boot.instance import InstanceData, lookup
from imagefactory.boot.isolation import isolation
from imagefactory.boot.machine import Files, Network
from imagefactory.boot.nova import derive
from imagefactory.boot.running import Boot, Findings, power_off
from imagefactory.boot.session import run_session
from imagefactory.boot.spec import CASE, SPEC, Budgets, SessionSpec
from imagefactory.boot.waiting import until_ssh
from imagefactory.run import run, started

CHECKOUT = Path(__file__).resolve().parents[2]

PATIENCE = 120.0
"""Seconds for anything that a guest does; a busy host emulates ten times slower."""

SUMMARY = r"imagefactory-status: ok=\d+ warn=\d+ failed=\d+ uptime=[\d.]+"
PROMPT = r"(?m)^\S+ login: "


@dataclass(frozen=True)
class Visitor:
    """Somebody who works in a guest: over SSH, and at its serial console."""

    boot: Boot
    guest: Guest | None

    async def run(self, command: str, limit: float = PATIENCE) -> Output:
        """Let the user's shell run a command, for so many seconds."""
        assert self.guest is not None, "nobody can log in to this guest by SSH"
        return await self.guest.command(command, limit)

    async def read(self, command: str, limit: float = PATIENCE) -> str:
        """Run a command that must work, and return what it printed."""
        done = await self.run(command, limit)
        assert done.status == 0, f"{command}: status {done.status}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    @property
    def host_key(self) -> str:
        assert self.guest is not None
        return self.guest.host_key

    def printed(self) -> str:
        """All that the console showed."""
        log = self.boot.spec.evidence / "console.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    async def sees(self, pattern: str, since: int = 0) -> int:
        """Wait until the console shows something; return where in its text that ends."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.boot.console.changed.clear()
            found = re.compile(pattern).search(self.printed(), since)
            if found:
                return found.end()
            try:
                left = deadline - time.monotonic()
                await asyncio.wait_for(self.boot.console.changed.wait(), left)
            except TimeoutError:
                text = self.printed()[since:][-2000:]
                raise AssertionError(f"the console never showed {pattern!r}:\n{text}") from None

    async def types(self, line: str) -> None:
        """Type a line at the console."""
        keyboard = self.boot.keyboards["console"]
        keyboard.write(f"{line}\r".encode())
        await keyboard.drain()

    async def logs_in(self, user: str, password: str) -> int:
        """Give user and password at the prompt below the summary; return where that was."""
        prompt = await self.sees(PROMPT, await self.sees(SUMMARY))
        await self.types(user)
        asked = await self.sees("Password: ?", prompt)
        await self.types(password)
        return asked


Visit = Callable[[Visitor], Awaitable[Any]]


@dataclass(frozen=True)
class Server:
    """A server, as its owner asked the cloud for it."""

    data: InstanceData
    private_key: str

    @classmethod
    def new(cls, hostname: str, user_data: str = "", mac: str = "") -> Server:
        private, public = new_key()
        address = mac or "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))
        return cls(InstanceData(str(uuid.uuid4()), hostname, public, address, user_data), private)


@dataclass(frozen=True)
class Lab:
    """Boots disks of one image under emulation."""

    profiles: ArchProfiles
    properties: Mapping[str, str]
    directory: Path
    patience: float = 1.0
    """How much more than the architecture's budget the image gets."""

    def disk(self, image: Path, name: str = "disk", size: str = "1G") -> Path:
        """Give a server a root disk: as in a cloud, it grew and it lives as long as the server."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / f"{name}.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", path, size])
        return path

    def visit(
        self,
        disk: Path,
        server: Server,
        visit: Visit,
        *,
        drive: Mapping[str, bytes] | None = None,
        service: metadata.Answer | None = None,
        hardware: tuple[str, ...] = (),
        login: bool = True,
    ) -> Any:
        """Boot a disk, work in it, switch it off; return what was seen.

        Args:
            disk: It is written to.
            server: Who it is.
            visit: A function at the top of a module.
            drive: The files of its config drive.
            service: How the metadata service answers; none without it. Also at the top.
            hardware: More words for QEMU.
            login: Whether to log in by SSH.
        """
        evidence = self.directory / f"{visit.__name__}-{secrets.token_hex(3)}"
        work = evidence / "work"
        work.mkdir(parents=True)
        spec = self._spec(disk, server, drive, evidence, hardware, login, service is not None)
        (work / "spec.json").write_bytes(SPEC.dump_json(spec))
        names = [_name(visit), _name(service or lookup)]
        argv = [*isolation(), sys.executable, "-m", __name__, str(work / "spec.json"), *names]
        with (
            (evidence / "session.log").open("wb") as log,
            started(argv, cwd=CHECKOUT, stderr=log) as process,
        ):
            events = [json.loads(line) for line in process.stdout or ()]
        reports = [event["report"] for event in events if event["event"] == "report"]
        assert reports, (evidence / "session.log").read_text(encoding="utf-8")
        report = CASE.validate_json(json.dumps(reports[0]))
        assert report.verdict == "passed", f"{report.diagnosis}\nevidence: {evidence}"
        return json.loads((evidence / "visit.json").read_text(encoding="utf-8"))

    def _spec(
        self,
        disk: Path,
        server: Server,
        drive: Mapping[str, bytes] | None,
        evidence: Path,
        hardware: tuple[str, ...],
        login: bool,
        service: bool,
    ) -> SessionSpec:
        guest = derive(self.properties, self.profiles)
        budget = guest.hypervisor.boot_budget * self.patience
        data = server.data
        qemu = emulator.ask(guest.hypervisor)
        flash = None
        if guest.firmware == "uefi":
            wanted = firmware.Wanted(
                guest.architecture,
                qemu.machine(guest.machine),
                guest.secure_boot,
                guest.stateless,
                guest.hypervisor.firmware_packages["uefi"],
            )
            flash = firmware.prepare(firmware.find(wanted), wanted.machine, evidence / "work")
        files = Files(disk, firmware=flash)
        if drive is not None:
            files = Files(disk, seed=evidence / "config-drive.iso", firmware=flash)
            seed.write(evidence / "config-drive.iso", drive, seed.CONFIG_DRIVE_LABEL)
        command = machine.command(
            guest,
            qemu,
            files,
            Network(data.mac, data.address, instance.IPV6_PREFIX),
            uuid=data.uuid,
            accelerator="tcg",
        )
        return SessionSpec(
            name=evidence.name,
            accelerator="tcg",
            command=(*command, *hardware),
            evidence=evidence,
            budgets=Budgets(budget, budget, budget, budget, budget, budget),
            user=(guest.admin_user or "cloud") if login else None,
            private_key=server.private_key,
            expected=Expected(guest.architecture, data, "", service, guest.memory, 0, 0),
            display=False,
            serve_metadata=service,
            guest_agent=False,
        )


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


def _find(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def main(spec: str, visit: str, service: str) -> None:
    """Carry out a visit; runs in the boot's process."""
    os.umask(0o022)
    work: Visit = _find(visit)

    async def proof(boot: Boot, findings: Findings) -> None:
        guest = await until_ssh(boot) if boot.spec.user else None
        seen = await work(Visitor(boot, guest))
        (boot.spec.evidence / "visit.json").write_text(json.dumps(seen), encoding="utf-8")
        if guest:
            await guest.close()
        findings.checks.append(await power_off(boot))

    run_session(Path(spec), proof, _find(service))


if __name__ == "__main__":
    main(*sys.argv[1:])
