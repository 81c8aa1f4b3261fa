"""Keystone and Glance as processes: their databases, sockets, and whether they answer."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path

import requests

from imagefactory.devcloud.configuration import REGION
from imagefactory.devcloud.place import HOST
from imagefactory.errors import CloudError
from imagefactory.run import run, started

PROGRAM = Path(__file__).with_name("service.py")

_MANAGE_SECONDS = 180.0
ANSWER_SECONDS = 60.0
"""Until a service answers: three are usual, a busy machine takes more."""


def listening(port: int = 0) -> socket.socket:
    """Return a socket on the loopback: of this port, or of any other if somebody has it.

    Whoever connects from now on waits until the service is there.
    """
    for wanted in dict.fromkeys((port, 0)):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, wanted))
            listener.listen()
        except OSError:
            listener.close()
        else:
            return listener
    raise CloudError(f"no port of {HOST} is free")


def url_of(name: str, listener: socket.socket) -> str:
    """Return the URL of a service that is served on a socket."""
    port = listener.getsockname()[1]
    return f"https://{HOST}:{port}/v3" if name == "keystone" else f"http://{HOST}:{port}"


def make_keystone_database(venv: Path, directory: Path) -> None:
    """Make Keystone's database, or bring it up to date."""
    _manage_keystone(venv, directory, "db_sync")


def bootstrap(venv: Path, directory: Path, url: str, password: str) -> None:
    """Make Keystone's administrator and its own entry in the catalog, or bring them up to date."""
    words = ["bootstrap", "--bootstrap-region-id", REGION]
    for interface in ("public", "internal"):  # the latter is where Glance asks
        words += [f"--bootstrap-{interface}-url", url]
    # Not as a word: everybody sees those, and the log has them.
    _manage_keystone(venv, directory, *words, env={"OS_BOOTSTRAP_PASSWORD": password})


def _manage_keystone(
    venv: Path, directory: Path, *words: str, env: Mapping[str, str] | None = None
) -> None:
    manage: list[str | Path] = [venv / "bin/python", venv / "bin/keystone-manage"]
    run(
        [*manage, "--config-dir", directory, *words],
        log=directory / "manage.log",
        timeout=_MANAGE_SECONDS,
        env=env,
    )


def make_glance_database(venv: Path, directory: Path) -> None:
    """Make Glance's database, or bring it up to date."""
    manage: list[str | Path] = [venv / "bin/python", venv / "bin/glance-manage"]
    manage += ["--config-file", directory / "glance-api.conf", "db_sync"]
    run(manage, log=directory / "manage.log", timeout=_MANAGE_SECONDS)


@contextlib.contextmanager
def serving(
    venv: Path,
    name: str,
    directory: Path,
    listener: socket.socket,
    *,
    program: tuple[str | Path, ...] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Serve from a directory while a block runs, or longer if it is released.

    Args:
        venv: Where the programs are.
        name: keystone or glance.
        directory: Where the configuration is, and ``service.log`` comes to be.
        listener: A socket that listens; it is the service's from then on.
        program: Another program than ours and its words, before directory and socket.
        env: Variables added to the environment.
    """
    words: list[str | Path] = [venv / "bin/python", "-P", *(program or (PROGRAM, name))]
    words += [directory, str(listener.fileno())]
    # No proxy leads to the loopback, where Glance asks Keystone.
    direct = {"no_proxy": HOST, "NO_PROXY": HOST}
    with (
        (directory / "service.log").open("ab") as log,
        started(
            words, stderr=log, env={**direct, **(env or {})}, pass_fds=[listener.fileno()]
        ) as process,
    ):
        listener.close()  # or who waits for a service that died would wait on
        yield process


def answers(url: str, authority: Path | None, seconds: float) -> bool:
    """Whether a service answers within so many seconds.

    Args:
        url: Its URL.
        authority: The certificate that it is to be believed by.
        seconds: Of patience.
    """
    with requests.Session() as session:
        session.trust_env = False  # no proxy leads to the loopback
        try:
            verify = str(authority) if authority else True
            answer = session.get(url, timeout=seconds, verify=verify)
        except (requests.RequestException, OSError):
            return False
    return answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR


def require_answer(name: str, directory: Path, url: str, authority: Path | None) -> None:
    """Wait until a service answers.

    Raises:
        CloudError: It does not.
    """
    if not answers(url, authority, ANSWER_SECONDS):
        logs = [directory / log for log in ("service.log", "gunicorn.log")]
        told = [log for log in logs if log.exists() and log.stat().st_size]
        raise CloudError(
            f"{name.capitalize()} does not answer at {url}",
            hint="its log tells why",
            log=told[0] if told else logs[0],
        )
