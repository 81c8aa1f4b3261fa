"""Running a tree's own programs, inside a sandbox's namespaces."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagefactory import run
from imagefactory.errors import CommandError
from imagefactory.sandbox.namespace import tell

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_OFFLINE": "1",
}
"""All that a program of the tree learns of its surroundings."""

_TIMEOUT = 3600.0

_LAST_LINES = 12

_SAYS_MORE = "dpkg: error"
_ERRORS = (_SAYS_MORE, "E: ")
"""How lines begin that tell what is wrong; dpkg's go on in the next line."""

_LONG = 400
"""Characters from which on a line is a command with all its arguments."""


@dataclass(frozen=True)
class Chroot:
    """A tree whose programs can be run; see `entered`."""

    tree: Path
    env: Mapping[str, str]

    def run(self, argv: Sequence[str], *, called: str = "") -> None:
        """Run a program of the tree as its root; all it says goes to the log.

        Args:
            argv: The program and its arguments.
            called: What a person calls it, if not by its first word.

        Raises:
            CommandError: It failed.
        """
        variables = [f"{name}={value}" for name, value in {**_ENVIRONMENT, **self.env}.items()]
        words: list[str | Path] = ["chroot", self.tree, "/usr/bin/env", "-i", *variables, *argv]
        sys.stderr.write(f"# {' '.join(argv)}\n")
        sys.stderr.flush()
        began = os.fstat(sys.stderr.fileno()).st_size
        try:
            run.run(words, timeout=_TIMEOUT, into=sys.stderr)
        except CommandError as error:
            # "chroot failed with status 3: " is about a program that nobody asked for.
            how = error.message.removeprefix("chroot ").rstrip(": ")
            said = "".join(f"\n{line}" for line in _last_words(began))
            raise CommandError(f"{called or argv[0]} {how}{':' if said else ''}{said}") from None


def _last_words(began: int) -> list[str]:
    """Read what was written to the log since it had a size; nothing if it is no file."""
    with contextlib.suppress(OSError), Path("/proc/self/fd/2").open("rb") as log:
        log.seek(began)
        return log.read().decode(errors="replace").splitlines()[-_LAST_LINES:]
    return []


@contextlib.contextmanager
def entered(tree: Path, env: Mapping[str, str]) -> Iterator[Chroot]:
    """Give a tree what its programs expect (/dev, /proc, /sys, /run, /tmp) and take it away again.

    Nothing that they write there stays in the tree.
    """
    with contextlib.ExitStack() as stack:
        # A tmpfs is sticky and everybody's unless one says otherwise, and there the kernel lets
        # nobody open another user's file with O_CREAT (as a shell opens /dev/null). To the root
        # of an ordinary user's namespace the host's devices are another user's.
        stack.enter_context(mounted(tree / "dev", "-t", "tmpfs", "-o", "mode=755", "tmpfs"))
        for name, kind in (("proc", "proc"), ("sys", "sysfs"), ("run", "tmpfs")):
            stack.enter_context(mounted(tree / name, "-t", kind, kind))
        stack.enter_context(mounted(tree / "tmp", "-t", "tmpfs", "-o", "mode=1777", "tmpfs"))
        for name in _DEVICES:
            node = tree / "dev" / name
            node.touch()
            stack.enter_context(mounted(node, "--bind", f"/dev/{name}"))
        for name, target in _LINKS.items():
            (tree / "dev" / name).symlink_to(target)
        (tree / "run/lock").mkdir()
        stack.callback(_end_daemons)
        yield Chroot(tree, env)


def _end_daemons() -> None:
    """End what a script left running: it would write into a tree that is being packed."""
    if os.getpid() == 1:  # as the first process of a namespace we have it for ourselves
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)


@contextlib.contextmanager
def rooted(tree: Path) -> Iterator[None]:
    """Make a tree this process's own root for the time of a block.

    Whoever writes files into a tree from outside follows its absolute links out of it; inside,
    there is nowhere else. Nothing may be imported in the block: it would come from the tree.
    """
    outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.chroot(tree)
        os.chdir("/")
        yield
    finally:
        os.fchdir(outside)
        os.chroot(".")
        os.close(outside)


@contextlib.contextmanager
def mounted(target: Path, *how: str) -> Iterator[None]:
    """Mount something for the time of a block."""
    if not target.exists():
        target.mkdir()
    run.run(["mount", *how, target])
    try:
        yield
    finally:
        # Lazily: a daemon that a script left behind dies with the namespace.
        run.run(["umount", "--lazy", target])


def follow(argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
    """Run a program whose lines ``I: doing ...`` are its progress; all it says goes to the log.

    Raises:
        CommandError: It failed.
    """
    last: list[str] = []
    told: list[str] = []
    with run.started(argv, env=env, stdout=sys.stderr.buffer, stderr=run.PIPE) as process:
        for line in process.stderr or ():
            sys.stderr.write(line)
            if last and last[-1].startswith(_SAYS_MORE):
                told.append(line.strip())
            last = [*last[1 - _LAST_LINES :], line.rstrip()]
            if line.startswith(_ERRORS) and len(line) < _LONG:
                told.append(line.strip())
            # Of a signal it speaks when something has failed: no progress.
            if line.startswith("I: ") and line.endswith("...\n") and "signal" not in line:
                tell("progress", line[3:].strip(" .\n"))
        process.wait()
    sys.stderr.flush()
    if process.returncode:
        name = Path(argv[0]).name
        raise CommandError(
            f"{name} failed with status {process.returncode}: "
            + "\n".join(told[:_LAST_LINES] or last)
        )
