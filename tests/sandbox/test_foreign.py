"""The launcher is compiled for real and called as the kernel would call it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imagefactory import run
from imagefactory.arch import ArchProfile, ArchProfiles
from imagefactory.data import SearchPath, shipped_directory
from imagefactory.errors import BuildError
from imagefactory.sandbox import foreign
from imagefactory.sandbox.attachment import TWIN

PROFILES = ArchProfiles.load(SearchPath((shipped_directory(),)))


def test_the_registration_is_what_qemu_registers() -> None:
    # Debian's qemu-user-static, /usr/lib/binfmt.d/qemu-aarch64.conf.
    line = foreign.registration(PROFILES.get("aarch64"), Path("/x/y")).decode()
    assert line == (
        r":imagefactory-aarch64:M::"
        r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
        r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:"
        r"/x/y:PCF"
    )


def test_big_endian_fields_are_written_so() -> None:
    elf = PROFILES.get("ppc64le").elf.model_copy(update={"endian": "big", "machine": 22})
    magic, mask = foreign.elf_magic(elf)
    assert magic[5] == 2
    assert magic[16:] == b"\x00\x02\x00\x16"
    assert mask[16:] == b"\xff\xfe\xff\xff"


@pytest.mark.parametrize("path", ["/a b", "/a:b", "/" + 300 * "x"])
def test_a_path_that_the_kernel_does_not_take_is_refused(path: str) -> None:
    with pytest.raises(BuildError):
        foreign.registration(PROFILES.get("aarch64"), Path(path))


@pytest.mark.parametrize("name", PROFILES.names)
def test_this_machines_own_architecture_is_native(name: str, tmp_path: Path) -> None:
    profile = PROFILES.get(name)
    assert foreign.choose(profile, profile, tmp_path).mechanism == "native"


def other_architecture() -> ArchProfile:
    return next(
        profile
        for profile in PROFILES.profiles
        if os.uname().machine not in (profile.name, *profile.aliases)
    )


def test_without_a_compiler_everything_is_emulated_and_the_package_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = other_architecture()
    if foreign.choose(profile, os.uname().machine, tmp_path).registration is None:
        pytest.skip("this kernel has no private binfmt_misc")
    tools = tmp_path / "bin"
    tools.mkdir()
    for program in ("unshare", "sh", "mount", "setpriv", "test"):
        found = run.which(program)
        if found is not None:
            (tools / program).symlink_to(found)
    interpreter = foreign.emulator(profile)
    monkeypatch.setattr(foreign, "emulator", lambda _: interpreter)
    monkeypatch.setenv("PATH", str(tools))
    chosen = foreign.choose(profile, os.uname().machine, tmp_path / "empty")
    assert chosen.mechanism == "qemu-user"
    assert "gcc" in chosen.reason
    assert chosen.registration is not None
    assert str(interpreter).encode() in chosen.registration


class Place:
    """A launcher that looks for its twin in a directory of the test's."""

    def __init__(self, directory: Path) -> None:
        self.tree, self.twin = directory / "tree", directory / "twin"
        self.launcher = directory / "launcher"
        emulator = directory / "emulator"
        self.script(emulator, "emulated")
        compiler = run.need("cc", "gcc")
        defines = [f'-DTWIN="{self.twin}"', f'-DINTERPRETER="{emulator}"']
        options = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"]
        run.run([compiler, *options, *defines, "-o", self.launcher, foreign.SOURCE])
        self.twin.mkdir()

    @staticmethod
    def script(file: Path, says: str, mode: int = 0o755) -> Path:
        """A program of two words: which it is, and the arguments that it got."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'#!/bin/sh\nprintf "%s|" {says} "$@"\n')
        file.chmod(mode)
        return file

    def allow(self, *lines: str) -> None:
        (self.twin / "allow").write_text("".join(f"{line}\n" for line in lines))

    def native(self, path: Path | str) -> None:
        self.script(self.twin / "root" / str(path).lstrip("/"), "native")

    def call(self, path: Path | str, *words: str, **environment: str) -> list[str]:
        done = subprocess.run(
            [self.launcher, path, *words],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        return done.stdout.split("|")[:-1]


@pytest.fixture(scope="session")
def compiled_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("launcher"))


@pytest.fixture
def place(compiled_place: Place, tmp_path: Path) -> Place:
    for file in ("allow", "trace"):
        (compiled_place.twin / file).unlink(missing_ok=True)
    compiled_place.tree = tmp_path
    return compiled_place


def in_twin(path: Path) -> str:
    """What the launcher's list calls a path outside /usr."""
    return f"/usr{path.resolve()}"


