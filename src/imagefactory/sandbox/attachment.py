"""Make foreign programs run in the namespaces that we are in, and in a tree there.

Meant for uid 0 of a user namespace with a mount namespace of its own; nothing of the host
changes. As a program, for the hooks of mmdebstrap and diskimage-builder, it is light to start:

    python -m imagefactory.sandbox.attachment attach TREE --interpreter PATH [--twin PATH]
    python -m imagefactory.sandbox.attachment detach TREE
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from imagefactory import run
from imagefactory.errors import BuildError, ImageFactoryError

TWIN = ".twin"
"""The directory in the tree; launcher.c looks there, and the twin's programs name it as loader."""

LOADER = f"/{TWIN}/ld.so"
"""Shorter than the loader's path of every architecture (s390x: /lib/ld64.so.1), so it fits."""

LIBRARIES = f"/{TWIN}/lib/"
"""Where the loader of a twin looks that keeps its libraries apart; as long as /usr/lib64/."""

BINFMT_MISC = Path("/proc/sys/fs/binfmt_misc")

_STATE = "created"
_MOUNT_TIMEOUT = 30.0


def register(registration: bytes, mountpoint: Path = BINFMT_MISC) -> None:
    """Mount this user namespace's own binfmt_misc and tell it the interpreter.

    It must stay mounted: the kernel forgets the interpreter with the last mount.

    Raises:
        BuildError: The kernel refuses; older than Linux 6.7, or not in a user namespace.
    """
    try:
        run.run(["mount", "-t", "binfmt_misc", "binfmt_misc", mountpoint], timeout=_MOUNT_TIMEOUT)
        (mountpoint / "register").write_bytes(registration)
    except (OSError, ImageFactoryError) as error:
        raise BuildError(
            f"foreign programs cannot be registered with a private binfmt_misc: {error}",
            hint="`imagefactory doctor` says what this host can do",
        ) from None


def attach(tree: Path, interpreter: Path, twin: Path | None, trace: Path | None = None) -> None:
    """Let the programs of a tree find the emulator and the twin.

    The twin is read-only there: nothing that runs in the tree can damage the cache.

    Args:
        tree: The root directory of the tree; it may be empty still.
        interpreter: The emulator, a static program of the host.
        twin: What `twin.make` returned; None: emulate everything.
        trace: A file of the host to which the launcher adds a line about each call.

    Raises:
        BuildError: Something is mounted there already, or a mount is refused.
    """
    place = tree / TWIN
    if os.path.lexists(place):
        raise BuildError(f"{place} exists already", hint="detach the tree first")
    created = _directories(tree, Path(TWIN))
    _mount("-t", "tmpfs", "-o", "mode=755,size=1m,nosuid", "tmpfs", place)
    try:
        _bind_file(interpreter, place / "interpreter")
        if trace is not None:
            _bind_file(trace, place / "trace")
        if twin is not None:
            created = [*_attach_twin(tree, place, twin), *created]
    finally:
        (place / _STATE).write_text("".join(f"{path}\n" for path in created), encoding="utf-8")


def detach(tree: Path) -> None:
    """Undo `attach`: no mount and no mount point stays; a tree without a twin is left alone.

    A mount point that the tree has come to need (it holds files, or dpkg has it on record) stays.

    Raises:
        BuildError: A mount cannot be undone.
    """
    place = tree / TWIN
    if not os.path.ismount(place):
        return
    created = [Path(line) for line in (place / _STATE).read_text("utf-8").splitlines()]
    # Lazily: a daemon that a maintainer script has left running may hold the twin's libraries.
    for mounted in sorted(_mounts_of(tree, created), reverse=True):
        run.run(["umount", "--lazy", "--", mounted], timeout=_MOUNT_TIMEOUT)
    for path in created:
        if path.name == TWIN or not _on_record(tree, path):
            with contextlib.suppress(OSError):  # it holds something by now
                (tree / path).rmdir()


def _attach_twin(tree: Path, place: Path, twin: Path) -> list[Path]:
    libraries = Path((twin / "libraries").read_text("utf-8").strip())
    created = []
    if (twin / "apart").exists():
        (place / "lib").symlink_to(Path("root") / libraries)
    elif (tree / libraries).is_dir() and any((tree / libraries).iterdir()):
        return []  # a tree of both architectures: its own libraries must stay to be seen
    else:
        created = _directories(tree, libraries)
        _bind_directory(twin / "root" / libraries, tree / libraries)
    (place / "root").mkdir()
    _bind_directory(twin / "root", place / "root")
    loader = (twin / "loader").read_text("utf-8").strip()
    (place / "ld.so").symlink_to(Path("root") / loader)
    # Last: from here on the launcher uses the twin.
    new = place / "allow.new"
    new.write_bytes((twin / "allow").read_bytes())
    new.rename(place / "allow")
    return created


def _mounts_of(tree: Path, created: Iterable[Path]) -> Iterable[str]:
    """What lies mounted on and below the places of ours, as the kernel knows them."""
    places = [str((tree / path).resolve()) for path in created]
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        # proc(5): the fifth field; blanks and the like are written as octal escapes.
        mounted = line.split()[4].encode().decode("unicode_escape")
        if any(mounted == path or mounted.startswith(path + "/") for path in places):
            yield mounted


def _directories(tree: Path, path: Path) -> list[Path]:
    """Make a directory of the tree; return what had to be made, the innermost first."""
    missing = [part for part in (path, *path.parents) if not (tree / part).is_dir()]
    for part in reversed(missing):
        (tree / part).mkdir(mode=0o755)
    return missing


def _on_record(tree: Path, path: Path) -> bool:
    """Whether dpkg says that a package brought the directory."""
    line = f"/{path}".encode()
    lists = (tree / "var/lib/dpkg/info").glob("*.list")
    return any(line in file.read_bytes().splitlines() for file in lists)


def _bind_file(source: Path, target: Path) -> None:
    target.touch()
    _mount("--bind", "--", source, target)


def _bind_directory(source: Path, target: Path) -> None:
    _mount("--bind", "--", source, target)
    # What the mount forbids already must be said again: it is not ours to allow.
    flags = os.statvfs(target).f_flag
    kept = [
        name
        for name, flag in (
            ("nosuid", os.ST_NOSUID),
            ("nodev", os.ST_NODEV),
            ("noexec", os.ST_NOEXEC),
            ("noatime", os.ST_NOATIME),
            ("nodiratime", os.ST_NODIRATIME),
            ("relatime", os.ST_RELATIME),
        )
        if flags & flag
    ]
    _mount("-o", ",".join(["remount", "bind", "ro", *kept]), "--", target)


def _mount(*words: str | Path) -> None:
    run.run(["mount", *words], timeout=_MOUNT_TIMEOUT)


def main(arguments: Sequence[str] | None = None) -> int:
    """Attach or detach a tree as the command line says; the exit status tells."""
    parser = argparse.ArgumentParser(prog="python -m imagefactory.sandbox.attachment")
    parser.add_argument("action", choices=["attach", "detach"])
    parser.add_argument("tree", type=Path)
    parser.add_argument("--interpreter", type=Path)
    parser.add_argument("--twin", type=Path)
    parser.add_argument("--trace", type=Path)
    asked = parser.parse_args(arguments)
    try:
        if asked.action == "detach":
            detach(asked.tree)
        elif asked.interpreter is None:
            parser.error("attach needs --interpreter")
        else:
            attach(asked.tree, asked.interpreter, asked.twin, asked.trace)
    except ImageFactoryError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
