"""Customisation of a tree from inside its namespaces, whatever distribution it is of.

Everything here is called by a builder's inside part, as root of the tree; what is decided outside
comes as values.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from imagefactory import run
from imagefactory import tree as tar
from imagefactory.errors import BuildError, ImageFactoryError
from imagefactory.packages import installed
from imagefactory.packages.installed import Installed
from imagefactory.rootfs import labels
from imagefactory.sandbox.chroot import Chroot, rooted
from imagefactory.sandbox.execution import Execution
from imagefactory.sandbox.namespace import tell


@dataclass(frozen=True)
class Action:
    """One step of the customisation."""

    kind: Literal["copy", "script", "run", "systemctl"]
    what: str
    to: str = ""
    mode: int | None = None
    owner: str = "root:root"


@dataclass(frozen=True)
class WholeFile:
    """A file whose content was decided outside."""

    path: str
    content: str
    mode: int = 0o644
    owner: str = "root"


@dataclass(frozen=True)
class Account:
    """A user that is made in the tree."""

    name: str
    groups: tuple[str, ...]
    shell: str
    password_hash: str


_LEFTOVERS = (
    # Of this machine and this build.
    *("etc/ssh/ssh_host_*", "etc/hostname", "var/lib/dbus/machine-id"),
    *("var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "root/.bash_history"),
    *("run/*", "tmp/*", "var/tmp/*", "root/.cache", "root/.wget-hsts"),
    # Times and orders that differ from build to build, and nobody needs.
    *("var/cache/ldconfig/aux-cache", "etc/.pwd.lock"),
    *("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-"),
)
"""Globs of what may not stay in an image."""

_UNPACK = (
    *("tar", "--extract", "--numeric-owner", "-p", "--xattrs", "--xattrs-include=*"),
    # Names are sorted as bytes: `a.b` lies between `a` and `a/c`. tar would take a directory for
    # finished too early, and what comes later would change its time, as no fresh base has it.
    "--delay-directory-restore",
)


def add_user(account: Account, chroot: Chroot) -> None:
    """Make an account."""
    groups = ("--groups", ",".join(account.groups)) if account.groups else ()
    password = ("--password", account.password_hash)
    words = ["useradd", "--create-home", "--shell", account.shell, *groups, *password]
    chroot.run([*words, account.name])


def write(file: WholeFile, chroot: Chroot) -> None:
    """Write a file whose content was decided outside."""
    with rooted(chroot.tree):
        path = Path("/", file.path)
        replace(path, file.content.encode(), file.mode)
    if file.owner != "root":
        chroot.run(["chown", "-R", f"{file.owner}:", f"/{Path(file.path).parent}"])
        chroot.run(["chmod", "0700", f"/{Path(file.path).parent}"])


def replace(path: Path, content: bytes, mode: int) -> None:
    """Put a file into the place of whatever has its name; called inside the tree."""
    _make_way(path)
    path.write_bytes(content)
    path.chmod(mode)


def _make_way(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        raise BuildError(f"a file cannot take the place of the directory {path}")
    path.unlink(missing_ok=True)


def take(action: Action, chroot: Chroot) -> None:
    """Take one step of the customisation.

    Raises:
        BuildError: It failed.
    """
    _ACTIONS[action.kind](action, chroot)


def _copy(action: Action, chroot: Chroot) -> None:
    source = Path(action.what)
    target = Path("/", action.to)
    pairs = [(source, target)] if source.is_file() else _files_below(source, target)
    for origin, copied in pairs:
        link = origin.readlink() if origin.is_symlink() else None
        content = b"" if link else origin.read_bytes()
        # Only the executable bit is the template's; the rest would be the umask's.
        plain = 0o755 if not link and origin.stat().st_mode & 0o100 else 0o644
        with rooted(chroot.tree):
            if link:
                _make_way(copied)
                copied.symlink_to(link)
            else:
                replace(copied, content, plain if action.mode is None else action.mode)
        if action.owner != "root:root":
            chroot.run(["chown", "--no-dereference", action.owner, str(copied)])


def _files_below(source: Path, target: Path) -> list[tuple[Path, Path]]:
    return [
        (path, target / path.relative_to(source))
        for path in sorted(source.rglob("*"))
        if path.is_symlink() or path.is_file()
    ]


def _script(action: Action, chroot: Chroot) -> None:
    inside = chroot.tree / "run/imagefactory-step"
    inside.write_bytes(Path(action.what).read_bytes())
    inside.chmod(0o755)
    chroot.run(["/run/imagefactory-step"], called=f"the script {Path(action.what).name}")


def _run(action: Action, chroot: Chroot) -> None:
    chroot.run(["/bin/sh", "-ec", action.what], called=f"`run: {_first_line(action.what)}`")


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "")


def _systemctl(action: Action, chroot: Chroot) -> None:
    words = ["systemctl", action.what, "--", *action.to.split()]
    chroot.run(words, called=f"`{action.what}: {action.to}`")


_ACTIONS = {"copy": _copy, "script": _script, "run": _run, "systemctl": _systemctl}


def clean(tree: Path, leftovers: Iterable[str]) -> None:
    """Remove what may not stay in an image: the build's leftovers, logs, the machine's identity.

    Args:
        tree: The tree.
        leftovers: Globs of what the distribution's own tools leave, besides what all do.
    """
    with rooted(tree):
        root = Path("/")
        for pattern in (*_LEFTOVERS, *leftovers):
            for path in list(root.glob(pattern)):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        for path in list((root / "var/log").rglob("*")):
            if path.is_symlink() or path.is_file():
                path.unlink()
        # systemd fills an empty one at the first boot, even while / is still read-only.
        Path("/etc/machine-id").write_bytes(b"")
        resolver = Path("/etc/resolv.conf")
        resolver.unlink(missing_ok=True)
        if Path("/usr/lib/systemd/systemd-resolved").exists():
            resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")


def unpack(base: Path, tree: Path) -> None:
    """Unpack a base that `pack` wrote."""
    run.run([*_UNPACK, "-C", tree, "-f", base])


def names_in(tree: Path, scratch: Path) -> list[bytes]:
    """Name all entries of a tree."""
    run.run(tar.list_command(tree, scratch))
    return tar.read_listing(scratch)


def pack(tree: Path, target: Path, epoch: int, base: list[bytes]) -> None:
    """Write a tree as a tar: no time after the epoch, numbers for owners, what is new last."""
    listing = target.with_suffix(".names")
    tar.write_listing(tar.ordered(names_in(tree, listing), base), listing)
    run.run(tar.tar_command(tree, target, listing, epoch))
    listing.unlink()


def settle(timezone: str) -> None:
    """Make the places that fstab names, and set the clock's zone; called inside the tree.

    Raises:
        BuildError: The tree has no such zone.
    """
    for line in Path("/etc/fstab").read_text(encoding="utf-8").splitlines():
        Path(line.split()[1]).mkdir(parents=True, exist_ok=True)  # where `mount -a` mounts
    zone = Path("/etc/localtime")
    zone.unlink(missing_ok=True)
    zone.symlink_to(f"/usr/share/zoneinfo/{timezone}")
    if not zone.exists():
        raise BuildError(
            f"there is no time zone {timezone!r} in the tree; the package tzdata brings them"
        )


class TreeSpec(Protocol):
    """What `make` needs to know of a builder's spec; paths are the host's."""

    @property
    def tree(self) -> str:
        """The tree's directory."""

    @property
    def epoch(self) -> int:
        """The time that no file is younger than, seconds since 1970."""

    @property
    def result(self) -> str:
        """The tar to write."""

    @property
    def execution(self) -> Execution:
        """How the tree's programs run."""

    @property
    def known_base(self) -> str:
        """A tar that was `new_base` before; empty: there is none."""

    @property
    def new_base(self) -> str:
        """Where the tree before its customisation is kept."""


