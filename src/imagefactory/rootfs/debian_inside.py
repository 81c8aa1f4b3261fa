"""The part of the Debian builder that runs inside its namespaces, as root of the tree.

``python -m imagefactory.rootfs.debian_inside spec.json``; it imports little, for it is started
for each build.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from debian.deb822 import Packages
from pydantic import TypeAdapter

from imagefactory import run
from imagefactory import tree as tar
from imagefactory.errors import BuildError, ImageFactoryError
from imagefactory.sandbox.chroot import Chroot, entered, follow, mounted, rooted
from imagefactory.sandbox.execution import Execution
from imagefactory.sandbox.namespace import tell


@dataclass(frozen=True)
class Base:
    """What the tree before its customisation is made from."""

    repository: str
    architecture: str
    packages: tuple[str, ...]
    wanted: tuple[str, ...]
    """Those that somebody asked for, names or apt's patterns; the others came with them."""
    preseed: tuple[str, ...]
    exclude: tuple[str, ...]
    include: tuple[str, ...]


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


@dataclass(frozen=True)
class Spec:
    """Everything the inside needs to know; paths are the host's."""

    tree: str
    base: Base
    epoch: int
    actions: tuple[Action, ...]
    files: tuple[WholeFile, ...]
    accounts: tuple[Account, ...]
    locale: str
    timezone: str
    result: str
    execution: Execution
    known_base: str = ""
    """A tar that was `new_base` before."""
    new_base: str = ""


SPEC = TypeAdapter(Spec)

