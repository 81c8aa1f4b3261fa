"""Starts boots: derives the machine, prepares its files, runs the session, chooses KVM or TCG."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

from imagefactory.arch import ArchProfiles
from imagefactory.boot import accel, identity
from imagefactory.boot.isolation import isolation
from imagefactory.boot.machine import Accelerator
from imagefactory.boot.nova import guest_architecture
from imagefactory.boot.planned import Image, PlannedBoot, inspect, plan_boot
from imagefactory.boot.prepare import allot, prepare
from imagefactory.boot.report import BootReport, CaseReport
from imagefactory.boot.spec import CASE, SPEC, Budgets, SessionSpec
from imagefactory.errors import BootTestError, ConfigError, PropertyError
from imagefactory.run import started, stop
from imagefactory.template import BootCase

Progress = Callable[[str, str], None]
Room = Callable[[int], AbstractContextManager[None]]


def boot_test(  # noqa: PLR0913
    disk: Path,
    properties: Mapping[str, str],
    cases: Sequence[BootCase],
    evidence: Path,
    *,
    profiles: ArchProfiles,
    accelerator: accel.Choice = "auto",
    disk_format: str = "qcow2",
    kernel: Path | None = None,
    ramdisk: Path | None = None,
    progress: Progress = lambda case, text: None,
    room: Room = lambda memory: contextlib.nullcontext(),
    jobs: int = 1,
    budget: float | None = None,
    patience: float = 1.0,
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
        kernel: What nova starts in a bootloader's place, for an image with ``kernel_id``.
        ramdisk: The same of its ``ramdisk_id``.
        progress: Called with a case's name and what happens; from several threads with jobs.
        room: Called with a guest's memory in MiB; the guest runs within the block. Whoever asks
            for several tests at once lets them wait for each other here.
        jobs: How many boots may run at once.
        budget: Seconds from power-on to SSH, instead of the architecture's own.
        patience: How much more than the architecture's budget this image gets.

    Raises:
        PropertyError: The properties describe a machine that nova or QEMU would refuse.
        HostError: This host lacks QEMU, a firmware or namespaces.
        BootTestError: A boot could not be carried out at all. (A boot that fails is a report.)
    """
    began = time.monotonic()
    architecture = guest_architecture(properties)
    chosen = [c for c in cases if c.architectures is None or architecture in c.architectures]
    if not chosen:
        raise ConfigError(f"no boot test is meant for the architecture {architecture!r}")
    plans = [plan_boot(case, properties, profiles) for case in chosen]
    if properties.get("kernel_id") and not kernel:
        raise PropertyError(
            f"kernel_id={properties['kernel_id']}: nova starts that kernel, and it is not here",
            hint="name its file: --kernel FILE, and --ramdisk FILE for ramdisk_id",
        )
    image = inspect(disk, disk_format, kernel, ramdisk)
    evidence.mkdir(parents=True, exist_ok=True)
    times = functools.partial(allot, boot=budget, patience=patience)
    runner = _Runner(
        image,
        evidence.absolute(),
        isolation(),
        progress,
        room,
        times,
        accelerator,
        profiles,
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
        checks=identity.apart(reports),
    )
    (evidence / "report.json").write_text(report.to_json(), encoding="utf-8")
    report.write_junit(evidence / "junit.xml")
    return report


class _Runner:
    """Runs planned boots of one image."""

    def __init__(
        self,
        image: Image,
        evidence: Path,
        isolation: tuple[str, ...],
        progress: Progress,
        room: Room,
        times: Callable[..., Budgets],
        accelerator: accel.Choice,
        profiles: ArchProfiles,
    ) -> None:
        self._image = image
        self._evidence = evidence
        self._isolation = isolation
        self._progress = progress
        self._room = room
        self._times = times
        self._accelerator = accelerator
        self._profiles = profiles
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    def run_all(self, plans: Sequence[PlannedBoot], jobs: int) -> list[CaseReport]:
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

    def _belief(self, plan: PlannedBoot) -> accel.Verdict:
        if self._accelerator != "auto":
            return accel.Verdict("absent", "not asked for")
        return accel.recall(plan.guest.architecture, self._profiles, plan.emulator)

    def _boot(self, plan: PlannedBoot) -> CaseReport:
        if plan.guest.emulated:  # as nova does, whatever the host could
            return self._boot_with(plan, "tcg")
        if self._accelerator == "kvm":
            return self._boot_with(plan, "kvm")
        belief = self._belief(plan)
        if belief.belief == "works":
            return self._boot_with(plan, "kvm")
        if belief.belief == "unproven":
            return self._try_kvm(plan)
        return self._boot_with(plan, "tcg")

    def _try_kvm(self, plan: PlannedBoot) -> CaseReport:
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
        self, plan: PlannedBoot, accelerator: Accelerator, *, trial: bool = False
    ) -> CaseReport:
        case_evidence = self._evidence / plan.case.name
        case_evidence.mkdir(parents=True, exist_ok=True)
        for stale in case_evidence.glob("*"):
            if stale.is_file():
                stale.unlink()
        with TemporaryDirectory(dir=case_evidence, prefix="work-") as work:
            budgets = self._times(plan.guest, accelerator, trial=trial)
            spec = prepare(plan, self._image, accelerator, Path(work), budgets)
            with self._room(plan.guest.memory):
                report = self._run_session(spec, Path(work))
        (case_evidence / "report.json").write_bytes(CASE.dump_json(report, indent=2))
        return report

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
