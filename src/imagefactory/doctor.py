"""What this host has and lacks for building, boot-testing and uploading images.

Every finding comes from trying the thing: programs are started, machines are powered on,
namespaces are entered. Nothing on the host is changed and no network is used.

Exit status of ``imagefactory doctor``: 0 when the asked architectures can be built and
boot-tested here (`sufficient`), else `HostError.exit_code`. Findings that only make things
faster or are needed for uploads alone never change it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from imagefactory import run
from imagefactory.arch import ArchProfile
from imagefactory.boot import firmware
from imagefactory.data import config_home
from imagefactory.devcloud.place import UP
from imagefactory.errors import ImageFactoryError
from imagefactory.packages.apt import KEYRING_HINT
from imagefactory.sandbox import foreign, namespace
from imagefactory.template import ImageTemplate

_PROBE_SECONDS = 20.0
_MIB = 1 << 20


class State(StrEnum):
    """The verdict of one finding."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for on this host."""

    what: str
    state: State
    needed_for: str
    detail: str
    """The version, the path, or the reason why it is not usable."""
    package: str = ""
    """The Debian package that brings it."""
    hint: str = ""
    """What to do when no package helps."""
    required: bool = True
    """Whether the asked architectures cannot be built and boot-tested without it."""

    @property
    def blocking(self) -> bool:
        """Whether this finding alone makes the host insufficient."""
        return self.required and self.state is State.MISSING


@dataclass(frozen=True)
class Host:
    """The places of the host that are looked at; tests point them elsewhere."""

    directory: Path = Path()
    """Where builds will be written: its filesystem must have room."""
    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")
    kvm: Path = Path("/dev/kvm")
    firmware: tuple[Path, ...] = field(default_factory=firmware.directories)


@dataclass(frozen=True)
class Tool:
    """A program that every build or boot test starts."""

    program: str
    package: str
    needed_for: str
    oldest: tuple[int, ...] = ()
    """The oldest version that the work was tried with or that has what is asked of it."""
    version_option: str = "--version"


TOOLS = (
    Tool("apt-get", "apt", "build", (2, 2)),  # 2.2: update --error-on=any
    Tool("dpkg", "dpkg", "build"),
    Tool("dpkg-deb", "dpkg", "build"),
    Tool("mount", "mount", "build"),
    Tool("unshare", "util-linux", "build, boot test", (2, 32)),  # 2.32: --kill-child
    Tool("setpriv", "util-linux", "build, boot test", (2, 33)),  # 2.33: --pdeathsig
    Tool("qemu-img", "qemu-utils", "build, boot test", (5, 1)),  # 5.1: compression_type=zstd
    Tool("ip", "iproute2", "boot test", version_option="-V"),
)
BOOTSTRAPPER = Tool("mmdebstrap", "mmdebstrap", "Debian images", (1, 3))
"""Minimal images do without; 1.3 of Debian 12 is the oldest that was tried."""

OLDEST_QEMU = (7, 2)
"""The oldest QEMU that guests were booted with."""

SPACE_NEEDED, SPACE_COMFORTABLE = 1024, 4096
"""MiB: one minimal image with its packages; several with their caches and evidence."""
QEMU_OVERHEAD = 256
"""MiB that QEMU takes beside the guest's memory when it translates code."""


def examine(
    profiles: Sequence[ArchProfile],
    templates: Iterable[ImageTemplate] = (),
    host: Host | None = None,
) -> tuple[Finding, ...]:
    """Look at everything that building and boot-testing for these architectures needs."""
    host = host or Host()
    return (
        *(_tool(tool) for tool in TOOLS),
        *(finding for profile in profiles for finding in _architecture(profile, host)),
        *_keyrings(templates),
        _user_namespaces(host),
        _bootstrapper(),
        _user_numbers(),
        _private_binfmt(),
        *(_foreign(profile) for profile in profiles),
        _kvm(host),
        _disk_space(host),
        _memory(profiles, host),
        _clouds_yaml(),
        _venvs(),
    )


def sufficient(findings: Iterable[Finding]) -> bool:
    """Whether the architectures that were asked about can be built and boot-tested here."""
    return not any(finding.blocking for finding in findings)


def packages_to_install(findings: Iterable[Finding]) -> tuple[str, ...]:
    """The Debian packages that would turn missing things into present ones, sorted."""
    return tuple(
        sorted({found.package for found in findings if found.state is State.MISSING} - {""})
    )


