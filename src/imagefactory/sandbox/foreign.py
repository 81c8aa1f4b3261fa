"""How programs of another architecture are executed, and why in that way.

Three mechanisms: ``native`` (nothing to do), ``qemu-user`` (every program is emulated) and
``accelerated`` (launcher.c stands before the emulator and starts the native twin of programs
whose work does not depend on the machine; see twin.py).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagefactory import run
from imagefactory.arch import ArchProfile, ElfMachine
from imagefactory.cache import Store
from imagefactory.errors import BuildError, HostError, ImageFactoryError

Mechanism = Literal["native", "accelerated", "qemu-user"]

SOURCE = Path(__file__).with_name("launcher.c")

_PROBE_TIMEOUT = 20.0
_COMPILE_TIMEOUT = 120.0

_PATH_LIMIT = 255
"""Linux, fs/binfmt_misc.c: an interpreter's path is shorter than BINPRM_BUF_SIZE."""

FLAGS = "PCF"
"""P: tell argv[0] apart from the path. C: set-user-ID programs have their user. F: the file is
opened now, so that it is there in every chroot. (Linux, admin-guide/binfmt-misc.rst)"""


@dataclass(frozen=True)
class Foreign:
    """How programs of another architecture are executed inside the sandbox."""

    mechanism: Mechanism
    reason: str
    """Why this one, for doctor and the manifest."""
    interpreter: Path | None = None
    """The emulator on the host, a static program."""
    launcher: Path | None = None
    registration: bytes | None = None
    """What `attachment.register` tells the private binfmt_misc; None: the host's is used."""


def choose(
    profile: ArchProfile, host: ArchProfile | str, cache: Path, *, accelerate: bool = True
) -> Foreign:
    """Choose the fastest way that this host has.

    Args:
        profile: The architecture of the tree.
        host: The architecture of this machine: its profile or one of its names.
        cache: The directory of all caches; the launcher is compiled into it once.
        accelerate: False: emulate every program.

    Raises:
        HostError: There is no way; the hint says what to install.
    """
    name = host if isinstance(host, str) else host.name
    if name in (profile.name, *profile.aliases):
        return Foreign("native", f"this machine is {profile.name}")
    interpreter = emulator(profile)
    obstacle = _no_private_binfmt()
    if obstacle:
        return _of_the_host(profile, interpreter, obstacle)
    emulated = registration(profile, interpreter)
    if not accelerate:
        return Foreign("qemu-user", "acceleration is turned off", interpreter, None, emulated)
    try:
        launcher = compiled(interpreter, cache)
        return Foreign(
            "accelerated",
            "programs whose work does not depend on the machine run natively",
            interpreter,
            launcher,
            registration(profile, launcher),
        )
    except ImageFactoryError as error:
        reason = f"no launcher: {error.message.splitlines()[0]}; {error.hint}"
        return Foreign("qemu-user", reason, interpreter, None, emulated)


def emulator(profile: ArchProfile) -> Path:
    """Find the user-mode emulator of an architecture; a chroot asks for a static one.

    Raises:
        HostError: There is none.
    """
    if profile.names.qemu_user is None:
        raise HostError(f"the profile {profile.name} names no user-mode emulator (qemu_user)")
    name = f"qemu-{profile.names.qemu_user}"
    # Debian 13 calls the static one by the plain name.
    for program in (f"{name}-static", name):
        path = run.which(program)
        if path is not None and _is_static(path):
            return path.resolve()
    raise HostError(
        f"programs of {profile.name} cannot be run: there is no {name}-static",
        hint="install the package qemu-user-static",
    )


def registration(profile: ArchProfile, interpreter: Path) -> bytes:
    """Return the line that makes an interpreter start the architecture's programs.

    Raises:
        BuildError: The kernel does not take such a path.
    """
    path = str(interpreter)
    if len(os.fsencode(path)) > _PATH_LIMIT or re.search(r"[\s:]", path):
        raise BuildError(
            f"the kernel takes no interpreter with the path {path}",
            hint="XDG_CACHE_HOME must be a short path without blanks and colons",
        )
    magic, mask = elf_magic(profile.elf)
    fields = ("", f"imagefactory-{profile.name}", "M", "", _hex(magic), _hex(mask), path, FLAGS)
    return ":".join(fields).encode()


