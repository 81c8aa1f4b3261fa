from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagefactory import cli, template
from imagefactory.catalog import Catalog, now
from imagefactory.data import SearchPath, cache_directory

COMMANDS = sorted(cli.main.commands)


@pytest.fixture(autouse=True)
def own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE", "CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "home" / name))


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def program(
    words: Sequence[str | Path], environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The real program, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from imagefactory.cli import main; main()", *words],
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )


def add_build(directory: Path, architecture: str = "aarch64") -> None:
    catalog = Catalog(directory)
    with catalog.workspace("minimal") as work:
        result = work / "result"
        result.mkdir()
        (result / "minimal.qcow2").write_bytes(b"disk")
        (result / "minimal.cdx.json").write_text("{}")
        checks = [{"name": "ssh", "verdict": "passed", "detail": "[/up] in time"}]
        case = {"name": "plain", "checks": checks, "milestones": {"ssh": 7.5}}
        catalog.add(
            result,
            {
                "built": now(),
                "plan": {
                    "image": "minimal",
                    "architecture": architecture,
                    "digest": "d" * 64,
                    "properties": {"min_ram": "256"},
                },
                "disk": {"file": "minimal.qcow2", "size": 12_300_000},
                "sbom": {"cyclonedx": {"file": "minimal.cdx.json"}, "packages": 1},
                "seconds": {"disk": 1.0},
                "boot_test": {"verdict": "passed", "cases": [case]},
            },
        )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: main {command}" in result.output


def test_the_program_explains_itself_and_its_exit_codes() -> None:
    result = call("--help")
    assert all(command in result.output for command in COMMANDS)
    assert "Exit status: 0 done" in result.output
    assert "0.1.0" in call("--version").output


@pytest.mark.parametrize(
    ("words", "complaint", "hint"),
    [
        (["plan", "nothing"], "no image is called 'nothing'", "known: almalinux-10, "),
        (["build", "minimal", "nothing"], "no image is called 'nothing'", "known: almalinux-10, "),
        (["show", "nothing"], "no image is called 'nothing'", "known: almalinux-10, "),
        (["upload", "nothing", "--cloud", "c"], "no image is called", "known: almalinux-10, "),
        (["plan", "minimal", "-a", "vax"], "'vax'", "known: aarch64, ppc64le, x86_64"),
        (["list", "-a", "vax"], "'vax'", "known: aarch64, ppc64le, x86_64"),
        (["doctor", "-a", "vax"], "'vax'", "known: aarch64, ppc64le, x86_64"),
        (["show", "minimal"], "there is no build of minimal", "imagefactory build minimal"),
        (["show", "minimal", "-a", "arm64"], "never built for aarch64", "build minimal"),
        (["--path", "/nonexistent", "list"], "is not a directory", "templates/"),
    ],
)
def test_wrong_names_are_told_with_the_known_ones(
    words: list[str], complaint: str, hint: str
) -> None:
    result = call(*words)
    assert result.exit_code == 3
    assert complaint in result.stderr
    assert hint in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["plan"],
        ["plan", "minimal", "--nonsense"],
        ["build", "--jobs", "0"],
        ["build", "--offline", "--upload", "cloud"],
        ["cache", "prune", "--max-size", "much"],
        ["cache", "prune", "--older-than", "long"],
        ["build", "--accelerator", "steam"],
        ["test", "/nonexistent/disk"],
        ["upload", "minimal"],
        ["schema", "nonsense"],
    ],
)
def test_wrong_usage_is_told_as_such(words: list[str]) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_a_build_is_listed_and_shown(tmp_path: Path) -> None:
    add_build(tmp_path / "my [images]")
    where = ("--catalog", tmp_path / "my [images]")
    rows = json.loads(call(*where, "list", "--json").stdout)
    by_arch = {row["architecture"]: row for row in rows if row["image"] == "minimal"}
    assert set(by_arch) == {"aarch64", "ppc64le", "x86_64"}
    assert by_arch["aarch64"]["boot_seconds"] == 7.5
    assert by_arch["x86_64"]["verdict"] is None
    assert call(*where, "list", "--markdown").stdout.splitlines()[2:] == [
        "| minimal | aarch64 | 12.3 MB | 7.5 s | 256 MiB | 1 of 1 passed |"
    ]
    assert "never" in call(*where, "list").stdout
    shown = call(*where, "show", "minimal")
    assert shown.exit_code == 0
    disk = by_arch["aarch64"]["disk"]
    assert disk in shown.stdout  # whole, brackets and all
    assert f"cyclonedx: {Path(disk).with_name('minimal.cdx.json')}\n" in shown.stdout
    assert "[/up] in time" in shown.stdout
    (manifest,) = json.loads(call(*where, "show", "minimal", "--json").stdout)
    assert manifest["disk"]["size"] == 12_300_000


