"""A SELinux policy, compiled as distributions of this family ship it; of no architecture."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from filelock import FileLock

from imagefactory.packages import tools
from imagefactory.packages.apt import Apt
from imagefactory.run import run
from tests.rpm.spec import Entry

NAME = "targeted"
_DEBIAN = "default"
_PACKAGES = ("policycoreutils", "semodule-utils", "selinux-policy-default", "dash")

_MODULES = (
    *("base", "bind", "cgroup", "chronyd", "clock", "cron", "devicekit", "getty", "gpg"),
    *("hostname", "iptables", "irqbalance", "kdump", "loadkeys", "logrotate", "lvm", "mandb"),
    *("mailman", "mta", "netutils", "networkmanager", "plymouthd", "policykit", "quota", "raid"),
    *("rtkit", "screen", "setrans", "ssh", "staff", "su", "sudo", "tzdata", "unconfined"),
    *("unprivuser", "vdagent", "xdg", "xserver"),
)
"""Those of the 351 that concern such a guest, and what they need: an emulated kernel takes half a
minute to load all of them."""

_CONFIGURATION = """\
module-store = direct
expand-check = 0
# The newest that Linux 6.12 reads.
policy-version = 33
"""

_LOCAL = "".join(
    f"(typepermissive {domain})\n"
    for domain in (
        *("chronyd_t", "fsadm_t", "getty_t", "mount_t", "syslogd_t", "useradd_t"),
        *("systemd_generator_t", "systemd_hostnamed_t", "systemd_hw_t", "systemd_logind_t"),
        *("systemd_networkd_t", "systemd_resolved_t", "systemd_tmpfiles_t"),
    )
)
"""Debian's policy knows nothing of cloud-init, nor of credentials that systemd hands on: where it
would stop what a cloud's guest does it only tells of it. All else is enforced."""

_PASSWD = "root:x:0:0:root:/root:/bin/bash\n"

# In a root of its own: semodule starts others by their absolute paths.
_COMPILE = """\
mount --bind /dev/null "$0/dev/null"
cd "$0/usr/share/selinux/default"
set --
while read -r module; do
    set -- "$@" -i "$module.pp.bz2"
done <.modules
set -- "$@" -i local.cil
exec chroot "$0" /bin/sh -c 'cd /usr/share/selinux/default && exec semodule "$@"' \\
    sh -n -X 100 -s targeted "$@"
"""


def policy(apt: Apt, cache: Path, base: Path) -> Path:
    """Compile the policy's modules, unless that was done before.

    Args:
        apt: Has the policy, and for this machine what compiles it.
        cache: The directory of all caches.
        base: Where what was made is kept.

    Returns:
        A tree with nothing but the policy, its contexts and its store.
    """
    packages = apt.resolve(_PACKAGES)
    sums = "".join(package.sha256 for package in packages)
    content = f"{sums}{_COMPILE}{_CONFIGURATION}{_LOCAL}{_PASSWD}{_MODULES}"
    place = base / f"selinux-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    with FileLock(base / "selinux.lock"):
        if not place.exists():
            apt.fetch(packages)
            unpacked = tools.unpack(packages, apt.pool, cache).directory
            work = base / "selinux.work"
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(unpacked, work / "root", symlinks=True)
            _compile(work / "root")
            for folder in ("etc/selinux", "var/lib/selinux"):
                shutil.move(work / "root" / folder / NAME, work / "made" / folder / NAME)
            (work / "made").rename(place)
            shutil.rmtree(work)
    return place


def _compile(root: Path) -> None:
    for link in ("bin", "sbin", "lib", "lib64"):
        if not (root / link).exists():
            (root / link).symlink_to(f"usr/{link}")
    (root / "etc/selinux" / _DEBIAN).rename(root / "etc/selinux" / NAME)
    (root / "etc/selinux/semanage.conf").write_text(_CONFIGURATION)
    (root / "etc/selinux/config").write_text(f"SELINUX=enforcing\nSELINUXTYPE={NAME}\n")
    (root / "var/lib/selinux" / NAME).mkdir(parents=True)
    # By it genhomedircon knows where root's home is.
    (root / "etc/passwd").write_text(_PASSWD)
    modules = root / "usr/share/selinux" / _DEBIAN
    (modules / ".modules").write_text("".join(f"{name}\n" for name in _MODULES))
    (modules / "local.cil").write_text(_LOCAL)
    (root / "dev").mkdir()
    (root / "dev/null").touch()
    for folder in ("etc", "var/lib"):
        (root.parent / "made" / folder / "selinux").mkdir(parents=True)
    run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", _COMPILE, root])


def entries(tree: Path) -> list[Entry]:
    """List what `policy` returned; all but what anybody may read is root's alone."""
    found = []
    for path in sorted(tree.rglob("*")):
        if path.name in {"selinux", "etc", "var", "lib"} or path.name.endswith(".LOCK"):
            continue
        public = "etc" in path.relative_to(tree).parts[:1]
        kind = "directory" if path.is_dir() else "file"
        mode = (0o644 if public else 0o600) | (0o111 if public else 0o100) * path.is_dir()
        found.append(Entry(f"/{path.relative_to(tree)}", mode, kind=kind))  # type: ignore[arg-type]
    return found
