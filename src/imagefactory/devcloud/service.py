"""The program that serves Keystone or Glance; run by the Python of their own venv.

Usage: service.py keystone|glance DIRECTORY SOCKET. The directory holds the configuration; the
socket is the number of an open descriptor that listens already. With TLS where there is a key.

- While it runs it holds a lock on DIRECTORY/service.lock, which names its process to whoever
  asks (``F_GETLK``), and one on its venv, so that no cache takes it away.
- It dies with its parent, until SIGRTMIN tells it to stay; it answers with a line.

gunicorn's gthread worker is chosen for how it treats an upload that breaks off: uvicorn's
lets it become active, wsgiref's stores the framing of chunks as data.

Only the standard library and the services' venv are at hand here.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def glance() -> Application:
    """Return Glance."""
    from glance.wsgi import api  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    served: Application = api.application
    return served


def keystone() -> Application:
    """Return Keystone."""
    from keystone.wsgi import api  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    served: Application = api.application
    return served


SERVICES = {"glance": glance, "keystone": keystone}


def serve(name: str, load: Callable[[], Application], directory: Path, descriptor: int) -> None:
    """Serve until a signal ends it.

    Args:
        name: Whose configuration is read: keystone or glance.
        load: Makes what is served; called in the worker.
        directory: Where the configuration is.
        descriptor: Of the socket.
    """
    os.umask(0o077)
    signal.signal(signal.SIGRTMIN, _stay)
    locks = _hold(directory)
    # The services' and gunicorn's option parsers read sys.argv; there is nothing for them in it.
    sys.argv[1:] = []
    os.environ[f"OS_{name.upper()}_CONFIG_DIR"] = str(directory)
    from gunicorn.app.base import (  # type: ignore[import-untyped,unused-ignore]  # noqa: PLC0415
        BaseApplication,
    )

    class Server(BaseApplication):  # type: ignore[misc,unused-ignore]
        def load_config(self) -> None:
            options: dict[str, Any] = {
                "proc_name": f"{name} {directory}",
                "bind": f"fd://{descriptor}",
                "worker_class": "gthread",  # see above
                "threads": 8,
                "workers": 1,
                "timeout": 120,
                "graceful_timeout": 1,
                "control_socket_disable": True,
                "errorlog": str(directory / "gunicorn.log"),
                "post_fork": _die_with_parent,
            }
            if (directory / "tls.key").exists():
                options["certfile"] = str(directory / "tls.crt")
                options["keyfile"] = str(directory / "tls.key")
            for option, value in options.items():
                self.cfg.set(option, value)

        def load(self) -> Application:
            return load()

    Server().run()
    del locks


def _hold(directory: Path) -> list[Any]:
    """Take the locks that say that we run; they last as long as this process."""
    lock = (directory / "service.lock").open("ab")
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"{directory} is served already")
    venv = os.open(sys.prefix, os.O_RDONLY)
    fcntl.flock(venv, fcntl.LOCK_SH)
    return [lock, venv]


def _death_signal(number: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _stay(_signal: int, _frame: object) -> None:
    """Outlive the one who started us; nobody reads our standard output from then on."""
    _death_signal(0)
    os.write(1, b"stays\n")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _die_with_parent(_arbiter: Any, _worker: Any) -> None:
    """Let not even kill -9 of the master leave a worker behind."""
    _death_signal(signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1], SERVICES[sys.argv[1]], Path(sys.argv[2]), int(sys.argv[3]))
