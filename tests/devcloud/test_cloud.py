"""The whole command against the real thing: Keystone and Glance in the background."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import pytest

from imagefactory.data import cache_directory
from imagefactory.devcloud.place import SERVICES, Place, holder
from tests.factory import MINUTES, processes_with, wait_for_line
from tests.glance.cloud import service_venv
from tests.glance.test_commands import Home
from tests.test_delivery import add_build

pytestmark = [pytest.mark.system, pytest.mark.timeout(10 * MINUTES)]

NO_ENV: Mapping[str, str] = MappingProxyType({})

KEEPERS = {"clouds.yaml", "state.json", "glance/glance-api.conf"}
"""The only files that may hold a password."""


class User(Home):
    """A user with one build and the usual cache, which has the services' programs."""

    @property
    def place(self) -> Place:
        return Place(self.directory / "state/imagefactory/devcloud")

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        return super().start(*words, XDG_CACHE_HOME=str(cache_directory().parent), **more)

    def does(self, *words: str, status: int = 0, env: Mapping[str, str] = NO_ENV) -> str:
        seen, told = self.call(*words, **env)
        assert seen == status, told
        return told

    def up(self) -> str:
        return self.does("devcloud", "up")

    def status(self, *, running: bool) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(
            self.does("devcloud", "status", "--json", status=0 if running else 8)
        )
        assert told["running"] is running
        return told

    def upload(self) -> str:
        return self.does("upload", "minimal", "--cloud", "devcloud")

    def processes(self) -> list[str]:
        return processes_with(str(self.place.directory))


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    service_venv()
    someone = User(tmp_path / "home")
    add_build(someone.directory / "data/imagefactory")
    yield someone
    someone.does("devcloud", "down", "--delete")
    assert someone.processes() == []
    assert not someone.place.directory.exists()


def test_a_life_of_a_devcloud(user: User) -> None:
    told = user.up()
    assert "export OS_CLIENT_CONFIG_FILE=" in told
    status = user.status(running=True)
    assert status["keystone"].startswith("https://127.0.0.1:")
    assert "sent in" in user.upload()
    assert user.status(running=True)["images"] == 1
    assert "runs already" in user.up()
    only_its_owner_reads(user.place)
    no_password_is_told(user, told)
    assert listeners(status) == {"127.0.0.1"}

    assert "is stopped" in user.does("devcloud", "down")
    assert "did not run" in user.does("devcloud", "down")
    assert user.processes() == []
    assert user.status(running=False)["images"] == 1
    assert "devcloud up" in user.does("upload", "minimal", "--cloud", "devcloud", status=8)

    # A proxy that leads to the world, and not to this machine.
    proxy = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    user.does("devcloud", "up", env=proxy)
    words = ("upload", "minimal", "--cloud", "devcloud")
    assert "nothing was sent" in user.does(*words, env=proxy)
    assert user.status(running=True)["keystone"] == status["keystone"], "the same ports"

    # Without its passwords it is lost; but not without a word.
    kept = user.place.directory / "state.json"
    content = kept.read_bytes()
    kept.write_bytes(b"{")
    for command in ("up", "status"):
        assert "state.json is damaged" in user.does("devcloud", command, status=3)
    kept.write_bytes(content)
    assert user.status(running=True)["images"] == 1


def test_killed_services_start_again_on_other_ports_if_need_be(user: User) -> None:
    user.up()
    user.upload()
    before = user.status(running=True)
    killed(user, "keystone")
    assert user.status(running=False)["silent"] == ["keystone"]
    user.up()
    assert "nothing was sent" in user.upload()

    for name in SERVICES:
        killed(user, name)
    assert user.processes() == []
    with occupied(before["keystone"]), occupied(before["glance"]):
        user.up()
        now = user.status(running=True)
        assert now["keystone"] != before["keystone"]
        assert now["glance"] != before["glance"]
        assert "nothing was sent" in user.upload()


def test_an_up_that_ends_midway_leaves_no_process_and_two_at_once_are_one(user: User) -> None:
    process = user.start("devcloud", "up")
    wait_for_line(process, "prepare: ")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert user.processes() == []
    user.status(running=False)

    process = user.start("devcloud", "up")
    wait_for_line(process, "start: ")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert user.processes() == []

    process = user.start("devcloud", "up")
    wait_for_line(process, "people: ")
    served = [holder(user.place.service(name)) for name in SERVICES]
    process.kill()
    process.communicate(timeout=60)
    for number in served:
        assert number is not None
        is_gone(number)
    user.status(running=False)

    both = [user.start("devcloud", "up") for _ in range(2)]
    told = ["".join(one.communicate(timeout=120)) for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert sum("is up" in text for text in told) == 1
    assert sum("runs already" in text for text in told) == 1
    assert "sent in" in user.upload()


def killed(user: User, name: str) -> None:
    """Kill a service with all that is in its power: the rest has to die of that."""
    number = holder(user.place.service(name))
    assert number is not None
    workers = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    descriptors = [os.pidfd_open(one) for one in (number, *map(int, workers))]
    assert len(descriptors) == 2
    signal.pidfd_send_signal(descriptors[0], signal.SIGKILL)
    for descriptor in descriptors:
        has_ended(descriptor)


def is_gone(number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        has_ended(os.pidfd_open(number))


def has_ended(descriptor: int) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(20_000), "a process that should be gone is still running"
    os.close(descriptor)


@contextlib.contextmanager
def occupied(url: str) -> Iterator[None]:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port_of(url)))
        taken.listen()
        yield


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port
    return port


def listeners(status: dict[str, Any]) -> set[str]:
    """Return the addresses that the services listen at, as the kernel has them."""
    ports = {port_of(status[name]) for name in SERVICES}
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, _, state = line.split()[1:4]
        address, port = local.split(":")
        if state == "0A" and int(port, 16) in ports:  # LISTEN
            found.add(socket.inet_ntoa(bytes.fromhex(address)[::-1]))
    return found


def only_its_owner_reads(place: Place) -> None:
    assert place.directory.stat().st_mode & 0o777 == 0o700
    for name in KEEPERS | {"keystone/tls.key", "keystone/fernet/0", "keystone/credential/1"}:
        assert (place.directory / name).stat().st_mode & 0o777 == 0o600, name


def no_password_is_told(user: User, told: str) -> None:
    state = json.loads((user.place.directory / "state.json").read_bytes())
    for password in state["passwords"].values():
        assert password not in told
        holding = {
            str(file.relative_to(user.place.directory))
            for file in user.directory.rglob("*")
            if file.is_file() and password.encode() in file.read_bytes()
        }
        assert holding <= KEEPERS
