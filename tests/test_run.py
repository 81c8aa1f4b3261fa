import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagefactory import run
from imagefactory.errors import CommandError, HostError

PATIENCE = 20.0
"""Seconds after which an event that must come is taken as one that never will."""


@dataclass(frozen=True)
class Lifeline:
    """A FIFO that programs hold open for writing: it hangs up when the last of them is gone."""

    path: Path
    reader: int

    def wait_for_word(self) -> bytes:
        assert self._event() & select.POLLIN
        return os.read(self.reader, 100)

    def wait_for_the_last_breath(self) -> None:
        while self._event() & select.POLLIN:
            os.read(self.reader, 100)

    def _event(self) -> int:
        poll = select.poll()
        poll.register(self.reader, select.POLLIN)
        events = poll.poll(PATIENCE * 1000)
        assert events, "a program that should be gone is still running"
        return events[0][1]


@pytest.fixture
def lifeline(tmp_path: Path) -> Iterator[Lifeline]:
    path = tmp_path / "lifeline"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield Lifeline(path, reader)
    os.close(reader)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "STOP_GRACE", 0.3)


def shell(script: str, *words: object) -> list[str]:
    return ["sh", "-c", script, *map(str, words)]


def test_what_a_program_says_is_returned() -> None:
    done = run.run(shell("echo out; echo err >&2"))
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert 0 < done.seconds < PATIENCE


def test_words_are_passed_as_they_are() -> None:
    assert run.run(["printf", "%s|", "$HOME", "a b", "*", "'"]).stdout == "$HOME|a b|*|'|"


def test_input_environment_and_directory(tmp_path: Path) -> None:
    script = 'cat; echo "$ANSWER $LC_ALL"; pwd'
    done = run.run(shell(script), stdin="question\n", env={"ANSWER": "42"}, cwd=tmp_path)
    assert done.stdout == f"question\n42 C.UTF-8\n{tmp_path}\n"


def test_without_input_a_program_meets_the_end_at_once() -> None:
    assert run.run(["cat"]).stdout == ""


def test_output_that_is_not_utf8_is_no_error() -> None:
    assert run.run(["printf", r"\377x"]).stdout == "\ufffdx"


def test_a_failure_carries_status_last_words_command_and_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(CommandError) as caught:
        run.run(shell("seq 100 >&2; exit 3"), log=log)
    assert caught.value.message.startswith("sh failed with status 3: 89\n")
    assert caught.value.message.endswith("\n100")
    assert caught.value.hint == "command: sh -c 'seq 100 >&2; exit 3'"
    assert caught.value.log == log
    assert caught.value.exit_code == 6


def test_a_program_that_fails_without_a_complaint_is_quoted_from_its_output() -> None:
    with pytest.raises(CommandError, match="status 1: why"):
        run.run(shell("echo why; exit 1"))


def test_other_statuses_can_count_as_success() -> None:
    assert run.run(shell("exit 2"), accept=(0, 2)).stdout == ""


def test_the_log_tells_every_command_with_output_and_status(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run.run(["echo", "a b"], log=log)
    run.run(shell("echo bad >&2; exit 7"), log=log, accept=(7,))
    assert log.read_text() == (
        "$ echo 'a b'\na b\n[status 0]\n$ sh -c 'echo bad >&2; exit 7'\nbad\n[status 7]\n"
    )


def test_a_missing_program_is_named_and_is_the_hosts_fault() -> None:
    with pytest.raises(HostError, match="'no-such-program' is not installed") as caught:
        run.run(["no-such-program"])
    assert caught.value.exit_code == 4


def test_a_host_without_setpriv_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "true").symlink_to("/bin/true")
    monkeypatch.setattr(run, "_search_path", lambda: str(tmp_path))
    with pytest.raises(HostError, match="'setpriv' is not installed"):
        run.run(["true"])


def test_need_names_the_package() -> None:
    assert run.need("sh", "dash").name == "sh"
    with pytest.raises(HostError) as caught:
        run.need("no-such-program", "some-package")
    assert "some-package" in caught.value.hint


def test_the_directories_of_administrators_are_searched_for_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert run.which("chroot") is not None


# A leader that dies when asked to, with a child that does not.
STUBBORN_CHILD = 'exec 3>"$0"; (trap "" TERM; sleep 1000; sleep 1000) & sleep 1000'


