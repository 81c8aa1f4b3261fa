"""A build's own user, mount, process and network namespaces.

Inside, a build is root over 65,536 user numbers and mounts what it likes. Nobody outside sees
any of it, there is no way to the network, and when the first process dies - by ``kill -9`` even -
the kernel takes the mounts and all other processes with it.
"""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from imagefactory import run
from imagefactory.errors import BuildError, HostError

IDS = 1 << 16
"""User and group numbers in a tree: Debian policy 9.2.2 ends at 65535, `nobody` is 65534."""

_NAMESPACES = ("--user", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child")
_READY = "ready"
_WAIT = f'echo {_READY}; read -r _ && exec setpriv --pdeathsig KILL "$@"'
"""The first process inside: it waits until its user numbers have been mapped from outside.

Only then it gains its capabilities, and the kernel forgets at such an exec what --kill-child had
asked for, prctl(2) PR_SET_PDEATHSIG: it is asked once more.
"""

Listener = Callable[[str, str], None]


def run_inside(
    module: str,
    spec: Path,
    *,
    log: Path,
    timeout: float,
    listen: Listener,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a module of ours as root of new namespaces (``python -m MODULE SPEC``).

    What the module prints on standard output are lines of JSON, ``{"event": ..., "text": ...}``;
    its standard error goes to the log.

    Args:
        module: The module's full name.
        spec: The file that tells it what to do.
        log: Where its programs' output is kept.
        timeout: Seconds.
        listen: Called with each event and its text.
        env: Variables added to the environment.

    Raises:
        HostError: This host gives no namespaces, or no user numbers to fill them with.
        BuildError: The module failed.
    """
    failure = ""
    words = ["unshare", *_NAMESPACES, "--mount-proc", "sh", "-c", _WAIT, "sh"]
    words += [sys.executable, "-P", "-m", module, str(spec)]
    with (
        log.open("a", encoding="utf-8") as stream,
        run.started(
            words, env=env, pipe_stdin=True, stdout=subprocess.PIPE, stderr=stream, cancellable=True
        ) as child,
        run.bounded(child, timeout) as overran,
    ):
        if child.stdout is None or child.stdin is None:
            raise BuildError("the pipes to the namespaces are missing")
        if child.stdout.readline().strip() != _READY:
            raise HostError(
                "this host gives no namespaces to an ordinary program",
                hint="see sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, "
                "kernel.apparmor_restrict_unprivileged_userns; in a container: allow `unshare`",
                log=log,
            )
        _map_ids(child.pid)
        child.stdin.write("go\n")
        child.stdin.close()
        for event, text in _events(child.stdout):
            if event == "failure":
                failure = text
            else:
                listen(event, text)
        child.wait()
    if overran():
        raise BuildError(f"{module} did not end within {timeout:.0f} s", log=log)
    if child.returncode:
        raise BuildError(
            failure or f"the build inside its namespaces ended with status {child.returncode}",
            log=log,
        )


def tell(event: str, text: str) -> None:
    """Tell the process outside something (called inside)."""
    sys.stdout.write(json.dumps({"event": event, "text": text}) + "\n")
    sys.stdout.flush()


def _events(stream: IO[str]) -> Iterator[tuple[str, str]]:
    for line in stream:
        try:
            said = json.loads(line)
            yield str(said["event"]), str(said["text"])
        except (ValueError, LookupError, TypeError):
            continue  # a program that did not keep to standard error


def _map_ids(pid: int) -> None:
    """Give a new user namespace its numbers: root may choose, others have theirs in /etc/sub?id."""
    try:
        if os.geteuid() == 0:
            for kind in ("uid", "gid"):
                Path(f"/proc/{pid}/{kind}_map").write_text(f"0 0 {IDS}\n", encoding="ascii")
            return
    except OSError as error:
        raise HostError(
            f"the user numbers 0 to {IDS - 1} cannot be mapped: {error.strerror}",
            hint="in a container: give it that many (`podman run --uidmap`, or run as root)",
        ) from None
    for kind, own in (("uid", os.getuid()), ("gid", os.getgid())):
        first = subordinate(kind)
        program = run.need(f"new{kind}map", "uidmap")
        run.run([program, str(pid), "0", str(own), "1", "1", str(first), str(IDS - 1)])


def subordinate(kind: str) -> int:
    """Find this user's first subordinate number, subuid(5).

    Args:
        kind: ``uid`` or ``gid``.

    Raises:
        HostError: Too few were given to this user.
    """
    number = os.getuid()
    try:
        names = {pwd.getpwuid(number).pw_name, str(number)}
    except KeyError:
        names = {str(number)}
    file = Path(f"/etc/sub{kind}")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    for line in lines:
        name, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if name in names and first.isdecimal() and count.isdecimal() and int(count) >= IDS - 1:
            return int(first)
    user = min(names)
    raise HostError(
        f"{file} gives the user {user} no {IDS} subordinate numbers",
        hint="a tree's files have many owners; as root: usermod --add-subuids 100000-165535 "
        f"--add-subgids 100000-165535 {user}",
    )
