"""The part of the RPM builder that runs inside its namespaces, as root of the tree.

``python -m imagefactory.rootfs.rpm_inside spec.json``; it imports little, for it is started for
each build.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from imagefactory import run
from imagefactory.errors import BuildError, CommandError
from imagefactory.packages.installed import Installed, of_rpm
from imagefactory.rootfs.customising import (
    Account,
    Action,
    Family,
    WholeFile,
    add_user,
    carry_out,
    make,
    replace,
    settle,
    take,
    write,
)
from imagefactory.sandbox.chroot import Chroot, entered, mounted, rooted
from imagefactory.sandbox.execution import Execution
from imagefactory.sandbox.namespace import tell


@dataclass(frozen=True)
class Accounts:
    """Users and groups that must be there before files of theirs are.

    Attributes:
        lines: Who, sysusers.d(5).
        after: The files of the packages that are installed before: what brings /etc/passwd.
        command: Starts systemd-sysusers.
    """

    lines: tuple[str, ...]
    after: tuple[str, ...]
    command: tuple[str, ...]


@dataclass(frozen=True)
class Base:
    """What the tree before its customisation is made from.

    Attributes:
        files: The packages' files.
        keys: The public keys that the tree's rpm shall know.
        signed: Whether each of the files bears a signature by one of them.
        architecture: RPM's name of it.
        release: What ``$releasever`` stands for.
        database: Where the tree's own rpm looks for its database.
        rewrite_database: Whether its format is not the one of this host's rpm.
        early_files: What is there before the first package is.
        command_line: The kernel's, for the boot entries that kernel-install writes.
        accounts: What rpm makes by itself from 4.19 on.
    """

    files: tuple[str, ...]
    keys: tuple[str, ...]
    signed: bool
    architecture: str
    release: str
    database: str
    rewrite_database: bool
    early_files: tuple[WholeFile, ...]
    command_line: str
    accounts: Accounts | None = None


@dataclass(frozen=True)
class Core:
    """A GRUB that the tree's own grub2-mkimage links.

    Attributes:
        method: The boot method it is for.
        target: GRUB's name of the platform.
        modules: What is built in.
        one_of: One of these is, too: whichever this GRUB has.
        beside: Files of the tree's GRUB that the disk needs besides (boot.img).
        stub: Its first configuration.
        directory: Where the tree has its modules.
        home: Where GRUB has its files in the end.
    """

    method: str
    target: str
    modules: tuple[str, ...]
    one_of: tuple[str, ...]
    beside: tuple[str, ...]
    stub: str
    directory: str
    home: str


@dataclass(frozen=True)
class Spec:
    """Everything the inside needs to know; paths are the host's."""

    tree: str
    base: Base
    epoch: int
    actions: tuple[Action, ...]
    files: tuple[WholeFile, ...]
    accounts: tuple[Account, ...]
    timezone: str
    locale: str
    command_line: str
    """The kernel's, in the place of the base's."""
    cores: tuple[Core, ...]
    loaders: tuple[str, ...]
    """Files of the tree that go to the ESP, besides those that packages put there."""
    modules: tuple[tuple[str, str], ...]
    """Directories with GRUB's modules, and where a later configuration looks for them."""
    kernel: str
    """A glob of its name in /boot."""
    initramfs: str
    """The same."""
    boot_files: str
    """A directory for what the bootloader is made of: the ESP's files, finished GRUBs."""
    result: str
    execution: Execution
    known_base: str = ""
    """A tar that was `new_base` before."""
    new_base: str = ""


SPEC = TypeAdapter(Spec)

_TIMEOUT = 7200.0
_LAST_LINES = 12

_LEFTOVERS = (
    *("var/cache/dnf/*", "var/cache/libdnf5/*", "var/lib/dnf/*", "var/lib/rpm/.rpm.lock"),
    *("usr/lib/sysimage/rpm/.rpm.lock", "etc/*.rpmnew", "etc/*.rpmsave"),
)
"""Globs of what rpm and dnf leave."""

_MACHINE_ID = "f" * 32
"""Of the machine that kernel-install writes the first boot entries for; each guest gets its own."""

_DNF = Path("/mnt")
"""Where dnf keeps its cache and logs meanwhile; a directory that every tree has as well."""

_MOUNTED = {"proc": 0o555, "sys": 0o555, "dev": 0o755, "run": 0o755, "tmp": 0o1777}
"""What rpm finds mounted and leaves as it is, though a package owns it: directory -> mode."""

