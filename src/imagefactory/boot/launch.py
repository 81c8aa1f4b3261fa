"""Starts boots: derives the machine, prepares its files, runs the session, chooses KVM or TCG."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import shlex
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from imagefactory.arch import ArchProfiles
from imagefactory.boot import accel, emulator, firmware, instance, machine, seed
from imagefactory.boot.checks import WAIT_SECONDS, Expected, user_data, vendor_data
from imagefactory.boot.guest import new_key
from imagefactory.boot.machine import Accelerator, Emulator, Files, Network
from imagefactory.boot.nova import NovaGuest, derive
from imagefactory.boot.report import BootReport, CaseReport
from imagefactory.boot.spec import CASE, SPEC, Budgets, SessionSpec
from imagefactory.errors import (
    BootTestError,
    CommandError,
    ConfigError,
    HostError,
    PropertyError,
)
from imagefactory.run import need, run, started, stop
from imagefactory.template import BootCase

Progress = Callable[[str, str], None]
Room = Callable[[int], AbstractContextManager[None]]

GIB = 1 << 30
ROOM = GIB
"""The overlay is larger than the image by at least this much, so that growth shows."""

DEFAULT_USER = "cloud"

NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
UNPRIVILEGED = ("--user", "--map-root-user")


@dataclass(frozen=True)
class _Plan:
    """One boot, decided before anything starts."""

    case: BootCase
    properties: Mapping[str, str]
    guest: NovaGuest
    emulator: Emulator
    machine: str
    firmware: firmware.Firmware | None


@dataclass(frozen=True)
class _Image:
    path: Path
    format: str
    virtual_size: int


def boot_test(  # noqa: PLR0913
    disk: Path,
    properties: Mapping[str, str],
    cases: Sequence[BootCase],
    evidence: Path,
    *,
    profiles: ArchProfiles,
    accelerator: accel.Choice = "auto",
    disk_format: str = "qcow2",
    progress: Progress = lambda case, text: None,
    room: Room = lambda memory: contextlib.nullcontext(),
    jobs: int = 1,
    budget: float | None = None,
) -> BootReport:
    """Boot a disk once per case, on the machine that its properties describe, and look inside.

    Args:
        disk: The image. It is only read; each boot writes to an overlay of its own.
        properties: The Glance properties that will be uploaded (min_ram and min_disk count).
        cases: The boots; those for other architectures are left out.
        evidence: Directory for logs, pictures and reports, a subdirectory per case.
        profiles: Where the facts about hypervisors come from.
        accelerator: auto takes KVM where it is proven to run guests, TCG otherwise.
        disk_format: The image's format; it is never guessed.
        progress: Called with a case's name and what happens; from several threads with jobs.
        room: Called with a guest's memory in MiB; the guest runs within the block. Whoever asks
            for several tests at once lets them wait for each other here.
        jobs: How many boots may run at once.
        budget: Seconds from power-on to SSH, instead of the architecture's own.

    Raises:
        PropertyError: The properties describe a machine that nova or QEMU would refuse.
        HostError: This host lacks QEMU, a firmware or namespaces.
        BootTestError: A boot could not be carried out at all. (A boot that fails is a report.)
    """
    began = time.monotonic()
    architecture = properties.get("architecture", "")
    chosen = [c for c in cases if c.architectures is None or architecture in c.architectures]
    if not chosen:
        raise ConfigError(f"no boot test is meant for the architecture {architecture!r}")
    plans = [_plan(case, properties, profiles) for case in chosen]
    image = _inspect(disk, disk_format)
    evidence.mkdir(parents=True, exist_ok=True)
    runner = _Runner(
        image, evidence.absolute(), isolation(), progress, room, budget, accelerator, profiles
    )
    reports = runner.run_all(plans, jobs)
    report = BootReport(
        architecture=architecture,
        accelerator=", ".join(sorted({case.accelerator for case in reports})),
        qemu_version=plans[0].emulator.version,
        cases=tuple(reports),
        seconds=round(time.monotonic() - began, 2),
        evidence=evidence,
        properties=dict(properties),
    )
    (evidence / "report.json").write_text(report.to_json(), encoding="utf-8")
    report.write_junit(evidence / "junit.xml")
    return report


def _plan(case: BootCase, properties: Mapping[str, str], profiles: ArchProfiles) -> _Plan:
    merged = {**properties, **case.properties}
    guest = derive(merged, profiles, memory=case.memory)
    if guest.emulated and case.datasource == "config-drive":
        raise PropertyError(
            "hw_emulation_architecture excludes a config drive",
            hint=f"give the case {case.name!r} the datasource openstack",
        )
    asked = emulator.ask(guest.hypervisor)
    name = asked.machine(guest.machine)
    found = None
    if guest.firmware == "uefi":
        wanted = firmware.Wanted(
            architecture=Path(asked.binary).name.removeprefix("qemu-system-"),
            machine=name,
            secure_boot=guest.secure_boot,
            stateless=guest.stateless,
            package=guest.hypervisor.firmware_packages.get("uefi", "of a UEFI firmware"),
        )
        found = firmware.find(wanted)
    plan = _Plan(case, merged, guest, asked, name, found)
    # Written once for nothing, so that every mistake in the properties shows before a boot.
    machine.command(
        guest,
        asked,
        Files(disk=Path("disk"), seed=Path("seed"), firmware=_pretended(found)),
        Network("52:54:00:00:00:00", instance.DHCP_ADDRESS),
        uuid="",
        accelerator="tcg",
    )
    return plan


def _pretended(found: firmware.Firmware | None) -> firmware.FirmwareFiles | None:
    if found is None:
        return None
    return firmware.FirmwareFiles(found.executable, "raw", None, "raw", requires_smm=False)


def _inspect(disk: Path, disk_format: str) -> _Image:
    need("qemu-img", "qemu-utils")
    if not disk.exists():
        raise ConfigError(f"there is no disk {disk}")
    if not disk.is_file() or disk.stat().st_size == 0:
        raise ConfigError(
            f"{disk} is not a disk image",
            hint="it has to be a regular file that is not empty",
        )
    # The format is named, never probed: a raw guest could claim to be a qcow2 with a backing file.
    try:
        info = run(["qemu-img", "info", "--output=json", "-f", disk_format, disk.absolute()])
    except CommandError as error:
        raise ConfigError(
            f"{disk} is not readable as {disk_format}: {error.message.splitlines()[-1]}",
            hint="name its format: --format raw, or qcow2",
        ) from None
    size = int(json.loads(info.stdout)["virtual-size"])
    return _Image(disk.absolute(), disk_format, size)


def isolation() -> tuple[str, ...]:
    """Find out how namespaces can be had here: as root directly, else in a user namespace.

    Raises:
        HostError: In neither way.
    """
    need("unshare", "util-linux")
    need("ip", "iproute2")
    ways: list[tuple[str, ...]] = [(*UNPRIVILEGED, *NAMESPACES)]
    if os.geteuid() == 0:
        # Root inside a user namespace could not read other users' images.
        ways.insert(0, NAMESPACES)
    for way in ways:
        tried = run(["unshare", *way, "true"], accept=range(-64, 256))
        if not tried.stderr.strip():
            return ("unshare", *way)
    raise HostError(
        f"this host gives no private namespaces: {tried.stderr.strip()}",
        hint="allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, or "
        "kernel.apparmor_restrict_unprivileged_userns=0), or run as root",
    )


class _Runner:
    """Runs planned boots of one image."""

    def __init__(
        self,
        image: _Image,
        evidence: Path,
        isolation: tuple[str, ...],
        progress: Progress,
        room: Room,
        budget: float | None,
        accelerator: accel.Choice,
        profiles: ArchProfiles,
    ) -> None:
        self._image = image
        self._evidence = evidence
        self._isolation = isolation
        self._progress = progress
        self._room = room
        self._budget = budget
        self._accelerator = accelerator
        self._profiles = profiles
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    def run_all(self, plans: Sequence[_Plan], jobs: int) -> list[CaseReport]:
        """Run the boots; the first alone where KVM has yet to prove itself."""
        alone = 1 if self._belief(plans[0]).belief == "unproven" else 0
        first = [self._boot(plan) for plan in plans[:alone]]
        rest = plans[alone:]
        if jobs <= 1 or len(rest) <= 1:
            return first + [self._boot(plan) for plan in rest]
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            try:
                return first + list(pool.map(self._boot, rest))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self._stop_all()
                raise

    def _stop_all(self) -> None:
        with self._lock:
            running = list(self._running)
        for process in running:
            stop(process)

    def _belief(self, plan: _Plan) -> accel.Verdict:
        if self._accelerator != "auto":
            return accel.Verdict("absent", "not asked for")
        return accel.recall(plan.guest.architecture, self._profiles, plan.emulator)

    def _boot(self, plan: _Plan) -> CaseReport:
        if self._accelerator == "kvm":
            return self._boot_with(plan, "kvm")
        belief = self._belief(plan)
        if belief.belief == "works":
            return self._boot_with(plan, "kvm")
        if belief.belief == "unproven":
            return self._try_kvm(plan)
        return self._boot_with(plan, "tcg")

    def _try_kvm(self, plan: _Plan) -> CaseReport:
        """Boot under KVM with little patience; a failure there is judged by emulation."""
        self._progress(plan.case.name, "first guest on this host's KVM")
        report = self._boot_with(plan, "kvm", trial=True)
        if "kernel" in report.milestones and report.verdict == "passed":
            accel.remember(accel.Verdict("works", "a guest booted"), plan.emulator)
            return report
        why = report.diagnosis.message if report.diagnosis else "it failed"
        self._progress(plan.case.name, f"KVM does not run guests here ({why}); emulating")
        emulated = self._boot_with(plan, "tcg")
        # Where emulation fails as well, the image is to blame and KVM remains unproven.
        if len(emulated.milestones) > len(report.milestones):
            accel.remember(accel.Verdict("broken", why), plan.emulator)
        return emulated

    def _boot_with(
        self, plan: _Plan, accelerator: Accelerator, *, trial: bool = False
    ) -> CaseReport:
        case_evidence = self._evidence / plan.case.name
        case_evidence.mkdir(parents=True, exist_ok=True)
        for stale in case_evidence.glob("*"):
            if stale.is_file():
                stale.unlink()
        with TemporaryDirectory(dir=case_evidence, prefix="work-") as work:
            spec = self._prepare(plan, accelerator, Path(work), trial=trial)
            with self._room(plan.guest.memory):
                report = self._run_session(spec, Path(work))
        (case_evidence / "report.json").write_bytes(CASE.dump_json(report, indent=2))
        return report

    def _prepare(
        self, plan: _Plan, accelerator: Accelerator, work: Path, *, trial: bool
    ) -> SessionSpec:
        case, guest = plan.case, plan.guest
        data, private_key, token = _new_instance(case)
        overlay_size = self._overlay_size(plan.properties)
        _create_overlay(self._image, work / "disk.qcow2", overlay_size)
        seed_file = _write_seed(case, guest, data, work.parent)
        flash = firmware.prepare(plan.firmware, plan.machine, work) if plan.firmware else None
        files = Files(
            disk=work / "disk.qcow2",
            seed=seed_file,
            firmware=flash,
            capture=work.parent / "network.pcap",
        )
        network = Network(data.mac, data.address, instance.IPV6_PREFIX)
        command = machine.command(
            guest, plan.emulator, files, network, uuid=data.uuid, accelerator=accelerator
        )
        by_hand = machine.command(
            guest,
            plan.emulator,
            replace(
                files,
                console="stdio,mux=on,signal=off",
                qmp=None,
                firmware_log="null",
                capture=None,
            ),
            network,
            uuid=data.uuid,
            accelerator=accelerator,
        )
        script = _script(by_hand, work, self._image, overlay_size, plan.firmware)
        (work.parent / "qemu.sh").write_text(script, encoding="utf-8")
        (work.parent / "qemu.sh").chmod(0o755)
        return SessionSpec(
            name=case.name,
            accelerator=accelerator,
            command=tuple(command),
            evidence=work.parent,
            budgets=self._budgets(guest, accelerator, trial=trial),
            user=None if case.datasource == "none" else guest.admin_user or DEFAULT_USER,
            private_key=private_key,
            expected=Expected(
                uname=guest.architecture,
                instance=data,
                token=token,
                metadata_service=_serves_metadata(case),
                memory=guest.memory,
                image_bytes=self._image.virtual_size,
                overlay_bytes=overlay_size,
            ),
            display=guest.video_model != "none",
            serve_metadata=_serves_metadata(case),
            guest_agent=guest.guest_agent,
        )

    def _overlay_size(self, properties: Mapping[str, str]) -> int:
        wanted = math.ceil((self._image.virtual_size + ROOM) / GIB) * GIB
        return max(wanted, int(properties.get("min_disk") or 0) * GIB)

    def _budgets(self, guest: NovaGuest, accelerator: Accelerator, *, trial: bool) -> Budgets:
        full = float(guest.hypervisor.boot_budget)
        share = accel.KVM_SHARE if accelerator == "kvm" else 1.0
        boot = self._budget or full * share
        return Budgets(
            boot=boot,
            stall=boot * 0.6,
            kernel=min(boot, full * accel.TRIAL_SHARE) if trial else boot * 0.8,
            refusal=boot * 0.3,
            checks=(full + WAIT_SECONDS) * share,
            power_off=full / 2 * share,
        )

    def _run_session(self, spec: SessionSpec, work: Path) -> CaseReport:
        path = work / "spec.json"
        path.touch(mode=0o600)
        path.write_bytes(SPEC.dump_json(spec))
        log = spec.evidence / "session.log"
        argv = [*self._isolation, sys.executable, "-m", "imagefactory.boot.session", str(path)]
        with log.open("wb") as errors, started(argv, stderr=errors) as process:
            with self._lock:
                self._running.add(process)
            try:
                report = self._follow(spec, process)
            finally:
                with self._lock:
                    self._running.discard(process)
        if report is None:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
            raise BootTestError(
                f"the boot {spec.name!r} broke off: {' / '.join(last) or 'no message'}", log=log
            )
        if not log.stat().st_size:
            log.unlink()
        return report

    def _follow(self, spec: SessionSpec, process: subprocess.Popen[str]) -> CaseReport | None:
        report = None
        for line in process.stdout or ():
            event = json.loads(line)
            if event["event"] == "progress":
                self._progress(spec.name, event["text"])
            elif event["event"] == "report":
                report = CASE.validate_json(json.dumps(event["report"]))
        return report


def _serves_metadata(case: BootCase) -> bool:
    return case.datasource in {"openstack", "ec2"}


def _new_instance(case: BootCase) -> tuple[instance.InstanceData, str, str]:
    private, public = new_key()
    token = secrets.token_hex(8)
    # Locally administered, as neutron's base_mac fa:16:3e.
    mac = "fa:16:3e:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))
    data = instance.InstanceData(
        uuid=str(uuid.uuid4()),
        hostname=f"boot-{token[:6]}",
        public_key=public,
        mac=mac,
        user_data=user_data(token),
        vendor_data=vendor_data(token),
        network=case.network,
    )
    return data, private, token


def _write_seed(
    case: BootCase, guest: NovaGuest, data: instance.InstanceData, directory: Path
) -> Path | None:
    if case.datasource == "nocloud":
        path = directory / "nocloud.iso"
        seed.write(path, instance.nocloud(data), seed.NOCLOUD_LABEL)
        return path
    # img_config_drive=mandatory: nova attaches one whatever the user asked for.
    if case.datasource == "config-drive" or guest.config_drive:
        path = directory / "config-drive.iso"
        seed.write(path, instance.config_drive(data), seed.CONFIG_DRIVE_LABEL)
        return path
    return None


def _overlay_command(image: _Image, overlay: str, size: int) -> list[str]:
    return [
        *("qemu-img", "create", "-q", "-f", "qcow2"),
        *("-b", str(image.path), "-F", image.format, overlay, str(size)),
    ]


def _create_overlay(image: _Image, overlay: Path, size: int) -> None:
    run(_overlay_command(image, str(overlay), size))


def _script(
    command: Sequence[str],
    work: Path,
    image: _Image,
    overlay_size: int,
    found: firmware.Firmware | None,
) -> str:
    """Write the boot as a shell script for people; its disk and variables are fresh each time."""
    overlay = shlex.join(_overlay_command(image, "disk.qcow2", overlay_size))
    lines = [
        "#!/bin/sh",
        "# The machine of this boot test, with its console on this terminal (Ctrl-A X ends it).",
        "# The metadata service is not part of it; log in on port 2222 of this host.",
        "set -eu",
        'work=$(mktemp -d); cd "$work"; trap \'rm -rf "$work"\' EXIT',
        overlay,
    ]
    if found is not None and found.template is not None:
        lines.append(f"cp {shlex.quote(str(found.template))} variables.fd; chmod u+w variables.fd")
    words = shlex.join(command).replace(f"{work}/", "")
    return "\n".join([*lines, words, ""])