def test_an_image_that_does_not_exist_for_an_architecture_is_told_at_once(tmp_path: Path) -> None:
    shipped = SearchPath.default().yaml_files("templates")["minimal"]
    (tmp_path / "templates").mkdir()
    text = shipped.read_text().replace("name: minimal\n", "name: narrow\narchitectures: [x86_64]\n")
    (tmp_path / "templates/narrow.yaml").write_text(text)
    result = call("--path", tmp_path, "build", "minimal", "narrow", "-a", "arm64")
    assert result.exit_code == 3
    assert "'narrow' does not exist for aarch64" in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_a_name_in_the_cloud_is_for_one_build(tmp_path: Path) -> None:
    for architecture in ("aarch64", "x86_64"):
        add_build(tmp_path, architecture)
    words = ("upload", "minimal", "minimal", "--cloud", "c", "--name", "n")
    assert "--name is for one build" in call("--catalog", tmp_path, *words).stderr


def test_offline_without_package_lists_says_what_to_do() -> None:
    result = call("plan", "minimal", "-a", "arm64", "--offline", "--mirror", "http://192.0.2.1")
    assert result.exit_code == 5
    assert "offline: the package lists of http://192.0.2.1/debian bookworm" in result.stderr
    assert "once without --offline" in result.stderr


def test_a_mirror_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    result = call("plan", "minimal", "--mirror", "nonsense")
    assert (result.exit_code, "'nonsense' is not a mirror" in result.stderr) == (3, True)
    monkeypatch.setenv("IMAGEFACTORY_MIRROR", "http://192.0.2.1/debian nonsense")
    assert "'nonsense' is not a mirror" in call("plan", "minimal").stderr


def test_the_cache_is_shown_and_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(call("cache", "show", "--json").stdout) == []
    assert "0 B in " in call("cache", "show").stdout
    (cache_directory() / "pool").mkdir(parents=True)
    (cache_directory() / "pool/a.deb").write_bytes(b"x" * 5000)
    (kind,) = json.loads(call("cache", "show", "--json").stdout)
    assert (kind["kind"], kind["entries"]) == ("pool", 1)
    assert kind["bytes"] >= 5000
    assert "downloaded packages" in call("cache", "show").stdout
    for words in (["--max-size", "1M"], ["--older-than", "1h"], []):
        assert "0 entries, 0 B pruned" in call("cache", "prune", *words).stdout
    told = call("cache", "prune", "--all", "--dry-run").stdout
    assert told.startswith("1 entries, ")
    assert "would be pruned; 0 B left" in told
    monkeypatch.setenv("IMAGEFACTORY_CACHE_SIZE", "1")
    (entry,) = json.loads(call("cache", "prune", "--json").stdout)["removed"]
    assert (entry["kind"], entry["key"]) == ("pool", "a.deb")
    assert list((cache_directory() / "pool").iterdir()) == []


@pytest.mark.parametrize("kind", ["template", "arch-profile"])
def test_the_schemas_are_json(kind: str) -> None:
    assert json.loads(call("schema", kind).stdout)["type"] == "object"


def test_all_mistakes_of_a_template_are_told_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    file = tmp_path / "templates/mine.yaml"
    file.write_text("name: mine\ndisk_sise: 3\nbuilder: magic\ndefault_user: [\n]\n")
    for command in (["list"], ["plan", "mine"], ["build", "minimal", "mine"]):
        result = call("--path", tmp_path, *command)
        assert result.exit_code == 3
        assert ("minimal" in result.stdout) == (command == ["list"])  # the others are listed
        for line, word in ((2, "did you mean 'disk_size'"), (3, "builder"), (4, "default_user")):
            told = [part for part in result.stderr.splitlines() if f"{file}:{line}:" in part]
            assert told, line
            assert word in told[0]


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    result = call("plan", "minimal", "-a", "arm64")
    assert result.exit_code == 3
    assert "cannot be written to: Not a directory" in result.stderr
    assert "XDG_CACHE_HOME" in result.stderr


def test_without_a_home_the_program_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert call("list", "--json").exit_code == 0


def test_a_reader_that_leaves_early_is_no_crash() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-c", "from imagefactory.cli import main; main()"]
    for command in (["schema", "template"], ["list"], ["list", "--json"]):
        done = subprocess.run(
            [*words, *command], stdout=writer, stderr=subprocess.PIPE, check=False
        )
        assert done.stderr == b""
        assert done.returncode == 128 + signal.SIGPIPE
    os.close(writer)


def test_names_that_are_not_utf8_are_printed(tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"caf\xe9")
    add_build(strange)
    words = [sys.executable, "-c", "from imagefactory.cli import main; main()"]
    done = subprocess.run(
        [*words, "--catalog", strange, "show", "minimal"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"caf\xe9/minimal" in done.stdout


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_command_ends_as_a_shell_expects(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(*_: object) -> None:
        raise error(130)

    monkeypatch.setattr(template, "load_each", interrupted)
    result = call("list")
    assert result.exit_code == 130


def test_a_full_disk_is_told_in_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from imagefactory.cli import main; main()", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "make room on the disk" in done.stderr
    assert "Traceback" not in done.stderr