@dataclass(frozen=True)
class Family:
    """What a builder does its own way.

    Attributes:
        install: Makes the tree before its customisation; called with it and the environment.
        customize: Finishes it; called in the same way.
        leftovers: Globs of what the distribution's own tools leave.
        kernel: A glob of the kernel's name in /boot.
        initramfs: The same of the initramfs.
        installed: Reads the package database of the finished tree; None if it has none.
    """

    install: Callable[[Path, dict[str, str]], None]
    customize: Callable[[Path, dict[str, str]], None]
    leftovers: Iterable[str]
    kernel: str
    initramfs: str
    installed: Callable[[Path], tuple[Installed, ...] | None]


def make(spec: TreeSpec, family: Family) -> None:
    """Make or unpack the base, customise it, clean it, write the result.

    Raises:
        BuildError: There is not one kernel and one initramfs in the end, or a step failed.
    """
    tree = Path(spec.tree)
    tree.mkdir(exist_ok=True)
    # In memory: nothing to clean up whatever happens, and no program waits for a disk.
    run.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=90%,nr_inodes=0", "tmpfs", tree])
    env = {"SOURCE_DATE_EPOCH": str(spec.epoch)}
    spec.execution.begin()
    if spec.known_base:
        tell("progress", "unpacking the base from the cache")
        unpack(Path(spec.known_base), tree)
    else:
        with spec.execution.attached(tree):
            family.install(tree, env)
        pack(tree, Path(spec.new_base), spec.epoch, [])
    names = names_in(tree, Path(spec.result).with_suffix(".base"))
    tell("progress", "customising")
    with spec.execution.attached(tree):
        family.customize(tree, env)
    clean(tree, family.leftovers)
    for what, pattern in (("kernel", family.kernel), ("initramfs", family.initramfs)):
        found = sorted((tree / "boot").glob(pattern))
        if len(found) != 1:
            seen = ", ".join(path.name for path in found) or "none"
            raise BuildError(f"the tree should have one {what} in /boot, it has: {seen}")
        tell(what, _without_links(found[0].relative_to(tree), tree))
    packages = family.installed(tree)
    if packages is not None:
        listed = Path(spec.result).with_suffix(".packages")
        installed.write(packages, listed)
        tell("packages", str(listed))
    contexts = labels.policy(tree)
    if contexts:
        tell("progress", "labelling")
        target = Path(spec.result).with_suffix(".labels")
        entries = names_in(tree, Path(spec.result).with_suffix(".entries"))
        with spec.execution.attached(tree):
            labels.write(tree, contexts, env, entries, target)
        tell("labels", str(target))
    tell("progress", "packing the tree")
    pack(tree, Path(spec.result), spec.epoch, names)


def _without_links(path: Path, tree: Path) -> str:
    """Return where in a tree a file lies: in /boot there may be no more than a link to it."""
    with rooted(tree):
        place = Path("/", path).resolve()
        if not place.is_file():
            raise BuildError(f"/{path} leads to {place}, which is no file")
    return str(place.relative_to("/"))


def carry_out(build: Callable[[bytes], None]) -> int:
    """Do what the spec says that the command line names; a failure is told to the outside."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)  # the tree's directories have the modes of a guest, not of this shell
    try:
        build(Path(sys.argv[1]).read_bytes())
    except ImageFactoryError as error:
        tell("failure", error.message)
        return 1
    except OSError as error:
        tell("failure", f"{error.filename or 'the tree'}: {error.strerror or error}")
        return 1
    return 0