@pytest.mark.usefixtures("impatient")
def test_the_budget_ends_the_whole_process_group(lifeline: Lifeline, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(CommandError, match=r"sh did not end within 2 s") as caught:
        run.run(shell("echo begun; " + STUBBORN_CHILD, lifeline.path), timeout=2, log=log)
    lifeline.wait_for_the_last_breath()
    assert "command: sh -c" in caught.value.hint
    assert log.read_text().endswith("begun\n[out of time]\n")


@pytest.mark.usefixtures("impatient")
def test_a_program_that_ignores_the_request_to_end_is_killed(lifeline: Lifeline) -> None:
    with pytest.raises(CommandError, match="did not end"):
        run.run(
            shell('exec 3>"$0"; trap "" TERM; while :; do sleep 1000; done', lifeline.path),
            timeout=0.5,
        )
    lifeline.wait_for_the_last_breath()


@pytest.mark.usefixtures("impatient")
def test_a_child_that_left_the_group_and_holds_the_output_cannot_hold_us(
    tmp_path: Path,
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    log = tmp_path / "log"
    escapes = 'echo begun; setsid sh -c \'read line <"$0"\' "$0" & sleep 1000'
    try:
        with pytest.raises(CommandError, match="did not end within"):
            run.run(shell(escapes, gate), timeout=2, log=log)
        assert log.read_text().endswith("begun\n[out of time]\n")
    finally:
        with gate.open("w") as stream:  # lets the escaped child go
            stream.write("\n")


def test_what_a_program_leaves_in_the_background_ends_with_it(lifeline: Lifeline) -> None:
    run.run(shell('exec 3>"$0"; sleep 1000 >/dev/null 2>&1 &', lifeline.path))
    lifeline.wait_for_the_last_breath()


def test_leaving_the_block_ends_the_program_whatever_happened(lifeline: Lifeline) -> None:
    waits = shell('exec 3>"$0"; echo up >&3; sleep 1000', lifeline.path)
    with contextlib.suppress(KeyboardInterrupt), run.started(waits) as process:
        assert lifeline.wait_for_word() == b"up\n"
        raise KeyboardInterrupt
    lifeline.wait_for_the_last_breath()
    assert process.returncode == -signal.SIGTERM


def test_stopping_twice_or_after_the_end_is_harmless() -> None:
    with run.started(["true"]) as process:
        process.wait(PATIENCE)
        run.stop(process)
        run.stop(process)
    assert process.returncode == 0


def test_a_program_dies_with_us_even_when_we_are_killed(lifeline: Lifeline) -> None:
    program = (
        "import sys; from imagefactory import run; "
        "run.run(['sh', '-c', 'exec 3>\"$0\"; echo up >&3; exec sleep 1000', sys.argv[1]])"
    )
    with subprocess.Popen([sys.executable, "-c", program, lifeline.path]) as parent:
        assert lifeline.wait_for_word() == b"up\n"
        parent.send_signal(signal.SIGKILL)
    lifeline.wait_for_the_last_breath()


def test_a_program_that_another_thread_waits_for_can_be_cancelled(
    lifeline: Lifeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_interrupted", threading.Event())
    script = 'exec 3>"$1"; echo ready >&3; exec sleep 600'
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(run.run, shell(script, "sh", lifeline.path))
        lifeline.wait_for_word()
        run.cancel()
        assert run.interrupted()
        lifeline.wait_for_the_last_breath()
        with pytest.raises(CommandError, match="failed with status -15"):
            waiting.result(PATIENCE)


def test_ending_all_ends_what_any_thread_has_started_and_starts_nothing_more(
    lifeline: Lifeline, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_ending", threading.Event())
    script = 'trap "" TERM; exec 3>"$1"; echo ready >&3; exec sleep 600'

    def follow() -> str:
        with run.started(shell(script, "sh", lifeline.path)) as process:
            assert process.stdout
            return process.stdout.read()

    with ThreadPoolExecutor() as pool:
        following = pool.submit(follow)
        lifeline.wait_for_word()
        run.end_all()
        lifeline.wait_for_the_last_breath()
        assert following.result(PATIENCE) == ""
    with pytest.raises(KeyboardInterrupt):
        run.run(["true"])
    assert run._running == {}


STAYING = """
import ctypes, os, signal, sys
def stay(*_):
    ctypes.CDLL(None).prctl(1, 0)
    os.write(1, b"stays\\n")
signal.signal(signal.SIGRTMIN, stay)
lifeline = open(sys.argv[1], "w")
print("ready", flush=True)
while True:
    signal.pause()
"""
STARTING = """
import os, sys
from imagefactory import run
with run.started([sys.executable, "-c", sys.argv[1], sys.argv[2]]) as process:
    process.stdout.readline()
    if sys.argv[3] == "release":
        run.release(process)
    print(process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("released", [True, False])
def test_a_released_program_outlives_us_and_no_other(lifeline: Lifeline, released: bool) -> None:
    how = "release" if released else "keep"
    words = [sys.executable, "-c", STARTING, STAYING, str(lifeline.path), how]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    number = int(done.stdout)
    if released:
        assert "stay" in Path(f"/proc/{number}/cmdline").read_text()
        assert run.end_released(lambda: number)
    lifeline.wait_for_the_last_breath()


def test_a_released_program_outlives_its_block() -> None:
    with run.started([sys.executable, "-c", STAYING, os.devnull]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        run.release(process)
    assert run.end_released(lambda: process.pid)
    os.waitpid(process.pid, 0)


def test_a_program_that_ends_in_the_place_of_staying_is_told() -> None:
    with (
        run.started(["sleep", "60"]) as process,
        pytest.raises(CommandError, match="instead of staying"),
    ):
        run.release(process)


def test_only_the_program_that_is_meant_is_ended() -> None:
    with run.started(["sleep", "60"]) as process:
        holders = iter([process.pid, None])
        assert not run.end_released(lambda: next(holders))
        assert process.poll() is None
    assert not run.end_released(lambda: None)
    assert not run.end_released(lambda: process.pid)


def test_a_program_has_the_descriptors_that_it_is_given() -> None:
    reader, writer = os.pipe()
    with run.started(shell(f"echo word >/proc/self/fd/{writer}"), pass_fds=[writer]):
        os.close(writer)
        assert os.read(reader, 100) == b"word\n"
    os.close(reader)