_REPRODUCIBLE = "etc/dracut.conf.d/imagefactory.conf"
"""dracut.conf(5): no file of an initramfs is younger than dracut itself; while it is built."""

_EXPORT = 'exec rpmdb "$1" --exportdb >"$0"'
_IMPORT = 'exec rpmdb "$1" --importdb <"$0"'

_HEADERS = "headers"
"""Where a list of them is kept, beside the tree."""

_IN_A_DATABASE = "%{NAME}-%{EPOCHNUM}:%{VERSION}-%{RELEASE}.%{ARCH} %{INSTALLTIME}\\n"
"""By what two databases are compared."""

_FAILED_SCRIPTLET = re.compile(
    r"scriptlet failed, (?:exit status|signal) \d+|Error in \w+ scriptlet in rpm package \S+"
)
"""What rpm and dnf say of a scriptlet that failed; dnf then goes on and ends with status 0."""


_NO_OWNER = re.compile(r"\b(user|group) (\S+) does not exist - using root")
"""What rpm says when it gives a file to root in the place of its owner."""


def build(spec: Spec) -> None:
    """Make the tree that a spec describes."""
    family = Family(
        install=lambda tree, env: _install(spec.base, tree, env),
        customize=lambda tree, env: _customize(spec, tree, env),
        leftovers=_LEFTOVERS,
        kernel=spec.kernel,
        initramfs=spec.initramfs,
        installed=lambda tree: _installed(spec.base, tree),
    )
    make(spec, family)