def to_json(findings: Sequence[Finding]) -> str:
    """Write the findings for programs to read; the keys are those of `Finding`."""
    return json.dumps(
        {
            "sufficient": sufficient(findings),
            "packages_to_install": packages_to_install(findings),
            "findings": [dataclasses.asdict(finding) for finding in findings],
        },
        indent=2,
    )


_MARKS = {State.OK: "[green]✓[/]", State.LIMITED: "[yellow]![/]", State.MISSING: "[red]✗[/]"}


def render(findings: Sequence[Finding]) -> Table:
    """Draw the findings as a table for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for column in ("what", "found", "needed for"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        optional = finding.state is State.MISSING and not finding.required
        remedy = finding.hint
        if finding.state is not State.OK and finding.package:
            remedy = "; ".join(filter(None, (f"install {finding.package}", finding.hint)))
        table.add_row(
            "[yellow]-[/]" if optional else _MARKS[finding.state],
            escape(finding.what),
            escape(finding.detail) + (f"\n[bold]{escape(remedy)}[/]" if remedy else ""),
            escape(finding.needed_for),
        )
    return table


def _tool(tool: Tool, *, oldest_is_needed: bool = True) -> Finding:
    path = run.which(tool.program)
    if path is None:
        return Finding(tool.program, State.MISSING, tool.needed_for, "not installed", tool.package)
    try:
        output = run.run([path, tool.version_option], timeout=_PROBE_SECONDS).stdout
    except ImageFactoryError as error:
        reason = f"{path} does not run: {error.message}"
        return Finding(tool.program, State.MISSING, tool.needed_for, reason, tool.package)
    version = re.search(r"\d+(\.\d+)+", output)
    detail = f"{version.group() if version else 'unknown version'}, {path}"
    if version and tuple(map(int, version.group().split("."))) < tool.oldest:
        state = State.MISSING if oldest_is_needed else State.LIMITED
        wanted = ".".join(map(str, tool.oldest))
        detail += f"; older than {wanted}" + ("" if oldest_is_needed else ", not tried")
        return Finding(tool.program, state, tool.needed_for, detail, tool.package)
    return Finding(tool.program, State.OK, tool.needed_for, detail, tool.package)


def _architecture(profile: ArchProfile, host: Host) -> Iterator[Finding]:
    """The emulator of an architecture, a machine of it that powers on, and its firmware."""
    hypervisor = profile.hypervisor
    needed_for = f"boot test of {profile.name}"
    emulator = Tool(hypervisor.qemu, hypervisor.qemu_package, needed_for, OLDEST_QEMU)
    found = _tool(emulator, oldest_is_needed=False)
    yield found
    if found.state is not State.MISSING:
        yield _machine(profile, needed_for)
    # BIOS and machines' own firmware are QEMU's default: the machine's start has proved them.
    if hypervisor.firmware == "uefi" or "uefi" in hypervisor.firmware_packages:
        yield _uefi(profile, host, needed_for)


def _machine(profile: ArchProfile, needed_for: str) -> Finding:
    """Power a machine on, paused before its first instruction: it has loaded its firmware."""
    hypervisor = profile.hypervisor
    machine = ",".join((hypervisor.machine, *hypervisor.machine_options))
    packages = hypervisor.firmware_packages
    package = packages.get("bios", "") if hypervisor.firmware == "bios" else ""
    name = f"QEMU machine {hypervisor.machine}"
    command = [hypervisor.qemu, "-machine", machine, "-cpu", hypervisor.tcg_cpu, "-accel", "tcg"]
    # The machine's own display stays: its VGA BIOS is a file that may be missing too.
    command += ["-nic", "none", "-serial", "none", "-monitor", "none", "-display", "none"]
    command += ["-S", "-qmp", "stdio"]
    quit_at_once = '{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'
    try:
        run.run(command, stdin=quit_at_once, timeout=_PROBE_SECONDS)
    except ImageFactoryError as error:
        return Finding(name, State.MISSING, needed_for, error.message, package)
    return Finding(name, State.OK, needed_for, "powers on under software emulation")


def _uefi(profile: ArchProfile, host: Host, needed_for: str) -> Finding:
    """The firmware that a boot test can choose from, by its own rules."""
    package = profile.hypervisor.firmware_packages.get("uefi", "")
    target = profile.hypervisor.qemu.removeprefix("qemu-system-")
    name = f"UEFI firmware {target}"
    try:
        found = firmware.installed(target, host.firmware)
    except ImageFactoryError as error:
        return Finding(name, State.MISSING, needed_for, error.message, package)
    if not found:
        detail = "no firmware descriptor of QEMU names a file that exists"
        return Finding(name, State.MISSING, needed_for, detail, package)
    return Finding(name, State.OK, needed_for, str(found[0].executable), package)


def _keyrings(templates: Iterable[ImageTemplate]) -> Iterator[Finding]:
    users: dict[str, list[str]] = {}
    known = [*templates]
    for template in known:
        for repository in (*template.image_repositories, *template.tool_repositories):
            if repository.keyring is None:
                continue
            names = users.setdefault(repository.keyring, [])
            if template.name not in names:
                names.append(template.name)
    for keyring, names in sorted(users.items()):
        path = Path(keyring)
        # Debian policy for third-party and own keys alike: the file is called like its package.
        shipped = path.parent == Path("/usr/share/keyrings")
        exists = os.access(path, os.R_OK) and path.is_file()
        # Where others can be built without it the host is good enough, and to install a
        # package that its distribution may not have would be bad advice.
        required = len(names) == len({template.name for template in known})
        yield Finding(
            f"keyring {path.name}",
            State.OK if exists else State.MISSING,
            f"build of {', '.join(names)}",
            keyring if exists else f"{keyring} cannot be read",
            path.stem if shipped and required else "",
            hint="" if exists or required else KEYRING_HINT,
            required=required,
        )


_USERNS = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork")

_USERNS_SWITCHES = (
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
"""Below /proc/sys: the switch, the value that forbids, the command that allows."""


def _user_namespaces(host: Host) -> Finding:
    name, needed_for = "user namespaces", "build, boot test"
    if run.which("unshare") is None:
        return Finding(name, State.MISSING, needed_for, "no unshare to try them", "util-linux")
    try:
        run.run([*_USERNS, "true"], timeout=_PROBE_SECONDS)
    except ImageFactoryError as error:
        reason, hint = _why_no_namespaces(host)
        detail = f"{reason}: {error.message}"
        return Finding(name, State.MISSING, needed_for, detail, hint=hint)
    return Finding(name, State.OK, needed_for, "user, network, mount and process namespaces")


def _why_no_namespaces(host: Host) -> tuple[str, str]:
    for switch, forbids, remedy in _USERNS_SWITCHES:
        if _read(host.proc / "sys" / switch) == forbids:
            return f"{switch.replace('/', '.')} is {forbids}", f"as root: {remedy}"
    container = (
        "not in a chroot; in a container, allow them (docker run --security-opt seccomp=unconfined "
        "--security-opt apparmor=unconfined, or --privileged)"
    )
    return "refused although no known sysctl forbids it", container


def _bootstrapper() -> Finding:
    return dataclasses.replace(_tool(BOOTSTRAPPER, oldest_is_needed=False), required=False)


def _user_numbers() -> Finding:
    """A tree's files have many owners: root gives them itself, others need numbers of their own."""
    name, needed_for = "subordinate user numbers", "Debian images"
    if os.geteuid() == 0:
        return Finding(name, State.OK, needed_for, "root needs none", required=False)
    if run.which("newuidmap") is None:
        detail = "no newuidmap to use them"
        return Finding(name, State.MISSING, needed_for, detail, "uidmap", required=False)
    try:
        first = [str(namespace.subordinate(kind)) for kind in ("uid", "gid")]
    except ImageFactoryError as error:
        detail, hint = error.message, error.hint
        return Finding(name, State.MISSING, needed_for, detail, hint=hint, required=False)
    return Finding(name, State.OK, needed_for, f"from {' and '.join(first)} on", required=False)


