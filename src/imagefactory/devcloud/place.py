"""Where the devcloud lies, and whether it runs; cheap to ask.

Whether a service runs is told by the lock that it holds: the kernel drops it with the process,
and names the process that holds it. No number in a file is believed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from imagefactory.data import state_directory
from imagefactory.errors import ConfigError, HostError

NAME, ADMIN = "devcloud", "devcloud-admin"
"""Its two clouds: of a member of a project, and of the administrator."""

OFFERED = (NAME, ADMIN)

HOST = "127.0.0.1"
"""Where its services listen, and nowhere else."""

SERVICES = ("keystone", "glance")

UP = "imagefactory devcloud up"

_FLOCK = "hhqqi0q"
"""struct flock of fcntl(2): type, whence, start, length, process."""


@dataclass(frozen=True)
class Place:
    """The directory of a devcloud; one to each user."""

    directory: Path

    @classmethod
    def default(cls) -> Place:
        """Return the user's own, ``$XDG_STATE_HOME/imagefactory/devcloud``."""
        return cls(state_directory() / NAME)

    @property
    def clouds_yaml(self) -> Path:
        """What clients are to read."""
        return self.directory / "clouds.yaml"

    def service(self, name: str) -> Path:
        """Return the directory of a service."""
        return self.directory / name

    def running(self) -> bool:
        """Whether all services run."""
        return all(holder(self.service(name)) for name in SERVICES)

    @contextlib.contextmanager
    def alone(self, waiting: Callable[[], object]) -> Iterator[None]:
        """Let nobody else start or stop the services within a block.

        Args:
            waiting: Called when somebody does, before it is waited for.

        Raises:
            ConfigError: The directory cannot be written to.
        """
        try:
            self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(self.directory.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                waiting()
                lock.acquire()
        except OSError as error:
            raise ConfigError(
                f"{self.directory.parent} cannot be written to: {error.strerror}",
                hint="choose another place: XDG_STATE_HOME=DIR imagefactory devcloud up",
            ) from None
        try:
            yield
        finally:
            lock.release()


def holder(directory: Path) -> int | None:
    """Return the process that serves from a directory; None if none does.

    Raises:
        HostError: It is beyond this container.
    """
    try:
        descriptor = os.open(directory / "service.lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
    finally:
        os.close(descriptor)
    kind, _, _, _, number = struct.unpack(_FLOCK, answer)
    if kind == fcntl.F_UNLCK:
        return None
    if number <= 0:
        raise HostError(
            f"{directory.name} is served by a process that cannot be seen from here",
            hint="ask in the container that it runs in",
        )
    return int(number)


def go_direct() -> None:
    """Let nothing of this process ask a proxy for the loopback: none leads there."""
    for variable in ("no_proxy", "NO_PROXY"):
        known = os.environ.get(variable, "")
        if HOST not in known.split(","):
            os.environ[variable] = f"{known},{HOST}".lstrip(",")
