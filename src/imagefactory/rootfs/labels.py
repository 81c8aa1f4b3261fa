"""SELinux labels of a finished tree, as its own policy has them.

No file of the tree gets an attribute: whether a namespace may set ``security.selinux`` is up to
the host's kernel and to the host's own policy, and a label that the latter does not know would be
refused. setfiles(8) only tells what it would do; the disk stage writes that into the filesystem.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from imagefactory.errors import BuildError
from imagefactory.sandbox.attachment import TWIN
from imagefactory.sandbox.chroot import Chroot, rooted
from imagefactory.tree import write_labels

_CONFIGURATION = Path("/etc/selinux/config")
_SAID = Path(".labels")
_TOLD = re.compile(rb"^Would relabel (/.*) from (?:<no context>|\S+) to (\S+)$", re.MULTILINE)
"""libselinux, selinux_restorecon.c: what it says of a file whose label is not the policy's."""

_MADE_BY_MKFS = "lost+found"


def policy(tree: Path) -> Path | None:
    """Return what of a tree says its labels; None: its SELinux is off, or it has none.

    selinux_config(5) names the policy; its file_contexts are at the same place in all of them.
    """
    with rooted(tree):
        if not _CONFIGURATION.exists():
            return None
        text = _CONFIGURATION.read_text(encoding="utf-8")
        set_to = dict(re.findall(r"(?m)^\s*(SELINUX|SELINUXTYPE)\s*=\s*(\S+)", text))
        kind = set_to.get("SELINUXTYPE", "targeted")
        contexts = Path("/etc/selinux", kind, "contexts/files/file_contexts")
        off = set_to.get("SELINUX", "enforcing").lower() == "disabled"
        return None if off or not contexts.exists() else contexts


def write(
    tree: Path, contexts: Path, env: Mapping[str, str], names: Collection[bytes], target: Path
) -> None:
    """Ask the tree's own setfiles for its labels, and keep them in a file.

    Args:
        tree: The tree, finished; nothing may be mounted there but what runs its programs.
        contexts: What `policy` returned.
        env: What its programs are told.
        names: Those of its entries.
        target: The file to write, for `tree.read_labels`.

    Raises:
        BuildError: The tree has no setfiles.
        CommandError: The policy cannot be read.
    """
    if not any((tree / folder / "setfiles").exists() for folder in ("usr/sbin", "usr/bin")):
        raise BuildError(
            "the tree has a SELinux policy, and nothing to label its files with",
            hint="install policycoreutils as well, or say SELINUX=disabled in /etc/selinux/config",
        )
    made = tree / _MADE_BY_MKFS
    new = not made.exists()
    made.mkdir(mode=0o700, exist_ok=True)
    said = tree / _SAID
    try:
        # -m: without SELinux on this machine each mount counts as one that can bear no labels.
        words = f"exec setfiles -m -n -v -F -e /{TWIN} {contexts} / >/{_SAID}"
        Chroot(tree, env).run(["/bin/sh", "-c", words], called="setfiles")
        told = said.read_bytes()
    finally:
        said.unlink(missing_ok=True)
        if new:
            made.rmdir()
    labels = {path.removeprefix(b"/"): label for path, label in _TOLD.findall(told)}
    known = {b"", os.fsencode(_MADE_BY_MKFS), *names}
    write_labels({path: labels[path] for path in sorted(labels.keys() & known)}, target)