def test_what_is_listed_runs_natively_with_its_arguments(place: Place) -> None:
    program = place.script(place.tree / "sed", "foreign")
    place.native(in_twin(program))
    place.allow("/usr/bin/other", in_twin(program))
    assert place.call(program, "sed", "-e", "a b", "") == ["native", "-e", "a b", ""]


def test_what_is_not_listed_is_emulated_with_its_name(place: Place) -> None:
    program = place.script(place.tree / "uname", "foreign")
    place.native(in_twin(program))
    place.allow("/usr/bin/other", in_twin(program) + "2", in_twin(program)[:-1])
    expected = ["emulated", "-0", "-uname", str(program), "-m"]
    assert place.call(program, "-uname", "-m") == expected


def test_without_a_twin_all_is_emulated(place: Place) -> None:
    program = place.script(place.tree / "sh", "foreign")
    assert place.call(program, "sh")[0] == "emulated"


def test_a_program_that_the_twin_lacks_is_emulated(place: Place) -> None:
    program = place.script(place.tree / "lacking", "foreign")
    place.allow(in_twin(program))
    assert place.call(program, "lacking")[0] == "emulated"


def test_links_are_followed_and_the_name_kept(place: Place) -> None:
    program = place.script(place.tree / "bin/mawk", "foreign")
    (place.tree / "alternatives").mkdir()
    (place.tree / "alternatives/awk").symlink_to("../bin/mawk")
    (place.tree / "awk").symlink_to("alternatives/awk")
    place.native(in_twin(program))
    place.allow(in_twin(program))
    assert place.call(place.tree / "awk", "awk")[0] == "native"


def test_a_listed_name_that_is_a_link_to_another_program_is_emulated(place: Place) -> None:
    busybox = place.script(place.tree / "busybox", "foreign")
    (place.tree / "sed").symlink_to(busybox)
    place.native(f"/usr{place.tree.resolve()}/sed")
    place.allow(f"/usr{place.tree.resolve()}/sed")
    assert place.call(place.tree / "sed", "sed")[0] == "emulated"


def test_only_calls_that_begin_so_run_natively(place: Place) -> None:
    program = place.script(place.tree / "python3", "foreign")
    place.native(in_twin(program))
    place.allow(f"{in_twin(program)}\t-E\t/a/b c.py", f"{in_twin(program)}\t-m\tx")
    assert place.call(program, "python3", "-E", "/a/b c.py", "z")[0] == "native"
    assert place.call(program, "python3", "-m", "x")[0] == "native"
    for words in ((), ("-E",), ("-E", "/a/b"), ("-E", "/a/b c.py2"), ("-S", "-m", "x"), ("-mx",)):
        assert place.call(program, "python3", *words)[0] == "emulated"


def test_some_calls_of_a_listed_program_are_emulated(place: Place) -> None:
    program = place.script(place.tree / "dpkg", "foreign")
    place.native(in_twin(program))
    place.allow(f"!{in_twin(program)}\t--version", in_twin(program))
    assert place.call(program, "dpkg", "--version")[0] == "emulated"
    assert place.call(program, "dpkg", "--configure")[0] == "native"


def test_preloaded_libraries_and_set_user_id_mean_the_foreign_program(place: Place) -> None:
    program = place.script(place.tree / "cp", "foreign")
    place.native(in_twin(program))
    place.allow(in_twin(program))
    assert place.call(program, "cp", LD_PRELOAD="/x.so")[0] == "emulated"
    assert place.call(program, "cp", OLD_PRELOAD="/x.so")[0] == "native"
    program.chmod(0o4755)
    assert place.call(program, "cp")[0] == "emulated"


def test_the_trace_says_how_each_call_went(place: Place) -> None:
    program = place.script(place.tree / "cp", "foreign")
    place.native(in_twin(program))
    place.allow(in_twin(program))
    (place.twin / "trace").touch()
    place.call(program, "cp", "a", "b\nc")
    place.call(place.tree / "none", "none")
    lines = (place.twin / "trace").read_text().splitlines()
    assert lines == [f"native {program} a b", f"emulated {place.tree}/none"]


def test_the_twins_place_is_the_same_in_both_languages() -> None:
    assert f'#define TWIN "/{TWIN}"' in foreign.SOURCE.read_text()
