"""Real namespaces, with small modules of the tests' own inside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagefactory.errors import BuildError, HostError
from imagefactory.sandbox import namespace
from imagefactory.sandbox.namespace import IDS, run_inside

NUMBER = os.getuid()


@pytest.fixture
def subids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An /etc/subuid of the test's."""
    file = tmp_path / "subuid"

    def path(name: str) -> Path:
        return file if name == "/etc/subuid" else Path(name)

    monkeypatch.setattr(namespace, "Path", path)
    return file


@pytest.mark.parametrize(
    "line", [f"{NUMBER}:100000:65536", f"{NUMBER}:100000:{IDS - 1}", f" {NUMBER}:100000:99999999 "]
)
def test_subordinate_numbers_are_found(subids: Path, line: str) -> None:
    subids.write_text(f"# a comment\nsomebody:1:65536\n\n{NUMBER}:7:100\n{line}\n")
    assert namespace.subordinate("uid") == 100000


@pytest.mark.parametrize(
    "line",
    [
        "",
        "somebody:100000:65536",
        f"{NUMBER}:100000:65534",
        f"{NUMBER}:100000",
        f"{NUMBER}",
        f"{NUMBER}:-1:65536",
        f"{NUMBER}:x:65536",
        f"{NUMBER}1:100000:65536",
    ],
)
def test_too_few_or_somebody_elses_are_told_with_the_command(subids: Path, line: str) -> None:
    subids.write_text(f"{line}\n")
    with pytest.raises(HostError, match="no 65536 subordinate numbers") as caught:
        namespace.subordinate("uid")
    assert "usermod --add-subuids" in caught.value.hint


def test_a_host_without_the_file_is_told_the_same(subids: Path) -> None:
    with pytest.raises(HostError, match="subordinate"):
        namespace.subordinate("uid")


class Inside:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.heard: list[tuple[str, str]] = []

    def run(self, code: str, timeout: float = 60.0) -> None:
        module = self.directory / "module_inside.py"
        header = (
            "import os, subprocess, sys\n"
            "from pathlib import Path\n"
            "from imagefactory.sandbox.namespace import tell\n"
            "spec = Path(sys.argv[1])\n"
        )
        module.write_text(header + code)
        spec = self.directory / "spec"
        spec.write_text("told")
        run_inside(
            "module_inside",
            spec,
            log=self.log,
            timeout=timeout,
            listen=lambda event, text: self.heard.append((event, text)),
            env={"PYTHONPATH": str(self.directory)},
        )


@pytest.fixture
def inside(tmp_path: Path) -> Inside:
    if NUMBER != 0:
        try:
            namespace.subordinate("uid")
        except HostError as error:
            pytest.skip(error.message)
    return Inside(tmp_path)


def test_events_are_heard_and_errors_logged(inside: Inside) -> None:
    inside.run(
        "tell('progress', spec.read_text())\n"
        "print('not an event', flush=True)\n"
        "print('[1]', flush=True)\n"
        "tell('kernel', 'vmlinuz ü')\n"
        "sys.stderr.write('for the log\\n')\n"
    )
    assert inside.heard == [("progress", "told"), ("kernel", "vmlinuz ü")]
    assert inside.log.read_text() == "for the log\n"


def test_inside_one_is_root_over_all_numbers_alone_and_without_network(inside: Inside) -> None:
    inside.run(
        "file = spec.with_name('file'); file.touch(); os.chown(file, 1000, 65534)\n"
        "tell('owner', f'{file.stat().st_uid} {file.stat().st_gid} {os.getuid()}')\n"
        "os.chown(file, 0, 0)\n"
        "numbers = [p.name for p in Path('/proc').iterdir() if p.name.isdigit()]\n"
        "tell('processes', ' '.join(numbers))\n"
        "tell('network', ' '.join(sorted(os.listdir('/sys/class/net'))))\n"
        "mine = subprocess.run(['mount', '-t', 'tmpfs', 'ours', str(spec.parent)])\n"
        "tell('mount', str(mine.returncode))\n"
        "(spec.parent / 'in the tmpfs').touch()\n"
        "up = Path('/proc/net/dev').read_text().split()\n"
        "tell('devices', ' '.join(word for word in up if word.endswith(':')))\n"
    )
    said = dict(inside.heard)
    assert said["owner"] == "1000 65534 0"
    assert said["processes"] == "1"
    assert said["mount"] == "0"
    assert said["devices"] == "lo:"
    assert str(inside.directory) not in Path("/proc/self/mountinfo").read_text()
    assert not (inside.directory / "in the tmpfs").exists()


def test_a_failure_is_told_in_the_modules_words_with_the_log(inside: Inside) -> None:
    code = "sys.stderr.write('details')\ntell('failure', 'no such step')\nsys.exit(1)\n"
    with pytest.raises(BuildError, match="no such step") as caught:
        inside.run(code)
    assert caught.value.log == inside.log
    assert inside.log.read_text() == "details"
    assert inside.heard == []


def test_a_module_that_dies_is_told_by_its_status(inside: Inside) -> None:
    with pytest.raises(BuildError, match="ended with status 3"):
        inside.run("os._exit(3)")
    with pytest.raises(BuildError, match="ended with status 1") as caught:
        inside.run("raise ValueError('unforeseen')")
    assert caught.value.log is not None
    assert "unforeseen" in caught.value.log.read_text()


def test_what_takes_too_long_is_ended_with_all_that_it_started(inside: Inside) -> None:
    marker = f"{inside.directory}/forever"
    code = (
        "import time\n"
        f"subprocess.Popen(['setsid', 'tail', '-f', '/dev/null', '--pid', '1', '-n', '1', "
        f"{marker!r}], stderr=subprocess.DEVNULL)\n"
        "tell('started', 'it')\n"
        "time.sleep(600)\n"
    )
    Path(marker).touch()
    with pytest.raises(BuildError, match="did not end within 2 s"):
        inside.run(code, timeout=2.0)
    assert ("started", "it") in inside.heard
    from tests.factory import processes_with

    assert processes_with(marker) == []
