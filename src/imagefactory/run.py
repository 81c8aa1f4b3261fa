"""The one place that starts external programs: logged, timed, cancellable.

Every child runs in its own process group and dies with us (``PR_SET_PDEATHSIG``, set by
util-linux's ``setpriv``), so that not even ``kill -9`` leaves a program behind.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from imagefactory.errors import CommandError, HostError

PIPE = subprocess.PIPE

DEFAULT_TIMEOUT = 600.0
"""Seconds that a program may take when its caller names no budget."""

STOP_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL for a program that is being stopped."""

_bounded: dict[int, subprocess.Popen[str]] = {}
"""The programs that `run` waits for at this moment."""

_running: dict[int, subprocess.Popen[str]] = {}
"""The programs that are running at this moment."""

_starting = threading.RLock()
"""Held while a program starts and is entered above, so that nobody who ends all misses one.

Reentrant, for a signal's handler may find its own thread at that.
"""

_ending = threading.Event()
"""Set once no program may be started any more."""

_interrupted = threading.Event()
"""Set once programs have been told to end."""

STAY = signal.SIGRTMIN
"""What tells a program to outlive us; see `release`."""

_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


@dataclass(frozen=True)
class Completed:
    """A program that ended well: what it printed and how long it took in seconds."""

    stdout: str
    stderr: str
    seconds: float


def which(program: str) -> Path | None:
    """Find a program as a shell would; the sbin directories count for ordinary users too."""
    found = shutil.which(program, path=_search_path())
    return Path(found) if found else None


def need(program: str, package: str) -> Path:
    """Find a program or say which package brings it.

    Raises:
        HostError: The program is not installed.
    """
    found = which(program)
    if found is None:
        raise HostError(
            f"the program {program!r} is not installed",
            hint=f"install the package {package} (`imagefactory doctor` lists all that is missing)",
        )
    return found


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    accept: Sequence[int] = (0,),
    into: IO[bytes] | IO[str] | None = None,
) -> Completed:
    """Run a program to its end.

    Args:
        argv: The program and its arguments; no shell is involved.
        timeout: Budget in seconds; the whole process group is ended when it is spent.
        log: File to which the command line and all output are appended.
        env: Variables added to the environment (LC_ALL is always C.UTF-8).
        cwd: Directory to run in.
        stdin: Text for standard input; without it standard input is empty.
        accept: Exit statuses that count as success.
        into: A file that gets all output as it comes, in the place of the result. Nothing waits
            then for what the program may have left running with that file open.

    Raises:
        HostError: The program does not exist.
        CommandError: It failed or overran its budget; the message carries its last words.
    """
    words = [str(word) for word in argv]
    began = time.monotonic()
    output = PIPE if into is None else into
    with started(
        words,
        env=env,
        cwd=cwd,
        pipe_stdin=stdin is not None,
        stdout=output,
        stderr=output,
        cancellable=True,
    ) as process:
        try:
            out, err = (said or "" for said in process.communicate(stdin, timeout=timeout))
        except subprocess.TimeoutExpired:
            stop(process)
            out, err = _last_output(process)
            _log(log, words, out, err, None)
            raise CommandError(
                f"{Path(words[0]).name} did not end within {timeout:.0f} s",
                hint=f"command: {shlex.join(words)}",
                log=log,
            ) from None
        # What it left running in the background would outlive us.
        _signal_group(process.pid, signal.SIGKILL)
    seconds = time.monotonic() - began
    _log(log, words, out, err, process.returncode)
    if process.returncode not in accept:
        last_words = "\n".join((err.strip() or out.strip()).splitlines()[-12:])
        raise CommandError(
            f"{Path(words[0]).name} failed with status {process.returncode}: {last_words}",
            hint=f"command: {shlex.join(words)}",
            log=log,
        )
    return Completed(out, err, seconds)


@contextlib.contextmanager
def bounded(process: subprocess.Popen[str], timeout: float) -> Iterator[Callable[[], bool]]:
    """Give a started program a budget in seconds.

    Yields:
        Whether the budget was overrun, so that the program was ended.
    """
    overran = threading.Event()

    def end() -> None:
        overran.set()
        _signal_group(process.pid, signal.SIGKILL)

    clock = threading.Timer(timeout, end)
    clock.daemon = True
    clock.start()
    try:
        yield overran.is_set
    finally:
        clock.cancel()


def cancel() -> None:
    """Ask every program that `run` waits for to end, whichever thread waits for it.

    For the handler of Ctrl-C: only the main thread is told of it, and it may have to wait for
    the others.
    """
    _interrupted.set()
    with _starting:
        bounded_ones = list(_bounded.values())
    for process in bounded_ones:
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGTERM)