def _install(base: Base, tree: Path, env: dict[str, str]) -> None:
    """Let this host's dnf and rpm install packages, with all their scriptlets."""
    _prepare(base, tree)
    home = tree.with_name("home")
    home.mkdir()
    macros = {
        "_dbpath": f"/{base.database}",
        # What is mounted belongs to this machine: packages own those directories.
        "_netsharedpath": ":".join(f"/{name}" for name in _MOUNTED),
        "_pkgverify_level": "all" if base.signed else "digest",
    }
    (home / ".rpmmacros").write_text("".join(f"%{k} {v}\n" for k, v in macros.items()))
    # Scriptlets inherit it: of this machine's own (a TMPDIR, say) nothing may be in there.
    told = {**env, "HOME": str(home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    alone = ["env", "-i", *(f"{name}={value}" for name, value in told.items())]
    with mounted(_DNF, "-t", "tmpfs", "tmpfs"), entered(tree, env) as chroot:
        (_DNF / "log").mkdir()
        for key in base.keys:
            run.run([*alone, "rpm", f"--root={tree}", "--import", key])
        if base.accounts:
            _add_accounts(base.accounts, tree, alone)
        tell("progress", f"installing {len(base.files)} packages")
        settings = tree.with_name("dnf.conf")
        settings.touch()
        words: list[str | Path] = [
            *(*alone, "dnf", "--assumeyes", f"--config={settings}", f"--installroot={tree}"),
            *(f"--forcearch={base.architecture}", f"--releasever={base.release}"),
            *("--disablerepo=*", "--setopt=reposdir=/nonexistent", "--setopt=plugins=0"),
            *("--setopt=install_weak_deps=0", f"--setopt=localpkg_gpgcheck={int(base.signed)}"),
            *(f"--setopt=cachedir={_DNF}/cache", f"--setopt=logdir={_DNF}/log"),
            *("install", *base.files),
        ]
        said = _logged(words, tree.with_name("dnf.txt"))
        _refuse_what_went_wrong(said)
        if base.rewrite_database:
            tell("progress", "rewriting the database")
            _rewrite_database(alone, tree / base.database, chroot)
    # Of some files dnf thinks that their place is below the tree.
    for name in ("cache", "log"):
        shutil.rmtree(tree / _DNF.relative_to("/") / name, ignore_errors=True)
    (tree / _REPRODUCIBLE).unlink()


def _add_accounts(accounts: Accounts, tree: Path, alone: Sequence[str]) -> None:
    """Make users and groups, unless this host's rpm does, as the packages expect of theirs."""
    if run.run([*alone, "rpm", "--eval", "%{?__systemd_sysusers}"]).stdout.strip():
        return
    if accounts.after:
        # What they need comes later, as it does in any first transaction.
        run.run([*alone, "rpm", f"--root={tree}", "--install", "--nodeps", *accounts.after])
    lines = "".join(f"{line}\n" for line in accounts.lines)
    run.run([*alone, *accounts.command, f"--root={tree}", "-"], stdin=lines)


def _rewrite_database(alone: Sequence[str], database: Path, chroot: Chroot) -> None:
    """Let the tree's own rpm write its database anew, where and as its own macros say.

    rpmdb(8): a list of headers is what rpms of all formats have in common. The numbers of the
    packages go by their order, so it is kept.

    Raises:
        BuildError: The tree's rpm does not know the same packages afterwards.
    """
    headers = chroot.tree / "run/headers"
    run.run([*alone, "sh", "-c", _EXPORT, headers, f"--dbpath={database}"])
    asked = ("--query", "--all", "--queryformat", _IN_A_DATABASE)
    known = run.run([*alone, "rpm", f"--dbpath={database}", *asked]).stdout
    for file in database.glob("rpmdb.sqlite*"):
        file.unlink()
    chroot.run(["/bin/sh", "-ec", "rpmdb --initdb\nrpmdb --importdb </run/headers"], called="rpmdb")
    line = f"rpm {shlex.join(asked)} >/run/known"
    chroot.run(["/bin/sh", "-ec", line], called="rpm")
    now = (chroot.tree / "run/known").read_text(encoding="utf-8")
    lost = {*known.splitlines()} ^ {*now.splitlines()}
    if lost or len(known) != len(now):
        raise BuildError(
            "the tree's rpm has written another database than this machine's: "
            + (", ".join(sorted(lost)) or "packages are there twice")
        )


def _logged(words: Sequence[str | Path], file: Path) -> str:
    """Run a program; all that it says goes to the log, and is returned."""
    with file.open("wb") as stream:
        try:
            run.run(words, into=stream, timeout=_TIMEOUT)
        except CommandError as error:
            last = file.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
            raise CommandError("\n".join([error.message.rstrip(": "), *last])) from None
        finally:
            said = file.read_text(encoding="utf-8", errors="replace")
            sys.stderr.write(said)
    return said


def _prepare(base: Base, tree: Path) -> None:
    """Write what scriptlets of the first transaction look for."""
    for name, mode in _MOUNTED.items():
        (tree / name).mkdir()
        (tree / name).chmod(mode)
    files = {
        "etc/machine-id": f"{_MACHINE_ID}\n",
        # kernel-install(8): else it would take the command line of this machine's own kernel.
        "etc/kernel/cmdline": f"{base.command_line}\n",
        _REPRODUCIBLE: "reproducible=yes\n",
    }
    for path, content in files.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    for early in base.early_files:
        with rooted(tree):
            replace(Path("/", early.path), early.content.encode(), early.mode)


def _refuse_what_went_wrong(said: str) -> None:
    failed = [line.strip() for line in said.splitlines() if _FAILED_SCRIPTLET.search(line)]
    if failed:
        raise BuildError("scriptlets failed:\n" + "\n".join(dict.fromkeys(failed)))
    nobody = [f"{kind} {name}" for kind, name in _NO_OWNER.findall(said)]
    if nobody:
        names = ", ".join(dict.fromkeys(nobody))
        raise BuildError(f"files belong to accounts that no package has made: {names}")


def _customize(spec: Spec, tree: Path, env: dict[str, str]) -> None:
    with entered(tree, env) as chroot:
        for account in spec.accounts:
            add_user(account, chroot)
        for file in spec.files:
            write(file, chroot)
        _settle(spec, chroot)
        _point_boot_entries(spec, chroot)
        for core in spec.cores:
            _link_grub(core, Path(spec.boot_files), chroot)
        for source, target in spec.modules:
            _install_modules(source, target, tree)
        for action in spec.actions:
            take(action, chroot)
        if spec.base.rewrite_database:
            _export(tree.with_name(_HEADERS), chroot)
    _keep(spec.loaders, tree, Path(spec.boot_files))
    _take_esp(tree, Path(spec.boot_files) / "boot/efi")
    _settle_database(tree / spec.base.database / "rpmdb.sqlite")


def _settle_database(file: Path) -> None:
    """Bring what rpm has changed into the database itself, and leave nothing beside it.

    The index of the log (``-shm``) holds numbers that SQLite draws by lot. Without it a database
    that has a log can be read by those alone who may write it; rpm begins a new log when it does.
    """
    if file.is_file() and not file.is_symlink():
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("PRAGMA journal_mode=DELETE")


def _installed(base: Base, tree: Path) -> tuple[Installed, ...] | None:
    """Ask rpm of a copy of the database: reading one of SQLite's leaves files beside it."""
    copy = tree.with_name("rpmdb")
    copy.mkdir()
    if base.rewrite_database:
        run.run(["sh", "-c", _IMPORT, tree.with_name(_HEADERS), f"--dbpath={copy}"])
        return of_rpm(copy) or None
    with rooted(tree):
        files = [file for file in Path("/", base.database).glob("*") if file.is_file()]
        contents = {file.name: file.read_bytes() for file in files}
    for name, content in contents.items():
        (copy / name).write_bytes(content)
    return of_rpm(copy) or None


def _export(target: Path, chroot: Chroot) -> None:
    """Let the tree's own rpm list its database's headers: this machine's may not read it."""
    chroot.run(["/bin/sh", "-ec", "rpmdb --exportdb >/run/headers"], called="rpmdb")
    target.write_bytes((chroot.tree / "run/headers").read_bytes())


def _settle(spec: Spec, chroot: Chroot) -> None:
    with rooted(chroot.tree):
        settle(spec.timezone)
        replace(Path("/etc/locale.conf"), f"LANG={spec.locale}\n".encode(), 0o644)


def _point_boot_entries(spec: Spec, chroot: Chroot) -> None:
    """Put the image's command line into the entries that kernel-install has written."""
    with rooted(chroot.tree):
        replace(Path("/etc/kernel/cmdline"), f"{spec.command_line}\n".encode(), 0o644)
        for entry in sorted(Path("/boot/loader/entries").glob("*.conf")):
            lines = entry.read_text(encoding="utf-8").splitlines()
            kept = [
                f"options {spec.command_line}" if line.startswith("options ") else line
                for line in lines
            ]
            entry.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _link_grub(core: Core, target: Path, chroot: Chroot) -> None:
    """Let the tree's own grub2-mkimage link a GRUB; it goes out of the tree."""
    with rooted(chroot.tree):
        replace(Path("/run/stub.cfg"), core.stub.encode(), 0o644)
        directory = Path("/", core.directory)
        chosen = [name for name in core.one_of if (directory / f"{name}.mod").exists()]
    if core.one_of and not chosen:
        raise BuildError(
            f"the tree's GRUB ({core.target}) has none of the modules {', '.join(core.one_of)}"
        )
    chroot.run(
        [
            *("grub2-mkimage", "-O", core.target, "-d", f"/{core.directory}"),
            *("-p", f"/{core.home}", "-c", "/run/stub.cfg"),
            *("-o", "/run/core.img", *core.modules, *chosen[:1]),
        ]
    )
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{core.method}.core").write_bytes((chroot.tree / "run/core.img").read_bytes())
    _keep([f"{core.directory}/{name}" for name in core.beside], chroot.tree, target)


def _install_modules(source: str, target: str, tree: Path) -> None:
    """Do what grub-install does with modules: what grub-mkconfig writes loads some of them."""
    with rooted(tree):
        for pattern in ("*.mod", "*.lst"):
            for file in sorted(Path("/", source).glob(pattern)):
                replace(Path("/", target, file.name), file.read_bytes(), 0o644)


def _keep(paths: Iterable[str], tree: Path, target: Path) -> None:
    """Copy files out of the tree, to the same paths; what is a link there becomes the file."""
    for path in paths:
        try:
            with rooted(tree):
                content = Path("/", path).read_bytes()
        except FileNotFoundError:
            said = f"the tree has no {path}, which the template's `bootloader:` names"
            raise BuildError(said) from None
        kept = target / path
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(content)


def _take_esp(tree: Path, target: Path) -> None:
    """Move what packages have put on the ESP out of the tree: it is a filesystem of its own."""
    contents: dict[str, bytes] = {}
    with rooted(tree):
        esp = Path("/boot/efi")
        for path in sorted(esp.rglob("*")):
            if path.is_file() and not path.is_symlink():
                contents[str(path.relative_to(esp))] = path.read_bytes()
        for path in esp.glob("*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in contents.items():
        file = target / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


if __name__ == "__main__":
    sys.exit(carry_out(lambda told: build(SPEC.validate_json(told))))