def _private_binfmt() -> Finding:
    """Linux 6.7 and newer give every user namespace a binfmt_misc of its own."""
    name, needed_for = "private binfmt_misc", "running foreign programs (not for minimal images)"
    with tempfile.TemporaryDirectory(prefix="imagefactory-doctor-") as target:
        attempt = 'mount -t binfmt_misc none "$0" && test -w "$0/register"'
        try:
            run.run([*_USERNS, "sh", "-c", attempt, target], timeout=_PROBE_SECONDS)
        except ImageFactoryError:
            detail = f"refused (Linux {os.uname().release}; 6.7 brought it)"
            return Finding(name, State.LIMITED, needed_for, detail, required=False)
    return Finding(name, State.OK, needed_for, f"Linux {os.uname().release}", required=False)


def _foreign(profile: ArchProfile) -> Finding:
    """How programs of an architecture would be run here; tried in a cache of its own."""
    name, needed_for = f"programs of {profile.name}", "their builds (not for minimal images)"
    with tempfile.TemporaryDirectory(prefix="imagefactory-doctor-") as cache:
        try:
            chosen = foreign.choose(profile, os.uname().machine, Path(cache))
        except ImageFactoryError as error:
            detail, hint = error.message, error.hint
            return Finding(
                name, State.MISSING, needed_for, detail, "qemu-user-static", hint, required=False
            )
    state = State.LIMITED if chosen.mechanism == "qemu-user" else State.OK
    detail = f"{chosen.mechanism}: {chosen.reason}"
    return Finding(name, state, needed_for, detail, required=False)


