"""The part of the Debian builder that runs inside its namespaces, as root of the tree.

``python -m imagefactory.rootfs.debian_inside spec.json``; it imports little, for it is started
for each build.
"""

from __future__ import annotations

import contextlib
import re
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from debian.deb822 import Packages
from pydantic import TypeAdapter

from imagefactory.errors import BuildError
from imagefactory.packages.installed import Installed, of_dpkg
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
    # Package lists and caches, which are out of date the day after.
    *("var/lib/apt/lists/*", "var/cache/apt/*", "var/cache/debconf/*-old"),
    # Times and orders that differ from build to build, and nobody needs.
    "var/lib/dpkg/*-old",
    *("var/lib/ucf/hashfile.[0-9]*", "var/lib/ucf/registry.[0-9]*"),
)
"""Globs of what Debian's own tools leave."""

_DPKG_CHOICE = "etc/dpkg/dpkg.cfg.d/imagefactory"

_SHOWN = Path("/mnt")
"""Where the repository is mounted: neither apt nor a hook's shell takes any path there is."""


def build(spec: Spec) -> None:
    """Make the tree that a spec describes."""
    family = Family(
        install=lambda tree, env: _bootstrap(spec.base, tree, env),
        customize=lambda tree, env: _customize(spec, tree, env),
        leftovers=_LEFTOVERS,
        kernel="vmlinu[xz]-*",
        initramfs="initrd.img-*",
        installed=_installed,
    )
    make(spec, family)


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
            add_user(account, chroot)
        for file in spec.files:
            write(file, chroot)
        _settle(spec, chroot)
        for action in spec.actions:
            take(action, chroot)


def _settle(spec: Spec, chroot: Chroot) -> None:
    with rooted(chroot.tree):
        settle(spec.timezone)
        replace(Path("/etc/timezone"), f"{spec.timezone}\n".encode(), 0o644)
        replace(Path("/etc/default/locale"), f"LANG={spec.locale}\n".encode(), 0o644)
    if spec.locale.partition(".")[0] not in {"C", "POSIX"}:
        with rooted(chroot.tree):
            line = _line_of_locale(spec.locale)
            replace(Path("/etc/locale.gen"), f"{line}\n".encode(), 0o644)
        chroot.run(["locale-gen"])


def _installed(tree: Path) -> tuple[Installed, ...] | None:
    with rooted(tree):
        status = Path("/var/lib/dpkg/status")
        content = status.read_bytes() if status.is_file() else b""
    return of_dpkg(content.decode(errors="replace")) or None


def _line_of_locale(locale: str) -> str:
    """Find a locale and its character set in the tree's list; called inside the tree."""
    supported = Path("/usr/share/i18n/SUPPORTED")
    if not supported.exists():
        raise BuildError(f"the locale {locale} needs the package `locales` in the tree")
    for line in supported.read_text(encoding="utf-8").splitlines():
        if line.split()[:1] == [locale]:
            return line
    raise BuildError(f"there is no locale {locale!r} in the tree's {supported}")


if __name__ == "__main__":
    sys.exit(carry_out(lambda told: build(SPEC.validate_json(told))))