def elf_magic(elf: ElfMachine) -> tuple[bytes, bytes]:
    """Return the first bytes of the architecture's programs, and which of their bits count.

    System V ABI, ELF header: e_ident (magic, class, data, version; the OS ABI may be any), e_type
    (ET_EXEC = 2 or ET_DYN = 3), e_machine.
    """
    ident = b"\x7fELF" + bytes([elf.bits // 32, 1 if elf.endian == "little" else 2, 1])
    magic = ident + bytes(9) + (2).to_bytes(2, elf.endian) + elf.machine.to_bytes(2, elf.endian)
    mask = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + (0xFFFE).to_bytes(2, elf.endian) + b"\xff\xff"
    return magic, mask


def compiled(interpreter: Path, cache: Path) -> Path:
    """Compile the launcher for an emulator, unless that was done before.

    musl where it is there: it starts in 80 µs, glibc in 370 µs (it asks the CPU for its features,
    and each question leaves a virtual machine), and a tree takes twelve thousand starts.

    Raises:
        HostError: There is no C compiler.
        CommandError: It does not compile; without the static C library for one.
    """
    compiler = run.which("musl-gcc") or run.need("cc", "gcc")
    version = run.run([compiler, "--version"], timeout=_PROBE_TIMEOUT).stdout
    parts = (SOURCE.read_bytes(), f"{compiler} {version}".encode(), os.fsencode(interpreter))
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    return Store(cache, "launchers").obtain(key, lambda new: _compile(compiler, interpreter, new))


def _compile(compiler: Path, interpreter: Path, target: Path) -> None:
    path = str(interpreter).replace("\\", "\\\\").replace('"', '\\"')
    define = f'-DINTERPRETER="{path}"'
    command: list[str | Path] = [compiler, "-O2", "-static", "-s", define, "-o", target, SOURCE]
    try:
        run.run(command, timeout=_COMPILE_TIMEOUT)
    except ImageFactoryError as error:
        raise HostError(
            "the C compiler cannot make a static program",
            hint=f"install the packages gcc and musl-tools ({error.message.splitlines()[-1]})",
        ) from None


def _hex(content: bytes) -> str:
    # All of it: a colon or a zero byte would end the field.
    return "".join(f"\\x{byte:02x}" for byte in content)


def _is_static(program: Path) -> bool:
    """Whether an ELF program asks for no loader (it has no PT_INTERP)."""
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415 (doctor asks of few programs)

    with program.open("rb") as stream:
        if stream.read(4) != b"\x7fELF":
            return False
        return next(iter(ELFFile(stream).iter_segments("PT_INTERP")), None) is None


def _no_private_binfmt() -> str:
    """Return why there is no private binfmt_misc; empty when there is one."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork"]
    command += ["--kill-child", "sh", "-c"]
    attempt = 'mount -t binfmt_misc none "$0" && test -w "$0/register"'
    with tempfile.TemporaryDirectory(prefix="imagefactory-") as directory:
        try:
            run.run([*command, attempt, directory], timeout=_PROBE_TIMEOUT)
        except ImageFactoryError:
            release = os.uname().release
            return f"binfmt_misc cannot be mounted privately (Linux {release}; 6.7 brought it)"
    return ""


def _of_the_host(profile: ArchProfile, interpreter: Path, obstacle: str) -> Foreign:
    """Fall back to what the administrator has registered for the whole machine."""
    magic = elf_magic(profile.elf)[0].hex()
    for entry in Path("/proc/sys/fs/binfmt_misc").glob("*"):
        if entry.name in {"register", "status"}:
            continue
        lines = entry.read_text("utf-8").splitlines()
        flags = next((line for line in lines if line.startswith("flags:")), "")
        if lines[:1] == ["enabled"] and f"magic {magic}" in lines and "F" in flags[6:]:
            reason = f"{obstacle}; the host's own {entry.name} is used"
            return Foreign("qemu-user", reason, interpreter)
    raise HostError(
        f"programs of {profile.name} cannot be run: {obstacle}, "
        "and the host's binfmt_misc has no entry for them",
        hint="install binfmt-support beside qemu-user-static, or use Linux 6.7 or newer",
    )