_LEFTOVERS = (
    # Of this machine and this build.
    *("etc/ssh/ssh_host_*", "etc/hostname", "var/lib/dbus/machine-id"),
    *("var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "root/.bash_history"),
    *("run/*", "tmp/*", "var/tmp/*", "root/.cache", "root/.wget-hsts"),
    # Package lists and caches, which are out of date the day after.
    *("var/lib/apt/lists/*", "var/cache/apt/*", "var/cache/debconf/*-old"),
    # Times and orders that differ from build to build, and nobody needs.
    *("var/lib/dpkg/*-old", "var/cache/ldconfig/aux-cache", "etc/.pwd.lock"),
    *("var/lib/ucf/hashfile.[0-9]*", "var/lib/ucf/registry.[0-9]*"),
    *("etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-"),
)
"""Globs of what may not stay in an image."""

_DPKG_CHOICE = "etc/dpkg/dpkg.cfg.d/imagefactory"

_SHOWN = Path("/mnt")
"""Where the repository is mounted: neither apt nor a hook's shell takes any path there is."""

_LOGS = "var/log"

_UNPACK = (
    *("tar", "--extract", "--numeric-owner", "-p", "--xattrs", "--xattrs-include=*"),
    # Names are sorted as bytes: `a.b` lies between `a` and `a/c`. tar would take a directory for
    # finished too early, and what comes later would change its time, as no fresh base has it.
    "--delay-directory-restore",
)


def build(spec: Spec) -> None:
    """Make or unpack the base, customise it, clean it, write the result."""
    tree = Path(spec.tree)
    tree.mkdir(exist_ok=True)
    # In memory: nothing to clean up whatever happens, and no program waits for a disk.
    run.run(["mount", "-t", "tmpfs", "-o", "mode=755,size=90%,nr_inodes=0", "tmpfs", tree])
    env = {"SOURCE_DATE_EPOCH": str(spec.epoch)}
    spec.execution.begin()
    if spec.known_base:
        tell("progress", "unpacking the base from the cache")
        run.run([*_UNPACK, "-C", tree, "-f", spec.known_base])
    else:
        with spec.execution.attached(tree):
            _bootstrap(spec.base, tree, env)
        _pack(tree, Path(spec.new_base), spec.epoch, [])
    names = _names(tree, Path(spec.result).with_suffix(".base"))
    tell("progress", "customising")
    with spec.execution.attached(tree):
        _customize(spec, tree, env)
    _clean(tree)
    for what, pattern in (("kernel", "vmlinu[xz]-*"), ("initramfs", "initrd.img-*")):
        found = sorted((tree / "boot").glob(pattern))
        if len(found) != 1:
            seen = ", ".join(path.name for path in found) or "none"
            raise BuildError(f"the tree should have one {what} in /boot, it has: {seen}")
        tell(what, str(found[0].relative_to(tree)))
    tell("progress", "packing the tree")
    _pack(tree, Path(spec.result), spec.epoch, names)


def _bootstrap(base: Base, tree: Path, env: dict[str, str]) -> None:
    hooks = []
    if base.exclude:
        # Not --dpkgopt: mmdebstrap would sift what it unpacks by itself through a filter in Perl,
        # which takes longer than all else it does; `_leave_out` removes those files.
        choice = Path(base.repository) / "dpkg.cfg"
        choice.write_text(
            "# Written by imagefactory: what this image leaves out.\n"
            + "".join(f"path-exclude={pattern}\n" for pattern in base.exclude)
            + "".join(f"path-include={pattern}\n" for pattern in base.include),
            encoding="utf-8",
        )
        hooks.append(f'--setup-hook=install -D -m 644 {_SHOWN}/dpkg.cfg "$1/{_DPKG_CHOICE}"')
    if base.preseed:
        answers = Path(base.repository) / "preseed"
        answers.write_text("".join(f"{line}\n" for line in base.preseed), encoding="utf-8")
        hooks += [f'--essential-hook=chroot "$1" debconf-set-selections <{_SHOWN}/preseed']
    # apt takes all of them for wanted, as all were named: its autoremove would spare for ever
    # what nothing needs any more. This machine's apt, with the tree's settings, says otherwise.
    for mark, names in (("auto", base.packages), ("manual", _asked_for(base))):
        listed = Path(base.repository) / mark
        listed.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        hooks.append(
            '--customize-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" '
            f"xargs -a {_SHOWN}/{mark} -d '\\n' apt-mark {mark}"
        )
    with mounted(_SHOWN, "--bind", base.repository):
        _install(base, hooks, tree, env)
    with rooted(tree):
        _leave_out(base)
    with entered(tree, env) as chroot:
        tell("progress", "making the initramfs")
        chroot.run(["update-initramfs", "-c", "-k", "all"])
        _link_initramfs(chroot)


def _link_initramfs(chroot: Chroot) -> None:
    """Have /initrd.img beside the /vmlinuz of the kernel's package, which was told of none."""
    for link in chroot.tree.glob("vmlinu[xz]"):
        kernel = link.readlink().name
        version = kernel.partition("-")[2]
        chroot.run(["linux-update-symlinks", "install", version, f"/boot/{kernel}"])


def _asked_for(base: Base) -> list[str]:
    """Name the packages that were asked for, those too that provide what was asked for."""
    held = {*base.packages}
    names = [name for name in base.wanted if name in held or name.startswith("?")]
    provided = {*base.wanted} - {*names}
    with (Path(base.repository) / "Packages").open(encoding="utf-8") as index:
        for stanza in Packages.iter_paragraphs(index, use_apt_pkg=False):
            groups = stanza.relations["provides"] or ()
            if provided & {entry["name"] for group in groups for entry in group}:
                names.append(stanza["Package"])
    return names


def _install(base: Base, hooks: list[str], tree: Path, env: dict[str, str]) -> None:
    follow(
        [
            *("mmdebstrap", "--mode=root", "--variant=essential", "--format=directory"),
            f"--architectures={base.architecture}",
            # The tree is a mount point; device nodes are the running guest's business.
            "--skip=check/empty,check/qemu,output/dev,output/mknod",
            f"--include={','.join(base.packages)}",
            *hooks,
            *("", str(tree), f"deb [trusted=yes] copy://{_SHOWN} ./"),
        ],
        # The kernel's package would make an initramfs that the next trigger makes again.
        env={**env, "INITRD": "No"},
    )


def _leave_out(base: Base) -> None:
    """Remove what dpkg leaves out and mmdebstrap unpacked; called inside the tree."""
    for pattern in base.exclude:
        fixed = Path(re.split(r"[*?\[]", pattern)[0])
        below = fixed if pattern.startswith(f"{fixed}/") else fixed.parent
        # The deepest first, so that a directory is empty when its turn comes.
        for path in sorted(below.rglob("*"), reverse=True):
            name = str(path)
            if not fnmatchcase(name, pattern) or any(fnmatchcase(name, i) for i in base.include):
                continue
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # it holds what is included
                    path.rmdir()
            else:
                path.unlink()


def _customize(spec: Spec, tree: Path, env: dict[str, str]) -> None:
    with entered(tree, env) as chroot:
        for account in spec.accounts:
            _add_user(account, chroot)
        for file in spec.files:
            _write(file, chroot)
        _settle(spec, chroot)
        for action in spec.actions:
            _ACTIONS[action.kind](action, chroot)


def _add_user(account: Account, chroot: Chroot) -> None:
    groups = ("--groups", ",".join(account.groups)) if account.groups else ()
    password = ("--password", account.password_hash)
    words = ["useradd", "--create-home", "--shell", account.shell, *groups, *password]
    chroot.run([*words, account.name])


def _write(file: WholeFile, chroot: Chroot) -> None:
    with rooted(chroot.tree):
        path = Path("/", file.path)
        _replace(path, file.content.encode(), file.mode)
    if file.owner != "root":
        chroot.run(["chown", "-R", f"{file.owner}:", f"/{Path(file.path).parent}"])
        chroot.run(["chmod", "0700", f"/{Path(file.path).parent}"])


def _replace(path: Path, content: bytes, mode: int) -> None:
    _make_way(path)
    path.write_bytes(content)
    path.chmod(mode)


def _make_way(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        raise BuildError(f"a file cannot take the place of the directory {path}")
    path.unlink(missing_ok=True)


def _settle(spec: Spec, chroot: Chroot) -> None:
    with rooted(chroot.tree):
        for line in Path("/etc/fstab").read_text(encoding="utf-8").splitlines():
            Path(line.split()[1]).mkdir(parents=True, exist_ok=True)  # where `mount -a` mounts
        zone = Path("/etc/localtime")
        zone.unlink(missing_ok=True)
        zone.symlink_to(f"/usr/share/zoneinfo/{spec.timezone}")
        _replace(Path("/etc/timezone"), f"{spec.timezone}\n".encode(), 0o644)
        _replace(Path("/etc/default/locale"), f"LANG={spec.locale}\n".encode(), 0o644)
        if not zone.exists():
            raise BuildError(
                f"there is no time zone {spec.timezone!r} in the tree; "
                "the package tzdata brings them"
            )
    if spec.locale.partition(".")[0] not in {"C", "POSIX"}:
        with rooted(chroot.tree):
            line = _line_of_locale(spec.locale)
            _replace(Path("/etc/locale.gen"), f"{line}\n".encode(), 0o644)
        chroot.run(["locale-gen"])


def _line_of_locale(locale: str) -> str:
    """Find a locale and its character set in the tree's list; called inside the tree."""
    supported = Path("/usr/share/i18n/SUPPORTED")
    if not supported.exists():
        raise BuildError(f"the locale {locale} needs the package `locales` in the tree")
    for line in supported.read_text(encoding="utf-8").splitlines():
        if line.split()[:1] == [locale]:
            return line
    raise BuildError(f"there is no locale {locale!r} in the tree's {supported}")


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
                _replace(copied, content, plain if action.mode is None else action.mode)
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


def _clean(tree: Path) -> None:
    with rooted(tree):
        root = Path("/")
        for pattern in _LEFTOVERS:
            for path in list(root.glob(pattern)):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        for path in list((root / _LOGS).rglob("*")):
            if path.is_symlink() or path.is_file():
                path.unlink()
        # systemd fills an empty one at the first boot, even while / is still read-only.
        Path("/etc/machine-id").write_bytes(b"")
        resolver = Path("/etc/resolv.conf")
        resolver.unlink(missing_ok=True)
        if Path("/usr/lib/systemd/systemd-resolved").exists():
            resolver.symlink_to("../run/systemd/resolve/stub-resolv.conf")


def _names(tree: Path, scratch: Path) -> list[bytes]:
    run.run(tar.list_command(tree, scratch))
    return tar.read_listing(scratch)


def _pack(tree: Path, target: Path, epoch: int, base: list[bytes]) -> None:
    """Write a tree as a tar: no time after the epoch, numbers for owners, what is new last."""
    listing = target.with_suffix(".names")
    tar.write_listing(tar.ordered(_names(tree, listing), base), listing)
    run.run(tar.tar_command(tree, target, listing, epoch))
    listing.unlink()


def main() -> int:
    """Do what the spec says; a failure is told to the process outside."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)  # the tree's directories have the modes of a guest, not of this shell
    try:
        build(SPEC.validate_json(Path(sys.argv[1]).read_bytes()))
    except ImageFactoryError as error:
        tell("failure", error.message)
        return 1
    except OSError as error:
        tell("failure", f"{error.filename or 'the tree'}: {error.strerror or error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
