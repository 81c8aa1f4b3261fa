from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imagefactory.devcloud.place import SERVICES, Place, holder
from imagefactory.errors import ConfigError

HOLD = (
    "import fcntl, sys; lock = open(sys.argv[1], 'ab'); fcntl.lockf(lock, fcntl.LOCK_EX);"
    "print('held', flush=True); sys.stdin.read()"
)


def holding(directory: Path) -> subprocess.Popen[str]:
    directory.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, directory / "service.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_who_holds_the_lock_is_the_one_who_serves(tmp_path: Path) -> None:
    assert holder(tmp_path) is None, "nobody ever did"
    process = holding(tmp_path)
    assert holder(tmp_path) == process.pid
    process.kill()
    process.communicate()
    assert (tmp_path / "service.lock").exists()
    assert holder(tmp_path) is None, "the kernel knows that it is gone"


def test_it_runs_when_all_services_do(tmp_path: Path) -> None:
    place = Place(tmp_path / "devcloud")
    processes = []
    for name in SERVICES:
        assert not place.running()
        processes.append(holding(place.service(name)))
    assert place.running()
    for process in processes:
        process.communicate("")
    assert not place.running()


def test_one_waits_for_the_other(tmp_path: Path) -> None:
    place = Place(tmp_path / "state/devcloud")
    said: list[str] = []

    def waiting() -> None:
        said.append("waiting")
        raise InterruptedError

    with (
        place.alone(lambda: said.append("never")),
        pytest.raises(ConfigError),
        place.alone(waiting),
    ):
        pass
    assert said == ["waiting"]
    with place.alone(lambda: said.append("never")):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match="cannot be written to") as caught,
        Place(tmp_path / "file/devcloud").alone(lambda: None),
    ):
        pass
    assert "XDG_STATE_HOME" in caught.value.hint