def interrupted() -> bool:
    """Whether programs have been told to end: what fails from then on fails because of it."""
    return _interrupted.is_set()


def end_all() -> None:
    """End every program that any thread has started, and let none be started any more.

    For an interrupted run: its threads end soon after, because what they wait for is gone and
    the next program that they start is a KeyboardInterrupt.
    """
    with _starting:
        _ending.set()
        running = list(_running.values())
    for process in running:
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_GRACE
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
    for process in running:
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def started(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pipe_stdin: bool = False,
    stdout: IO[bytes] | IO[str] | int = subprocess.PIPE,
    stderr: IO[bytes] | IO[str] | int = subprocess.PIPE,
    cancellable: bool = False,
    pass_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[str]]:
    """Start a program and hand it out while it runs; it is stopped when the block is left.

    The kernel ties the child to the *thread* that starts it, so the block must be left in
    the thread that entered it. With ``cancellable``, `cancel` ends it too. The program has the
    descriptors ``pass_fds`` besides the standard ones. One that `release` let go runs on.

    Raises:
        HostError: The program does not exist.
        KeyboardInterrupt: All programs were told to end.
    """
    words = [str(word) for word in argv]
    for program in (words[0], _DIE_WITH_PARENT[0]):
        if which(program) is None:
            raise HostError(
                f"the program {program!r} is not installed",
                hint="`imagefactory doctor` names the package that brings it",
            )
    with _starting:
        process = subprocess.Popen(
            [*_DIE_WITH_PARENT, *words],
            stdin=subprocess.PIPE if pipe_stdin else subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            cwd=cwd,
            env={**os.environ, "PATH": _search_path(), "LC_ALL": "C.UTF-8", **(env or {})},
            start_new_session=True,
            pass_fds=pass_fds,
        )
        _running[process.pid] = process
        if cancellable:
            _bounded[process.pid] = process
    try:
        if _ending.is_set():
            raise KeyboardInterrupt
        yield process
    finally:
        if process.pid in _running:
            stop(process)
        _running.pop(process.pid, None)
        _bounded.pop(process.pid, None)


def release(process: subprocess.Popen[str]) -> None:
    """Let a program that `started` handed out outlive us.

    Nobody but the program itself can undo that it dies with us, so it must know `STAY`, and say
    a line on its standard output, a pipe, once it has done so.

    Raises:
        CommandError: It ended instead.
    """
    process.send_signal(STAY)
    assert process.stdout is not None  # noqa: S101
    if not process.stdout.readline():
        raise CommandError(f"{process.args!r} ended instead of staying")
    _running.pop(process.pid, None)
    _bounded.pop(process.pid, None)
    process.stdout.close()
    process.returncode = 0  # it is no child to wait for any more


def end_released(holder: Callable[[], int | None]) -> bool:
    """End a program that was released, maybe by another process, and wait until it is gone.

    Args:
        holder: Tells the process as long as it is this very program; asked again once the process
            is held on to, because a number alone may be another's by now.

    Returns:
        Whether there was one.

    Raises:
        HostError: It may not be ended, or does not end.
    """
    number = holder()
    if number is None:
        return False
    try:
        descriptor = os.pidfd_open(number)
    except ProcessLookupError:
        return False
    try:
        if holder() != number:
            return False
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, how)
            if select.select([descriptor], [], [], STOP_GRACE)[0]:
                return True
    except PermissionError:
        raise HostError(f"process {number} is another user's", hint="become that user") from None
    finally:
        os.close(descriptor)
    raise HostError(f"process {number} does not end", hint="is its disk out of order?")


def stop(process: subprocess.Popen[str]) -> None:
    """End a program and everything in its process group: asked first, then killed."""
    if process.returncode is not None:
        return  # reaped before: its number may be another program's by now
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_GRACE)
    # The program may be gone while something that it started ignored the request.
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _last_output(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a stopped program said; one that left its group may hold the pipes open for ever."""
    said: list[str | bytes | None]
    try:
        said = [*process.communicate(timeout=STOP_GRACE)]
    except subprocess.TimeoutExpired as error:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        said = [error.output, error.stderr]
    out, err = (
        part.decode(errors="replace") if isinstance(part, bytes) else part or "" for part in said
    )
    return out, err


def _signal_group(group: int, number: int) -> None:
    # PermissionError: nothing is left but programs that became another user's.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _search_path() -> str:
    path = os.environ.get("PATH", os.defpath)
    return os.pathsep.join([path, "/usr/local/sbin", "/usr/sbin", "/sbin"])


def _log(log: Path | None, words: list[str], out: str, err: str, status: int | None) -> None:
    if log is None:
        return
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"$ {shlex.join(words)}\n{out}{err}")
        stream.write(f"[status {status}]\n" if status is not None else "[out of time]\n")