def _kvm(host: Host) -> Finding:
    name = str(host.kvm)
    needed_for = f"faster boot tests of {os.uname().machine}"
    state, detail, hint = State.OK, "present; believed only after a real guest ran on it", ""
    if not host.kvm.exists():
        state, detail = State.LIMITED, "absent; guests run under software emulation"
    elif not os.access(host.kvm, os.R_OK | os.W_OK):
        state, detail = State.LIMITED, "present, but you may not open it"
        hint = "add yourself to the group that owns it (kvm)"
    return Finding(name, state, needed_for, detail, hint=hint, required=False)


def _disk_space(host: Host) -> Finding:
    directory = host.directory.absolute()
    place = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(place).free // _MIB
    state = _enough(free, SPACE_NEEDED, SPACE_COMFORTABLE)
    detail = f"{free} MiB free in {place.resolve()}"
    hint = "" if state is State.OK else f"{SPACE_COMFORTABLE} MiB are comfortable"
    return Finding("disk space", state, "build, boot test", detail, hint=hint)


def _memory(profiles: Sequence[ArchProfile], host: Host) -> Finding:
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _read(host.proc / "meminfo"), re.MULTILINE)
    ceiling = _read(host.cgroup / "memory.max")  # a container's; "max" where there is none
    amounts = [int(available.group(1)) // 1024] if available else []
    amounts += [int(ceiling) // _MIB] if ceiling.isdigit() else []
    needed = max((profile.min_ram for profile in profiles), default=0) + QEMU_OVERHEAD
    if not amounts:
        return Finding("memory", State.LIMITED, "boot test", "the kernel does not say", "")
    state = _enough(min(amounts), needed, 2 * needed)
    detail = f"{min(amounts)} MiB available, a guest takes {needed}"
    return Finding("memory", state, "boot test", detail)


def _enough(amount: int, needed: int, comfortable: int) -> State:
    if amount < needed:
        return State.MISSING
    return State.OK if amount >= comfortable else State.LIMITED


def _clouds_yaml() -> Finding:
    """Where openstacksdk looks for the clouds that a user can upload to."""
    named = os.environ.get("OS_CLIENT_CONFIG_FILE")
    directories = (Path(), config_home() / "openstack", Path("/etc/openstack"))
    places = [Path(named)] if named else []
    places += [place / f"clouds.{end}" for place in directories for end in ("yaml", "yml", "json")]
    found = next((place for place in places if place.is_file()), None)
    return Finding(
        "clouds.yaml",
        State.OK if found else State.LIMITED,
        "upload",
        str(found.absolute()) if found else "none found; uploads need one",
        hint=""
        if found
        else "download it from your cloud's dashboard to ~/.config/openstack/, or do without a "
        f"cloud: `{UP}`",
        required=False,
    )


def _venvs() -> Finding:
    """Debian has what a venv needs in a package of its own."""
    name, needed_for = "Python's venv", "devcloud"
    try:
        run.run([sys.executable, "-c", "import ensurepip, venv"], timeout=_PROBE_SECONDS)
    except ImageFactoryError:
        detail = f"{sys.executable} has no ensurepip"
        return Finding(
            name, State.MISSING, needed_for, detail, package="python3-venv", required=False
        )
    return Finding(name, State.OK, needed_for, sys.executable, required=False)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
